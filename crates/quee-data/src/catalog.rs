//! Data sets by name.

use std::path::Path;

use crate::{DataError, Dataset};

/// The names that [`load`] knows.
pub const NAMES: &[&str] = &["digits"];

/// Loads a data set by name.
///
/// `path` is the user's own copy of it. For `digits`: a file of the format of [`crate::digits`] or a folder with a file
/// `digits.bin`; without a path, the copy inside the program.
///
/// # Errors
/// When the name is unknown, or the file is missing or not of its format.
pub fn load(name: &str, path: Option<&Path>) -> Result<Dataset, DataError> {
    match (name, path) {
        ("digits", None) => Dataset::digits(),
        ("digits", Some(path)) => {
            let file = if path.is_dir() { path.join("digits.bin") } else { path.to_path_buf() };
            let bytes = std::fs::read(&file).map_err(|source| DataError::Read { path: file.clone(), source })?;
            Dataset::parse_digits(&bytes, &file.display().to_string())
        }
        _ => Err(DataError::UnknownName { name: name.into(), known: NAMES.join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_loads() {
        for name in NAMES {
            assert_eq!(load(name, None).unwrap().name, *name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = load("digit", None).unwrap_err().to_string();
        assert!(message.contains("`digit`") && message.contains("digits"), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = load("digits", Some(Path::new("nowhere/digits.bin"))).unwrap_err().to_string();
        assert!(message.starts_with("nowhere/digits.bin: ") && message.contains("hint"), "{message}");
    }

    #[test]
    fn a_file_or_its_folder_can_be_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("digits.bin");
        let message = load("digits", Some(folder.path())).unwrap_err().to_string();
        assert!(message.contains("digits.bin"), "{message}");

        let mut bytes = b"QUEEDIG1".to_vec();
        bytes.extend([1u32, 1, 2, 3, 9].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([2, 0, 9]);
        std::fs::write(&file, bytes).unwrap();
        let data = load("digits", Some(folder.path())).unwrap();
        assert_eq!((data.shape(), data.max, data.labels.as_slice()), ([1, 1, 2], 9, [2u16].as_slice()));
        assert_eq!(load("digits", Some(&file)).unwrap(), data);
    }
}
