//! Recognition of exported models, judged by what the code that they were exported from holds
//! (`fixtures/exports/index.json`, written by `fixtures/export_zoo.py` from the model's code).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vitq_passes::ir::Graph;
use vitq_passes::simplify::simplify;
use vitq_passes::structure::{Role, SiteKind, Structure, recognise};

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn recognised(path: &Path) -> Structure {
    let loaded = vitq_onnx::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut graph = Graph::import(&loaded.model).expect("a sound graph");
    simplify(&mut graph);
    recognise(&graph)
}

fn count(structure: &Structure, kind: SiteKind) -> usize {
    structure.sites.iter().filter(|s| s.kind == kind).count()
}

fn roles(structure: &Structure, role: Role) -> usize {
    structure.sites.iter().filter(|s| s.role == role).count()
}

/// (index's name of a count, what was found)
fn counts(found: &Structure) -> Vec<(&'static str, usize)> {
    vec![
        ("blocks", found.blocks.len()),
        ("linears", count(found, SiteKind::Linear)),
        ("layernorms", found.norms.len()),
        ("softmax_matmul", count(found, SiteKind::AttentionValue)),
        ("qk", count(found, SiteKind::QueryKey)),
        ("mlp", found.mlps),
        ("patch_embed", count(found, SiteKind::PatchEmbed)),
        ("head", roles(found, Role::Head)),
    ]
}

/// What must be found in a file, by the index: the counts, and the norms that fold with their readers.
struct Truth<'a> {
    name: &'a str,
    entry: &'a Value,
}

impl Truth<'_> {
    fn number(&self, field: &str) -> usize {
        let number = self.entry[field].as_u64();
        number.unwrap_or_else(|| panic!("{}: no {field} in the index", self.name)) as usize
    }

    fn check(&self, found: &Structure) {
        let name = self.name;
        for (field, number) in counts(found) {
            assert_eq!(number, self.number(field), "{name}: {field}\n{found}");
        }
        for block in &found.blocks {
            assert_eq!(block.heads, Some(self.number("heads")), "{name}: heads");
            assert_eq!(block.width, Some(self.number("dim")), "{name}: width");
            assert!(block.path.starts_with("blocks."), "{name}: {}", block.path);
        }
        self.check_norms(found);
        self.check_declined(found);
        self.check_projections(found);
    }

    fn check_norms(&self, found: &Structure) {
        // Between the last norm and the head tokens may be chosen or averaged, which a scale per channel passes.
        let before_head = usize::from(self.entry["layernorm_head"] != "nothing");
        let folding = || found.norms.iter().filter(|n| n.declined.is_none());
        let alone = folding().filter(|n| n.split.is_empty());
        let readers: usize = alone.map(|n| n.sites.len()).sum();
        let name = self.name;
        let split = folding().filter(|n| !n.split.is_empty()).count();
        assert_eq!(split, self.number("layernorm_shared"), "{name}: split");
        assert_eq!(
            folding().count() - split,
            self.number("layernorm_linear") + before_head,
            "{name}: folds"
        );
        assert_eq!(
            readers,
            self.number("layernorm_linear_readers") + before_head,
            "{name}: readers"
        );
    }

    fn check_declined(&self, found: &Structure) {
        assert!(found.declined.is_empty(), "{}\n{found}", self.name);
    }

    fn check_projections(&self, found: &Structure) {
        let separate = self.entry["form"]["qkv"] == "separate";
        let blocks = self.number("blocks");
        for (role, expected) in [
            (Role::Qkv, !separate),
            (Role::Query, separate),
            (Role::Key, separate),
            (Role::Value, separate),
            (Role::Proj, true),
            (Role::Fc1, true),
            (Role::Fc2, true),
        ] {
            let expected = if expected { blocks } else { 0 };
            assert_eq!(roles(found, role), expected, "{}: {role:?}", self.name);
        }
        for last in ["attn.proj", "mlp.fc1", "mlp.fc2"] {
            let path = format!("blocks.{}.{last}", blocks - 1);
            assert!(
                found.sites.iter().any(|s| s.path == path),
                "{}: no {path}",
                self.name
            );
        }
    }
}

#[test]
fn every_export_holds_what_its_code_holds() {
    let folder = workspace("fixtures/exports");
    let text =
        std::fs::read_to_string(folder.join("index.json")).expect("fixtures/exports/index.json");
    let index: Value = serde_json::from_str(&text).expect("the index is JSON");
    let models = index["models"].as_object().expect("models in the index");
    assert!(models.len() >= 20, "the zoo has many forms");
    for (name, entry) in models {
        let found = recognised(&folder.join(format!("{name}.onnx")));
        Truth { name, entry }.check(&found);
    }
}

#[test]
fn names_and_paths_are_unique() {
    let mut files = 0;
    for file in std::fs::read_dir(workspace("fixtures/exports")).expect("fixtures/exports") {
        let path = file.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        files += 1;
        let found = recognised(&path);
        let names: Vec<String> = found.sites.iter().map(|s| s.name.clone()).collect();
        let paths = found.sites.iter().map(|s| s.path.clone()).collect();
        for list in [names, paths] {
            let unique: HashSet<&String> = list.iter().collect();
            assert_eq!(unique.len(), list.len(), "{}: {list:?}", path.display());
        }
    }
    assert!(files >= 20);
}

#[test]
#[ignore = "needs the trained model under ../shared/data"]
fn a_trained_vit_tiny() {
    let path = workspace("../shared/data/vit_tiny_imagenet/model.onnx");
    assert!(path.is_file(), "this test needs {}", path.display());
    let found = recognised(&path);
    let expected = [
        ("blocks", 12),
        ("linears", 49),
        ("layernorms", 25),
        ("softmax_matmul", 12),
        ("qk", 12),
        ("mlp", 12),
        ("patch_embed", 1),
        ("head", 1),
    ];
    assert_eq!(counts(&found), expected);
    assert!(found.declined.is_empty(), "{found}");
    for (n, norm) in found.norms.iter().enumerate() {
        let [site] = norm.sites[..] else {
            panic!("{} has one reader", norm.name)
        };
        let expected = [Role::Qkv, Role::Fc1][n % 2];
        assert_eq!(
            found.sites[site].role,
            if n == 24 { Role::Head } else { expected }
        );
    }
    let first = found.to_string().lines().next().map(str::to_owned);
    let headline = "ViT: patch 16, width 192, 12 blocks, 3 heads, MLP 768, 1000 classes";
    assert_eq!(first.as_deref(), Some(headline));
    assert_eq!(found.sites[5].name, "/blocks/blocks.0/mlp/fc1/MatMul");
    assert_eq!(found.sites[5].path, "blocks.0.mlp.fc1");
}
