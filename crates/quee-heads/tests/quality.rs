//! Quality of predictions against scikit-learn, SciPy and NumPy (`fixtures/make.py`), and by hand.

use quee_heads::quality::{self, ReliabilityBin};
use quee_heads::{ABSENT, Calibration, CalibrationKind, FourWay, PredictorRow};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    grid: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    predictions: Vec<f32>,
    outcomes: Vec<u8>,
    brier: f64,
    log_loss: f64,
    auroc: f64,
    ece: f64,
    ece_floor: f64,
    scale: f64,
    bias: f64,
    temperature_scale: f64,
    /// Calibrated probabilities on the grid.
    isotonic: Vec<f64>,
}

fn fixture() -> Fixture {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/quality.json")).unwrap();
    assert_eq!(fixture.cases.len(), 5);
    fixture
}

fn cases() -> Vec<Case> {
    fixture().cases
}

fn assert_near(case: &Case, what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{}: {what} is {found}, expected {expected}", case.name);
}

#[test]
fn metrics_agree_with_scikit_learn() {
    for case in cases() {
        let row = PredictorRow::compute(1, "exit", &case.predictions, &case.outcomes, 3).unwrap();
        // Both sides sum the same few hundred terms in double precision.
        assert_near(&case, "brier", row.brier, case.brier, 1e-12);
        assert_near(&case, "log loss", row.log_loss, case.log_loss, 1e-12);
        assert_near(&case, "auroc", row.auroc.unwrap(), case.auroc, 1e-12);
        assert_near(&case, "ece", row.ece, case.ece, 1e-12);
        // The floor is a mean over 1,000 draws here and 4,000 there; a draw deviates by about a third of its mean.
        assert_near(&case, "ece floor", row.ece_floor, case.ece_floor, 0.05 * case.ece_floor);
        let wrong = case.outcomes.iter().filter(|&&o| o == 1).count();
        assert_near(&case, "base rate", row.base_rate, wrong as f64 / case.outcomes.len() as f64, 1e-12);
    }
}

#[test]
fn calibration_agrees_with_a_general_optimiser() {
    for case in cases() {
        let fit = |kind| match Calibration::fit(kind, &case.predictions, &case.outcomes).unwrap() {
            Calibration::Logit { scale, bias } => (f64::from(scale), f64::from(bias)),
            other => panic!("{other:?}"),
        };
        let (scale, bias) = fit(CalibrationKind::ScaleBias);
        assert_near(&case, "scale", scale, case.scale, 1e-5);
        assert_near(&case, "bias", bias, case.bias, 1e-5);
        let (scale, bias) = fit(CalibrationKind::Temperature);
        assert_near(&case, "scale alone", scale, case.temperature_scale, 1e-5);
        assert_eq!(bias, 0.0);
    }
}

#[test]
fn isotonic_calibration_agrees_with_scikit_learn() {
    let Fixture { grid, cases } = fixture();
    for case in cases {
        let found = Calibration::fit(CalibrationKind::Isotonic, &case.predictions, &case.outcomes).unwrap();
        for (&p, &expected) in grid.iter().zip(&case.isotonic) {
            assert_near(&case, &format!("isotonic at {p}"), f64::from(found.apply(p)), expected, 2e-7);
        }
        let calibrated: Vec<f32> = case.predictions.iter().map(|&p| found.apply(p)).collect();
        let (before, after) =
            (quality::brier(&case.predictions, &case.outcomes), quality::brier(&calibrated, &case.outcomes));
        assert!(after < before, "{}: Brier {before} became {after}", case.name);
    }
}

#[test]
fn absent_outcomes_are_left_out() {
    let case = &cases()[0];
    let (mut predictions, mut outcomes) = (case.predictions.clone(), case.outcomes.clone());
    for i in (0..100).rev() {
        predictions.insert(i, 0.9);
        outcomes.insert(i, ABSENT);
    }
    let with = PredictorRow::compute(2, "w4a4", &predictions, &outcomes, 3).unwrap();
    assert_eq!(with, PredictorRow::compute(2, "w4a4", &case.predictions, &case.outcomes, 3).unwrap());
    assert_eq!(with.n, 400);
    assert_eq!(PredictorRow::compute(2, "w4a4", &[0.5], &[ABSENT], 3), None);
}

#[test]
fn the_order_of_samples_does_not_matter() {
    let case = &cases()[2];
    let reversed: (Vec<f32>, Vec<u8>) = case.predictions.iter().zip(&case.outcomes).rev().unzip();
    let (forward, backward) = (quality::ece(&case.predictions, &case.outcomes), quality::ece(&reversed.0, &reversed.1));
    assert_near(case, "ece", backward, forward, 1e-12);
    let (forward, backward) =
        (quality::auroc(&case.predictions, &case.outcomes), quality::auroc(&reversed.0, &reversed.1));
    assert_eq!(forward, backward);
}

#[test]
fn extremes() {
    assert_eq!(quality::auroc(&[0.1, 0.9], &[1, 1]), None);
    assert_eq!(quality::auroc(&[0.5, 0.5, 0.5], &[0, 1, 0]), Some(0.5));
    assert_eq!(quality::auroc(&[0.1, 0.2, 0.3], &[0, 0, 1]), Some(1.0));
    assert!((quality::log_loss(&[0.0], &[1]) - 1e6f64.ln()).abs() < 1e-9, "clamped, not infinite");
    // One prediction for all: one bin, and the distance of its value from the rate.
    assert_eq!(quality::ece(&[0.25; 40], &[[1; 20], [0; 20]].concat()), 0.25);
    assert_eq!(quality::ece_floor(&[0.0, 1.0, 1.0], 0), 0.0, "certain predictions draw certain labels");
}

#[test]
fn bins_of_equal_mass_keep_ties_together() {
    let predictions = [0.1, 0.2, 0.2, 0.2, 0.3, 0.4];
    let bins = quality::reliability(&predictions, &[0, 1, 0, 0, 1, 1], 3);
    assert_eq!(bins.iter().map(|b| b.n).collect::<Vec<_>>(), [4, 2]);
    let ReliabilityBin { predicted, rate, .. } = bins[1];
    assert!((predicted - 0.35).abs() < 1e-6 && rate == 1.0);
    assert_eq!(bins[0].rate, 0.25);
}

#[test]
fn the_floor_is_seeded_and_free_of_threads() {
    let predictions = &cases()[0].predictions;
    let floor = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| quality::ece_floor(predictions, 11))
    };
    assert_eq!(floor(1).to_bits(), floor(3).to_bits());
    assert_ne!(quality::ece_floor(predictions, 11), quality::ece_floor(predictions, 12));
}

#[test]
fn the_four_way_split() {
    let split = FourWay::count(&[0, 0, 1, 1, 1, ABSENT, 0], &[0, 1, 0, 0, 1, 0, ABSENT]);
    assert_eq!(split, FourWay { right: 1, rescued: 2, hurt: 1, wrong: 1 });
    assert_eq!(split.n(), 5);
}
