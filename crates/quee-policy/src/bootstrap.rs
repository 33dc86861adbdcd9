//! Bootstrap over test pictures: the same resamples for all methods and seeds.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::outcome::Choices;

/// Resamples handled together: their weights share one pass over the samples.
const BLOCK: usize = 64;
/// Resamples in registers at a time.
const LANES: usize = 16;
/// Samples whose sums are kept in single precision before they join the double-precision totals.
const CHUNK: usize = 512;

/// A figure with the interval that holds the central 95% of its resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The figure on the samples themselves.
    pub value: f64,
    /// 2.5th percentile of the resamples.
    pub low: f64,
    /// 97.5th percentile of the resamples.
    pub high: f64,
}

impl Interval {
    /// The interval of a figure from its resamples; without resamples the figure alone.
    pub fn new(value: f64, mut resamples: Vec<f64>) -> Self {
        resamples.sort_by(f64::total_cmp);
        let at = |share| percentile(&resamples, share).unwrap_or(value);
        Self { value, low: at(0.025), high: at(0.975) }
    }
}

/// Percentile of ascending values by linear interpolation; `None` without values.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of all resamples; each has its own stream.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2_000, seed: 0 }
    }
}

/// One resample: how often every sample was drawn, and the mean figures of every row of choices.
pub struct Resample<'a> {
    lane: usize,
    weights: &'a [[f32; BLOCK]],
    accuracy: &'a [[f64; BLOCK]],
    cost: &'a [[f64; BLOCK]],
}

impl Resample<'_> {
    /// How often a sample was drawn.
    pub fn weight(&self, sample: usize) -> f64 {
        f64::from(self.weights[sample][self.lane])
    }

    /// Accuracy of a row of choices.
    pub fn accuracy(&self, row: usize) -> f64 {
        self.accuracy[row][self.lane]
    }

    /// Mean relative cost of a row of choices.
    pub fn cost(&self, row: usize) -> f64 {
        self.cost[row][self.lane]
    }
}

impl Bootstrap {
    /// Draws the resamples and evaluates `figures` on each, in order. Resample `r` is the same whatever the rows and
    /// the number of threads. Mean costs carry the rounding of single precision (about 1e-6 relative).
    ///
    /// # Panics
    /// If a row does not have `samples` samples, or there are no samples.
    pub fn run<T: Send>(
        &self,
        samples: usize,
        rows: &[&Choices],
        figures: impl Fn(&Resample<'_>) -> T + Sync,
    ) -> Vec<T> {
        assert!(samples > 0 && rows.iter().all(|row| row.samples() == samples), "all rows have {samples} samples");
        let block = |block: usize| {
            let lanes = BLOCK.min(self.resamples - block * BLOCK);
            let weights = self.weights(block, lanes, samples);
            let (accuracy, cost) = means(&weights, rows);
            let resample = |lane| figures(&Resample { lane, weights: &weights, accuracy: &accuracy, cost: &cost });
            (0..lanes).map(resample).collect::<Vec<T>>()
        };
        let blocks: Vec<Vec<T>> = (0..self.resamples.div_ceil(BLOCK)).into_par_iter().map(block).collect();
        blocks.into_iter().flatten().collect()
    }

    /// How often every sample is drawn in each resample of a block; unused lanes stay 0.
    fn weights(&self, block: usize, lanes: usize, samples: usize) -> Vec<[f32; BLOCK]> {
        let mut weights = vec![[0.0; BLOCK]; samples];
        let mut rngs: Vec<ChaCha8Rng> = vec![ChaCha8Rng::seed_from_u64(self.seed); lanes];
        for (lane, rng) in rngs.iter_mut().enumerate() {
            rng.set_stream((block * BLOCK + lane) as u64);
            for _ in 0..samples {
                weights[rng.random_range(0..samples)][lane] += 1.0;
            }
        }
        weights
    }
}

/// Means of accuracy and cost, `[row][resample]`: a matrix product, tiled so that weights stay in the cache.
fn means(weights: &[[f32; BLOCK]], rows: &[&Choices]) -> (Vec<[f64; BLOCK]>, Vec<[f64; BLOCK]>) {
    let mut accuracy = vec![[0.0; BLOCK]; rows.len()];
    let mut cost = vec![[0.0; BLOCK]; rows.len()];
    let (mut right, mut paid) = ([0f32; CHUNK], [0f32; CHUNK]);
    for (chunk, weights) in weights.chunks(CHUNK).enumerate() {
        let start = chunk * CHUNK;
        let count = weights.len();
        for (row, choices) in rows.iter().enumerate() {
            let prices = choices.prices();
            let parts = choices.correct()[start..].iter().zip(&choices.options()[start..]);
            for ((right, paid), (correct, option)) in right.iter_mut().zip(&mut paid).take(count).zip(parts) {
                *right = f32::from(u8::from(*correct));
                *paid = prices[*option as usize].cost as f32;
            }
            for lane in (0..BLOCK).step_by(LANES) {
                let (a, c) = weighted_sums(weights, lane, &right[..count], &paid[..count]);
                for at in 0..LANES {
                    accuracy[row][lane + at] += f64::from(a[at]);
                    cost[row][lane + at] += f64::from(c[at]);
                }
            }
        }
    }
    let samples = weights.len() as f64;
    accuracy.iter_mut().chain(&mut cost).flatten().for_each(|sum| *sum /= samples);
    (accuracy, cost)
}

/// Weighted sums of two figures over a chunk, for [`LANES`] resamples from `lane`.
fn weighted_sums(weights: &[[f32; BLOCK]], lane: usize, right: &[f32], paid: &[f32]) -> ([f32; LANES], [f32; LANES]) {
    let (mut a, mut c) = ([0f32; LANES], [0f32; LANES]);
    for ((weights, right), paid) in weights.iter().zip(right).zip(paid) {
        let weights = &weights[lane..lane + LANES];
        for at in 0..LANES {
            a[at] += right * weights[at];
            c[at] += paid * weights[at];
        }
    }
    (a, c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Price;

    fn choices(samples: usize, seed: u64) -> Choices {
        let price = |at: usize| Price { exit: 1, cost: 0.01 + 0.11 * at as f64, weight_bits: 8.0, ms: None };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let prices: Vec<Price> = (0..7).map(price).collect();
        let option = (0..samples).map(|_| rng.random_range(0..7)).collect();
        let correct = (0..samples).map(|_| rng.random_range(0..4) > 0).collect();
        Choices::new(prices.into(), option, correct)
    }

    #[test]
    fn means_agree_with_the_weights() {
        let samples = CHUNK + 77;
        let rows = [choices(samples, 1), choices(samples, 2)];
        let bootstrap = Bootstrap { resamples: BLOCK + 3, seed: 5 };
        let checked = bootstrap.run(samples, &[&rows[0], &rows[1]], |resample| {
            let mut total = 0.0;
            let mut sums = [(0.0, 0.0); 2];
            for sample in 0..samples {
                let weight = resample.weight(sample);
                total += weight;
                for (row, sum) in rows.iter().zip(&mut sums) {
                    sum.0 += weight * f64::from(u8::from(row.correct()[sample]));
                    sum.1 += weight * row.price(sample).cost;
                }
            }
            assert_eq!(total, samples as f64);
            for (row, sum) in sums.iter().enumerate() {
                assert!((resample.accuracy(row) - sum.0 / total).abs() < 1e-12);
                assert!((resample.cost(row) - sum.1 / total).abs() < 1e-6, "single precision");
            }
        });
        assert_eq!(checked.len(), BLOCK + 3);
    }

    #[test]
    fn resamples_do_not_depend_on_rows_or_threads() {
        let row = choices(300, 3);
        let bootstrap = Bootstrap { resamples: 130, seed: 9 };
        let drawn = |rows: &[&Choices]| bootstrap.run(300, rows, |r| (r.weight(0), r.weight(299)));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(drawn(&[]), one.install(|| drawn(&[&row])));
        assert_ne!(drawn(&[]), Bootstrap { seed: 10, ..bootstrap }.run(300, &[], |r| (r.weight(0), r.weight(299))));
    }

    #[test]
    fn interval_of_an_accuracy_matches_theory() {
        let row = choices(1_000, 4);
        let accuracies = Bootstrap::default().run(1_000, &[&row], |resample| resample.accuracy(0));
        let interval = Interval::new(row.accuracy(), accuracies);
        let p = interval.value;
        let half = 1.96 * (p * (1.0 - p) / 1_000.0).sqrt();
        assert!(
            (interval.low - (p - half)).abs() < 0.004 && (interval.high - (p + half)).abs() < 0.004,
            "{interval:?}"
        );
    }

    #[test]
    fn percentiles_interpolate() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[3.0], 0.975), Some(3.0));
        assert_eq!(percentile(&[0.0, 1.0, 2.0, 4.0], 0.5), Some(1.5));
    }
}
