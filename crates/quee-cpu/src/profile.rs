//! Where an executor's time goes, by operation.

use std::time::{Duration, Instant};

use quee_backbone::params::place;
use quee_quant::Width;

/// Time of one kind of operation.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// What was done, e.g. `product`.
    pub operation: &'static str,
    /// At which kind of place: its site without the number of the block, e.g. `attn.qkv`. Empty where there is no site.
    pub place: String,
    /// At which width.
    pub width: Width,
    /// How often.
    pub calls: u64,
    /// Time of all calls.
    pub time: Duration,
}

/// Times by operation, place and width; off until it is switched on, and then one clock reading before and after each.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    on: bool,
    rows: Vec<ProfileRow>,
}

impl Profile {
    /// Starts anew, or stops.
    pub fn switch(&mut self, on: bool) {
        self.on = on;
        self.rows.clear();
    }

    /// What was measured since it was switched on.
    pub fn rows(&self) -> &[ProfileRow] {
        &self.rows
    }

    /// The time now, when it is on.
    #[inline]
    pub fn start(&self) -> Option<Instant> {
        self.on.then(Instant::now)
    }

    /// Adds what has passed since `start`, and gives the time now: the start of what comes next.
    #[inline]
    pub fn stop(
        &mut self,
        start: Option<Instant>,
        operation: &'static str,
        site: &str,
        width: Width,
    ) -> Option<Instant> {
        let start = start?;
        let now = Instant::now();
        self.add(operation, place(site), width, now - start);
        Some(now)
    }

    fn add(&mut self, operation: &'static str, place: &str, width: Width, time: Duration) {
        let known = |row: &&mut ProfileRow| row.operation == operation && row.place == place && row.width == width;
        match self.rows.iter_mut().find(known) {
            Some(row) => {
                row.calls += 1;
                row.time += time;
            }
            None => self.rows.push(ProfileRow { operation, place: place.to_owned(), width, calls: 1, time }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_a_row_and_nothing_is_kept_when_off() {
        let mut profile = Profile::default();
        assert_eq!(profile.stop(profile.start(), "product", "head", Width::FLOAT), None);
        assert!(profile.rows().is_empty());
        profile.switch(true);
        let mut start = profile.start();
        for site in ["blocks.0.attn.qkv", "blocks.11.attn.qkv", "head"] {
            start = profile.stop(start, "product", site, Width::FLOAT);
        }
        let rows: Vec<_> = profile.rows().iter().map(|row| (row.place.as_str(), row.calls)).collect();
        assert_eq!(rows, [("attn.qkv", 2), ("head", 1)]);
        profile.switch(false);
        assert!(profile.rows().is_empty());
    }
}
