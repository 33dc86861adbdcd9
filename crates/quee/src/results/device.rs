//! What a device apart from the processor was asked to do, as results show it.

use quee_gpu::Counts;
use quee_quant::Width;
use serde::Serialize;

use crate::report::model::DeviceRow;
use crate::stages::costs::PartWork;

/// What was counted.
#[derive(Clone)]
pub struct DeviceWork {
    /// Pictures of the batch that parts were counted with.
    pub batch: usize,
    /// By part of the network, for one batch that is recorded and submitted part by part; empty when times were not measured.
    pub parts: Vec<PartWork>,
    /// By all runs of the backbone along paths.
    pub runs: Counts,
}

/// Its place in `summary.json`.
#[derive(Serialize)]
pub struct DeviceWorkFile {
    batch: usize,
    parts: Vec<PartFile>,
    all_runs: CountsFile,
}

#[derive(Serialize)]
struct PartFile {
    part: String,
    width: Width,
    #[serde(flatten)]
    counts: CountsFile,
}

#[derive(Serialize)]
struct CountsFile {
    dispatches: u64,
    submits: u64,
    readbacks: u64,
    bytes_up: u64,
    bytes_down: u64,
}

impl From<Counts> for CountsFile {
    fn from(counts: Counts) -> Self {
        let Counts { dispatches, submits, readbacks, bytes_up, bytes_down } = counts;
        Self { dispatches, submits, readbacks, bytes_up, bytes_down }
    }
}

impl DeviceWork {
    /// For `summary.json`.
    pub fn file(&self) -> DeviceWorkFile {
        let part =
            |work: &PartWork| PartFile { part: work.part.clone(), width: work.width, counts: work.counts.into() };
        DeviceWorkFile { batch: self.batch, parts: self.parts.iter().map(part).collect(), all_runs: self.runs.into() }
    }

    /// For the report: parts in the order of the network, widths that ask for the same in one row, and all runs.
    pub fn rows(&self) -> Vec<DeviceRow> {
        let mut names: Vec<&str> = Vec::new();
        for work in &self.parts {
            if !names.contains(&work.part.as_str()) {
                names.push(&work.part);
            }
        }
        let mut rows = Vec::new();
        for name in names {
            let mut merged: Vec<(Counts, Vec<String>)> = Vec::new();
            for work in self.parts.iter().filter(|work| work.part == name) {
                let width = work.width.to_string();
                match merged.iter_mut().find(|(counts, _)| *counts == work.counts) {
                    Some((_, widths)) => widths.push(width),
                    None => merged.push((work.counts, vec![width])),
                }
            }
            rows.extend(merged.iter().map(|(counts, widths)| row(name, &widths.join(", "), *counts)));
        }
        rows.push(row("all runs along paths", "", self.runs));
        rows
    }
}

fn row(part: &str, widths: &str, counts: Counts) -> DeviceRow {
    let Counts { dispatches, submits, readbacks, bytes_up, bytes_down } = counts;
    DeviceRow { part: part.to_owned(), widths: widths.to_owned(), dispatches, submits, readbacks, bytes_up, bytes_down }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_that_ask_for_the_same_share_a_row() {
        let work = |part: &str, bits, dispatches| PartWork {
            part: part.into(),
            width: Width::new(bits, bits).unwrap(),
            counts: Counts { dispatches, ..Counts::default() },
        };
        let parts =
            vec![work("stem", 8, 3), work("segment 1", 2, 9), work("segment 1", 4, 9), work("segment 1", 8, 12)];
        let rows = DeviceWork { batch: 1, parts, runs: Counts { dispatches: 100, ..Counts::default() } }.rows();
        let told: Vec<_> = rows.iter().map(|row| (row.part.as_str(), row.widths.as_str(), row.dispatches)).collect();
        let expected = [
            ("stem", "w8a8", 3),
            ("segment 1", "w2a2, w4a4", 9),
            ("segment 1", "w8a8", 12),
            ("all runs along paths", "", 100),
        ];
        assert_eq!(told, expected);
    }
}
