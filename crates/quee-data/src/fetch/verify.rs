//! Is a data set complete and unchanged?
//!
//! Two questions are asked. Do the bytes have the checksums that are known: the published one of an official file, or
//! those that [`unpack`](mod@super::unpack) wrote down when it took the files out of an archive? And do the files have
//! the structure of their format, which is what [`crate::load`] finds out? A file without a known checksum, such as a
//! subset that somebody cut, is judged by its structure alone. Folders of pictures are counted, the pictures not decoded.

use std::fs;
use std::path::{Path, PathBuf};

use super::sources::Origin;
use super::unpack::SUMS;
use super::{Algorithm, Checksum, FetchError, Source};
use crate::{DataError, PartSizes};

/// What is known about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It has the checksum that is known.
    Matches(Algorithm),
    /// It has another one.
    Differs {
        /// Kind of checksum.
        algorithm: Algorithm,
        /// The one known.
        expected: String,
        /// Its own.
        found: String,
    },
    /// It is not there.
    Missing,
    /// No checksum is known for a file of this size.
    NoReference,
}

/// What [`verify`] found.
#[derive(Debug)]
pub struct Report {
    /// Folder, file, or `None` for what is inside the program.
    pub place: Option<PathBuf>,
    /// Files by path below the folder.
    pub files: Vec<(String, FileState)>,
    /// Pictures of the training and the test part, or why they cannot be read.
    pub structure: Result<PartSizes, DataError>,
}

impl Report {
    /// Whether a file is missing, changed or unreadable.
    pub fn broken(&self) -> bool {
        let bad = |state: &FileState| matches!(state, FileState::Differs { .. } | FileState::Missing);
        self.structure.is_err() || self.files.iter().any(|(_, state)| bad(state))
    }

    /// How much of the official data set is there, where it is not all: `subset: 8,000 of 50,000 training pictures`.
    pub fn subset(&self, source: &Source) -> Option<String> {
        let (found, official) = (self.structure.as_ref().ok()?, source.size());
        let part = |found: usize, official: usize, what: &str| {
            (found != official).then(|| format!("{} of {} {what} pictures", thousands(found), thousands(official)))
        };
        let parts: Vec<String> =
            [part(found.train, official.train, "training"), part(found.test, official.test, "test")]
                .into_iter()
                .flatten()
                .collect();
        (!parts.is_empty()).then(|| format!("subset: {}", parts.join(", ")))
    }
}

/// A number with a comma after each group of three digits.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where a data set lies, given the folder of all data sets: in a folder of its own name, or in that folder itself when
/// its files are there.
pub fn locate(source: &Source, data: &Path) -> PathBuf {
    let own = data.join(source.name);
    let marker = match &source.origin {
        Origin::Archive { root, .. } => data.join(root),
        Origin::Files(files) => data.join(files[0].name),
        Origin::ByHand(_) => data.join("train"),
        Origin::Inside => data.join("digits.bin"),
    };
    if !own.exists() && marker.exists() { data.to_path_buf() } else { own }
}

/// Checks the data set in the folder `data` of all data sets.
///
/// # Errors
/// When it is not there, or a file cannot be read. What is wrong with files that can be read is in the report.
pub fn verify(source: &Source, data: &Path) -> Result<Report, FetchError> {
    let place = locate(source, data);
    let place = match (place.exists(), &source.origin) {
        (true, _) => Some(place),
        (false, Origin::Inside) => None,
        (false, _) => return Err(absent(source, place, source.how())),
    };
    let mut files = Vec::new();
    if let Some(folder) = &place {
        for file in source.files() {
            let path = folder.join(file.name);
            let archive = matches!(source.origin, Origin::Archive { .. });
            match fs::metadata(&path) {
                // An archive is of no more use once it is unpacked.
                Err(_) if archive => {}
                Err(_) => files.push((file.name.into(), FileState::Missing)),
                Ok(found) if archive || found.len() == file.bytes => {
                    files.push((file.name.into(), compare(&path, &file.checksum)?));
                }
                Ok(_) => files.push((file.name.into(), FileState::NoReference)),
            }
        }
        if let Origin::Archive { file, root, .. } = &source.origin {
            let unpacked = folder.join(root);
            if unpacked.exists() {
                listed(&unpacked, root, &mut files)?;
            } else if folder.join(file.name).exists() {
                let how = format!("`quee data fetch {}` unpacks {} without a network", source.name, file.name);
                return Err(absent(source, unpacked, how));
            }
        }
    }
    let structure = crate::load(source.name, place.as_deref()).map(|data| data.part_sizes());
    Ok(Report { place, files, structure })
}

fn absent(source: &Source, folder: PathBuf, how: String) -> FetchError {
    FetchError::Absent { name: source.name.into(), folder, how }
}

/// Checks every file on the list that [`unpack`](mod@super::unpack) has left, where there is one.
fn listed(folder: &Path, root: &str, files: &mut Vec<(String, FileState)>) -> Result<(), FetchError> {
    let list = folder.join(SUMS);
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            files.push((format!("{root}/"), FileState::NoReference));
            return Ok(());
        }
        Err(e) => return Err(FetchError::file(&list, e)),
    };
    for (number, line) in text.lines().enumerate() {
        let parsed = line.split_once("  ").and_then(|(sum, name)| Some((Checksum::parse_sha256(sum)?, name)));
        let (checksum, name) = parsed.ok_or_else(|| FetchError::SumsFile { path: list.clone(), line: number + 1 })?;
        files.push((format!("{root}/{name}"), compare(&folder.join(name), &checksum)?));
    }
    Ok(())
}

/// State of a file with a known checksum.
fn compare(path: &Path, checksum: &Checksum) -> Result<FileState, FetchError> {
    match checksum.algorithm.of_file(path) {
        Ok(found) if checksum.matches(&found) => Ok(FileState::Matches(checksum.algorithm)),
        Ok(found) => {
            let expected = checksum.hex.clone().into_owned();
            Ok(FileState::Differs { algorithm: checksum.algorithm, expected, found })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(FileState::Missing),
        Err(e) => Err(FetchError::file(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::sources::find;

    #[test]
    fn a_part_of_a_data_set_is_called_a_subset() {
        let report = |[train, test]: [usize; 2]| Report {
            place: None,
            files: Vec::new(),
            structure: Ok(PartSizes { train, test }),
        };
        let cifar10 = find("cifar10").unwrap();
        assert_eq!(report([50_000, 10_000]).subset(cifar10), None);
        let text = report([8000, 10_000]).subset(cifar10).unwrap();
        assert_eq!(text, "subset: 8,000 of 50,000 training pictures");
        let text = report([8000, 200]).subset(cifar10).unwrap();
        assert_eq!(text, "subset: 8,000 of 50,000 training pictures, 200 of 10,000 test pictures");
        assert!(!report([8000, 200]).broken());
    }

    #[test]
    fn one_wrong_file_breaks_a_data_set() {
        let wrong = FileState::Differs { algorithm: Algorithm::Md5, expected: "a".into(), found: "b".into() };
        for (state, broken) in [
            (FileState::Matches(Algorithm::Md5), false),
            (FileState::NoReference, false),
            (FileState::Missing, true),
            (wrong, true),
        ] {
            let files = vec![("x".into(), FileState::NoReference), ("y".into(), state)];
            assert_eq!(Report { place: None, files, structure: Ok(PartSizes { train: 1, test: 1 }) }.broken(), broken);
        }
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_281_167].map(thousands), ["0", "999", "1,000", "1,281,167"]);
    }

    #[test]
    fn a_list_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SUMS), "abc  file\n").unwrap();
        let message = listed(folder.path(), "x", &mut Vec::new()).unwrap_err().to_string();
        assert!(message.contains("SHA256SUMS: line 1"), "{message}");
    }

    #[test]
    fn the_folder_of_one_data_set_will_do() {
        let data = tempfile::tempdir().unwrap();
        let svhn = find("svhn").unwrap();
        assert_eq!(locate(svhn, data.path()), data.path().join("svhn"));
        fs::write(data.path().join("train_32x32.mat"), "").unwrap();
        assert_eq!(locate(svhn, data.path()), data.path());
        fs::create_dir(data.path().join("svhn")).unwrap();
        assert_eq!(locate(svhn, data.path()), data.path().join("svhn"));
    }
}
