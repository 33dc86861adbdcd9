//! Data sets by name.

use std::path::{Path, PathBuf};

use crate::cifar::{self, CIFAR10, CIFAR100};
use crate::dataset::PartSizes;
use crate::{DataError, Dataset, folder, svhn};

/// The names that [`load`] knows.
pub const NAMES: &[&str] = &["digits", "cifar10", "cifar100", "svhn", "imagenet", "folder"];

/// Number of pictures of a published data set.
pub fn official_size(name: &str) -> Option<PartSizes> {
    let (train, test) = match name {
        "digits" => (1_797, 0),
        "cifar10" | "cifar100" => (50_000, 10_000),
        "svhn" => (73_257, 26_032),
        "imagenet" => (1_281_167, 50_000),
        _ => return None,
    };
    Some(PartSizes { train, test })
}

/// Loads a data set by name.
///
/// `path` is the data set's own folder, or a folder that holds it by name: for `cifar10`, each of
/// `…/cifar-10-batches-bin`, `…/cifar10` and the folder with `cifar10` in it. For `digits` it may also be the file; without
/// a path, `digits` is the copy inside the program. `folder` is the folder itself and takes its name.
///
/// # Errors
/// When the name is unknown, the data set isn't there, or a file of it is missing or damaged.
pub fn load(name: &str, path: Option<&Path>) -> Result<Dataset, DataError> {
    let Some(path) = path else {
        return match name {
            "digits" => Dataset::digits(),
            _ if NAMES.contains(&name) => Err(not_found(name, "path was given", &[])),
            _ => Err(unknown(name)),
        };
    };
    match name {
        "digits" => {
            let file = if path.is_file() {
                path.to_path_buf()
            } else {
                locate(path, name, "", "digits.bin")?.join("digits.bin")
            };
            let bytes = std::fs::read(&file).map_err(|source| DataError::Read { path: file.clone(), source })?;
            Dataset::parse_digits(&bytes, &file.display().to_string())
        }
        "cifar10" => cifar::load(&CIFAR10, &locate(path, name, "cifar-10-batches-bin", CIFAR10.test)?),
        "cifar100" => cifar::load(&CIFAR100, &locate(path, name, "cifar-100-binary", CIFAR100.test)?),
        "svhn" => svhn::load(&locate(path, name, "", svhn::TEST)?),
        "imagenet" => {
            let own = path.join(name);
            folder::load(if own.is_dir() { &own } else { path }, name)
        }
        "folder" => {
            let name = path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
            folder::load(path, &name.unwrap_or_else(|| "folder".into()))
        }
        _ => Err(unknown(name)),
    }
}

/// Whether `path` is, or holds by name, the data set `name`; [`load`] would find it there.
pub fn is_at(name: &str, path: &Path) -> bool {
    match name {
        "digits" => path.is_file() || locate(path, name, "", "digits.bin").is_ok(),
        "cifar10" => locate(path, name, "cifar-10-batches-bin", CIFAR10.test).is_ok(),
        "cifar100" => locate(path, name, "cifar-100-binary", CIFAR100.test).is_ok(),
        "svhn" => locate(path, name, "", svhn::TEST).is_ok(),
        "imagenet" => path.join(name).is_dir() || folder::is_there(&path.join("train")),
        "folder" => folder::is_there(path),
        _ => false,
    }
}

/// The first of the folders in which a data set may lie that holds `marker`.
fn locate(path: &Path, name: &str, inner: &str, marker: &str) -> Result<PathBuf, DataError> {
    let mut places = vec![path.to_path_buf(), path.join(name)];
    if !inner.is_empty() {
        places = vec![places[0].clone(), places[0].join(inner), places[1].clone(), places[1].join(inner)];
    }
    let found = places.iter().find(|place| place.join(marker).is_file()).cloned();
    found.ok_or_else(|| not_found(name, marker, &places))
}

fn not_found(name: &str, wanted: &str, places: &[PathBuf]) -> DataError {
    let places = places.iter().map(|place| place.display().to_string()).collect();
    DataError::NotFound { name: name.into(), wanted: wanted.into(), places }
}

fn unknown(name: &str) -> DataError {
    DataError::UnknownName { name: name.into(), known: NAMES.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_with_the_program_and_the_others_say_where_to_put_them() {
        for name in NAMES {
            match load(name, None) {
                Ok(data) => assert_eq!((data.name.as_str(), *name), ("digits", "digits")),
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(name) && message.contains("--data"), "{message}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        for path in [None, Some(Path::new("."))] {
            let message = load("digit", path).unwrap_err().to_string();
            assert!(message.contains("`digit`") && message.contains("digits"), "{message}");
        }
    }

    #[test]
    fn a_data_set_that_is_not_there_names_every_place() {
        let message = load("cifar10", Some(Path::new("nowhere"))).unwrap_err().to_string();
        for word in [
            "nowhere,",
            "nowhere/cifar-10-batches-bin",
            "nowhere/cifar10/cifar-10-batches-bin",
            "test_batch.bin",
            "hint",
        ] {
            assert!(message.contains(word), "{message}");
        }
        assert!(load("imagenet", Some(Path::new("nowhere"))).unwrap_err().to_string().starts_with("nowhere: "));
    }

    #[test]
    fn a_file_its_folder_or_the_folder_above_can_be_given() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("digits");
        let file = folder.join("digits.bin");
        std::fs::create_dir(&folder).unwrap();
        let message = load("digits", Some(&folder)).unwrap_err().to_string();
        assert!(message.contains("digits.bin") && !is_at("digits", &folder), "{message}");

        let mut bytes = b"QUEEDIG1".to_vec();
        bytes.extend([1u32, 1, 2, 3, 9].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([2, 0, 9]);
        std::fs::write(&file, bytes).unwrap();
        let data = load("digits", Some(&folder)).unwrap();
        assert_eq!((data.shape(), data.labels.as_slice()), (Some([1, 1, 2]), [2u16].as_slice()));
        assert_eq!(load("digits", Some(&file)).unwrap(), data);
        assert_eq!(load("digits", Some(above.path())).unwrap(), data);
        assert!(is_at("digits", above.path()));
    }

    #[test]
    fn a_folder_of_ones_own_takes_its_name() {
        let above = tempfile::tempdir().unwrap();
        for file in ["pets/cat/1.jpg", "pets/dog/1.jpg"] {
            let path = above.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(load("folder", Some(&above.path().join("pets"))).unwrap().name, "pets");
    }
}
