//! Isotonic regression: the non-decreasing map from probabilities to rates that fits best.

use serde::{Deserialize, Serialize};

use crate::error::{expect_finite, expect_len};
use crate::{HeadsError, PROBABILITY_FLOOR};

/// A non-decreasing map from probabilities to probabilities: straight lines between knots, constant beyond the ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// Probabilities at the knots, strictly increasing, at least one.
    pub x: Vec<f32>,
    /// Calibrated probabilities at the knots, non-decreasing, as many as `x`; strictly between 0 and 1.
    pub y: Vec<f32>,
}

impl Isotonic {
    /// Pools adjacent violators (Ayer et al. 1955; as calibration, Zadrozny and Elkan 2002) among `points` of a
    /// probability and whether the answer was wrong. `None` without points.
    ///
    /// Equal probabilities are pooled first. A block of the result gets its rate of errors and has a knot at either
    /// end. Before the next rule, Brier score and log loss on `points` are the least that any non-decreasing map
    /// reaches, identity included. A block of `n` points without an error gets `1 / (n + 2)` instead of 0 (Laplace's
    /// rule of succession), but no more than the block above it; a block with nothing but errors in the same way less
    /// than 1; and everything stays 1e-6 from 0 and 1.
    pub(crate) fn fit(mut points: Vec<(f32, bool)>) -> Option<Self> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let blocks = pool(&points);
        let mut rates: Vec<f64> = blocks.iter().map(|block| block.wrong / block.n).collect();
        let last = blocks.len().checked_sub(1)?;
        let (lowest, highest) = (rates[0], rates[last]);
        if lowest == 0.0 {
            let above = if last > 0 { rates[1] } else { 1.0 };
            rates[0] = (1.0 / (blocks[0].n + 2.0)).min(above);
        }
        if highest == 1.0 {
            let below = if last > 0 { rates[last - 1] } else { 0.0 };
            rates[last] = (1.0 - 1.0 / (blocks[last].n + 2.0)).max(below);
        }
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for (block, rate) in blocks.iter().zip(rates) {
            let rate = rate.clamp(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR) as f32;
            x.push(block.first);
            y.push(rate);
            if block.last > block.first {
                x.push(block.last);
                y.push(rate);
            }
        }
        Some(Self { x, y })
    }

    /// The calibrated probability; non-decreasing in `probability`.
    ///
    /// # Panics
    /// When the map fails [`check`](Self::check) because it has no knots.
    pub fn apply(&self, probability: f32) -> f32 {
        let above = self.x.partition_point(|&x| x < probability);
        if above == 0 || above == self.x.len() {
            return self.y[above.min(self.y.len() - 1)];
        }
        let [x0, x1] = [self.x[above - 1], self.x[above]].map(f64::from);
        let [y0, y1] = [self.y[above - 1], self.y[above]].map(f64::from);
        let share = (f64::from(probability) - x0) / (x1 - x0);
        (y0 + share * (y1 - y0)).clamp(y0, y1) as f32
    }

    /// Checks a map that was read.
    ///
    /// # Errors
    /// When there are no knots or not as many of one kind as of the other, probabilities at knots do not increase,
    /// calibrated ones fall or reach 0 or 1, or a value is not finite.
    pub fn check(&self) -> Result<(), HeadsError> {
        if self.x.is_empty() {
            return Err(HeadsError::Empty { what: "knots of the calibration" });
        }
        expect_len("knots of the calibration", self.x.len(), self.y.len())?;
        expect_finite("knots of the calibration", &self.x)?;
        expect_finite("rates at the knots of the calibration", &self.y)?;
        let ascending = self.x.windows(2).all(|pair| pair[0] < pair[1]) && self.y.is_sorted();
        if ascending && self.y.iter().all(|&y| y > 0.0 && y < 1.0) {
            return Ok(());
        }
        Err(HeadsError::Setting {
            what: "calibration",
            value: format!("{} knots", self.x.len()),
            hint: "knots must increase, and their rates must not fall and lie strictly between 0 and 1",
        })
    }
}

/// Neighbouring points that share a rate.
#[derive(Clone, Copy)]
struct Block {
    first: f32,
    last: f32,
    n: f64,
    wrong: f64,
}

/// Blocks of strictly increasing rate, from points in ascending order. Counts are whole numbers, so nothing is rounded.
fn pool(points: &[(f32, bool)]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for tie in points.chunk_by(|a, b| a.0 == b.0) {
        let wrong = tie.iter().filter(|point| point.1).count() as f64;
        let mut block = Block { first: tie[0].0, last: tie[0].0, n: tie.len() as f64, wrong };
        while let Some(below) = blocks.pop_if(|below| below.wrong * block.n >= block.wrong * below.n) {
            block =
                Block { first: below.first, last: block.last, n: below.n + block.n, wrong: below.wrong + block.wrong };
        }
        blocks.push(block);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn violators_are_pooled_by_hand() {
        // 0.1 right; 0.2 wrong and 0.4 right violate order and pool to 1/2 with the other 0.4; 0.9 wrong.
        let points = [(0.4, false), (0.1, false), (0.2, true), (0.9, true), (0.4, true), (0.4, false)];
        let found = Isotonic::fit(points.to_vec()).unwrap();
        assert_eq!(found.x, [0.1, 0.2, 0.4, 0.9]);
        assert_eq!(found.y, [1.0 / 3.0, 0.5, 0.5, 2.0 / 3.0]);
        assert_eq!((found.apply(0.0), found.apply(0.3), found.apply(1.0)), (1.0 / 3.0, 0.5, 2.0 / 3.0));
        assert!((found.apply(0.65) - 0.5 - 1.0 / 12.0).abs() < 1e-7);
    }

    #[test]
    fn equal_outcomes_are_not_taken_for_certain() {
        for (wrong, rate) in [(false, 1.0 / 6.0), (true, 5.0 / 6.0)] {
            let found = Isotonic::fit([0.0, 0.2, 0.7, 1.0].map(|p| (p, wrong)).to_vec()).unwrap();
            assert_eq!((found.apply(0.0), found.apply(0.5)), (rate, rate));
        }
        assert_eq!(Isotonic::fit(vec![]), None);
    }

    #[test]
    fn broken_maps_are_refused() {
        let map = |x: &[f32], y: &[f32]| Isotonic { x: x.to_vec(), y: y.to_vec() }.check();
        assert!(map(&[0.1, 0.5], &[0.2, 0.2]).is_ok());
        let broken: [(&[f32], &[f32]); 6] = [
            (&[], &[]),
            (&[0.1], &[0.2, 0.3]),
            (&[0.1, 0.1], &[0.2, 0.3]),
            (&[0.1, 0.2], &[0.3, 0.2]),
            (&[0.1], &[1.0]),
            (&[f32::NAN], &[0.5]),
        ];
        for (x, y) in broken {
            assert!(map(x, y).is_err(), "{x:?} to {y:?}");
        }
    }

    proptest! {
        #[test]
        fn pooled_rates_are_no_worse_than_identity_by_brier_and_log_loss(
            points in prop::collection::vec((0.001f32..0.999, any::<bool>()), 1..120),
        ) {
            let mut sorted = points.clone();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let blocks = pool(&sorted);
            prop_assert!(blocks.windows(2).all(|pair| pair[0].wrong / pair[0].n < pair[1].wrong / pair[1].n));
            let rate = |p: f32| blocks.iter().find(|b| p <= b.last).map(|b| b.wrong / b.n).unwrap();
            let loss = |q: f64, wrong: bool| -(if wrong { q } else { 1.0 - q }).ln();
            let brier = |q: f64, wrong: bool| (q - f64::from(u8::from(wrong))).powi(2);
            for of in [&loss as &dyn Fn(f64, bool) -> f64, &brier] {
                let before: f64 = points.iter().map(|&(p, wrong)| of(f64::from(p), wrong)).sum();
                let after: f64 = points.iter().map(|&(p, wrong)| of(rate(p), wrong)).sum();
                prop_assert!(after <= before + 1e-9, "{} became {}", before, after);
            }
        }

        #[test]
        fn maps_are_monotone_inside_the_unit_interval_and_repeat_the_pooled_rates(
            points in prop::collection::vec((0f32..=1.0, any::<bool>()), 1..120),
            a in 0f32..=1.0,
            b in 0f32..=1.0,
        ) {
            let found = Isotonic::fit(points.clone()).unwrap();
            prop_assert!(found.check().is_ok());
            prop_assert!(found.apply(a.min(b)) <= found.apply(a.max(b)));
            let mut sorted = points.clone();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            for block in pool(&sorted).iter().filter(|block| block.wrong > 0.0 && block.wrong < block.n) {
                let rate = (block.wrong / block.n) as f32;
                prop_assert_eq!((found.apply(block.first), found.apply(block.last)), (rate, rate));
            }
        }

        #[test]
        fn the_order_of_points_does_not_matter(
            points in prop::collection::vec((0u8..10, any::<bool>()), 1..60),
        ) {
            let points: Vec<(f32, bool)> = points.into_iter().map(|(p, wrong)| (f32::from(p) / 10.0, wrong)).collect();
            let mut reversed = points.clone();
            reversed.reverse();
            prop_assert_eq!(Isotonic::fit(points), Isotonic::fit(reversed));
        }
    }
}
