//! Cells on this machine, some at a time.
//!
//! Any number of processes, on any machines that share the folder and its locks, may work on one sweep: each takes cells that nobody has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::board::Board;
use super::folder::SweepFolder;
use super::state::{Lock, State, is_done};
use super::worker::{self, How};
use crate::cache_command::Size;
use crate::cancel::Cancel;
use crate::output::remove_dead;

/// How long to wait for something to end before looking whether something can start.
const LOOK: Duration = Duration::from_millis(200);

/// How many cells may run at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number.
    pub jobs: usize,
    /// Bytes of memory that they may take together. A cell is expected to take what the largest has taken so far; until one has ended, one runs.
    pub memory: Option<Size>,
}

/// Runs every cell that is not done, each at most once.
///
/// # Errors
/// When the folder cannot be written to, or a run cannot be started. Runs that fail are no error, nor is a wish to stop.
pub fn run(sweep: &SweepFolder, limits: Limits, cancel: &Cancel) -> Result<()> {
    ensure!(
        limits.memory.is_none() || worker::memory_is_told(),
        "--memory: this system does not tell how much a process takes; hint: limit --jobs instead"
    );
    let before: Vec<State> = (0..sweep.cells.len()).map(|index| State::read(&sweep.cell(index))).collect();
    let (done, mut queue): (Vec<usize>, _) = (0..sweep.cells.len()).partition(|&index| is_done(&sweep.cell(index)));
    // Nobody takes a cell that is done, so what its process was writing when it was killed would stay.
    done.iter().for_each(|&index| remove_dead(&sweep.cell(index)));
    let mut expected = Expected::new(&before);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (limits.jobs > 1).then(|| (processors / limits.jobs).max(1));
    let board = Board::new(sweep, done.len());
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut running: BTreeMap<usize, Arc<AtomicU64>> = BTreeMap::new();
        let mut trouble = None;
        loop {
            let may_start = trouble.is_none() && cancel.check().is_ok();
            let mut waits_for_others = false;
            if may_start {
                let mut left = Vec::new();
                for index in std::mem::take(&mut queue) {
                    if !(running.len() < limits.jobs && expected.leaves_room(&running, limits.memory)) {
                        left.push(index);
                        continue;
                    }
                    let folder = sweep.cell(index);
                    let lock = match Lock::take(&folder) {
                        Ok(Some(lock)) => lock,
                        Ok(None) => {
                            waits_for_others = true;
                            left.push(index);
                            continue;
                        }
                        Err(error) => {
                            trouble = Some(error);
                            break;
                        }
                    };
                    // Another process may have had it meanwhile.
                    let state = State::read(&folder);
                    let failed = matches!(state, State::Failed { .. }) && state != before[index];
                    if is_done(&folder) || failed {
                        board.ended(index, &state);
                        continue;
                    }
                    let memory = Arc::new(AtomicU64::new(0));
                    running.insert(index, Arc::clone(&memory));
                    let (sender, board) = (sender.clone(), &board);
                    board.started(index);
                    scope.spawn(move || {
                        let how = How { threads, apart: true, cancel };
                        let ended = worker::run(sweep, index, &lock, &how, &memory, &|line| board.says(index, line));
                        drop(lock);
                        // The receiver lives as long as any run.
                        let _ = sender.send((index, ended));
                    });
                }
                queue = left;
            }
            if running.is_empty() && !(may_start && waits_for_others) {
                break;
            }
            let Ok((index, ended)) = receiver.recv_timeout(LOOK) else { continue };
            if let Some(memory) = running.remove(&index) {
                expected.learn(memory.load(Ordering::Relaxed));
            }
            match ended {
                Ok(state) => board.ended(index, &state),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        trouble.map_or(Ok(()), Err)
    })
}

/// What a cell is expected to take: the most that any has taken.
struct Expected {
    /// Of those that ended; `None` before the first.
    most: Option<u64>,
}

impl Expected {
    fn new(states: &[State]) -> Self {
        let memory = |state: &State| match state {
            State::Done(ran) => ran.memory,
            _ => None,
        };
        Self { most: states.iter().filter_map(memory).max() }
    }

    fn learn(&mut self, bytes: u64) {
        self.most = self.most.max(Some(bytes));
    }

    /// Whether one more fits beside those that run. One alone always does.
    fn leaves_room(&self, running: &BTreeMap<usize, Arc<AtomicU64>>, limit: Option<Size>) -> bool {
        let (Some(Size(limit)), false) = (limit, running.is_empty()) else { return true };
        let Some(most) = self.most else { return false };
        let each = running.values().map(|memory| memory.load(Ordering::Relaxed)).fold(most, u64::max);
        each.saturating_mul(running.len() as u64 + 1) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_run_as_are_expected_to_fit() {
        let running = |bytes: &[u64]| -> BTreeMap<usize, Arc<AtomicU64>> {
            bytes.iter().map(|&bytes| Arc::new(AtomicU64::new(bytes))).enumerate().collect()
        };
        let mut expected = Expected::new(&[State::Waiting]);
        let limit = Some(Size(100));
        assert!(expected.leaves_room(&running(&[]), limit));
        assert!(!expected.leaves_room(&running(&[1]), limit), "nothing is known yet");
        assert!(expected.leaves_room(&running(&[1]), None));
        expected.learn(30);
        expected.learn(20);
        assert!(expected.leaves_room(&running(&[1, 1]), limit) && !expected.leaves_room(&running(&[1, 1, 1]), limit));
        assert!(!expected.leaves_room(&running(&[1, 60]), limit), "one that runs takes more");
        assert!(expected.leaves_room(&running(&[]), Some(Size(1))), "one alone always runs");
    }
}
