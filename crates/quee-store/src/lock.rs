//! One holder per key, among all processes of a machine.
//!
//! A lock is an empty file that the holder has locked by the operating system, which unlocks it when the holder dies: a file that was left
//! behind blocks nobody. The holder removes the file when done. That lets no two hold the lock: a lock counts only while its file is found
//! under its name, which is checked after locking, and only the one who holds it may remove it. Who has waited for a file that was removed
//! meanwhile finds out by the same check, and starts again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A lock that is held; released when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct KeyLock {
    file: File,
    path: PathBuf,
}

impl KeyLock {
    /// Takes the lock at `path`; `None` where another thread or process holds it.
    pub(crate) fn try_take(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            if is_named(&file, &path)? {
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Only where the check of names works may the file go. What cannot be removed disturbs nobody.
        if cfg!(unix) && is_named(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` is the name of this very file. An open file keeps its number, so that no other can have it.
#[cfg(unix)]
pub(crate) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The standard library tells no number of a file here; locks are never removed, so that names stay theirs.
#[cfg(not(unix))]
pub(crate) fn is_named(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let held = KeyLock::try_take(path.clone()).unwrap().unwrap();
        assert!(KeyLock::try_take(path.clone()).unwrap().is_none());
        drop(held);
        assert_eq!(cfg!(not(unix)), path.exists());
        assert!(KeyLock::try_take(path).unwrap().is_some());
    }

    #[test]
    fn a_file_left_behind_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        fs::write(&path, b"").unwrap();
        assert!(KeyLock::try_take(path).unwrap().is_some());
    }

    /// The case that removal could break: locked before it was removed, looked at after.
    #[cfg(unix)]
    #[test]
    fn the_lock_of_a_removed_file_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let waiting = File::create(&path).unwrap();
        waiting.lock().unwrap();
        fs::remove_file(&path).unwrap();
        let held = KeyLock::try_take(path.clone()).unwrap().unwrap();
        assert!(!is_named(&waiting, &path).unwrap());
        // And a holder whose file was replaced does not take away the other's.
        fs::remove_file(&path).unwrap();
        let other = KeyLock::try_take(path.clone()).unwrap().unwrap();
        drop(held);
        assert!(is_named(&other.file, &path).unwrap());
    }

    /// A counter without any other protection: every increment is there in the end.
    #[test]
    fn threads_exclude_each_other_while_files_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (path, counter) = (folder.path().join("x.lock"), folder.path().join("counter"));
        fs::write(&counter, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _held = loop {
                            match KeyLock::try_take(path.clone()).unwrap() {
                                Some(held) => break held,
                                None => std::thread::yield_now(),
                            }
                        };
                        let count: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                        fs::write(&counter, (count + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&counter).unwrap(), "800");
    }
}
