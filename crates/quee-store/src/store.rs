//! Looking for results, computing them once, storing them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use crate::entry::{self, EntryWriter};
use crate::error::{Damage, StoreError};
use crate::files::{self, Role};
use crate::inventory::Pruned;
use crate::key::{Description, Key, KeyHash};
use crate::lock::{KeyLock, is_named};
use crate::parts::{Parts, read_vec};

/// How often a key that another process holds is tried.
const POLL: Duration = Duration::from_millis(50);
/// How long it is waited for without a word.
const SILENT: Duration = Duration::from_millis(200);

/// A folder of results.
///
/// Any number of processes may use one folder at once, with different limits too.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    limit: u64,
}

impl Store {
    /// Opens `folder`, which is made if it is not there, and removes what processes have left that died.
    ///
    /// All results together have at most `limit` bytes: storing one throws away those that were not used for longest.
    /// A folder that is there but cannot be written to is fine; then results are found, and storing them fails.
    ///
    /// # Errors
    /// When there is no folder and it cannot be made, or when it cannot be read.
    pub fn open(folder: impl Into<PathBuf>, limit: u64) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(StoreError::io(&folder, "create the folder of results"))?;
        let store = Self { folder, limit };
        store.clean()?;
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Most bytes of all results together.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Looks for the result of `key`, and checks every byte of it.
    pub fn get(&self, key: &Key) -> Lookup {
        self.look(key.hash(), false)
    }

    /// Takes the claim of `key`, waiting for as long as another thread or process has it.
    ///
    /// `waiting` is called again and again while that lasts, though not at once, with the time that has passed; when it breaks,
    /// there is no claim. Look again after taking it: who had it before may have stored the result.
    /// A thread that takes a claim which it holds already waits for ever.
    ///
    /// # Errors
    /// When the folder cannot be written to or its file system knows no locks.
    pub fn claim(
        &self,
        key: &Key,
        mut waiting: impl FnMut(Duration) -> ControlFlow<()>,
    ) -> Result<Option<Claim>, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(lock) = self.try_lock(key.hash())? {
                let (store, key, parts) = (self.clone(), key.clone(), AtomicBool::new(false));
                return Ok(Some(Claim { store, key, parts, _lock: lock }));
            }
            if waited >= SILENT && waiting(waited).is_break() {
                return Ok(None);
            }
            std::thread::sleep(POLL);
            waited += POLL;
        }
    }

    pub(crate) fn path(&self, hash: &KeyHash, role: Role) -> PathBuf {
        files::path(&self.folder, hash, role)
    }

    pub(crate) fn try_lock(&self, hash: &KeyHash) -> Result<Option<KeyLock>, StoreError> {
        let path = self.path(hash, Role::Lock);
        KeyLock::try_take(path.clone()).map_err(StoreError::io(&path, "lock a result"))
    }

    /// Looks for a result; `claimed` says that the caller holds its lock.
    fn look(&self, hash: &KeyHash, claimed: bool) -> Lookup {
        let path = self.path(hash, Role::Entry);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Lookup::Missing,
            Err(e) => return Lookup::Damaged(Damaged { path, damage: e.into(), removed: false }),
        };
        // Keeps the file from being thrown away while it is read; without it, reading goes on all the same.
        let _ = file.try_lock_shared();
        let checked = file.metadata().map_err(Damage::from).and_then(|metadata| {
            let (header, payload) = entry::verify(&mut file, metadata.len(), hash)?;
            file.seek(SeekFrom::Start(payload.start))?;
            Ok((header, payload.end - payload.start))
        });
        match checked {
            Ok((header, length)) => {
                // Only the order of throwing away depends on it.
                let _ = file.set_modified(SystemTime::now());
                let description = header.description;
                Lookup::Found(Found { path, reader: file.take(length), length, description })
            }
            Err(damage) => {
                let removed = !matches!(damage, Damage::Unreadable(_)) && self.remove_damaged(hash, &file, claimed);
                Lookup::Damaged(Damaged { path, damage, removed })
            }
        }
    }

    /// Removes an entry that was found damaged, unless another has taken its place since or is about to.
    fn remove_damaged(&self, hash: &KeyHash, file: &File, claimed: bool) -> bool {
        let lock = if claimed { None } else { self.try_lock(hash).ok().flatten() };
        let path = self.path(hash, Role::Entry);
        (claimed || lock.is_some()) && is_named(file, &path).unwrap_or(false) && fs::remove_file(&path).is_ok()
    }
}

/// What looking for a result gives.
#[derive(Debug)]
pub enum Lookup {
    /// It is there, and every byte is right.
    Found(Found),
    /// It is not there.
    Missing,
    /// There is a file, but not a result: to be computed like one that is missing.
    Damaged(Damaged),
}

/// A file that should hold a result and does not. Worth a word to the user.
#[derive(Debug, thiserror::Error)]
#[error("{}: the stored result cannot be used: {damage}", path.display())]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
    /// Whether it was removed. Where it was not, the next result takes its place.
    pub removed: bool,
}

/// A result that was found; reads its payload.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    reader: io::Take<File>,
    length: u64,
    description: Description,
}

impl Found {
    /// Bytes of the payload.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// In words what it was computed from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What has not been read yet.
    ///
    /// # Errors
    /// When the file cannot be read, or does not fit in memory.
    pub fn bytes(mut self) -> Result<Vec<u8>, StoreError> {
        let left = self.reader.limit();
        read_vec(&mut self.reader, left).map_err(StoreError::io(&self.path, "read a stored result"))
    }
}

impl Read for Found {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// The right to compute and store the result of a key, which one thread of one process has at a time.
///
/// Ends when dropped, and with the process.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    key: Key,
    /// Whether the part file is open.
    parts: AtomicBool,
    _lock: KeyLock,
}

impl Claim {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Looks for the result, as [`Store::get`].
    pub fn get(&self) -> Lookup {
        self.store.look(self.key.hash(), true)
    }

    /// The pieces of the result that are there, to go on with.
    ///
    /// # Errors
    /// When the file cannot be read, begun or repaired, or is open already.
    pub fn parts(&self) -> Result<Parts<'_>, StoreError> {
        Parts::open(self.store.path(self.key.hash(), Role::Parts), &self.key, self.store.limit, &self.parts)
    }

    /// Stores the result: what `write` writes. Then pieces are removed, and results that were not used for longest as the limit demands.
    ///
    /// # Errors
    /// When `write` fails, when the disk is full or the folder is not writable, when the result is larger than the limit of the store.
    /// Then nothing is stored, and what was there stays.
    pub fn put(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Pruned, StoreError> {
        let (store, hash) = (&self.store, self.key.hash());
        let partial = store.path(hash, Role::Partial);
        let stored = self.write_entry(&partial, write);
        if stored.is_err() {
            let _ = fs::remove_file(&partial);
        }
        stored?;
        let _ = fs::remove_file(store.path(hash, Role::Parts));
        Ok(store.evict(store.limit, Some(hash)).unwrap_or_default())
    }

    /// Writes the entry under a temporary name, and renames it when it is whole and on the disk.
    fn write_entry(
        &self,
        partial: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let store = &self.store;
        files::remove(partial).map_err(StoreError::io(partial, "remove what a process has left"))?;
        let mut full = false;
        let write_all = || -> io::Result<()> {
            // A file of its own: even who has lost the lock, because somebody removed it, writes into another.
            let file = OpenOptions::new().write(true).create_new(true).open(partial)?;
            let mut writer = EntryWriter::new(io::BufWriter::with_capacity(1 << 17, file), &self.key, store.limit)?;
            let written = write(&mut writer);
            full = writer.is_full();
            written?;
            let file = writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()
        };
        let written = write_all();
        if full {
            let stage = self.key.description().stage.clone();
            return Err(StoreError::TooLarge { folder: store.folder.clone(), stage, limit: store.limit });
        }
        written.map_err(StoreError::io(partial, "write a result"))?;
        let entry = store.path(self.key.hash(), Role::Entry);
        fs::rename(partial, &entry).map_err(StoreError::io(&entry, "rename a finished result"))?;
        files::sync_names(&store.folder);
        Ok(())
    }
}
