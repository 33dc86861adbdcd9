//! Disks that are full, and folders that cannot be written to.

mod common;

use std::io::{self, Write};

use common::{claim, found, key, names, put};
use quee_store::entry::{self, EntryWriter};
use quee_store::{Lookup, Store, StoreError};

/// A disk with room for so many bytes.
struct Disk {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.room - self.bytes.len());
        if most == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend(&bytes[..most]);
        Ok(most)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes an entry on such a disk; `careless` overlooks errors while writing the payload.
fn write(room: usize, careless: bool) -> io::Result<Vec<u8>> {
    let mut writer = EntryWriter::new(Disk { bytes: Vec::new(), room }, &key(1), u64::MAX)?;
    for piece in [b"one ".as_slice(), b"two ", b"three"] {
        let written = writer.write_all(piece);
        if !careless {
            written?;
        }
    }
    Ok(writer.finish()?.bytes)
}

#[test]
fn a_disk_that_is_full_at_any_byte_gives_an_error_and_never_an_entry() {
    let whole = write(10_000, false).unwrap();
    assert!(entry::verify(whole.as_slice(), whole.len() as u64, key(1).hash()).is_ok());
    for room in 0..whole.len() {
        assert!(write(room, false).is_err(), "{room} bytes");
        assert!(write(room, true).is_err(), "{room} bytes, errors overlooked");
    }
    assert_eq!(write(whole.len(), true).unwrap(), whole);
}

#[cfg(target_os = "linux")]
mod child {
    //! What needs a process with other rights or limits: the test starts itself again.

    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const FOLDER: &str = "QUEE_STORE_TEST_FOLDER";

    /// The folder where this process is the child of a test.
    fn folder() -> Option<std::path::PathBuf> {
        std::env::var_os(FOLDER).map(Into::into)
    }

    /// Runs the test `name` of `program`, a copy of this one, as a child.
    fn run(mut command: Command, name: &str, folder: &Path) {
        let output = command.args(["--exact", name, "--nocapture"]).env(FOLDER, folder).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    /// Files may have 8 blocks at most in the child, and going beyond is an error, not a signal.
    #[test]
    fn a_full_disk_leaves_what_was_there() {
        if let Some(folder) = folder() {
            let store = Store::open(&folder, 1 << 40).unwrap();
            let before = names(&folder);
            let held = claim(&store, &key(1));
            for _ in 0..2 {
                let refused = held.put(|file| file.write_all(&vec![1; 1 << 20]));
                assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
            }
            // A piece that does not fit leaves nothing, and a small one fits after it.
            let mut parts = held.parts().unwrap();
            parts.append(0, b"small").unwrap();
            assert!(matches!(parts.append(1, &vec![1; 1 << 20]), Err(StoreError::Io { .. })));
            parts.append(2, b"small too").unwrap();
            drop(parts);
            let mut parts = held.parts().unwrap();
            assert!(parts.cut().is_none());
            assert_eq!(parts.numbers().collect::<Vec<_>>(), [0, 2]);
            assert_eq!(parts.read(2).unwrap().unwrap(), b"small too");
            drop(parts);
            held.put(|file| file.write_all(b"small")).unwrap();
            drop(held);
            assert_eq!(names(&folder).len(), before.len() + 1);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 40).unwrap();
        put(&store, &key(2), &vec![2; 1 << 20]);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        run(command, "child::a_full_disk_leaves_what_was_there", folder.path());
        assert_eq!(found(&store, &key(1)).unwrap(), b"small");
        assert_eq!(found(&store, &key(2)).unwrap(), vec![2; 1 << 20]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_read() {
        if let Some(folder) = folder() {
            let before = names(&folder);
            let store = Store::open(&folder, 1 << 40).unwrap();
            assert_eq!(found(&store, &key(1)).unwrap(), b"there");
            assert!(matches!(store.get(&key(3)), Lookup::Missing));
            let Lookup::Damaged(damaged) = store.get(&key(2)) else { panic!("it is damaged") };
            assert!(!damaged.removed);
            assert_eq!(store.list().unwrap().len(), 2);
            let refused = store.claim(&key(3), |_| panic!("nobody has it"));
            assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
            assert!(store.prune(0).is_err());
            assert!(Store::open(folder.join("below"), 1 << 40).is_err());
            assert_eq!(names(&folder), before);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        let store = Store::open(&results, 1 << 40).unwrap();
        put(&store, &key(1), b"there");
        fs::write(results.join(format!("{}.entry", key(2).hash())), b"damaged").unwrap();
        fs::write(results.join(format!("{}.partial", key(4).hash())), b"left behind").unwrap();
        fs::remove_file(results.join("evict.lock")).unwrap();
        // Rights do not bind root, so that the child becomes another user, who must reach the program too.
        let program = folder.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        for open in [folder.path(), &program] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&results, fs::Permissions::from_mode(0o555)).unwrap();
        let mut command = Command::new(&program);
        if fs::metadata(&results).unwrap().uid() == 0 {
            command.uid(65534).gid(65534);
        }
        run(command, "child::a_folder_that_cannot_be_written_to_is_read", &results);
        fs::set_permissions(&results, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
