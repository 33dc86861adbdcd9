//! The names of the store's files, and what lies in its folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::key::KeyHash;

/// What a result's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A finished result.
    Finished,
    /// Pieces of one that is not.
    Unfinished,
}

/// A file of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A finished result.
    Entry,
    /// Pieces.
    Parts,
    /// An entry, or a piece in the place of others, that is being written.
    Partial,
    /// The key's lock.
    Lock,
}

impl Role {
    fn extension(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Parts => "parts",
            Self::Partial => "partial",
            Self::Lock => "lock",
        }
    }
}

/// Where a file of a key lies.
pub(crate) fn path(folder: &Path, hash: &KeyHash, role: Role) -> PathBuf {
    folder.join(format!("{hash}.{}", role.extension()))
}

/// Removes a file, where there is one.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A new name survives a power cut only with its folder. Not every file system does this and Windows opens no folders; without it the file
/// may be missing after the cut, but never wrong.
pub(crate) fn sync_names(folder: &Path) {
    #[cfg(unix)]
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    #[cfg(not(unix))]
    let _ = folder;
}

/// A file that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) hash: KeyHash,
    pub(crate) role: Role,
    pub(crate) size: u64,
    /// Last use; where the file system does not tell, long ago.
    pub(crate) last_use: SystemTime,
}

/// The store's files in `folder`, ordered by key and role; those that vanish meanwhile are left out, and so is what is not ours.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((stem, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let roles = [Role::Entry, Role::Parts, Role::Partial, Role::Lock];
        let Some(role) = roles.into_iter().find(|role| role.extension() == extension) else { continue };
        let (Some(hash), Ok(metadata)) = (KeyHash::parse(stem), entry.metadata()) else { continue };
        if metadata.is_file() {
            let last_use = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Listed { hash, role, size: metadata.len(), last_use });
        }
    }
    found.sort_unstable_by_key(|file| (file.hash, file.role));
    Ok(found)
}
