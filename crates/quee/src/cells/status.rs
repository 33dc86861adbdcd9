//! How far the cells of a sweep are: what their folders say, and what a queue of jobs says.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::folder::SweepFolder;
use super::state::{Lock, Ran, State, is_done};
use crate::cache_command::Size;

/// What a queue of jobs says of a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Heard {
    /// It was never given to one.
    #[default]
    Nothing,
    /// It was, and the queue cannot be asked now.
    Unknown,
    /// It waits there, in these words.
    Pending(String),
    /// It runs.
    Running,
    /// It is no longer there, or ended in this state.
    Gone(Option<String>),
}

/// How far a cell is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Status {
    /// Not started.
    Waiting {
        /// What for, where a queue says it.
        queued: Option<String>,
    },
    /// On its way.
    Running {
        /// Machine and process, where known.
        place: Option<String>,
        /// When it was started (UTC).
        started: Option<String>,
    },
    /// Its results are there.
    Done {
        /// Where and how long; unknown where who started it was killed before it ended.
        ran: Option<Ran>,
    },
    /// Over without results.
    Failed {
        /// What it ended with.
        ended: String,
        /// The last lines that it wrote.
        lines: Vec<String>,
        /// Where and how long, where known.
        ran: Option<Ran>,
    },
}

impl Status {
    /// That of the cell in `folder`.
    pub fn of(folder: &Path, heard: &Heard) -> Self {
        // Who runs a cell writes its last state before it gives up the lock: a state read after that is the last one, or that of a new attempt.
        let (before, taken) = (State::read(folder), Lock::is_taken(folder));
        let state = State::read(folder);
        let taken = taken || state != before;
        if is_done(folder) {
            return Self::Done { ran: if let State::Done(ran) = state { Some(ran) } else { None } };
        }
        let (place, started) = match &state {
            State::Running { host, pid, started } => (Some(format!("{host}, process {pid}")), Some(started.clone())),
            _ => (None, None),
        };
        let lost = |ended: String| Self::Failed { ended, lines: Vec::new(), ran: None };
        match (heard, state) {
            (Heard::Pending(why), _) => Self::Waiting { queued: Some(why.clone()) },
            (_, State::Failed { ran, ended, lines }) if !taken => Self::Failed { ended, lines, ran: Some(ran) },
            _ if taken => Self::Running { place, started },
            (Heard::Running, _) | (Heard::Unknown, State::Running { .. }) => Self::Running { place, started },
            (Heard::Gone(Some(told)), _) => lost(format!("Slurm says {told}")),
            (Heard::Gone(None), _) => lost("its job is gone".to_owned()),
            (_, State::Running { host, .. }) => lost(format!("killed on {host}")),
            (_, State::Done(_)) => lost("its results are gone".to_owned()),
            _ => Self::Waiting { queued: None },
        }
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
        }
    }

    /// Where and how long it ran.
    pub fn ran(&self) -> Option<&Ran> {
        match self {
            Self::Done { ran } | Self::Failed { ran, .. } => ran.as_ref(),
            _ => None,
        }
    }

    fn remark(&self) -> String {
        match self {
            Self::Waiting { queued } => queued.clone().unwrap_or_default(),
            Self::Running { place, started } => {
                let since = started.as_ref().map(|started| format!("since {started}"));
                place.iter().cloned().chain(since).collect::<Vec<_>>().join(", ")
            }
            Self::Done { ran } => ran.as_ref().map_or(String::new(), |ran| ran.host.clone()),
            Self::Failed { ended, lines, .. } => {
                let last = lines.last().map_or(String::new(), |line| format!(": {line}"));
                format!("{ended}{last}")
            }
        }
    }
}

/// The table of `quee sweep status`.
pub fn table(sweep: &SweepFolder, all: &[Status]) -> String {
    let wide = sweep.cells.iter().map(|cell| cell.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (cell, status) in sweep.cells.iter().zip(all) {
        let seconds = status.ran().map_or(String::new(), |ran| format!("{:.1} s", ran.seconds));
        let memory = status.ran().and_then(|ran| ran.memory).map_or(String::new(), |bytes| Size(bytes).to_string());
        let line = format!("{:wide$}  {:7}  {seconds:>10}  {memory:>9}  {}", cell.name, status.word(), status.remark());
        text += line.trim_end();
        text.push('\n');
    }
    text + &format!("{}\n", counts(all))
}

/// `6 cells: 4 done, 1 running, 1 failed`.
pub fn counts(all: &[Status]) -> String {
    let mut text = format!("{} cell{}: ", all.len(), if all.len() == 1 { "" } else { "s" });
    let mut first = true;
    for word in ["done", "running", "waiting", "failed"] {
        let count = all.iter().filter(|status| status.word() == word).count();
        if count > 0 {
            // Writing into a String cannot fail.
            let _ = write!(text, "{}{count} {word}", if first { "" } else { ", " });
            first = false;
        }
    }
    text
}

/// The cells that have failed, with their last lines, and those that are missing; `None` when all are done.
pub fn trouble(sweep: &SweepFolder, all: &[Status]) -> Option<String> {
    if all.iter().all(|status| matches!(status, Status::Done { .. })) {
        return None;
    }
    let mut text = counts(all);
    for (index, (cell, status)) in sweep.cells.iter().zip(all).enumerate() {
        let Status::Failed { ended, lines, .. } = status else { continue };
        let _ = write!(text, "\n\n{}: {ended}, {}", cell.name, sweep.cell(index).join(super::worker::LOG).display());
        lines.iter().for_each(|line| text += &format!("\n  {line}"));
    }
    Some(format!("{text}\n\nhint: remove the cause, then go on with: quee sweep resume {}", sweep.root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::state::{RESULTS, now};

    #[test]
    fn the_folder_and_the_queue_together_say_how_far_a_cell_is() {
        let folder = tempfile::tempdir().unwrap();
        let of = |heard: Heard| Status::of(folder.path(), &heard).word();
        let gone = || Heard::Gone(Some("TIMEOUT".into()));
        let pending = || Heard::Pending("Resources".into());
        assert_eq!(
            [of(Heard::Nothing), of(Heard::Unknown), of(pending()), of(Heard::Running)],
            ["waiting", "waiting", "waiting", "running"]
        );
        assert_eq!(of(gone()), "failed");
        State::Running { host: "a".into(), pid: 1, started: now() }.write(folder.path()).unwrap();
        // Nobody has the lock. A queue that cannot be asked may know more; locks need not reach from machine to machine.
        assert_eq!(
            [of(Heard::Nothing), of(Heard::Unknown), of(Heard::Running), of(Heard::Gone(None))],
            ["failed", "running", "running", "failed"]
        );
        let lock = Lock::take(folder.path()).unwrap();
        assert_eq!([of(Heard::Nothing), of(gone())], ["running", "running"]);
        drop(lock);
        let ran = Ran { host: "a".into(), started: now(), seconds: 1.0, memory: None };
        let failed = State::Failed { ran: ran.clone(), ended: "exit code 2".into(), lines: vec!["error: x".into()] };
        failed.write(folder.path()).unwrap();
        assert_eq!([of(Heard::Nothing), of(gone()), of(pending())], ["failed", "failed", "waiting"]);
        std::fs::create_dir(folder.path().join(RESULTS)).unwrap();
        assert_eq!(of(Heard::Nothing), "failed");
        std::fs::write(folder.path().join(RESULTS).join("summary.json"), b"{}").unwrap();
        assert_eq!([of(Heard::Nothing), of(gone())], ["done", "done"]);
    }
}
