//! What a stage tells the user while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of one stage, on the standard error stream.
pub struct Stage {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    said: Mutex<Vec<String>>,
}

impl Stage {
    /// Announces a stage of `steps` steps; 0 when the number is not known.
    pub fn start(name: &str, steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            let template = if steps > 0 {
                "{prefix:24} {bar:32} {pos}/{len} {elapsed}"
            } else {
                "{prefix:24} {spinner} {elapsed}"
            };
            bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        Self { name: name.to_owned(), bar, started: Instant::now(), said: Mutex::default() }
    }

    /// `steps` more are done.
    pub fn advance(&self, steps: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(steps as u64);
        }
    }

    /// Says something that the user should know while the stage goes on.
    pub fn say(&self, text: &str) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// What was said so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stage is over; `outcome` says in a few words what came out. Returns the seconds it took.
    pub fn finish(self, outcome: &str) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:24} {seconds:7.2} s  {outcome}", self.name);
        seconds
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
