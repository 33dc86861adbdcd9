//! Early exit by a score of the exit, one threshold for all exits, and the naive combination of it with static widths.

use std::borrow::Cow;
use std::sync::Arc;

use super::by_exit;
use crate::cost::{Charge, Ledger, Price};
use crate::outcome::Setting;
use crate::scores::{FloatRun, Scores};
use crate::table::{RunOutcomes, StaticRun};

/// Number of quantiles of a score that become thresholds.
pub const QUANTILES: usize = 100;

/// Above every score: never leaves before the last exit.
pub const NEVER: f32 = 1.5;

/// What an exit must reach for a sample to leave, between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// The largest class probability.
    Confidence,
    /// One minus the normalised entropy.
    Entropy,
    /// Largest minus second largest class probability.
    Margin,
    /// The share of exits in a row, this one included, that gave the same answer ([`patience`]).
    Patience,
}

impl Score {
    /// The score at every exit of a run on one split, `[exit][sample]`.
    pub fn of<'a>(self, run: &'a RunOutcomes, scores: &'a Scores, samples: usize) -> Cow<'a, [f32]> {
        match self {
            Score::Confidence => Cow::Borrowed(&run.confidence),
            Score::Entropy => Cow::Owned(scores.entropy.iter().map(|entropy| 1.0 - entropy).collect()),
            Score::Margin => Cow::Borrowed(&scores.margin),
            Score::Patience => Cow::Owned(patience(run, samples)),
        }
    }
}

/// Patience as a score, `[exit][sample]`: the share of exits in a row, this one included, that gave the same answer. A
/// threshold of `p / S` leaves once `p` exits in a row agree.
pub fn patience(run: &RunOutcomes, samples: usize) -> Vec<f32> {
    let exits = (run.answers.len() / samples.max(1)) as f32;
    let mut streak = vec![0.0f32; run.answers.len()];
    for at in 0..streak.len() {
        let before = at.checked_sub(samples).filter(|before| run.answers[*before] == run.answers[at]);
        streak[at] = 1.0 + before.map_or(0.0, |before| streak[before]);
    }
    streak.iter().map(|agreeing| agreeing / exits).collect()
}

/// Thresholds in ascending order: 0, `quantiles` of the `scores` (all of them where few differ), and [`NEVER`]. Without
/// scores 0 alone: where there is a single exit, there is nothing to decide.
pub fn thresholds(scores: &[f32], quantiles: usize) -> Vec<f32> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut thresholds = vec![0.0];
    if let Some(last) = sorted.len().checked_sub(1) {
        let mut different = sorted.clone();
        different.dedup();
        if different.len() <= quantiles {
            thresholds.extend(different);
        } else {
            thresholds.extend((0..quantiles).map(|at| sorted[last * at / quantiles.saturating_sub(1).max(1)]));
        }
        thresholds.push(NEVER);
    }
    thresholds.dedup();
    thresholds
}

/// Early exit of the float backbone by `score`: leaves at the first exit that reaches the threshold, one threshold for
/// all exits, laid out over `quantiles` of the score on *cal-a*. Pays every exit passed.
pub fn early_exit(
    ledger: &Ledger,
    float: &FloatRun,
    score: Score,
    cal: &[u16],
    test: &[u16],
    quantiles: usize,
) -> Vec<Setting> {
    let FloatRun { run, cal: cal_scores, test: test_scores, .. } = float;
    let scores = [score.of(&run.cal, cal_scores, cal.len()), score.of(&run.test, test_scores, test.len())];
    settings(ledger, run, [&scores[0], &scores[1]], cal, test, quantiles)
}

/// Naive combination: each static width with the threshold on the largest probability; the setting is the pair.
pub fn naive(ledger: &Ledger, runs: &[StaticRun], cal: &[u16], test: &[u16], quantiles: usize) -> Vec<Setting> {
    let along =
        |run: &StaticRun| settings(ledger, run, [&run.cal.confidence, &run.test.confidence], cal, test, quantiles);
    runs.iter().flat_map(along).collect()
}

/// The threshold rule for a run and its scores on *cal-a* and *test*.
fn settings(
    ledger: &Ledger,
    run: &StaticRun,
    scores: [&[f32]; 2],
    cal: &[u16],
    test: &[u16],
    quantiles: usize,
) -> Vec<Setting> {
    let prices: Arc<[Price]> = ledger.run_prices(run, Charge::Threshold).into();
    let exits = prices.len();
    let leave = |outcomes: &RunOutcomes, scores: &[f32], labels: &[u16], threshold: f32| {
        let samples = labels.len();
        by_exit(&prices, outcomes, labels, |sample| {
            let sure = |exit: &usize| scores[(exit - 1) * samples + sample] >= threshold;
            (1..exits).find(sure).unwrap_or(exits)
        })
    };
    let setting = |threshold: f32| Setting {
        name: if threshold == NEVER {
            format!("{} never early", run.name)
        } else {
            format!("{} threshold {threshold:.4}", run.name)
        },
        parameter: f64::from(threshold),
        cal: leave(&run.cal, scores[0], cal, threshold),
        test: leave(&run.test, scores[1], test, threshold),
    };
    thresholds(&scores[0][..(exits - 1) * cal.len()], quantiles).into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ledger, runs, small};
    use super::*;
    use crate::scores::FitScores;
    use crate::tree::{Monotone, PathTree};

    #[test]
    fn threshold_rule_leaves_when_sure_and_pays_exits_passed() {
        let (tree, ledger, table) = small();
        let settings = naive(&ledger, &runs(&tree, &ledger, &table)[..1], &[0, 0], &[0, 0], 3);
        let thresholds: Vec<f64> = settings.iter().map(|setting| setting.parameter).collect();
        assert_eq!(thresholds, [0.0, f64::from(0.4f32), f64::from(0.9f32), f64::from(NEVER)]);
        assert_eq!(settings[0].test.options(), [0, 0]);
        assert_eq!((settings[0].test.accuracy(), settings[0].test.mean_cost()), (0.5, 0.11));
        assert_eq!(settings[2].test.options(), [0, 1], "0.9 reaches 0.9, 0.4 does not");
        assert!((settings[3].test.mean_cost() - 0.22).abs() < 1e-12, "both exits are paid");
        assert_eq!(settings[3].test.accuracy(), 1.0);
    }

    #[test]
    fn every_score_leaves_where_it_is_reached() {
        let tree = PathTree::new(3, 1, Monotone::Free, 10).unwrap();
        // Two samples of class 1; the first is right throughout, the second at the last exit alone.
        let outcomes = RunOutcomes { answers: vec![1, 0, 1, 2, 1, 1], confidence: vec![0.5, 0.8, 0.9, 0.4, 0.9, 0.9] };
        let scores = Scores {
            margin: vec![0.1, 0.7, 0.8, 0.2, 0.9, 0.9],
            entropy: vec![0.75, 0.25, 0.25, 0.875, 0.0, 0.0],
            entropy_of_squares: vec![0.0; 6],
        };
        let run = StaticRun {
            name: "float".to_owned(),
            stem: 0.0,
            segment: vec![10.0; 3],
            stem_bits: 32.0,
            segment_bits: vec![32.0; 3],
            time: None,
            cal: outcomes.clone(),
            test: outcomes,
        };
        let float = FloatRun { run, cal: scores.clone(), test: scores, fit: FitScores::default(), gate_cost: 0.0 };
        let exits = |score, threshold: f64| {
            let settings = early_exit(&ledger(&tree), &float, score, &[1, 1], &[1, 1], 100);
            let setting = settings.iter().find(|setting| (setting.parameter - threshold).abs() < 1e-6).unwrap();
            (setting.test.options().to_vec(), setting.test.accuracy())
        };
        assert_eq!(exits(Score::Confidence, 0.8), (vec![1, 0], 0.5));
        assert_eq!(exits(Score::Margin, 0.8), (vec![1, 2], 1.0));
        assert_eq!(exits(Score::Entropy, 0.75), (vec![1, 0], 0.5), "entropy is low where an exit is sure");
        assert_eq!(exits(Score::Entropy, 0.125), (vec![0, 0], 0.5));
        assert_eq!(exits(Score::Patience, 2.0 / 3.0), (vec![1, 2], 1.0), "leaves once two exits in a row agree");
        assert_eq!(exits(Score::Patience, f64::from(NEVER)), (vec![2, 2], 1.0));
    }

    #[test]
    fn patience_counts_agreeing_exits() {
        let run = RunOutcomes { answers: vec![1, 2, 1, 3, 1, 3, 0, 3], confidence: vec![0.0; 8] };
        assert_eq!(patience(&run, 2), [0.25, 0.25, 0.5, 0.25, 0.75, 0.5, 0.25, 0.75]);
    }

    #[test]
    fn few_different_scores_are_all_thresholds() {
        assert_eq!(thresholds(&[], 10), [0.0], "a single exit");
        let rare: Vec<f32> = (0..1000).map(|at| if at == 0 { 0.25 } else { 0.5 }).collect();
        assert_eq!(thresholds(&rare, 10), [0.0, 0.25, 0.5, NEVER]);
        let many: Vec<f32> = (1..=1000).map(|at| at as f32 / 1000.0).collect();
        assert_eq!(thresholds(&many, 3), [0.0, 0.001, 0.5, 1.0, NEVER]);
    }
}
