//! The float backbone with all that its exits say: what early-exit rules read beside the largest probability.

use crate::cost::{CostError, check_values};
use crate::cross_fit::{columns, side_by_side};
use crate::table::{StaticRun, TableError, check_unit};

/// Scores of the exits of a run on one split, beside the largest probability: each `[exit][sample]`, exit `s` in row
/// `s - 1`, between 0 and 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Largest minus second largest class probability.
    pub margin: Vec<f32>,
    /// Entropy of the class probabilities divided by the logarithm of the number of classes.
    pub entropy: Vec<f32>,
    /// Entropy, divided likewise, of the squared and renormalised class probabilities.
    pub entropy_of_squares: Vec<f32>,
}

impl Scores {
    /// The scores of `samples` samples, with `other`, those of `others`, behind them.
    pub fn with(&self, samples: usize, other: &Self, others: usize) -> Self {
        let join = |a: &[f32], b: &[f32]| side_by_side((a, samples), (b, others));
        Self {
            margin: join(&self.margin, &other.margin),
            entropy: join(&self.entropy, &other.entropy),
            entropy_of_squares: join(&self.entropy_of_squares, &other.entropy_of_squares),
        }
    }

    fn check(&self, exits: usize, samples: usize) -> Result<(), TableError> {
        check_unit("run: margin", &self.margin, exits, samples)?;
        check_unit("run: entropy", &self.entropy, exits, samples)?;
        check_unit("run: entropy of squares", &self.entropy_of_squares, exits, samples)
    }
}

/// What gates are trained on: the exits of a run on *fit*, each list `[exit][sample]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitScores {
    /// Largest class probability.
    pub confidence: Vec<f32>,
    /// The other scores.
    pub scores: Scores,
    /// Probability of the true class.
    pub true_class: Vec<f32>,
}

impl FitScores {
    /// Those of the samples `chosen` alone.
    pub fn subset(&self, samples: usize, chosen: &[usize]) -> Self {
        let take = |list: &[f32]| columns(list, samples, chosen);
        Self {
            confidence: take(&self.confidence),
            scores: Scores {
                margin: take(&self.scores.margin),
                entropy: take(&self.scores.entropy),
                entropy_of_squares: take(&self.scores.entropy_of_squares),
            },
            true_class: take(&self.true_class),
        }
    }
}

/// The float backbone, every exit read.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatRun {
    /// Costs, and the outcomes on *cal-a* and *test*.
    pub run: StaticRun,
    /// Scores on *cal-a*.
    pub cal: Scores,
    /// Scores on *test*.
    pub test: Scores,
    /// All scores on *fit*, for the training of [JEI-DNN's gates](crate::baselines::jei) and nothing else.
    pub fit: FitScores,
    /// Cost of one of those gates: five multiply-accumulates in float, in the unit of the ledger's cost table.
    pub gate_cost: f64,
}

impl FloatRun {
    /// Checks outcomes and scores against the number of segments and the sizes `[fit, cal-a, test]`.
    ///
    /// # Errors
    /// If a list has the wrong length or a score is not between 0 and 1.
    pub fn check_outcomes(&self, segments: usize, [fit, cal, test]: [usize; 3]) -> Result<(), TableError> {
        self.run.check_outcomes(segments, cal, test)?;
        self.cal.check(segments, cal)?;
        self.test.check(segments, test)?;
        self.fit.scores.check(segments, fit)?;
        check_unit("fit: confidence", &self.fit.confidence, segments, fit)?;
        check_unit("fit: probability of the true class", &self.fit.true_class, segments, fit)
    }

    /// Checks costs and bits against the number of segments.
    ///
    /// # Errors
    /// If a list has the wrong length or a value is negative or not finite.
    pub fn check_costs(&self, segments: usize) -> Result<(), CostError> {
        self.run.check_costs(segments)?;
        check_values("run: cost of a gate", [&self.gate_cost])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_scores_of_the_wrong_length_or_range() {
        let scores = Scores { margin: vec![0.5; 4], entropy: vec![1.000_05; 4], entropy_of_squares: vec![0.0; 4] };
        assert_eq!(scores.check(2, 2), Ok(()), "rounding is no error");
        let short = Scores { entropy_of_squares: vec![0.0; 3], ..scores.clone() };
        assert!(short.check(2, 2).unwrap_err().to_string().contains("entropy of squares: 3 entries"));
        let nats = Scores { entropy: vec![0.0, 0.0, 0.0, 2.3], ..scores };
        assert!(matches!(nats.check(2, 2), Err(TableError::Value { what: "run: entropy", row: 1, sample: 1, .. })));
    }
}
