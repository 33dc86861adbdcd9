//! Progress of a training on the standard error stream, and when its state is kept.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quee_store::StoreError;
use quee_train::TrainState;
use quee_train::training::{AnyError, EpochReport, Next, Observer, Progress};

use crate::cancel::Cancel;

/// Longest time that a kill can cost; besides, the state is kept after every epoch.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// Keeps a state; whether there is anywhere to keep it.
pub type Keep<'a> = &'a dyn Fn(&TrainState) -> Result<bool, StoreError>;

/// Prints a line per epoch, shows a bar on a terminal, and keeps the state.
pub struct Watch<'a> {
    keep: Keep<'a>,
    /// Whether the last state was kept.
    kept: bool,
    /// Whether trouble with keeping was told already.
    told: bool,
    cancel: &'a Cancel,
    bar: Option<ProgressBar>,
    epochs: usize,
    /// Pictures of an epoch.
    pictures: usize,
    /// Pictures that were done before this run.
    before: usize,
    /// Pictures done in this run.
    done: usize,
    /// Pictures done in this run when the epoch began.
    done_at_epoch: usize,
    started: Instant,
    epoch_started: Instant,
    saved: Instant,
}

impl<'a> Watch<'a> {
    /// For a training of `epochs` epochs of `pictures` pictures that goes on at `start`; prints the head of the table and
    /// the epochs that are done.
    pub fn new(keep: Keep<'a>, cancel: &'a Cancel, epochs: usize, pictures: usize, start: Option<&TrainState>) -> Self {
        print_curve(start.map_or(&[], |state| &state.history));
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{prefix:12} {bar:32} {pos}/{len} {elapsed}");
            bar.set_style(style.expect("the template is valid"));
            bar
        });
        let now = Instant::now();
        let before = start.map_or(0, |state| state.history.len() * pictures);
        Self {
            keep,
            kept: false,
            told: false,
            cancel,
            bar,
            epochs,
            pictures,
            before,
            done: 0,
            done_at_epoch: 0,
            started: now,
            epoch_started: now,
            saved: now,
        }
    }

    /// Whether a later run can go on where this one stood when it was asked to keep the state last.
    pub fn kept(&self) -> bool {
        self.kept
    }

    /// Prints a line past the bar.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Pictures per second of this run, 0 when none are done.
    fn rate(&self) -> f64 {
        self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress) -> Next {
        if self.done == 0 {
            // Batches of this epoch that an earlier run has done; the last batch alone may be smaller.
            self.before += (progress.step - 1) * progress.pictures;
        }
        self.done += progress.pictures;
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("epoch {}/{}", progress.epoch, self.epochs));
            bar.set_length(progress.steps as u64);
            bar.set_position(progress.step as u64);
        }
        if self.cancel.check().is_err() {
            Next::Stop
        } else if self.saved.elapsed() >= SAVE_EVERY {
            Next::Save
        } else {
            Next::Go
        }
    }

    fn epoch(&mut self, report: &EpochReport) -> Next {
        let seconds = self.epoch_started.elapsed().as_secs_f64();
        let rate = (self.done - self.done_at_epoch) as f64 / seconds.max(1e-9);
        let left = (self.epochs * self.pictures).saturating_sub(self.before + self.done) as f64;
        let rest = Duration::from_secs((left / self.rate().max(1e-9)).min(1e9) as u64);
        let text = format!("{}  {rate:10.1}  {}", line(report), humantime::format_duration(rest));
        self.say(&text);
        (self.epoch_started, self.done_at_epoch) = (Instant::now(), self.done);
        if self.cancel.check().is_err() { Next::Stop } else { Next::Save }
    }

    fn save(&mut self, state: &TrainState) -> Result<(), AnyError> {
        // Trouble with keeping costs no more than a state that is not there after a kill.
        let kept = (self.keep)(state);
        if let (Err(error), false) = (&kept, self.told) {
            self.say(&format!("the state of the training is not kept: {error}; going on"));
            self.told = true;
        }
        (self.kept, self.saved) = (kept.unwrap_or(false), Instant::now());
        Ok(())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints the head of the table and a line for every epoch.
pub fn print_curve(history: &[EpochReport]) {
    eprintln!("epoch    loss  accuracy in training  on validation  pictures/s  rest");
    history.iter().for_each(|report| eprintln!("{}", line(report)));
}

fn line(report: &EpochReport) -> String {
    let EpochReport { epoch, loss, train_accuracy, validation_accuracy } = report;
    let validation = validation_accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.4}"));
    format!("{epoch:5}  {loss:6.4}  {train_accuracy:20.4}  {validation:>13}")
}
