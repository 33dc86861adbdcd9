//! A download at work: a bar with rate and rest time on a terminal, nothing elsewhere; and Ctrl-C.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use quee_data::fetch::{FetchError, Progress};

use crate::cancel::{Cancel, Cancelled};

const KNOWN: &str = "{prefix:24} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const UNKNOWN: &str = "{prefix:24} {spinner} {bytes} {bytes_per_sec}";

/// Shows what [`quee_data::fetch`] reports, and passes on a wish to stop.
pub struct Transfer<'a> {
    cancel: &'a Cancel,
    bar: Option<ProgressBar>,
    what: String,
}

impl<'a> Transfer<'a> {
    /// Nothing is shown before the first report.
    pub fn new(cancel: &'a Cancel) -> Self {
        Self { cancel, bar: None, what: String::new() }
    }

    /// To be called with every report.
    pub fn report(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        if std::io::stderr().is_terminal() {
            if self.what != progress.what {
                self.clear();
                progress.what.clone_into(&mut self.what);
            }
            let bar = self.bar.get_or_insert_with(|| {
                // What an earlier call has left does not count for the rate.
                let bar = ProgressBar::no_length().with_position(progress.have);
                bar.set_prefix(self.what.clone());
                bar.reset_eta();
                bar
            });
            if bar.length() != progress.total || progress.have == 0 {
                let template = if progress.total.is_some() { KNOWN } else { UNKNOWN };
                bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
                progress.total.into_iter().for_each(|total| bar.set_length(total));
            }
            bar.set_position(progress.have);
        }
        if self.cancel.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A stop on request is told apart, so that the exit code says so.
pub fn outcome<T>(result: Result<T, FetchError>) -> Result<T> {
    result.map_err(|error| match error {
        FetchError::Stopped { .. } => {
            let message = error.to_string();
            anyhow::Error::new(Cancelled).context(message)
        }
        error => error.into(),
    })
}
