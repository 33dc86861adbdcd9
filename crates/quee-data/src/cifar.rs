//! CIFAR-10 and CIFAR-100 in their binary format: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*,
//! 2009.
//!
//! # Format
//! A file is a sequence of records: one label byte (CIFAR-100: the coarse label, then the fine one, which is used here),
//! then 3·32·32 pixels, red, green, blue, each plane row by row. CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin`,
//! `test_batch.bin`, names in `batches.meta.txt`. CIFAR-100: `train.bin`, `test.bin`, names in `fine_label_names.txt`.
//! Files with fewer records than the published ones are read all the same.

use std::path::Path;

use crate::{DataError, Dataset, Pixels};

/// Shape of every picture.
const SHAPE: [usize; 3] = [3, 32, 32];
/// Bytes of a picture.
const PICTURE: usize = 3 * 32 * 32;

/// What differs between the two.
pub struct Variant {
    /// Name of the data set.
    pub(crate) name: &'static str,
    classes: usize,
    /// Label bytes before each picture; the last is used.
    label_bytes: usize,
    train: &'static [&'static str],
    /// Its presence makes a folder the data set's own.
    pub(crate) test: &'static str,
    names: &'static str,
}

/// CIFAR-10.
pub const CIFAR10: Variant = Variant {
    name: "cifar10",
    classes: 10,
    label_bytes: 1,
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    names: "batches.meta.txt",
};

/// CIFAR-100.
pub const CIFAR100: Variant = Variant {
    name: "cifar100",
    classes: 100,
    label_bytes: 2,
    train: &["train.bin"],
    test: "test.bin",
    names: "fine_label_names.txt",
};

/// Reads the files of `variant` in `folder`: the training files in order, then the test file.
///
/// # Errors
/// When a file is missing, empty, no whole number of records, or holds a label out of range; or names are missing.
pub(crate) fn load(variant: &Variant, folder: &Path) -> Result<Dataset, DataError> {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for file in variant.train {
        read_records(variant, &folder.join(file), &mut values, &mut labels)?;
    }
    let train = labels.len();
    read_records(variant, &folder.join(variant.test), &mut values, &mut labels)?;
    Ok(Dataset {
        name: variant.name.into(),
        classes: variant.classes,
        class_names: read_names(&folder.join(variant.names), variant.classes)?,
        official_test: Some(train..labels.len()),
        pixels: Pixels::Memory { shape: SHAPE, max: 255, values },
        labels,
    })
}

fn read_records(variant: &Variant, path: &Path, values: &mut Vec<u8>, labels: &mut Vec<u16>) -> Result<(), DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source })?;
    parse(variant, &bytes, &path.display().to_string(), values, labels)
}

/// Appends the pixels `[n, 3, 32, 32]` and the labels of one file; `origin` is its name in messages.
///
/// # Errors
/// When it is empty, no whole number of records, or holds a label out of range.
pub fn parse(
    variant: &Variant,
    bytes: &[u8],
    origin: &str,
    values: &mut Vec<u8>,
    labels: &mut Vec<u16>,
) -> Result<(), DataError> {
    let record = variant.label_bytes + PICTURE;
    let origin = || origin.to_owned();
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let next = (bytes.len() / record + 1) * record;
        let what = format!("a whole number of records of {record} bytes");
        return Err(DataError::Truncated { origin: origin(), what, expected: next as u64, found: bytes.len() as u64 });
    }
    values.reserve_exact(bytes.len() / record * PICTURE);
    for (picture, chunk) in bytes.chunks_exact(record).enumerate() {
        let (label, pixels) = chunk.split_at(variant.label_bytes);
        let (offset, label) = (picture * record + variant.label_bytes - 1, u16::from(label[variant.label_bytes - 1]));
        if usize::from(label) >= variant.classes {
            let classes = variant.classes;
            return Err(DataError::LabelOutOfRange { origin: origin(), offset, picture, label, classes });
        }
        labels.push(label);
        values.extend_from_slice(pixels);
    }
    Ok(())
}

/// One name per line; empty lines don't count.
fn read_names(path: &Path, classes: usize) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::Read { path: path.into(), source })?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() == classes {
        Ok(names)
    } else {
        Err(DataError::ClassNames { path: path.into(), found: names.len(), classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with one or two records per file.
    fn small(variant: &Variant) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let record = |label: u8, pixel: u8| {
            let mut bytes = vec![0; variant.label_bytes - 1];
            bytes.push(label);
            bytes.extend((0..PICTURE).map(|place| if place == 33 { 7 } else { pixel }));
            bytes
        };
        for (at, file) in variant.train.iter().enumerate() {
            std::fs::write(folder.path().join(file), record(at as u8, 10 * at as u8)).unwrap();
        }
        std::fs::write(folder.path().join(variant.test), [record(9, 90), record(8, 80)].concat()).unwrap();
        let names: String = (0..variant.classes).map(|class| format!("name {class}\n")).collect();
        std::fs::write(folder.path().join(variant.names), names + "\n").unwrap();
        folder
    }

    #[test]
    fn both_variants_are_read_training_files_first() {
        for (variant, labels) in [(&CIFAR10, vec![0, 1, 2, 3, 4, 9, 8]), (&CIFAR100, vec![0, 9, 8])] {
            let data = load(variant, small(variant).path()).unwrap();
            let n = labels.len();
            assert_eq!((data.labels.clone(), data.official_test.clone()), (labels, Some(n - 2..n)));
            assert_eq!((data.shape(), data.classes), (Some([3, 32, 32]), variant.classes));
            assert_eq!(data.class_names[9], "name 9");
            let last = data.picture(n - 1).unwrap().values;
            // Place 33 is row 1, column 1 of the red plane.
            assert_eq!((last[32 + 1], last[0]), (7.0 / 255.0, 80.0 / 255.0));
        }
    }

    #[test]
    fn damage_is_refused_with_its_place() {
        let refusal = |file: &str, damage: &dyn Fn(&mut Vec<u8>)| {
            let folder = small(&CIFAR100);
            let path = folder.path().join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let message = load(&CIFAR100, folder.path()).unwrap_err().to_string();
            assert!(message.contains(file) && message.contains("hint"), "{message}");
            message
        };
        assert!(refusal("test.bin", &|bytes| bytes[3075] = 100).contains("byte 3075: picture 1 has label 100"));
        assert!(refusal("train.bin", &|bytes| bytes.clear()).contains("3074"));
        assert!(refusal("train.bin", &|bytes| bytes.truncate(3000)).contains("3000"));
        assert!(refusal("test.bin", &|bytes| bytes.push(0)).contains("6149"));
        assert!(refusal("fine_label_names.txt", &|bytes| bytes.truncate(30)).contains("100 classes"));
        let folder = small(&CIFAR10);
        std::fs::remove_file(folder.path().join("data_batch_3.bin")).unwrap();
        assert!(load(&CIFAR10, folder.path()).unwrap_err().to_string().contains("data_batch_3.bin"));
    }

    #[test]
    fn no_damage_makes_it_panic() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        for _ in 0..50 {
            let folder = small(&CIFAR10);
            let path = folder.path().join("test_batch.bin");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(rng.random_range(0..=bytes.len()));
            if !bytes.is_empty() {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            std::fs::write(&path, bytes).unwrap();
            if let Ok(data) = load(&CIFAR10, folder.path()) {
                assert!(data.labels.iter().all(|&label| label < 10));
            }
        }
    }
}
