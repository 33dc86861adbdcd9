//! Bounded reads from a file or from memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::CheckpointError;

/// The bytes of a checkpoint. A file stays on disk and its tensors are read one by one, so that it is never held as a
/// whole. Clones share the bytes.
#[derive(Clone, Debug)]
pub(super) struct Source {
    origin: Arc<str>,
    length: u64,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    File(Arc<Mutex<File>>),
    Memory(Arc<[u8]>),
}

impl Source {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let origin = path.display().to_string();
        let opened = File::open(path).and_then(|file| {
            let about = file.metadata()?;
            if about.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok((file, about.len())) }
        });
        match opened {
            Ok((file, length)) => Ok(Self { origin: origin.into(), length, data: Data::File(Arc::new(file.into())) }),
            Err(source) => Err(CheckpointError::Io { origin, source }),
        }
    }

    /// Bytes in memory.
    pub fn memory(bytes: &[u8], origin: &str) -> Self {
        Self { origin: origin.into(), length: bytes.len() as u64, data: Data::Memory(bytes.into()) }
    }

    /// Name in messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with the bytes from `position`.
    pub fn read_into(&self, position: u64, buffer: &mut [u8]) -> Result<(), CheckpointError> {
        let read = match &self.data {
            Data::File(file) => {
                // A poisoned lock only means that another reader panicked: the position is set anew anyway.
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(position)).and_then(|_| file.read_exact(buffer))
            }
            Data::Memory(bytes) => usize::try_from(position)
                .ok()
                .and_then(|start| bytes.get(start..)?.get(..buffer.len()))
                .map(|part| buffer.copy_from_slice(part))
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|source| CheckpointError::Io { origin: self.origin().to_owned(), source })
    }

    /// The `length` bytes from `position`. Nothing is allocated for bytes that the source does not have.
    pub fn bytes(&self, position: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        let inside = position.checked_add(length).is_some_and(|end| end <= self.length);
        let (true, Ok(size)) = (inside, usize::try_from(length)) else {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(CheckpointError::Io { origin: self.origin().to_owned(), source });
        };
        let mut bytes = vec![0; size];
        self.read_into(position, &mut bytes)?;
        Ok(bytes)
    }

    /// An error about the format.
    pub fn invalid(&self, format: &'static str, reason: impl Into<String>, hint: &'static str) -> CheckpointError {
        CheckpointError::Format { origin: self.origin().to_owned(), format, reason: reason.into(), hint }
    }
}
