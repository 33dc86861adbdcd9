//! How good predicted probabilities of error are.
//!
//! Predictions are `f32` between 0 and 1, outcomes `u8`: 0 right, 1 wrong. Functions take slices of equal length, at
//! least one long, without [absent](crate::ABSENT) outcomes; [`PredictorRow`] and [`FourWay`] leave these out themselves.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{ABSENT, PROBABILITY_FLOOR};

/// Bins of the expected calibration error.
pub const ECE_BINS: usize = 15;

/// Draws of labels behind an ECE floor.
pub const FLOOR_DRAWS: u64 = 1000;

/// Brier score: mean squared difference between prediction and outcome.
///
/// # Panics
/// When the lengths differ.
pub fn brier(predictions: &[f32], outcomes: &[u8]) -> f64 {
    mean(predictions, outcomes, |p, y| (p - y).powi(2))
}

/// Mean negative log likelihood in nats; predictions are kept 1e-6 from 0 and 1.
///
/// # Panics
/// When the lengths differ.
pub fn log_loss(predictions: &[f32], outcomes: &[u8]) -> f64 {
    mean(predictions, outcomes, |p, y| {
        let p = p.clamp(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR);
        -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
    })
}

/// Area under the ROC curve: the probability that a wrong sample was predicted above a right one, ties counting half.
/// `None` when all outcomes are equal.
///
/// # Panics
/// When the lengths differ.
pub fn auroc(predictions: &[f32], outcomes: &[u8]) -> Option<f64> {
    assert_eq!(predictions.len(), outcomes.len(), "one outcome per prediction");
    let order = ascending(predictions);
    let wrong = outcomes.iter().filter(|&&o| o == 1).count() as f64;
    let right = outcomes.len() as f64 - wrong;
    if wrong == 0.0 || right == 0.0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < order.len() {
        let end = end_of_tie(predictions, &order, start);
        let mean_rank = (start + 1 + end) as f64 / 2.0;
        rank_sum += mean_rank * order[start..end].iter().filter(|&&i| outcomes[i] == 1).count() as f64;
        start = end;
    }
    Some((rank_sum - wrong * (wrong + 1.0) / 2.0) / (wrong * right))
}

/// One point of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Mean prediction.
    pub predicted: f64,
    /// Rate of errors.
    pub rate: f64,
    /// Number of samples.
    pub n: usize,
}

/// Samples in at most `bins` bins of equal mass, by ascending prediction.
///
/// Bin `j` of `b` ends at sample `⌊n·j/b⌋` of the sorted ones, or where the tie ends that this sample belongs to: equal
/// predictions always share a bin, so that the result does not depend on the order of the samples. Bins left empty by
/// that are dropped.
///
/// # Panics
/// When the lengths differ or `bins` is 0.
pub fn reliability(predictions: &[f32], outcomes: &[u8], bins: usize) -> Vec<ReliabilityBin> {
    assert_eq!(predictions.len(), outcomes.len(), "one outcome per prediction");
    let order = ascending(predictions);
    let ends = bin_ends(predictions, &order, bins);
    let mut start = 0;
    let mut result = Vec::with_capacity(ends.len());
    for end in ends {
        let members = &order[start..end];
        let n = members.len();
        let predicted = members.iter().map(|&i| f64::from(predictions[i])).sum::<f64>() / n as f64;
        let rate = members.iter().map(|&i| f64::from(outcomes[i])).sum::<f64>() / n as f64;
        result.push(ReliabilityBin { predicted, rate, n });
        start = end;
    }
    result
}

/// Expected calibration error over [15 bins](ECE_BINS) of equal mass ([`reliability`]): the mean distance between
/// prediction and rate.
///
/// # Panics
/// When the lengths differ.
pub fn ece(predictions: &[f32], outcomes: &[u8]) -> f64 {
    let n = predictions.len() as f64;
    let bins = reliability(predictions, outcomes, ECE_BINS);
    bins.iter().map(|bin| (bin.predicted - bin.rate).abs() * bin.n as f64 / n).sum()
}

/// The ECE to be expected of perfectly calibrated predictions: the mean over 1,000 draws of labels from the
/// predictions themselves. An [`ece`] says something only as far as it exceeds this.
pub fn ece_floor(predictions: &[f32], seed: u64) -> f64 {
    let order = ascending(predictions);
    let sorted: Vec<f32> = order.iter().map(|&i| predictions[i]).collect();
    let ends = bin_ends(predictions, &order, ECE_BINS);
    let draws: Vec<f64> = (0..FLOOR_DRAWS)
        .into_par_iter()
        .map(|draw| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(draw);
            let mut start = 0;
            let mut distance = 0.0;
            for &end in &ends {
                let excess: f64 = sorted[start..end]
                    .iter()
                    .map(|&p| f64::from(p) - f64::from(u8::from(random.random::<f32>() < p)))
                    .sum();
                distance += excess.abs();
                start = end;
            }
            distance / sorted.len() as f64
        })
        .collect();
    draws.iter().sum::<f64>() / FLOOR_DRAWS as f64
}

/// The quality of one gate's predictions for one continuation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictorRow {
    /// Gate.
    pub gate: usize,
    /// Continuation, as [`suffix_name`](crate::suffix_name) writes it.
    pub continuation: String,
    /// Number of predictions.
    pub n: usize,
    /// Rate of errors.
    pub base_rate: f64,
    /// [`brier`].
    pub brier: f64,
    /// [`log_loss`], nats.
    pub log_loss: f64,
    /// [`ece`].
    pub ece: f64,
    /// [`ece_floor`].
    pub ece_floor: f64,
    /// [`auroc`].
    pub auroc: Option<f64>,
}

impl PredictorRow {
    /// Computes a row from `predictions` and `outcomes` (0, 1, or [`ABSENT`], which is left out); `seed` is that of the
    /// ECE floor. `None` when nothing is left.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn compute(
        gate: usize,
        continuation: impl Into<String>,
        predictions: &[f32],
        outcomes: &[u8],
        seed: u64,
    ) -> Option<Self> {
        assert_eq!(predictions.len(), outcomes.len(), "one outcome per prediction");
        let (p, y): (Vec<f32>, Vec<u8>) =
            predictions.iter().zip(outcomes).filter(|&(_, &outcome)| outcome != ABSENT).unzip();
        if p.is_empty() {
            return None;
        }
        Some(Self {
            gate,
            continuation: continuation.into(),
            n: p.len(),
            base_rate: mean(&p, &y, |_, y| y),
            brier: brier(&p, &y),
            log_loss: log_loss(&p, &y),
            ece: ece(&p, &y),
            ece_floor: ece_floor(&p, seed),
            auroc: auroc(&p, &y),
        })
    }
}

/// Samples of a gate by whether they would be right if they stopped here, and if they went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FourWay {
    /// Right now and later.
    pub right: usize,
    /// Wrong now, right later: rescued by going on.
    pub rescued: usize,
    /// Right now, wrong later: hurt by going on.
    pub hurt: usize,
    /// Wrong both ways.
    pub wrong: usize,
}

impl FourWay {
    /// Counts samples from their outcomes `now` (answer here) and `later` (full depth at the largest width); pairs with
    /// an [`ABSENT`] outcome are left out.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn count(now: &[u8], later: &[u8]) -> Self {
        assert_eq!(now.len(), later.len(), "two outcomes per sample");
        let mut split = Self::default();
        for pair in now.iter().zip(later) {
            match pair {
                (0, 0) => split.right += 1,
                (1, 0) => split.rescued += 1,
                (0, 1) => split.hurt += 1,
                (1, 1) => split.wrong += 1,
                _ => {}
            }
        }
        split
    }

    /// Number of samples counted.
    pub fn n(self) -> usize {
        self.right + self.rescued + self.hurt + self.wrong
    }
}

fn mean(predictions: &[f32], outcomes: &[u8], of: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(predictions.len(), outcomes.len(), "one outcome per prediction");
    let sum: f64 = predictions.iter().zip(outcomes).map(|(&p, &y)| of(f64::from(p), f64::from(y))).sum();
    sum / predictions.len() as f64
}

/// Indices by ascending prediction, ties by index.
fn ascending(predictions: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|&a, &b| predictions[a].total_cmp(&predictions[b]).then(a.cmp(&b)));
    order
}

/// Position in `order` behind the last prediction that equals that at `start`.
fn end_of_tie(predictions: &[f32], order: &[usize], start: usize) -> usize {
    let value = predictions[order[start]];
    start + order[start..].iter().take_while(|&&i| predictions[i] == value).count()
}

/// Ends of the bins of [`reliability`] in the sorted order, ascending; the last is the number of samples.
fn bin_ends(predictions: &[f32], order: &[usize], bins: usize) -> Vec<usize> {
    assert!(bins > 0, "at least one bin");
    let mut ends: Vec<usize> = (1..=bins)
        .map(|j| order.len() * j / bins)
        .filter(|&end| end > 0)
        .map(|end| end_of_tie(predictions, order, end - 1))
        .collect();
    ends.dedup();
    ends
}
