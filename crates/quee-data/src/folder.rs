//! Pictures of one's own, or ImageNet's: one folder per class.
//!
//! ```text
//! folder/train/<class>/*.jpg    or    folder/<class>/*.jpg
//! folder/val/<class>/*.jpg
//! ```
//!
//! With `train/` and `val/` (or `test/` where there is no `val/`), the latter is the test part; otherwise everything is a
//! single pool. Classes are numbered in the order of their folders' names, byte by byte: for ImageNet that of the WordNet
//! ids. Pictures are taken in the order of their files' names. Files are listed when the data set is loaded and decoded
//! when they are asked for; names ending in `.jpg`, `.jpeg` or `.png`, in capitals or not, count as pictures, others are
//! passed over. Names starting with a dot don't exist.
//!
//! `LOC_synset_mapping.tsv` (folder, TAB, name) or `LOC_synset_mapping.txt` (folder, blank, name) gives classes names.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::{DataError, Dataset, Pixels};

/// Most classes that labels can tell apart.
const MOST_CLASSES: usize = 1 << 16;

/// Lists the pictures below `root` as a data set called `name`.
///
/// # Errors
/// When a folder cannot be read, there are fewer than two classes, a class has no picture, or the test part has a class
/// that the training part lacks.
pub fn load(root: &Path, name: &str) -> Result<Dataset, DataError> {
    let train = Some(root.join("train")).filter(|folder| folder.is_dir());
    let test =
        train.as_ref().and_then(|_| ["val", "test"].map(|part| root.join(part)).into_iter().find(|f| f.is_dir()));
    let pool = train.as_deref().unwrap_or(root);

    let mut passed_over = 0;
    let classes = class_folders(pool)?;
    if !(2..=MOST_CLASSES).contains(&classes.len()) {
        let reason = format!("{} class folders, needed are 2 to {MOST_CLASSES}", classes.len());
        return Err(DataError::Layout { path: pool.into(), reason });
    }
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    let mut list = |folder: &Path, class: usize, paths: &mut Vec<PathBuf>| {
        let found = pictures(folder, &mut passed_over)?;
        labels.extend(std::iter::repeat_n(class as u16, found.len()));
        paths.extend(found);
        Ok::<(), DataError>(())
    };
    for (class, folder) in classes.iter().enumerate() {
        list(&pool.join(folder), class, &mut paths)?;
    }
    let split = paths.len();
    if let Some(test) = &test {
        let folders = class_folders(test)?;
        if folders.is_empty() {
            return Err(DataError::Layout { path: test.clone(), reason: "no class folders".into() });
        }
        for folder in folders {
            let Ok(class) = classes.binary_search(&folder) else {
                let reason = format!("class {} is not in {}", folder.display(), pool.display());
                return Err(DataError::Layout { path: test.join(&folder), reason });
            };
            list(&test.join(&folder), class, &mut paths)?;
        }
    }
    if passed_over > 0 {
        tracing::warn!("{}: {passed_over} files that are not .jpg, .jpeg or .png were passed over", root.display());
    }
    let known = known_names(root)?;
    let class_names = classes.iter().map(|folder| {
        let folder = folder.to_string_lossy();
        known.get(folder.as_ref()).cloned().unwrap_or_else(|| folder.into_owned())
    });
    Ok(Dataset {
        name: name.into(),
        classes: classes.len(),
        class_names: class_names.collect(),
        official_test: test.map(|_| split..paths.len()),
        pixels: Pixels::Files(paths),
        labels,
    })
}

/// Whether there are class folders below `root`, in either layout.
pub(crate) fn is_there(root: &Path) -> bool {
    class_folders(root).is_ok_and(|found| !found.is_empty())
}

fn entries(folder: &Path) -> Result<Vec<(OsString, PathBuf)>, DataError> {
    let read = |source| DataError::Read { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push((entry.file_name(), entry.path()));
        }
    }
    found.sort_unstable_by(|a, b| a.0.as_encoded_bytes().cmp(b.0.as_encoded_bytes()));
    Ok(found)
}

/// Names of the folders in `folder`, sorted.
fn class_folders(folder: &Path) -> Result<Vec<OsString>, DataError> {
    let found = entries(folder)?.into_iter().filter(|(_, path)| path.is_dir());
    Ok(found.map(|(name, _)| name).collect())
}

/// Picture files in `folder`, sorted by name; others are counted.
fn pictures(folder: &Path, passed_over: &mut usize) -> Result<Vec<PathBuf>, DataError> {
    let is_picture = |name: &OsStr| {
        let extension = Path::new(name).extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
    };
    let all = entries(folder)?;
    let count = all.len();
    let found: Vec<PathBuf> = all.into_iter().filter(|(name, _)| is_picture(name)).map(|(_, path)| path).collect();
    *passed_over += count - found.len();
    if found.is_empty() { Err(DataError::EmptyClass { path: folder.into() }) } else { Ok(found) }
}

/// Names of classes by folder, where a mapping lies in `root`.
fn known_names(root: &Path) -> Result<BTreeMap<String, String>, DataError> {
    for (file, separator) in [("LOC_synset_mapping.tsv", '\t'), ("LOC_synset_mapping.txt", ' ')] {
        let path = root.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let pair = |line: &str| {
                    let (folder, name) = line.split_once(separator)?;
                    Some((folder.trim().to_owned(), name.trim().to_owned()))
                };
                return Ok(text.lines().filter_map(pair).collect());
            }
            Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataError::Read { path, source }),
        }
    }
    Ok(BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes empty files, which are pictures as far as listing goes.
    fn with_files(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn listed(data: &Dataset, root: &Path) -> Vec<String> {
        let Pixels::Files(paths) = &data.pixels else { panic!("pictures are in files") };
        paths.iter().map(|path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_single_pool_is_sorted_by_class_and_name() {
        let folder =
            with_files(&["b/2.png", "b/10.JPEG", "a/x.jpg", "a/notes.txt", "a/.hidden.jpg", ".git/x.jpg", "README"]);
        let data = load(folder.path(), "mine").unwrap();
        assert_eq!(listed(&data, folder.path()), ["a/x.jpg", "b/10.JPEG", "b/2.png"]);
        assert_eq!((data.labels, data.classes, data.official_test), (vec![0, 1, 1], 2, None));
        assert_eq!(data.class_names, ["a", "b"]);
    }

    #[test]
    fn train_and_val_are_parts_with_common_classes() {
        let folder =
            with_files(&["train/n02/1.jpg", "train/n01/1.jpg", "train/n01/2.jpg", "val/n02/1.jpg", "test/n03/1.jpg"]);
        fs::write(folder.path().join("LOC_synset_mapping.txt"), "n01 tench, Tinca tinca\nn09 other\n").unwrap();
        let data = load(folder.path(), "mine").unwrap();
        assert_eq!(data.labels, [0, 0, 1, 1]);
        assert_eq!(data.official_test, Some(3..4), "val is the test part where it exists");
        assert_eq!(data.class_names, ["tench, Tinca tinca", "n02"]);
        fs::remove_dir_all(folder.path().join("val")).unwrap();
        let message = load(folder.path(), "mine").unwrap_err().to_string();
        assert!(message.contains("n03") && message.contains("hint"), "{message}");
    }

    #[test]
    fn what_is_no_folder_of_classes_is_refused_by_name() {
        for (files, words) in [
            (&["a/1.jpg", "b/notes.txt"][..], &["b: ", "no PNG or JPEG"][..]),
            (&["a/1.jpg"], &["1 class folders"]),
            (&["1.jpg", "2.jpg"], &["0 class folders"]),
            (&["train/a/1.jpg", "train/b/1.jpg", "val/1.jpg"], &["val", "no class folders"]),
            (&["train/a/1.jpg", "train/b/1.jpg", "val/a/x"], &["val/a", "no PNG or JPEG"]),
        ] {
            let folder = with_files(files);
            let message = load(folder.path(), "mine").unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)) && message.contains("hint"), "{message}");
        }
        assert!(load(Path::new("no/such"), "mine").unwrap_err().to_string().starts_with("no/such: "));
    }
}
