//! What is known of a cell: `state.json`, its lock, and whether its results are there.
//!
//! Results appear as a whole or not at all, so their folder is what says that a cell is done. The lock is held by whoever runs the cell, and by the
//! run itself: the system takes it from processes that die. So a state that says `running` while nobody holds the lock is that of a run that was killed.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::output::{remove_dead, write_whole};

/// The content of `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Not started, or stopped on request.
    #[default]
    Waiting,
    /// On its way.
    Running {
        /// Machine.
        host: String,
        /// Number of the process there.
        pid: u32,
        /// When it was started (UTC).
        started: String,
    },
    /// Finished.
    Done(Ran),
    /// Failed.
    Failed {
        /// Where and how long.
        #[serde(flatten)]
        ran: Ran,
        /// What it ended with: `exit code 2`, `signal 9`.
        ended: String,
        /// The last lines that it wrote.
        lines: Vec<String>,
    },
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// Machine.
    pub host: String,
    /// When it was started (UTC).
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// Most bytes that its process held at a time, where the system tells.
    pub memory: Option<u64>,
}

const STATE: &str = "state.json";
const LOCK: &str = "lock";
/// Where a cell's results are.
pub const RESULTS: &str = "results";

impl State {
    /// That of the cell in `folder`; what cannot be read is as good as none.
    pub fn read(folder: &Path) -> Self {
        let text = std::fs::read(folder.join(STATE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes that of the cell in `folder`.
    ///
    /// # Errors
    /// When the folder is not writable or full.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(STATE);
        let text = serde_json::to_vec_pretty(self).context("the state is not representable in JSON")?;
        write_whole(&file, &text)
            .with_context(|| format!("{}: cannot write; hint: is the disk full, or not writable?", file.display()))
    }
}

/// Whether the results of the cell in `folder` are there.
pub fn is_done(folder: &Path) -> bool {
    folder.join(RESULTS).join("summary.json").is_file()
}

/// The right to run a cell, as long as this and every copy of it lives.
#[derive(Debug)]
pub struct Lock(pub File);

impl Lock {
    /// That of the cell in `folder`; `None` while another process has it. What a killed process has left half-written there goes away.
    ///
    /// # Errors
    /// When its file cannot be made. A file system without locks gives the right to everybody; results stay whole even so.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let open = File::options().read(true).append(true).create(true).open(&path);
        let file = open.with_context(|| format!("{}: cannot write; hint: check the permissions", path.display()))?;
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {
                remove_dead(folder);
                Ok(Some(Self(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    /// Whether some process has that of the cell in `folder`.
    pub fn is_taken(folder: &Path) -> bool {
        let Ok(file) = File::open(folder.join(LOCK)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

/// The name of this machine.
pub fn host() -> String {
    let told = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    told().or_else(named).map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The present time, as states hold it.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::read(folder.path()), State::Waiting);
        let ran = Ran { host: "a".into(), started: now(), seconds: 1.5, memory: Some(7) };
        let lines = vec!["error: no".to_owned()];
        for state in [
            State::Waiting,
            State::Running { host: "a".into(), pid: 3, started: now() },
            State::Done(ran.clone()),
            State::Failed { ran, ended: "exit code 2".into(), lines },
        ] {
            state.write(folder.path()).unwrap();
            assert_eq!(State::read(folder.path()), state);
        }
        std::fs::write(folder.path().join(STATE), b"{").unwrap();
        assert_eq!(State::read(folder.path()), State::Waiting);
    }

    #[test]
    fn a_cell_is_run_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Lock::is_taken(folder.path()));
        let lock = Lock::take(folder.path()).unwrap().unwrap();
        assert!(Lock::take(folder.path()).unwrap().is_none() && Lock::is_taken(folder.path()));
        // A run has a copy, and may outlive who started it.
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(Lock::is_taken(folder.path()));
        drop(copy);
        assert!(!Lock::is_taken(folder.path()) && Lock::take(folder.path()).unwrap().is_some());
    }
}
