//! Broken files end in an error that names them, never in a panic or in wrong numbers.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use vitq::input::{Channels, Dataset, ElementType, InputError, InputSpec, Preprocess, Preset};

use super::dataset::{arrays, images};
use super::python;

fn contract() -> Preprocess {
    Preprocess::for_input(Preset::Inception, 8, 8)
}

/// Reads every sample of an array file.
fn read(path: &Path, spec: &InputSpec<'_>) -> Result<(), InputError> {
    let dataset = Dataset::open(path, spec)?;
    (0..dataset.len()).try_for_each(|index| dataset.get(index).map(drop))
}

/// Every beginning of the file must be refused with its name, and a changed byte must at least do no harm.
fn torture(path: &Path, endings: usize, read: impl Fn(&Path) -> Result<(), InputError>) {
    let whole = fs::read(path).expect("a file");
    read(path).unwrap_or_else(|error| panic!("the whole file: {error}"));
    let name = path
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broken = folder.path().join(&name);
    for length in 0..whole.len() - endings {
        fs::write(&broken, &whole[..length]).expect("a beginning");
        match read(&broken) {
            Ok(()) => panic!(
                "the first {length} of {} bytes of {name} were read",
                whole.len()
            ),
            Err(error) => assert!(error.to_string().contains(&name), "{error}"),
        }
    }
    for place in 0..whole.len() {
        for bits in [0x01, 0xff] {
            let mut changed = whole.clone();
            changed[place] ^= bits;
            fs::write(&broken, &changed).expect("a changed file");
            // Whether it still reads depends on the byte.
            let _ = read(&broken);
        }
    }
}

#[test]
fn broken_images_are_refused() {
    let folder = python::run("files.py");
    let load = |path: &Path| contract().load(path, Channels::Rgb).map(drop);
    // The number of bytes at the end without which all pixels are known: PNG's and WebP's last chunks and paddings,
    // TIFF's tags lie at the end, GIF's trailer, JPEG's end marker and the padding of its last bits.
    for (name, endings) in [
        ("small.png", 12),
        ("small.jpg", 4),
        ("small_progressive.jpg", 4),
        ("small.gif", 4),
        ("small.bmp", 0),
        ("small.tif", 0),
        ("small.webp", 12),
        ("small.ppm", 0),
    ] {
        torture(&folder.path().join(name), endings, load);
    }
    let text = folder.path().join("text.jpg");
    fs::write(&text, "no image at all").expect("a file");
    let sixteen = folder.path().join("sixteen.png");
    for (path, word) in [(&text, "no image format"), (&sixteen, "16-bit grey")] {
        let error = load(path).expect_err("no image").to_string();
        assert!(
            error.contains(word) && error.contains(&path.display().to_string()),
            "{error}"
        );
    }
    let mut tree = images(3);
    tree.inputs[0].dims = vec![None; 4];
    let whole = Dataset::open(folder.path(), &tree).expect("a folder with broken images in it");
    let errors = (0..whole.len())
        .filter(|&index| whole.get(index).is_err())
        .count();
    assert_eq!(errors, 2, "text.jpg and sixteen.png");
}

#[test]
fn declared_sizes_are_limited() {
    let folder = python::run("files.py");
    // PNG: width and height in IHDR, whose checksum is made right; JPEG: height and width in SOF0.
    let mut png = fs::read(folder.path().join("small.png")).expect("a PNG");
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let checksum = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    let mut jpeg = fs::read(folder.path().join("small.jpg")).expect("a JPEG");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .expect("SOF0");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    for (name, bytes) in [("huge.png", png), ("huge.jpg", jpeg)] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        let error = contract()
            .load(&path, Channels::Rgb)
            .expect_err("too many pixels");
        assert!(matches!(error, InputError::TooLarge { .. }), "{error}");
    }
}

/// PNG's checksum (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn broken_arrays_are_refused() {
    let folder = python::run("files.py");
    let spec = arrays(ElementType::F32);
    let tensors = folder.path().join("small.safetensors");
    let data: Vec<u8> = (0..30).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![3, 2, 5], &data).expect("a tensor");
    safetensors::serialize_to_file([("image", view)], None, &tensors).expect("a file");
    for name in ["f4le.npy", "both.npz", "packed.npz", "small.safetensors"] {
        torture(&folder.path().join(name), 0, |path| read(path, &spec));
    }
}

#[test]
fn shapes_beyond_memory_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("huge.npy");
    for shape in [
        "(18446744073709551615, 2, 5)",
        "(99999999999, 2, 5)",
        "(184467440737095516160, 2, 5)",
        "((((((, 2, 5)",
    ] {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        fs::write(&path, &bytes).expect("a file");
        let error = read(&path, &arrays(ElementType::F32))
            .expect_err("no such array")
            .to_string();
        assert!(error.contains("huge.npy"), "{error}");
    }
}
