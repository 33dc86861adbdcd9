//! What is in a store, and what has to go.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::time::SystemTime;

use crate::error::{Damage, StoreError};
use crate::files::{self, Kind, Listed, Role};
use crate::key::{Description, Difference, Key, KeyHash};
use crate::store::Store;
use crate::{entry, pieces};

/// A result in the store, finished or not.
#[derive(Debug)]
pub struct Item {
    /// Its key.
    pub hash: KeyHash,
    /// Whether it is finished.
    pub kind: Kind,
    /// Bytes on the disk.
    pub size: u64,
    /// When it was last stored, found or added to.
    pub last_use: SystemTime,
    /// In words what it was computed from; only the header is checked for it.
    pub description: Result<Description, Damage>,
}

/// What was thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files removed.
    pub removed: usize,
    /// Their bytes.
    pub freed: u64,
    /// Files that were left though the limit demands otherwise, because somebody uses them or they cannot be removed.
    pub kept: usize,
    /// Bytes of all results that are left.
    pub left: u64,
}

impl Store {
    /// What is there, last used first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Item>, StoreError> {
        let mut items: Vec<Item> = self.results()?.into_iter().map(|file| self.item(file)).collect();
        items.sort_by_key(|item| (std::cmp::Reverse(item.last_use), item.hash, item.kind));
        Ok(items)
    }

    /// The finished result of the same stage that differs from `key` in the fewest parts, and how: why `key` has to be computed.
    /// Of several the one used last; `None` where the stage has no result.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn closest(&self, key: &Key) -> Result<Option<(Item, Vec<Difference>)>, StoreError> {
        let mut best: Option<(Item, Vec<Difference>)> = None;
        for item in self.list()?.into_iter().filter(|item| item.kind == Kind::Finished) {
            let Ok(description) = &item.description else { continue };
            if description.stage != key.description().stage {
                continue;
            }
            let differences = description.differences(key.description());
            if best.as_ref().is_none_or(|(_, fewest)| differences.len() < fewest.len()) {
                best = Some((item, differences));
            }
        }
        Ok(best)
    }

    /// Throws away results, least recently used first, until all together have at most `limit` bytes. Those in use stay.
    ///
    /// # Errors
    /// When the folder cannot be read or written to.
    pub fn prune(&self, limit: u64) -> Result<Pruned, StoreError> {
        self.clean()?;
        self.evict(limit, None)
    }

    /// Throws away everything that is not in use.
    ///
    /// # Errors
    /// When the folder cannot be read or written to.
    pub fn clear(&self) -> Result<Pruned, StoreError> {
        self.prune(0)
    }

    /// Removes what processes have left that died: locks, entries half-written, pieces of finished results.
    /// Those of living ones are recognised by their lock.
    pub(crate) fn clean(&self) -> Result<(), StoreError> {
        let mut keys: BTreeMap<KeyHash, Vec<Role>> = BTreeMap::new();
        for file in self.files()? {
            keys.entry(file.hash).or_default().push(file.role);
        }
        for (hash, roles) in keys {
            let finished = roles.contains(&Role::Entry);
            let leftover = |role: &Role| match role {
                Role::Entry => false,
                Role::Parts => finished,
                Role::Partial | Role::Lock => true,
            };
            if !roles.iter().any(leftover) {
                continue;
            }
            // Dropping the lock removes its file. Where none is to be had, the folder cannot be written to, or somebody is at work.
            let Ok(Some(_lock)) = self.try_lock(&hash) else { continue };
            let _ = fs::remove_file(self.path(&hash, Role::Partial));
            if self.path(&hash, Role::Entry).exists() {
                let _ = fs::remove_file(self.path(&hash, Role::Parts));
            }
        }
        Ok(())
    }

    /// Throws away results until all have at most `limit` bytes; never the one of `keep`, whose lock the caller holds.
    pub(crate) fn evict(&self, limit: u64, keep: Option<&KeyHash>) -> Result<Pruned, StoreError> {
        // One process at a time: two that count the same bytes would throw away twice as many.
        let path = self.folder().join("evict.lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let turn = options.map_err(StoreError::io(&path, "open a lock"))?;
        turn.lock().map_err(StoreError::io(&path, "lock the store"))?;

        let mut files = self.results()?;
        files.sort_by_key(|file| (file.last_use, file.hash, file.role));
        let mut pruned = Pruned { left: files.iter().map(|file| file.size).sum(), ..Pruned::default() };
        for file in files {
            if pruned.left <= limit {
                break;
            }
            if Some(&file.hash) == keep {
                continue;
            }
            if self.remove_unused(&file) {
                pruned.removed += 1;
                pruned.freed += file.size;
                pruned.left -= file.size;
            } else {
                pruned.kept += 1;
            }
        }
        Ok(pruned)
    }

    /// Removes a result unless somebody computes or reads it; whether it is gone.
    fn remove_unused(&self, file: &Listed) -> bool {
        let Ok(Some(_lock)) = self.try_lock(&file.hash) else { return false };
        let path = self.path(&file.hash, file.role);
        let open = match File::open(&path) {
            Ok(open) => open,
            Err(e) => return e.kind() == io::ErrorKind::NotFound,
        };
        if let Err(TryLockError::WouldBlock) = open.try_lock() {
            return false;
        }
        match fs::remove_file(&path) {
            Ok(()) => true,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    fn item(&self, file: Listed) -> Item {
        let path = self.path(&file.hash, file.role);
        let header = File::open(&path).map_err(Damage::from).and_then(|open| match file.role {
            Role::Parts => pieces::read_header(open, file.size),
            _ => entry::read_header(open, file.size),
        });
        let kind = if file.role == Role::Parts { Kind::Unfinished } else { Kind::Finished };
        let description = header.and_then(|header| header.expect(&file.hash)).map(|header| header.description);
        Item { hash: file.hash, kind, size: file.size, last_use: file.last_use, description }
    }

    fn files(&self) -> Result<Vec<Listed>, StoreError> {
        files::list(self.folder()).map_err(StoreError::io(self.folder(), "read the folder of results"))
    }

    /// Entries and part files.
    fn results(&self) -> Result<Vec<Listed>, StoreError> {
        let mut files = self.files()?;
        files.retain(|file| matches!(file.role, Role::Entry | Role::Parts));
        Ok(files)
    }
}
