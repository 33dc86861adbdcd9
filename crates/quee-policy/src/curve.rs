//! Curves: the front of a method on *cal-a*, the area under its *test* figures, the cost at a given drop.
//!
//! A point is a pair of mean relative cost and accuracy.

use serde::Serialize;

use crate::outcome::Setting;

/// Indices of the points that no other point beats: in ascending order of cost, each more accurate than all before.
/// Equal accuracy goes to the cheaper, equal points to the lower index.
pub fn pareto(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0).then(points[*b].1.total_cmp(&points[*a].1)));
    let mut best = f64::NEG_INFINITY;
    order.retain(|at| {
        let better = points[*at].1 > best;
        best = best.max(points[*at].1);
        better
    });
    order
}

/// The cost axis and what holds left of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Axis {
    /// Relative cost at which the axis begins: that of the cheapest one-segment path. It ends at 1.0, float.
    pub least_cost: f64,
    /// Accuracy below the first setting: that of always answering the most frequent training class.
    pub floor: f64,
}

/// Puts points in ascending order of cost, equal costs as they come.
///
/// A front is chosen on *cal-a*; on *test* its settings may come in another order of cost. They are all kept and
/// joined in the order of their *test* cost: every line between two settings is what picking one of them at random
/// achieves, so the curve remains one that a policy can have, and nothing is chosen on *test*. For the same reason
/// accuracy may fall along the curve.
fn by_cost(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    sorted
}

impl Axis {
    /// Mean accuracy over the axis in logarithmic cost.
    ///
    /// Between neighbouring points accuracy is a straight line in *linear* cost, integrated exactly; below the first
    /// it is the floor, beyond the last that of the last. Points left or right of the axis only shape the lines that
    /// cross its ends. An axis that begins at or beyond 1.0 has no length: the result is the accuracy at 1.0.
    pub fn area(&self, points: &[(f64, f64)]) -> f64 {
        let points = by_cost(points);
        let length = -self.least_cost.ln();
        if length <= 0.0 || length.is_nan() {
            return self.at_sorted(&points, 1.0);
        }
        let clip = |cost: f64| cost.clamp(self.least_cost, 1.0);
        let Some(((first, _), (last, accuracy))) = points.first().copied().zip(points.last().copied()) else {
            return self.floor;
        };
        let mut area = self.floor * (clip(first) / self.least_cost).ln() - accuracy * clip(last).ln();
        for pair in points.windows(2) {
            let ((from, left), (to, right)) = (pair[0], pair[1]);
            let (low, high) = (clip(from), clip(to));
            if high > low {
                // ∫ (y + b·(c - low)) / c dc = y·ln(high/low) + b·((high - low) - low·ln(high/low)), the stable form
                // of a·ln(high/low) + b·(high - low) for neighbours that almost coincide.
                let slope = (right - left) / (to - from);
                let log = ((high - low) / low).ln_1p();
                area += (left + slope * (low - from)) * log + slope * ((high - low) - low * log);
            }
        }
        area / length
    }

    /// Accuracy of a curve at a cost; where points share a cost, the last of them.
    pub fn accuracy_at(&self, points: &[(f64, f64)], cost: f64) -> f64 {
        self.at_sorted(&by_cost(points), cost)
    }

    fn at_sorted(&self, points: &[(f64, f64)], cost: f64) -> f64 {
        let after = points.partition_point(|point| point.0 <= cost);
        let Some(before) = after.checked_sub(1).map(|at| points[at]) else { return self.floor };
        match points.get(after) {
            Some(next) => before.1 + (next.1 - before.1) * (cost - before.0) / (next.0 - before.0),
            None => before.1,
        }
    }

    /// A rising, concave curve raised to the floor: the points below the floor make way for the one at which the curve
    /// crosses it. Needed for an upper bound, since every other curve has the floor for free.
    pub fn raise(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let above = points.iter().position(|point| point.1 >= self.floor).unwrap_or(points.len());
        let mut raised = Vec::with_capacity(points.len() + 1);
        if let Some(((from, left), (to, right))) =
            above.checked_sub(1).and_then(|at| points.get(at).copied().zip(points.get(above).copied()))
        {
            raised.push((from + (to - from) * (self.floor - left) / (right - left), self.floor));
        }
        raised.extend_from_slice(&points[above..]);
        raised
    }
}

/// Least cost at which the straight lines between neighbouring points reach an accuracy; `None` where they never do.
pub fn cost_of_accuracy(points: &[(f64, f64)], accuracy: f64) -> Option<f64> {
    let points = by_cost(points);
    let first = points.iter().position(|point| point.1 >= accuracy)?;
    let Some(((from, left), (to, right))) = first.checked_sub(1).map(|before| (points[before], points[first])) else {
        return Some(points[first].0);
    };
    Some(from + (to - from) * (accuracy - left) / (right - left))
}

/// Mean cost and accuracy of settings on *cal-a*.
pub fn cal_points(settings: &[Setting]) -> Vec<(f64, f64)> {
    settings.iter().map(|setting| (setting.cal.mean_cost(), setting.cal.accuracy())).collect()
}

/// Mean cost and accuracy of settings on *test*.
pub fn test_points(settings: &[Setting]) -> Vec<(f64, f64)> {
    settings.iter().map(|setting| (setting.test.mean_cost(), setting.test.accuracy())).collect()
}

/// Position on a front (points in ascending order of cost, on *cal-a*) of the cheapest setting that loses at most
/// `drop` (a share, 0.005 for half a point) against float's accuracy on *cal-a*. `None` if there is none.
pub fn within_drop(front: &[(f64, f64)], float_accuracy: f64, drop: f64) -> Option<usize> {
    // Accuracies are multiples of 1/n: the slack only absorbs rounding.
    front.iter().position(|point| point.1 >= float_accuracy - drop - 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AXIS: Axis = Axis { least_cost: 0.01, floor: 0.1 };

    /// The same area by the midpoint rule on the log axis.
    fn numeric(axis: &Axis, points: &[(f64, f64)]) -> f64 {
        let steps = 20_000;
        let at = |step: usize| axis.least_cost.powf(1.0 - (step as f64 + 0.5) / steps as f64);
        (0..steps).map(|step| axis.accuracy_at(points, at(step))).sum::<f64>() / steps as f64
    }

    #[test]
    fn front_drops_what_is_beaten_and_prefers_the_cheaper() {
        let points = [(0.3, 0.7), (0.1, 0.5), (0.2, 0.5), (0.4, 0.6), (0.1, 0.4), (0.5, 0.9), (0.3, 0.7)];
        assert_eq!(pareto(&points), [1, 0, 5]);
        assert_eq!(pareto(&[]), Vec::<usize>::new());
    }

    #[test]
    fn area_by_hand() {
        assert_eq!(AXIS.area(&[]), 0.1);
        let step = AXIS.area(&[(0.1, 0.7)]);
        assert!((step - 0.4).abs() < 1e-12, "half the axis at the floor, half at 0.7: {step}");
        let line = AXIS.area(&[(0.01, 0.0), (1.0, 0.99)]);
        let exact = 1.0 / 100f64.ln() * (-0.01 * 100f64.ln() + 0.99);
        assert!((line - exact).abs() < 1e-12, "accuracy c - 0.01: {line} {exact}");
        assert!((AXIS.area(&[(0.001, 0.5), (2.0, 0.5)]) - 0.5).abs() < 1e-12);
        assert_eq!(Axis { least_cost: 1.5, floor: 0.1 }.area(&[(0.5, 0.3), (1.5, 0.5)]), 0.4);
    }

    #[test]
    fn neighbours_that_almost_coincide_are_harmless() {
        let plain = AXIS.area(&[(0.1, 0.5), (0.5, 0.8)]);
        let doubled = AXIS.area(&[(0.1, 0.5), (0.1 + 1e-15, 0.5), (0.5, 0.8), (0.5, 0.8)]);
        assert!((plain - doubled).abs() < 1e-12);
        let steep = AXIS.area(&[(0.1, 0.2), (0.1 + 1e-13, 0.9)]);
        assert!((steep - AXIS.area(&[(0.1, 0.9)])).abs() < 1e-9, "{steep}");
    }

    #[test]
    fn raising_keeps_the_larger_of_curve_and_floor() {
        let points = [(0.02, 0.05), (0.04, 0.15), (0.2, 0.3)];
        assert_eq!(AXIS.raise(&points)[1..], points[1..]);
        assert!((AXIS.raise(&points)[0].0 - 0.03).abs() < 1e-12);
        assert_eq!(AXIS.raise(&points[1..]), points[1..]);
        assert!(AXIS.raise(&points[..1]).is_empty());
    }

    #[test]
    fn drop_takes_the_cheapest_that_qualifies() {
        let front = [(0.1, 0.5), (0.2, 0.69), (0.3, 0.7)];
        assert_eq!(within_drop(&front, 0.7, 0.01), Some(1));
        assert_eq!(within_drop(&front, 0.7, 0.005), Some(2));
        assert_eq!(within_drop(&front, 0.8, 0.01), None);
    }

    proptest! {
        #[test]
        fn area_agrees_with_numeric_integration(points in prop::collection::vec((0.005f64..1.5, 0.0f64..1.0), 0..8)) {
            prop_assert!((AXIS.area(&points) - numeric(&AXIS, &points)).abs() < 2e-3);
        }

        #[test]
        fn a_higher_curve_has_a_larger_area(
            points in prop::collection::vec((0.005f64..1.5, 0.2f64..0.9), 1..8), lift in 0.0f64..0.1,
        ) {
            let lifted: Vec<_> = points.iter().map(|(cost, accuracy)| (*cost, accuracy + lift)).collect();
            prop_assert!(AXIS.area(&lifted) >= AXIS.area(&points) - 1e-12);
        }
    }

    #[test]
    fn cost_of_an_accuracy_is_read_off_the_lines() {
        let points = [(0.4, 0.9), (0.1, 0.5), (0.2, 0.7), (0.3, 0.6)];
        let close = |accuracy: f64, cost: f64| (cost_of_accuracy(&points, accuracy).unwrap() - cost).abs() < 1e-12;
        assert!(close(0.5, 0.1) && close(0.2, 0.1) && close(0.6, 0.15) && close(0.75, 0.35));
        assert_eq!(cost_of_accuracy(&points, 0.91), None);
    }
}
