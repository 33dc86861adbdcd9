//! Outcomes of every path for every sample of a split, and of static runs beside the tree.

use thiserror::Error;

use crate::cost::{CostError, Ledger, check_length, check_values};
use crate::cross_fit::{columns, side_by_side};
use crate::tree::{NodeId, PathTree, ROOT};

/// A table whose parts do not fit together.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// A list does not have rows times samples entries.
    #[error("{what}: {got} entries, expected {rows} rows of {samples} samples")]
    Shape {
        /// Which list.
        what: &'static str,
        /// Entries there are.
        got: usize,
        /// Rows there should be.
        rows: usize,
        /// Samples of the split.
        samples: usize,
    },
    /// A confidence, prediction or cell outside its range.
    #[error("{what}: row {row}, sample {sample} is outside {range}")]
    Value {
        /// Which list.
        what: &'static str,
        /// Its row.
        row: usize,
        /// Its sample.
        sample: usize,
        /// What is allowed.
        range: &'static str,
    },
    /// A split without samples.
    #[error("{what}: a split needs at least one sample")]
    Empty {
        /// Which table.
        what: &'static str,
    },
}

pub(crate) fn check_shape(what: &'static str, got: usize, rows: usize, samples: usize) -> Result<(), TableError> {
    if got == rows * samples { Ok(()) } else { Err(TableError::Shape { what, got, rows, samples }) }
}

/// Checks the length of a list, and that its values lie between 0 and 1 but for rounding.
pub(crate) fn check_unit(what: &'static str, values: &[f32], rows: usize, samples: usize) -> Result<(), TableError> {
    check_shape(what, values.len(), rows, samples)?;
    match values.iter().position(|value| !(-1e-4..=1.0001).contains(value)) {
        None => Ok(()),
        Some(at) => Err(TableError::Value { what, row: at / samples, sample: at % samples, range: "0 to 1" }),
    }
}

/// What every path of a tree answers for the samples of one split. Row `n - 1` belongs to node `n`: the root answers
/// nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    samples: usize,
    answers: Vec<u16>,
    confidence: Vec<f32>,
    labels: Vec<u16>,
}

impl Outcomes {
    /// Joins `answers` and `confidence`, both `[path][sample]` in the order of [`PathTree::paths`], with `labels`
    /// `[sample]`. Confidence is the largest class probability.
    ///
    /// # Errors
    /// If a length does not fit, there are no samples, or a confidence is not a probability.
    pub fn new(tree: &PathTree, answers: Vec<u16>, confidence: Vec<f32>, labels: Vec<u16>) -> Result<Self, TableError> {
        let (samples, paths) = (labels.len(), tree.paths().len());
        if samples == 0 {
            return Err(TableError::Empty { what: "outcomes" });
        }
        check_shape("answers", answers.len(), paths, samples)?;
        check_unit("confidence", &confidence, paths, samples)?;
        Ok(Self { samples, answers, confidence, labels })
    }

    /// The table of the samples `chosen` alone.
    ///
    /// # Panics
    /// If nothing is chosen, or a sample is unknown.
    pub fn subset(&self, chosen: &[usize]) -> Self {
        assert!(!chosen.is_empty(), "a table needs samples");
        Self {
            samples: chosen.len(),
            answers: columns(&self.answers, self.samples, chosen),
            confidence: columns(&self.confidence, self.samples, chosen),
            labels: columns(&self.labels, self.samples, chosen),
        }
    }

    /// The table with the samples of `other` behind its own.
    ///
    /// # Panics
    /// If they belong to different trees.
    pub fn with(&self, other: &Self) -> Self {
        assert_eq!(self.answers.len() * other.samples, other.answers.len() * self.samples, "tables of one tree");
        Self {
            samples: self.samples + other.samples,
            answers: side_by_side((&self.answers, self.samples), (&other.answers, other.samples)),
            confidence: side_by_side((&self.confidence, self.samples), (&other.confidence, other.samples)),
            labels: [self.labels.as_slice(), &other.labels].concat(),
        }
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Whether the table has one row for every path of the tree.
    pub(crate) fn check_tree(&self, tree: &PathTree) -> Result<(), TableError> {
        check_shape("answers", self.answers.len(), tree.paths().len(), self.samples)
    }

    /// True classes `[sample]`.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Answers of a path `[sample]`.
    ///
    /// # Panics
    /// For the root or an unknown node.
    pub fn answers(&self, node: NodeId) -> &[u16] {
        &self.answers[(node - 1) * self.samples..node * self.samples]
    }

    /// Largest class probabilities of a path `[sample]`.
    ///
    /// # Panics
    /// For the root or an unknown node.
    pub fn confidence(&self, node: NodeId) -> &[f32] {
        &self.confidence[(node - 1) * self.samples..node * self.samples]
    }

    /// Whether a path is right on a sample.
    ///
    /// # Panics
    /// For the root or an unknown node or sample.
    pub fn correct(&self, node: NodeId, sample: usize) -> bool {
        self.answers(node)[sample] == self.labels[sample]
    }

    /// Error rate of a path over the split.
    pub fn error_rate(&self, node: NodeId) -> f64 {
        let wrong = (0..self.samples).filter(|sample| !self.correct(node, *sample)).count();
        wrong as f64 / self.samples as f64
    }

    /// The path `widths[0..s]` at one width, as outcomes by exit.
    fn along(&self, tree: &PathTree, width: usize) -> RunOutcomes {
        let mut run = RunOutcomes { answers: Vec::new(), confidence: Vec::new() };
        let mut node = ROOT;
        while let Some(child) = tree.child(node, width) {
            run.answers.extend_from_slice(self.answers(child));
            run.confidence.extend_from_slice(self.confidence(child));
            node = child;
        }
        run
    }
}

/// The most frequent class, ties to the lower; 0 if there are no labels.
pub fn most_frequent(labels: &[u16]) -> u16 {
    let mut counts = vec![0usize; labels.iter().max().map_or(1, |label| usize::from(*label) + 1)];
    for label in labels {
        counts[usize::from(*label)] += 1;
    }
    let best = counts.iter().enumerate().max_by_key(|(class, count)| (**count, std::cmp::Reverse(*class)));
    best.map_or(0, |(class, _)| class as u16)
}

/// What one static run answers at every exit, for the samples of one split.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcomes {
    /// `[exit][sample]`, exit `s` in row `s - 1`.
    pub answers: Vec<u16>,
    /// `[exit][sample]`: largest class probability.
    pub confidence: Vec<f32>,
}

impl RunOutcomes {
    /// The outcomes for `samples` samples, with those of `other` for `others` behind them.
    pub fn with(&self, samples: usize, other: &Self, others: usize) -> Self {
        Self {
            answers: side_by_side((&self.answers, samples), (&other.answers, others)),
            confidence: side_by_side((&self.confidence, samples), (&other.confidence, others)),
        }
    }
}

/// Measured time of a static run, milliseconds per sample.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTime {
    /// Stem.
    pub stem: f64,
    /// `[segment]`.
    pub segment: Vec<f64>,
}

/// A run of the whole network with fixed widths, every exit read: the float backbone, one width throughout, or any
/// other that the tree does not hold. Exits cost what the ledger says.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticRun {
    /// Name for people, such as `float` or `w8a8`.
    pub name: String,
    /// Cost of the stem, in the unit of the ledger's cost table.
    pub stem: f64,
    /// `[segment]`: cost, in the same unit.
    pub segment: Vec<f64>,
    /// Weight bits of the stem (32 for float).
    pub stem_bits: f64,
    /// `[segment]`: weight bits (32 for float).
    pub segment_bits: Vec<f64>,
    /// Measured times, if any.
    pub time: Option<RunTime>,
    /// Outcomes on *cal-a*.
    pub cal: RunOutcomes,
    /// Outcomes on *test*.
    pub test: RunOutcomes,
}

impl StaticRun {
    /// The run at one width throughout, taken out of the tree's own tables.
    ///
    /// # Panics
    /// If the ledger or the outcomes belong to another tree, or there is no such width.
    pub fn along_tree(
        tree: &PathTree,
        ledger: &Ledger,
        width: usize,
        name: &str,
        cal: &Outcomes,
        test: &Outcomes,
    ) -> Self {
        let column = |rows: &[Vec<f64>]| rows.iter().map(|widths| widths[width]).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            stem: ledger.cost().stem,
            segment: column(&ledger.cost().segment),
            stem_bits: ledger.bits().stem_bits,
            segment_bits: vec![ledger.bits().width_bits[width]; tree.segments()],
            time: ledger.time().map(|time| RunTime { stem: time.stem, segment: column(&time.segment) }),
            cal: cal.along(tree, width),
            test: test.along(tree, width),
        }
    }

    /// Checks costs and bits against the number of segments.
    ///
    /// # Errors
    /// If a list has the wrong length or a value is negative or not finite.
    pub fn check_costs(&self, segments: usize) -> Result<(), CostError> {
        check_length("run: segment costs", self.segment.len(), segments)?;
        check_length("run: segment bits", self.segment_bits.len(), segments)?;
        check_values("run: costs", self.segment.iter().chain([&self.stem]))?;
        check_values("run: bits", self.segment_bits.iter().chain([&self.stem_bits]))?;
        if let Some(time) = &self.time {
            check_length("run: segment times", time.segment.len(), segments)?;
            check_values("run: times", time.segment.iter().chain([&time.stem]))?;
        }
        Ok(())
    }

    /// Checks the outcomes against the number of segments and the sizes of the splits.
    ///
    /// # Errors
    /// If a list has the wrong length or a confidence is not a probability.
    pub fn check_outcomes(&self, segments: usize, cal: usize, test: usize) -> Result<(), TableError> {
        for (run, samples) in [(&self.cal, cal), (&self.test, test)] {
            check_shape("run: answers", run.answers.len(), segments, samples)?;
            check_unit("run: confidence", &run.confidence, segments, samples)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Monotone;

    #[test]
    fn rows_start_at_the_first_path() {
        let tree = PathTree::new(2, 1, Monotone::Free, 10).unwrap();
        let table = Outcomes::new(&tree, vec![0, 1, 1, 1], vec![0.5, 0.6, 0.7, 0.8], vec![0, 0]).unwrap();
        assert_eq!(table.answers(1), [0, 1]);
        assert_eq!(table.confidence(2), [0.7, 0.8]);
        assert!(table.correct(1, 0) && !table.correct(2, 0));
        assert_eq!((table.error_rate(1), table.error_rate(2)), (0.5, 1.0));
    }

    #[test]
    fn refuses_bad_shapes_and_confidences() {
        let tree = PathTree::new(2, 1, Monotone::Free, 10).unwrap();
        let shape = Outcomes::new(&tree, vec![0; 3], vec![0.5; 4], vec![0, 0]).unwrap_err();
        assert!(shape.to_string().contains("answers: 3 entries"));
        let value = Outcomes::new(&tree, vec![0; 4], vec![0.5, 0.5, f32::NAN, 0.5], vec![0, 0]).unwrap_err();
        assert!(matches!(value, TableError::Value { row: 1, sample: 0, .. }));
        assert!(Outcomes::new(&tree, vec![], vec![], vec![]).is_err());
    }

    #[test]
    fn most_frequent_takes_the_lower_on_ties() {
        assert_eq!(most_frequent(&[3, 1, 3, 1, 0]), 1);
        assert_eq!(most_frequent(&[]), 0);
    }
}
