//! Folders of images, and the labels that the names of their sub-folders stand for.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{InputError, listed};
use super::image_file::EXTENSIONS;

/// Where the labels of a dataset come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// There are none.
    None,
    /// A folder's label is its place among the sorted sub-folders, as in torchvision's `ImageFolder`.
    FolderOrder {
        /// How many sub-folders there are.
        folders: usize,
    },
    /// A folder's label is the line of a class list that holds its name.
    ClassList {
        /// The list.
        path: PathBuf,
        /// How many classes it names.
        classes: usize,
    },
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no labels"),
            Self::FolderOrder { folders } => write!(
                f,
                "labels 0 to {} in the sorted order of the {folders} sub-folders (a class list overrules that)",
                folders.saturating_sub(1)
            ),
            Self::ClassList { path, classes } => {
                write!(f, "labels from the {classes} lines of {}", path.display())
            }
        }
    }
}

/// One image of a folder.
pub(super) struct ImageFile {
    pub path: PathBuf,
    pub label: Option<usize>,
}

/// The images of a folder and of its sub-folders, sorted by path, folder by folder.
///
/// Sub-folders are labels when all images lie in them. Entries whose names start with a dot are not seen.
pub(super) fn list(
    root: &Path,
    class_list: Option<&Path>,
) -> Result<(Vec<ImageFile>, Labels), InputError> {
    let (folders, loose) = entries(root)?;
    let mut tree = Vec::new();
    for folder in &folders {
        tree.push((folder, entries(folder)?.1));
    }
    let in_tree = tree.iter().any(|(_, images)| !images.is_empty());
    if !in_tree && loose.is_empty() {
        return Err(InputError::NoImages {
            path: root.into(),
            extensions: listed(&EXTENSIONS),
        });
    }
    if in_tree && loose.is_empty() {
        return labelled(&tree, class_list);
    }
    if class_list.is_some() {
        let reason = "some images lie in no sub-folder, so that a class list cannot label them; move each into the folder of its class";
        return Err(InputError::Labels {
            path: root.into(),
            reason: reason.into(),
        });
    }
    let mut paths: Vec<_> = loose
        .into_iter()
        .chain(tree.into_iter().flat_map(|(_, images)| images))
        .collect();
    paths.sort();
    Ok((
        paths
            .into_iter()
            .map(|path| ImageFile { path, label: None })
            .collect(),
        Labels::None,
    ))
}

fn labelled(
    tree: &[(&PathBuf, Vec<PathBuf>)],
    class_list: Option<&Path>,
) -> Result<(Vec<ImageFile>, Labels), InputError> {
    let classes = class_list.map(read_classes).transpose()?;
    let mut files = Vec::new();
    for (place, (folder, images)) in tree.iter().enumerate() {
        let label = match &classes {
            Some(classes) if !images.is_empty() => classes.label(folder)?,
            _ => place,
        };
        files.extend(images.iter().map(|path| ImageFile {
            path: path.clone(),
            label: Some(label),
        }));
    }
    let labels = match classes {
        Some(classes) => Labels::ClassList {
            path: classes.path,
            classes: classes.count,
        },
        None => Labels::FolderOrder {
            folders: tree.len(),
        },
    };
    Ok((files, labels))
}

/// The sub-folders and the images of a folder, each sorted.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), InputError> {
    let (mut folders, mut images) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(|source| InputError::io(folder, source))? {
        let entry = entry.map_err(|source| InputError::io(folder, source))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if is_image(&path) {
            images.push(path);
        }
    }
    folders.sort();
    images.sort();
    Ok((folders, images))
}

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| {
            EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension))
        })
}

struct Classes {
    path: PathBuf,
    count: usize,
    /// Every line a name stands on, from 0.
    lines: HashMap<String, Vec<usize>>,
}

fn read_classes(path: &Path) -> Result<Classes, InputError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::InvalidData => InputError::Labels {
            path: path.into(),
            reason: "this class list is not UTF-8 text; give one folder name a line".into(),
        },
        _ => InputError::io(path, source),
    })?;
    let mut lines: HashMap<String, Vec<usize>> = HashMap::new();
    let text = text.trim_start_matches('\u{feff}').trim_end();
    for (line, name) in text.lines().enumerate() {
        lines.entry(name.trim().into()).or_default().push(line);
    }
    Ok(Classes {
        path: path.into(),
        count: text.lines().count(),
        lines,
    })
}

impl Classes {
    fn label(&self, folder: &Path) -> Result<usize, InputError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        match self.lines.get(name.as_ref()).map(Vec::as_slice) {
            Some([line]) => Ok(*line),
            Some(lines) => Err(self.error(format!(
                "`{name}` stands on lines {} of this class list (counted from 0), so that its label is open; keep one",
                listed(lines)
            ))),
            None => Err(self.error(format!(
                "no line of this class list is `{name}`, a folder of images; add the name on the line of its model output"
            ))),
        }
    }

    fn error(&self, reason: String) -> InputError {
        InputError::Labels {
            path: self.path.clone(),
            reason,
        }
    }
}
