//! Pieces of a result that is not finished.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Damage, StoreError};
use crate::files::{self, Role};
use crate::header;
use crate::key::Key;
use crate::pieces::{self, Place};

/// The part file of a key: numbered pieces of a result, which are there again when the process was killed.
///
/// A piece that was appended survives the death of the process; after a power cut those are there that the system had written by then.
#[derive(Debug)]
pub struct Parts<'a> {
    path: PathBuf,
    key: &'a Key,
    file: File,
    /// Checksum of the header.
    sum: [u8; 32],
    pieces: BTreeMap<u64, Place>,
    /// Where the next piece goes.
    end: u64,
    /// Most bytes of the file.
    limit: u64,
    cut: Option<Damage>,
    /// A failed append has left bytes that could not be cut off.
    torn: bool,
    _open: Open<'a>,
}

/// Marks that the part file is open for as long as it exists.
#[derive(Debug)]
struct Open<'a>(&'a AtomicBool);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<'a> Parts<'a> {
    /// Opens or begins the file at `path`. The caller holds the key's lock; `open` says whether this process has the file open.
    pub(crate) fn open(path: PathBuf, key: &'a Key, limit: u64, open: &'a AtomicBool) -> Result<Self, StoreError> {
        if open.swap(true, Ordering::AcqRel) {
            return Err(StoreError::PartsOpen { path });
        }
        let open = Open(open);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let found = match options.open(&path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(StoreError::io(&path, "open the part file")(e)),
        };
        let mut useless = None;
        if let Some(mut file) = found {
            let length = file.metadata().map_err(StoreError::io(&path, "read the part file"))?.len();
            match pieces::scan(io::BufReader::new(&mut file), length, key.hash()) {
                Ok(scan) => {
                    if scan.rest.is_some() {
                        file.set_len(scan.whole).map_err(StoreError::io(&path, "cut off an incomplete piece"))?;
                    }
                    let (sum, pieces, end, cut) = (scan.header.sum, scan.pieces, scan.whole, scan.rest);
                    return Ok(Self { path, key, file, sum, pieces, end, limit, cut, torn: false, _open: open });
                }
                Err(Damage::Unreadable(e)) => return Err(StoreError::io(&path, "read the part file")(e)),
                Err(damage) => useless = Some(damage),
            }
            fs::remove_file(&path).map_err(StoreError::io(&path, "remove a damaged part file"))?;
        }
        let (bytes, sum) = header::encode(pieces::MAGIC, key);
        let begun = options.create_new(true).open(&path);
        let mut file = begun.map_err(StoreError::io(&path, "begin the part file"))?;
        if let Err(e) = file.write_all(&bytes) {
            let _ = fs::remove_file(&path);
            return Err(StoreError::io(&path, "begin the part file")(e));
        }
        let (pieces, end) = (BTreeMap::new(), bytes.len() as u64);
        Ok(Self { path, key, file, sum, pieces, end, limit, cut: useless, torn: false, _open: open })
    }

    /// What was wrong with the bytes that opening has cut off, if there were any: the torn piece of a process that died.
    pub fn cut(&self) -> Option<&Damage> {
        self.cut.as_ref()
    }

    /// Numbers of the pieces that are there, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pieces.keys().copied()
    }

    /// Whether a piece is there.
    pub fn contains(&self, number: u64) -> bool {
        self.pieces.contains_key(&number)
    }

    /// Reads a piece; `None` where it is not there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = self.pieces.get(&number) else { return Ok(None) };
        let file = &mut self.file;
        let mut read = || {
            file.seek(SeekFrom::Start(place.offset))?;
            read_vec(file, place.length)
        };
        read().map(Some).map_err(StoreError::io(&self.path, "read a piece"))
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When it is there already, when the disk is full, when the file would be larger than the limit of the store; what was there stays.
    pub fn append(&mut self, number: u64, payload: &[u8]) -> Result<(), StoreError> {
        if self.contains(number) {
            return Err(StoreError::PieceTwice { path: self.path.clone(), number });
        }
        let end = self.end_behind(self.end, payload)?;
        let written = self.write(&pieces::head(&self.sum, number, payload), payload);
        written.map_err(StoreError::io(&self.path, "append a piece"))?;
        let place = Place { offset: self.end + pieces::HEAD, length: payload.len() as u64 };
        self.pieces.insert(number, place);
        self.end = end;
        Ok(())
    }

    /// Puts one piece in the place of all that are there. Whatever happens meanwhile, a power cut included, the file holds either them or it.
    ///
    /// # Errors
    /// When the disk is full, or when the file would be larger than the limit of the store; what was there stays.
    pub fn replace(&mut self, number: u64, payload: &[u8]) -> Result<(), StoreError> {
        // The header of the file that is there may describe the key in other words; then pieces have other checksums.
        let (header, sum) = header::encode(pieces::MAGIC, self.key);
        let start = header.len() as u64;
        let end = self.end_behind(start, payload)?;
        let partial = files::path(&self.folder(), self.key.hash(), Role::Partial);
        let write = || -> io::Result<File> {
            files::remove(&partial)?;
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&partial)?;
            file.write_all(&header)?;
            file.write_all(&pieces::head(&sum, number, payload))?;
            file.write_all(payload)?;
            file.sync_all()?;
            fs::rename(&partial, &self.path)?;
            Ok(file)
        };
        self.file = write().map_err(|error| {
            let _ = fs::remove_file(&partial);
            StoreError::io(&self.path, "replace the pieces")(error)
        })?;
        files::sync_names(&self.folder());
        let place = Place { offset: start + pieces::HEAD, length: payload.len() as u64 };
        (self.sum, self.pieces, self.end, self.torn) = (sum, BTreeMap::from([(number, place)]), end, false);
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.path.parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// Where the file ends with one piece more at `start`.
    fn end_behind(&self, start: u64, payload: &[u8]) -> Result<u64, StoreError> {
        let end = start + pieces::HEAD + payload.len() as u64;
        if end > self.limit {
            let stage = self.key.description().stage.clone();
            return Err(StoreError::TooLarge { folder: self.folder(), stage, limit: self.limit });
        }
        Ok(end)
    }

    /// Writes behind the last whole piece; a failure leaves nothing behind it.
    fn write(&mut self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.end)?;
            self.torn = false;
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let written = self.file.write_all(head).and_then(|()| self.file.write_all(payload));
        if written.is_err() {
            self.torn = self.file.set_len(self.end).is_err();
        }
        written
    }
}

/// Reads `length` bytes, which the file is known to have.
pub(crate) fn read_vec(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
    if reader.take(length).read_to_end(&mut bytes)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
