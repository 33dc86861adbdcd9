//! What the user sees while cells run: on a terminal a line for each that runs and their number, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::folder::SweepFolder;
use super::state::State;

const TICK: Duration = Duration::from_millis(120);

/// Lines on the error stream.
pub struct Board<'a> {
    sweep: &'a SweepFolder,
    live: Option<Live>,
    counted: Mutex<Counted>,
}

struct Live {
    lines: MultiProgress,
    total: ProgressBar,
    running: Mutex<BTreeMap<usize, ProgressBar>>,
}

#[derive(Default)]
struct Counted {
    done: usize,
    failed: usize,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

impl<'a> Board<'a> {
    /// That of a sweep of which `done` cells are done.
    pub fn new(sweep: &'a SweepFolder, done: usize) -> Self {
        let live = std::io::stderr().is_terminal().then(|| {
            let lines = MultiProgress::new();
            let total = lines.add(ProgressBar::new(sweep.cells.len() as u64));
            total.set_style(style("{bar:24} {pos} of {len} cells  {elapsed}  {msg}"));
            total.set_position(done as u64);
            total.enable_steady_tick(TICK);
            Live { lines, total, running: Mutex::default() }
        });
        if done > 0 {
            eprintln!("{done} of {} cells are done already", sweep.cells.len());
        }
        Self { sweep, live, counted: Mutex::new(Counted { done, failed: 0 }) }
    }

    fn name(&self, index: usize) -> &str {
        &self.sweep.cells[index].name
    }

    /// A cell was started.
    pub fn started(&self, index: usize) {
        let Some(live) = &self.live else {
            eprintln!("{}: started", self.name(index));
            return;
        };
        let line = live.lines.insert_before(&live.total, ProgressBar::new_spinner());
        line.set_style(style("{spinner} {prefix}  {elapsed}  {wide_msg}"));
        line.set_prefix(self.name(index).to_owned());
        line.enable_steady_tick(TICK);
        live.running.lock().unwrap_or_else(PoisonError::into_inner).insert(index, line);
    }

    /// A cell has written a line.
    pub fn says(&self, index: usize, text: &str) {
        let Some(live) = &self.live else { return };
        if let Some(line) = live.running.lock().unwrap_or_else(PoisonError::into_inner).get(&index) {
            line.set_message(text.to_owned());
        }
    }

    /// A cell has ended, here or in another process.
    pub fn ended(&self, index: usize, state: &State) {
        let (count, failed) = {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            match state {
                State::Failed { .. } => counted.failed += 1,
                State::Waiting => {}
                _ => counted.done += 1,
            }
            (counted.done, counted.failed)
        };
        let outcome = match state {
            State::Done(ran) => format!("done in {:.1} s", ran.seconds),
            State::Running { .. } => "done".to_owned(),
            State::Waiting => "stopped".to_owned(),
            State::Failed { ended, lines, .. } => {
                format!("failed, {ended}{}", lines.last().map_or(String::new(), |line| format!(": {line}")))
            }
        };
        let text = format!("{}: {outcome} ({count} of {})", self.name(index), self.sweep.cells.len());
        let Some(live) = &self.live else {
            eprintln!("{text}");
            return;
        };
        if let Some(line) = live.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&index) {
            line.finish_and_clear();
            live.lines.remove(&line);
        }
        // Trouble is said at once; the rest is in the count.
        if matches!(state, State::Failed { .. }) {
            let _ = live.lines.println(text);
            live.total.set_message(format!("{failed} failed"));
        }
        live.total.set_position(count as u64);
    }
}

impl Drop for Board<'_> {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.total.finish_and_clear();
        }
    }
}
