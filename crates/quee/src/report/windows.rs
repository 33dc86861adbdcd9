//! Which part of the accuracy-cost plane the main figure shows.

use super::model::{CurvePoint, Family, MethodReport, Report};

/// A rectangle of relative costs and accuracies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Least and largest cost.
    pub cost: (f64, f64),
    /// Least and largest accuracy.
    pub accuracy: (f64, f64),
}

/// The points of a curve that can be drawn, by ascending cost. A band that is not a number shrinks to the accuracy.
pub fn clean(curve: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut points: Vec<CurvePoint> = curve
        .iter()
        .filter(|p| p.cost.is_finite() && p.cost > 0.0 && p.accuracy.is_finite())
        .map(|p| CurvePoint {
            low: if p.low.is_finite() { p.low.min(p.accuracy) } else { p.accuracy },
            high: if p.high.is_finite() { p.high.max(p.accuracy) } else { p.accuracy },
            ..*p
        })
        .collect();
    points.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    points
}

/// `points` with more of them on long segments. A segment is straight in cost (it mixes two settings), so on a log axis
/// it is a curve.
pub fn refine(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut fine = Vec::with_capacity(points.len());
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let pieces = ((b.cost / a.cost).ln() / 0.04).ceil().clamp(1.0, 100.0) as usize;
        fine.extend((0..pieces).map(|piece| between(a, b, a.cost + (b.cost - a.cost) * piece as f64 / pieces as f64)));
    }
    fine.extend(points.last());
    fine
}

fn between(a: CurvePoint, b: CurvePoint, cost: f64) -> CurvePoint {
    let share = if b.cost > a.cost { (cost - a.cost) / (b.cost - a.cost) } else { 1.0 };
    let mix = |a: f64, b: f64| a + (b - a) * share;
    CurvePoint { cost, accuracy: mix(a.accuracy, b.accuracy), low: mix(a.low, b.low), high: mix(a.high, b.high) }
}

fn point_at(points: &[CurvePoint], cost: f64) -> Option<CurvePoint> {
    let pair = points.windows(2).find(|pair| pair[0].cost <= cost && cost <= pair[1].cost)?;
    Some(between(pair[0], pair[1], cost))
}

/// Curves that decide on the windows: learned policies and combinations; without any, all methods but bounds; without
/// these, all.
fn leading(report: &Report) -> Vec<Vec<CurvePoint>> {
    let of = |wanted: &dyn Fn(&MethodReport) -> bool| -> Vec<Vec<CurvePoint>> {
        let curves = report.methods.iter().filter(|m| wanted(m)).map(|m| clean(&m.curve));
        curves.filter(|points| !points.is_empty()).collect()
    };
    let first = of(&|m| matches!(m.family, Family::Learned | Family::Combination));
    if !first.is_empty() {
        return first;
    }
    let second = of(&|m| m.family != Family::Bound);
    if second.is_empty() { of(&|_| true) } else { second }
}

/// Cost from which on a curve stays flat: what lies beyond is only the last setting carried on.
fn end_of_rise(points: &[CurvePoint]) -> f64 {
    let last = points[points.len() - 1].accuracy;
    let moving = points.iter().rposition(|p| (p.accuracy - last).abs() > 1e-9);
    points[moving.map_or(0, |at| (at + 1).min(points.len() - 1))].cost
}

fn log_steps(range: (f64, f64)) -> impl Iterator<Item = f64> {
    let (low, high) = (range.0.ln(), range.1.ln());
    (0..=60).map(move |step| (low + (high - low) * f64::from(step) / 60.0).exp())
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((f64::min(low, v), f64::max(high, v))),
    })
}

/// The whole axis of costs, and the accuracies of the leading curves, float and everything above them. The lowest
/// twentieth of the leading curves' length may fall off, so that one steep start does not squeeze the rest.
pub fn overview(report: &Report) -> Window {
    let all = || report.methods.iter().flat_map(|m| clean(&m.curve));
    let (low, high) = report.cost_axis;
    let cost = if low.is_finite() && high.is_finite() && low > 0.0 && high > low {
        let widest = bounds(all().map(|p| p.cost)).map_or(high, |(_, widest)| widest);
        (low / 1.03, high.max(widest.min(1.5 * high)) * 1.04)
    } else {
        bounds(all().map(|p| p.cost)).map_or((0.01, 1.0), |(low, high)| (low / 1.05, high * 1.05))
    };
    let leading = leading(report);
    let rise = |points: &Vec<CurvePoint>| (points[0].cost.max(cost.0), end_of_rise(points).max(points[0].cost));
    let mut seen: Vec<f64> = leading
        .iter()
        .flat_map(|points| log_steps(rise(points)).filter_map(|at| point_at(points, at)))
        .map(|p| p.accuracy)
        .chain(leading.iter().flatten().rev().take(1).map(|p| p.accuracy))
        .collect();
    seen.sort_by(f64::total_cmp);
    let float = report.float_accuracy;
    let bottom = seen.get(seen.len() / 20).copied().unwrap_or(float);
    let (bottom, top) =
        bounds(all().map(|p| p.accuracy).filter(|a| *a >= bottom).chain([bottom, float])).unwrap_or((0.0, 1.0));
    let span = (top - bottom).max(0.02);
    let lowest = if bottom >= 0.0 { 0.0 } else { bottom };
    Window { cost, accuracy: ((bottom - 0.06 * span).max(lowest), top + 0.06 * span) }
}

/// Where the leading curves come near their end and the float accuracy; `None` where that is most of the overview.
pub fn close_up(report: &Report, overview: &Window) -> Option<Window> {
    let leading = leading(report);
    let best = bounds(leading.iter().flatten().map(|p| p.accuracy))?.1;
    let float = if report.float_accuracy.is_finite() { report.float_accuracy } else { best };
    let span = overview.accuracy.1 - overview.accuracy.0;
    let bottom = best.min(float) - (0.22 * span).clamp(0.015, 0.10);
    let start = leading.iter().filter_map(|points| points.iter().find(|p| p.accuracy >= bottom)).map(|p| p.cost);
    let end = leading.iter().map(|points| end_of_rise(points)).filter(|cost| cost.is_finite());
    let (start, end) = (bounds(start)?.0, bounds(end)?.1);
    let middle = (start * end.max(start)).sqrt();
    let cost = ((start / 1.06).min(middle / 1.25), (end * 1.06).max(middle * 1.25));
    let cost = (cost.0.max(overview.cost.0), cost.1.min(overview.cost.1));
    let inside = |p: &CurvePoint| p.cost >= cost.0 && p.cost <= cost.1 && p.accuracy >= bottom;
    let tops = report.methods.iter().filter(|m| m.family != Family::Bound).flat_map(|m| clean(&m.curve));
    let top = bounds(tops.filter(inside).map(|p| p.accuracy).chain([float]))?.1;
    let window = Window { cost, accuracy: (bottom, top + 0.12 * (top - bottom)) };
    let share_of_cost = (cost.1 / cost.0).ln() / (overview.cost.1 / overview.cost.0).ln();
    let share_of_accuracy = (window.accuracy.1 - bottom) / span;
    (cost.1 > cost.0 && share_of_cost * share_of_accuracy < 0.5).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn point(cost: f64, accuracy: f64) -> CurvePoint {
        CurvePoint { cost, accuracy, low: accuracy - 0.01, high: accuracy + 0.01 }
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let curve = [point(0.5, 0.9), point(0.0, 0.1), point(f64::NAN, 0.2), point(0.1, f64::NAN), point(0.2, 0.5)];
        let costs: Vec<f64> = clean(&curve).iter().map(|p| p.cost).collect();
        assert_eq!(costs, [0.2, 0.5]);
    }

    #[test]
    fn a_long_segment_is_straight_in_cost() {
        let fine = refine(&[point(0.01, 0.0), point(1.0, 0.99)]);
        assert!(fine.len() > 50);
        assert!(fine.iter().all(|p| (p.accuracy - (p.cost - 0.01)).abs() < 1e-9));
    }

    #[test]
    fn a_carried_on_tail_does_not_count() {
        assert_eq!(end_of_rise(&[point(0.1, 0.5), point(0.2, 0.6), point(0.5, 0.6), point(1.0, 0.6)]), 0.2);
        assert_eq!(end_of_rise(&[point(0.1, 0.5)]), 0.1);
    }

    #[test]
    fn windows_show_the_leading_curves_and_float() {
        let report = fixture::report();
        let whole = overview(&report);
        assert!(whole.accuracy.0 < report.float_accuracy && report.float_accuracy < whole.accuracy.1);
        let near = close_up(&report, &whole).expect("the fixture's curves end far left of 1.0");
        assert!(near.accuracy.0 > whole.accuracy.0 && near.accuracy.1 >= report.float_accuracy);
        let learned = clean(&report.methods[0].curve);
        assert!(learned.iter().filter(|p| p.cost > near.cost.0 && p.accuracy > near.accuracy.0).count() > 3);
    }
}
