//! The per-sample oracle: upper bound of anything that picks among the same options.

use serde::{Deserialize, Serialize};

use crate::curve::Axis;

/// Marks samples that the oracle never upgrades.
const NO_GROUP: u32 = u32::MAX;

/// Starts from the cheapest option for every sample, then upgrades samples to their cheapest *correct* option in order
/// of extra cost.
///
/// Options cost the same for every sample, so extra costs take few values; samples that share one form a group. The
/// curve is a straight line within a group, which makes areas of resamples cheap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oracle {
    base_cost: f64,
    base_correct: Vec<bool>,
    /// Extra cost of every group, ascending.
    extra: Vec<f64>,
    /// `[sample]`: its group, or [`NO_GROUP`] if the cheapest option is right or none is.
    group: Vec<u32>,
}

impl Oracle {
    /// Builds the oracle from the relative cost of every option (as a static path: the answering exit alone) and
    /// whether an option is right on a sample, `correct(option, sample)`.
    ///
    /// # Panics
    /// Without options.
    pub fn new(costs: &[f64], samples: usize, correct: impl Fn(usize, usize) -> bool) -> Self {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
        let base = order[0];
        let base_correct: Vec<bool> = (0..samples).map(|sample| correct(base, sample)).collect();
        let upgrade = |sample: usize| match base_correct[sample] {
            true => None,
            false => order.iter().find(|option| correct(**option, sample)).map(|option| costs[*option] - costs[base]),
        };
        let upgrades: Vec<Option<f64>> = (0..samples).map(upgrade).collect();
        let mut extra: Vec<f64> = upgrades.iter().flatten().copied().collect();
        extra.sort_by(f64::total_cmp);
        extra.dedup();
        let find = |cost: &f64| extra.binary_search_by(|other| other.total_cmp(cost)).map_or(NO_GROUP, |at| at as u32);
        let group = upgrades.iter().map(|cost| cost.as_ref().map_or(NO_GROUP, find)).collect();
        Self { base_cost: costs[base], base_correct, extra, group }
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.group.len()
    }

    /// All points of the curve, one sample after the other: at most as many as samples, plus the start.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let n = self.samples() as f64;
        let mut cost = self.base_cost;
        let mut right = self.base_correct.iter().filter(|correct| **correct).count() as f64;
        let mut points = vec![(cost, right / n)];
        for (group, extra) in self.extra.iter().enumerate() {
            for _ in self.group.iter().filter(|other| **other as usize == group) {
                cost += extra / n;
                right += 1.0;
                points.push((cost, right / n));
            }
        }
        points
    }

    /// The corners of the curve when every sample counts `weight(sample)` times.
    pub fn corners(&self, weight: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        let mut gains = vec![0.0; self.extra.len()];
        let (mut total, mut right) = (0.0, 0.0);
        for sample in 0..self.samples() {
            let weight = weight(sample);
            total += weight;
            if self.base_correct[sample] {
                right += weight;
            } else if let Some(gain) = gains.get_mut(self.group[sample] as usize) {
                *gain += weight;
            }
        }
        let mut cost = self.base_cost;
        let mut points = vec![(cost, right / total)];
        for (extra, gain) in self.extra.iter().zip(gains) {
            cost += extra * gain / total;
            right += gain;
            points.push((cost, right / total));
        }
        points
    }

    /// Area under the curve. Where the curve is below the axis' floor the floor counts, as it does for everyone.
    pub fn area(&self, axis: &Axis, weight: impl Fn(usize) -> f64) -> f64 {
        axis.area(&axis.raise(&self.corners(weight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options at costs 0.3, 0.1, 0.2 and which are right on five samples.
    fn oracle() -> Oracle {
        let right: [&[usize]; 5] = [&[1], &[0], &[0, 2], &[], &[2]];
        Oracle::new(&[0.3, 0.1, 0.2], 5, |option, sample| right[sample].contains(&option))
    }

    #[test]
    fn upgrades_in_order_of_extra_cost() {
        let points = oracle().points();
        let want = [(0.1, 0.2), (0.12, 0.4), (0.14, 0.6), (0.18, 0.8)];
        assert_eq!(points.len(), want.len());
        for (got, want) in points.iter().zip(want) {
            assert!((got.0 - want.0).abs() < 1e-12 && (got.1 - want.1).abs() < 1e-12, "{got:?} {want:?}");
        }
    }

    #[test]
    fn corners_and_points_have_the_same_area() {
        let axis = Axis { least_cost: 0.1, floor: 0.3 };
        let all = axis.area(&axis.raise(&oracle().points()));
        assert!((oracle().area(&axis, |_| 1.0) - all).abs() < 1e-12);
        assert!((oracle().area(&axis, |_| 7.0) - all).abs() < 1e-12);
    }

    #[test]
    fn weights_are_repetitions() {
        let corners = oracle().corners(|sample| [0.0, 2.0, 1.0, 0.0, 0.0][sample]);
        assert_eq!(corners[0], (0.1, 0.0));
        assert!((corners[1].0 - (0.1 + 0.1 / 3.0)).abs() < 1e-12 && (corners[1].1 - 1.0 / 3.0).abs() < 1e-12);
        assert!((corners[2].0 - (0.1 + 0.5 / 3.0)).abs() < 1e-12 && corners[2].1 == 1.0);
    }
}
