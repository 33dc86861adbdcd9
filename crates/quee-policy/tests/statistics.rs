//! Statistics against NumPy, SciPy and exact fractions (`fixtures/make.py`).

use quee_policy::bootstrap::Interval;
use quee_policy::conformal::{Answers, Conformal, Score, SetReport, Threshold, rank};
use quee_policy::curve::Axis;
use quee_policy::gap::{Shape, learning_curve};
use quee_policy::ladder::paired_difference;
use quee_policy::risk::{RiskTarget, binomial_at_most, most_losses};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    tails: Vec<Tail>,
    most_losses: Vec<MostLosses>,
    ranks: Vec<Rank>,
    quantiles: Vec<Quantile>,
    aps: Vec<Aps>,
    sets: Sets,
    intervals: Vec<Percentiles>,
    areas: Vec<Area>,
    paired: Vec<Paired>,
    learning_curves: Vec<Curve>,
}

#[derive(Deserialize)]
struct Tail {
    k: usize,
    n: usize,
    p: f64,
    tail: f64,
}

#[derive(Deserialize)]
struct MostLosses {
    epsilon: f64,
    delta: f64,
    n: usize,
    most: Option<usize>,
}

#[derive(Deserialize)]
struct Rank {
    n: usize,
    alpha: f64,
    rank: Option<usize>,
    sd: f64,
}

#[derive(Deserialize)]
struct Quantile {
    scores: Vec<f64>,
    alpha: f64,
    threshold: f64,
}

#[derive(Deserialize)]
struct Aps {
    probabilities: Vec<f32>,
    u: f64,
    scores: Vec<f64>,
}

#[derive(Deserialize)]
struct Side {
    probabilities: Vec<f32>,
    labels: Vec<u16>,
    paths: Vec<u32>,
}

impl Side {
    fn answers(&self, classes: usize) -> Answers<'_> {
        Answers::new(&self.probabilities, classes, &self.labels).unwrap()
    }
}

#[derive(Deserialize)]
struct Sets {
    classes: usize,
    alpha: f64,
    cal: Side,
    test: Side,
    threshold: f64,
    one: [f64; 4],
    per_path: [f64; 4],
}

#[derive(Deserialize)]
struct Percentiles {
    values: Vec<f64>,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Area {
    least_cost: f64,
    floor: f64,
    points: Vec<(f64, f64)>,
    area: f64,
}

#[derive(Deserialize)]
struct Paired {
    a: Vec<bool>,
    b: Vec<bool>,
    points: f64,
    z: f64,
}

#[derive(Deserialize)]
struct Curve {
    points: Vec<(usize, f64)>,
    inverse: bool,
    residual: f64,
    limit: f64,
    slope: f64,
    standard_error: f64,
    other_limit: f64,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap()
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what} is {found}, expected {expected}");
}

#[test]
fn binomial_tails_are_exact() {
    for Tail { k, n, p, tail } in fixture().tails {
        // The logarithm of a term adds up to a hundred roundings of numbers up to a hundred.
        assert_near(&format!("tail {k} {n} {p}"), binomial_at_most(k, n, p) / tail, 1.0, 1e-11);
    }
    for MostLosses { epsilon, delta, n, most } in fixture().most_losses {
        assert_eq!(most_losses(RiskTarget { epsilon, delta }, n), most, "{epsilon} {delta} {n}");
    }
}

#[test]
fn conformal_thresholds_are_the_right_order_statistics() {
    for Rank { n, alpha, rank: expected, sd } in fixture().ranks {
        assert_eq!(rank(n, alpha), expected, "{n} {alpha}");
        let spread: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let threshold = Threshold::new(spread, alpha);
        assert_eq!(threshold.score, expected.map(|rank| (rank - 1) as f64));
        assert_near("spread of the coverage", threshold.coverage_sd, sd, 1e-12);
    }
    for Quantile { scores, alpha, threshold } in fixture().quantiles {
        assert_eq!(Threshold::new(scores, alpha).score, Some(threshold));
    }
}

#[test]
fn adaptive_scores_agree_with_their_definition() {
    for Aps { probabilities, u, scores } in fixture().aps {
        for (found, expected) in Score::Aps.of(&probabilities, u).into_iter().zip(scores) {
            assert_near("score", found, expected, 1e-12);
        }
    }
}

#[test]
fn prediction_sets_of_a_policy_agree() {
    let Sets { classes, alpha, cal, test, threshold, one, per_path } = fixture().sets;
    let conformal = Conformal::new(Score::Lac, alpha, 0).unwrap();
    let found = conformal.policy_sets(&cal.answers(classes), &cal.paths, &test.answers(classes), &test.paths).unwrap();
    assert_eq!(found.threshold.score, Some(threshold));
    let figures = |report: SetReport| [report.coverage, report.coverage_se, report.mean_size, report.empty];
    for (found, expected) in [(found.one, one), (found.per_path, per_path)] {
        for (found, expected) in figures(found).into_iter().zip(expected) {
            assert_near("figure of sets", found, expected, 1e-12);
        }
    }
    assert_eq!(found.paths.iter().map(|path| path.threshold.score.is_some()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn intervals_are_percentiles() {
    for Percentiles { values, low, high } in fixture().intervals {
        let found = Interval::new(0.6, values);
        assert_near("low", found.low, low, 1e-14);
        assert_near("high", found.high, high, 1e-14);
    }
}

#[test]
fn areas_agree_with_numeric_integration() {
    for Area { least_cost, floor, points, area } in fixture().areas {
        assert_near("area", Axis { least_cost, floor }.area(&points), area, 1e-11);
    }
}

#[test]
fn paired_differences_agree() {
    for Paired { a, b, points, z } in fixture().paired {
        let found = paired_difference(&a, &b);
        assert_near("points", found.0, points, 1e-12);
        assert_near("standard errors", found.1, z, 1e-12);
    }
}

#[test]
fn learning_curves_agree_with_polyfit() {
    for curve in fixture().learning_curves {
        let found = learning_curve(&curve.points).unwrap();
        assert_eq!(found.shape == Shape::Inverse, curve.inverse);
        assert_near("limit", found.limit, curve.limit, 1e-12);
        assert_near("slope", found.slope, curve.slope, 1e-9);
        assert_near("standard error", found.standard_error, curve.standard_error, 1e-12);
        assert_near("residual", found.residual, curve.residual, 1e-12);
        assert_near("other limit", found.other_limit, curve.other_limit, 1e-12);
    }
}
