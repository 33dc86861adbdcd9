//! Calibration of probabilities, fitted per gate: scale and bias on the logit, or an isotonic map.

use serde::{Deserialize, Serialize};

use crate::error::expect_len;
use crate::{ABSENT, HeadsError, Isotonic, PROBABILITY_FLOOR};

/// The scale is never smaller, so that calibration keeps the order of probabilities.
const MIN_SCALE: f64 = 0.01;

/// Strength of the pull towards identity, in observations. Nothing among thousands, but it keeps the fit finite when
/// all outcomes are equal.
const RIDGE: f64 = 1.0;

/// How the probabilities of a predictor are calibrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationKind {
    /// Not at all.
    None,
    /// Scale and bias of the logit (Platt scaling): two numbers, the project's default.
    #[default]
    ScaleBias,
    /// Scale of the logit alone, which is one over a temperature (arXiv 1706.04599).
    Temperature,
    /// Any non-decreasing map ([`Isotonic`]): wants thousands of outcomes, and gives neighbouring probabilities ties.
    Isotonic,
}

/// A non-decreasing map from probabilities to calibrated ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// Leaves probabilities as they are.
    #[default]
    Identity,
    /// Maps `p` to `sigmoid(scale · logit(p) + bias)`.
    Logit {
        /// Factor of the logit, positive.
        scale: f32,
        /// Added to the logit; 0 after a fit of the temperature.
        bias: f32,
    },
    /// Lines between knots.
    Isotonic(Isotonic),
}

impl Calibration {
    /// The calibrated probability; non-decreasing in `probability`. Never exactly 0 or 1, except under identity or
    /// where a logit is beyond what an `f32` holds; for logits, probabilities are first brought at least 1e-6 from 0
    /// and 1.
    pub fn apply(&self, probability: f32) -> f32 {
        match self {
            Self::Identity => probability,
            Self::Logit { scale, bias } => sigmoid(f64::from(*scale) * logit(probability) + f64::from(*bias)) as f32,
            Self::Isotonic(map) => map.apply(probability),
        }
    }

    /// The calibration of `kind` that fits `probabilities` and their `outcomes` (0, 1, or [`ABSENT`], which is
    /// skipped) best, pooled over everything that is passed.
    ///
    /// Scale and bias are those of the least log loss, with a ridge worth one observation that pulls towards identity:
    /// on the data they are fitted to, their log loss is at most that of identity, and with equal outcomes they stay
    /// finite. For isotonic maps see [`Isotonic`]. Without outcomes the calibration is identity.
    ///
    /// # Errors
    /// When the lengths differ, a probability is not between 0 and 1, or an outcome has no meaning.
    pub fn fit(kind: CalibrationKind, probabilities: &[f32], outcomes: &[u8]) -> Result<Self, HeadsError> {
        expect_len("outcomes to calibrate on", probabilities.len(), outcomes.len())?;
        let mut points = Vec::with_capacity(outcomes.len());
        for (sample, (&p, &outcome)) in probabilities.iter().zip(outcomes).enumerate() {
            if !(0.0..=1.0).contains(&p) {
                let value = p.to_string();
                return Err(HeadsError::Setting { what: "probability", value, hint: "it lies between 0 and 1" });
            }
            match outcome {
                ABSENT => {}
                0 | 1 => points.push((p, outcome == 1)),
                value => return Err(HeadsError::Outcome { value, prefix: 0, suffix: 0, sample }),
            }
        }
        let free = match kind {
            _ if points.is_empty() => return Ok(Self::Identity),
            CalibrationKind::None => return Ok(Self::Identity),
            CalibrationKind::Isotonic => return Ok(Isotonic::fit(points).map_or(Self::Identity, Self::Isotonic)),
            CalibrationKind::ScaleBias => Free { scale: true, bias: true },
            CalibrationKind::Temperature => Free { scale: true, bias: false },
        };
        let points: Vec<(f64, f64)> = points.into_iter().map(|(p, wrong)| (logit(p), f64::from(wrong))).collect();
        let (mut scale, mut bias) = minimise(&points, (1.0, 0.0), free);
        if scale < MIN_SCALE {
            // The objective is convex: if its minimum lies beyond the limit, the best allowed point lies on the limit.
            (scale, bias) = minimise(&points, (MIN_SCALE, 0.0), Free { scale: false, ..free });
        }
        Ok(Self::Logit { scale: scale as f32, bias: bias as f32 })
    }

    /// Number of stored parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Logit { .. } => 2,
            Self::Isotonic(map) => 2 * map.x.len(),
        }
    }

    /// Multiply-accumulates of one probability; comparisons with knots (bisection) count one each.
    pub fn macs(&self) -> u64 {
        match self {
            Self::Identity => 0,
            Self::Logit { .. } => 1,
            Self::Isotonic(map) => 1 + u64::from(map.x.len().next_power_of_two().ilog2()),
        }
    }

    /// Checks a calibration that was read.
    ///
    /// # Errors
    /// When a scale is not positive or a value is not finite, or as [`Isotonic::check`].
    pub fn check(&self) -> Result<(), HeadsError> {
        match self {
            Self::Identity => Ok(()),
            Self::Logit { scale, bias } if scale.is_finite() && *scale > 0.0 && bias.is_finite() => Ok(()),
            Self::Logit { scale, bias } => {
                let value = format!("{scale} · logit + {bias}");
                let hint = "the scale must be positive and both finite";
                Err(HeadsError::Setting { what: "calibration", value, hint })
            }
            Self::Isotonic(map) => map.check(),
        }
    }
}

/// What may move while scale and bias are fitted.
#[derive(Clone, Copy)]
struct Free {
    scale: bool,
    bias: bool,
}

/// Newton's method with step halving, from `start`.
fn minimise(points: &[(f64, f64)], start: (f64, f64), free: Free) -> (f64, f64) {
    let (mut scale, mut bias) = start;
    let mut value = objective(points, scale, bias);
    for _ in 0..50 {
        let mut gradient = [RIDGE * (scale - 1.0), RIDGE * bias];
        let (mut aa, mut ab, mut bb) = (RIDGE, 0.0, RIDGE);
        for &(z, y) in points {
            let p = sigmoid(scale * z + bias);
            let (error, weight) = (p - y, p * (1.0 - p));
            gradient[0] += error * z;
            gradient[1] += error;
            aa += weight * z * z;
            ab += weight * z;
            bb += weight;
        }
        let (step_scale, step_bias) = match free {
            Free { scale: true, bias: true } => {
                let determinant = aa * bb - ab * ab;
                let step_scale = (bb * gradient[0] - ab * gradient[1]) / determinant;
                (step_scale, (aa * gradient[1] - ab * gradient[0]) / determinant)
            }
            Free { scale: true, bias: false } => (gradient[0] / aa, 0.0),
            Free { scale: false, bias: true } => (0.0, gradient[1] / bb),
            Free { scale: false, bias: false } => break,
        };
        let mut factor = 1.0;
        let better = loop {
            let (s, b) = (scale - factor * step_scale, bias - factor * step_bias);
            let new = objective(points, s, b);
            if new < value {
                break Some((s, b, new));
            }
            factor /= 2.0;
            if factor < 1e-6 {
                break None;
            }
        };
        let Some((s, b, new)) = better else { break };
        let gain = value - new;
        (scale, bias, value) = (s, b, new);
        if gain < 1e-12 * value.abs() {
            break;
        }
    }
    (scale, bias)
}

/// Summed log loss plus the ridge.
fn objective(points: &[(f64, f64)], scale: f64, bias: f64) -> f64 {
    let loss: f64 = points
        .iter()
        .map(|&(z, y)| {
            let logit = scale * z + bias;
            // −y·ln σ − (1−y)·ln(1−σ), without cancellation.
            logit.max(0.0) - logit * y + (-logit.abs()).exp().ln_1p()
        })
        .sum();
    loss + RIDGE / 2.0 * ((scale - 1.0).powi(2) + bias * bias)
}

fn logit(probability: f32) -> f64 {
    let p = f64::from(probability).clamp(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR);
    (p / (1.0 - p)).ln()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::quality::log_loss;

    fn fit(probabilities: &[f32], outcomes: &[u8]) -> Result<Calibration, HeadsError> {
        Calibration::fit(CalibrationKind::ScaleBias, probabilities, outcomes)
    }

    /// Scale and bias that were found.
    fn found(calibration: Calibration) -> (f32, f32) {
        match calibration {
            Calibration::Logit { scale, bias } => (scale, bias),
            other => panic!("{other:?}"),
        }
    }

    /// Probabilities of known distortion and outcomes drawn from the undistorted ones.
    fn distorted(distort: &Calibration) -> (Vec<f32>, Vec<u8>) {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (mut predicted, mut outcomes) = (Vec::new(), Vec::new());
        for _ in 0..40_000 {
            let p: f32 = random.random_range(0.02..0.98);
            outcomes.push(u8::from(random.random::<f32>() < p));
            predicted.push(distort.apply(p));
        }
        (predicted, outcomes)
    }

    #[test]
    fn a_known_distortion_is_undone() {
        let (predicted, outcomes) = distorted(&Calibration::Logit { scale: 2.0, bias: -0.5 });
        let (scale, bias) = found(fit(&predicted, &outcomes).unwrap());
        // Undoing 2·z − 0.5 takes half the logit plus a quarter.
        assert!((scale - 0.5).abs() < 0.02 && (bias - 0.25).abs() < 0.03, "{scale} {bias}");
        let isotonic = Calibration::fit(CalibrationKind::Isotonic, &predicted, &outcomes).unwrap();
        for p in [0.05, 0.3, 0.5, 0.7, 0.95] {
            let undone = isotonic.apply(Calibration::Logit { scale: 2.0, bias: -0.5 }.apply(p));
            assert!((undone - p).abs() < 0.05, "{p} became {undone}");
        }
    }

    #[test]
    fn a_temperature_has_no_bias() {
        let (predicted, outcomes) = distorted(&Calibration::Logit { scale: 4.0, bias: 0.0 });
        let (scale, bias) = found(Calibration::fit(CalibrationKind::Temperature, &predicted, &outcomes).unwrap());
        assert!((scale - 0.25).abs() < 0.01 && bias == 0.0, "{scale} {bias}");
    }

    #[test]
    fn equal_outcomes_and_none_at_all() {
        use CalibrationKind::{Isotonic, None, ScaleBias, Temperature};
        for kind in [None, ScaleBias, Temperature, Isotonic] {
            assert_eq!(Calibration::fit(kind, &[], &[]).unwrap(), Calibration::Identity);
            assert_eq!(Calibration::fit(kind, &[0.2, 0.9], &[ABSENT; 2]).unwrap(), Calibration::Identity);
        }
        for (kind, outcome) in [ScaleBias, Isotonic].into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]) {
            let found = Calibration::fit(kind, &[0.0, 0.3, 1.0, 0.7], &[outcome; 4]).unwrap();
            assert!(found.check().is_ok(), "{found:?}");
            let moved = found.apply(0.5);
            assert!(if outcome == 0 { moved < 0.5 } else { moved > 0.5 }, "{found:?}");
        }
    }

    #[test]
    fn predictions_that_mislead_are_flattened_but_not_turned_round() {
        let probabilities: Vec<f32> = (0..200).map(|i| if i % 2 == 0 { 0.9 } else { 0.1 }).collect();
        let outcomes: Vec<u8> = (0..200).map(|i| i % 2).collect();
        for kind in [CalibrationKind::ScaleBias, CalibrationKind::Temperature] {
            let (scale, bias) = found(Calibration::fit(kind, &probabilities, &outcomes).unwrap());
            assert!((scale - 0.01).abs() < 1e-6 && bias.abs() < 0.01, "{scale} {bias}");
        }
        let isotonic = Calibration::fit(CalibrationKind::Isotonic, &probabilities, &outcomes).unwrap();
        assert_eq!((isotonic.apply(0.1), isotonic.apply(0.9)), (0.5, 0.5));
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(fit(&[0.5], &[]).is_err());
        assert!(fit(&[f32::NAN], &[0]).is_err());
        assert!(fit(&[0.5], &[7]).is_err());
        assert!(Calibration::Logit { scale: 0.0, bias: 0.0 }.check().is_err());
        assert!(Calibration::Isotonic(Isotonic { x: vec![], y: vec![] }).check().is_err());
    }

    #[test]
    fn the_stored_form_is_spelt_out() {
        let logit = Calibration::Logit { scale: 1.5, bias: 0.25 };
        let knots = Calibration::Isotonic(Isotonic { x: vec![0.1, 0.5], y: vec![0.25, 0.5] });
        for (calibration, text, parameters, macs) in [
            (Calibration::Identity, r#""identity""#, 0, 0),
            (logit, r#"{"logit":{"scale":1.5,"bias":0.25}}"#, 2, 1),
            (knots, r#"{"isotonic":{"x":[0.1,0.5],"y":[0.25,0.5]}}"#, 4, 2),
        ] {
            assert_eq!(serde_json::to_string(&calibration).unwrap(), text);
            assert_eq!(serde_json::from_str::<Calibration>(text).unwrap(), calibration);
            assert_eq!((calibration.parameters(), calibration.macs()), (parameters, macs));
        }
        assert_eq!(serde_json::to_string(&CalibrationKind::default()).unwrap(), r#""scale-bias""#);
    }

    proptest! {
        #[test]
        fn log_loss_on_its_own_data_is_at_most_that_of_identity(
            data in prop::collection::vec((0f32..=1.0, 0u8..2), 1..80),
            with_bias in any::<bool>(),
        ) {
            let (probabilities, outcomes): (Vec<f32>, Vec<u8>) = data.into_iter().unzip();
            let kind = if with_bias { CalibrationKind::ScaleBias } else { CalibrationKind::Temperature };
            let found = Calibration::fit(kind, &probabilities, &outcomes).unwrap();
            prop_assert!(found.check().is_ok());
            let calibrated: Vec<f32> = probabilities.iter().map(|&p| found.apply(p)).collect();
            let (before, after) = (log_loss(&probabilities, &outcomes), log_loss(&calibrated, &outcomes));
            // 32-bit rounding of probabilities near 1 moves a logarithm by up to 6e-8 / 1e-6.
            prop_assert!(after <= before + 0.06, "{} became {}", before, after);
            if probabilities.iter().all(|p| (0.001..0.999).contains(p)) {
                prop_assert!(after <= before + 1e-5, "{} became {}", before, after);
            }
        }

        #[test]
        fn calibration_keeps_order(scale in 0.01f32..20.0, bias in -5f32..5.0, a in 0f32..=1.0, b in 0f32..=1.0) {
            let calibration = Calibration::Logit { scale, bias };
            prop_assert!(calibration.apply(a.min(b)) <= calibration.apply(a.max(b)));
            prop_assert!((0.0..=1.0).contains(&calibration.apply(a)));
        }
    }
}
