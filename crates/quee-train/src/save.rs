//! Checkpoint files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::data::expect_len;

/// Name, shape and row-major values of a tensor.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Writes tensors and free-form notes as a safetensors file.
///
/// The file is written beside `path` under another name and renamed when complete, so a reader never sees half of it.
/// The same tensors and notes give the same bytes. (The header is built here because the safetensors crate writes notes
/// in the random order of a hash map.)
///
/// # Errors
/// When a tensor's length does not fit its shape, or the file cannot be written; then nothing is left behind.
pub fn save_checkpoint(
    path: &Path,
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<(), TrainError> {
    for (_, shape, data) in tensors {
        expect_len("values of a tensor", shape.iter().product(), data.len())?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = Path::new(&partial);
    let written = write(partial, tensors, metadata).and_then(|()| std::fs::rename(partial, path));
    written.map_err(|source| {
        // The first error is the one to report, whether or not there is something to remove.
        let _ = std::fs::remove_file(partial);
        TrainError::Write { path: path.display().to_string(), source }
    })
}

fn write(path: &Path, tensors: &[NamedTensor], metadata: &BTreeMap<String, String>) -> std::io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0;
    for (name, shape, data) in tensors {
        let start = end;
        end += 4 * data.len();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(header).to_string();
    // The format aligns the data to 8 bytes with spaces.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (_, _, data) in tensors {
        for value in data {
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use quee_backbone::checkpoint::Checkpoint;

    use super::*;

    fn tensors() -> Vec<NamedTensor> {
        vec![
            ("b.weight".into(), vec![2, 3], vec![1.0, -2.0, 3.5, 0.0, f32::MIN_POSITIVE, 6.0]),
            ("a".into(), vec![1], vec![7.0]),
        ]
    }

    #[test]
    fn files_read_back_with_their_notes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let notes: BTreeMap<String, String> =
            (0..20).map(|i| (format!("key {i}"), format!("value \"{i}\" ä"))).collect();
        let mut bytes = Vec::new();
        for _ in 0..2 {
            save_checkpoint(&path, &tensors(), &notes).unwrap();
            bytes.push(std::fs::read(&path).unwrap());
        }
        assert_eq!(bytes[0], bytes[1]);
        let mut read = Checkpoint::read(&path).unwrap();
        assert_eq!(read.metadata(), &notes);
        for (name, shape, data) in tensors() {
            assert_eq!(*read.take(&name, &shape).unwrap(), *data);
        }
        read.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn failures_name_the_file_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("full"), "x").unwrap();
        let error = save_checkpoint(&path, &tensors(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let wrong = [("a".to_owned(), vec![2], vec![1.0])];
        assert!(save_checkpoint(&folder.path().join("b"), &wrong, &BTreeMap::new()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
