//! Scale and bias on the logit (Platt scaling), fitted per gate.

use serde::{Deserialize, Serialize};

use crate::error::expect_len;
use crate::{ABSENT, HeadsError, PROBABILITY_FLOOR};

/// The scale is never smaller, so that calibration keeps the order of probabilities.
const MIN_SCALE: f64 = 0.01;

/// Strength of the pull towards identity, in observations. Nothing among thousands, but it keeps the fit finite when
/// all outcomes are equal.
const RIDGE: f64 = 1.0;

/// Maps a probability `p` to `sigmoid(scale · logit(p) + bias)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Factor of the logit, positive.
    pub scale: f32,
    /// Added to the logit.
    pub bias: f32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self::IDENTITY
    }
}

impl Calibration {
    /// Leaves probabilities as they are.
    pub const IDENTITY: Self = Self { scale: 1.0, bias: 0.0 };

    /// The calibrated probability; non-decreasing in `probability`. Away from identity, probabilities are first brought
    /// at least 1e-6 from 0 and 1.
    pub fn apply(self, probability: f32) -> f32 {
        if self == Self::IDENTITY {
            return probability;
        }
        sigmoid(f64::from(self.scale) * logit(probability) + f64::from(self.bias)) as f32
    }

    /// The scale and bias with the least log loss on `probabilities` and their `outcomes` (0, 1, or [`ABSENT`], which
    /// is skipped), pooled over everything that is passed; a ridge worth one observation pulls towards identity.
    ///
    /// On the data it is fitted to, its log loss is at most that of identity. Without outcomes it is identity. With
    /// equal outcomes it stays finite.
    ///
    /// # Errors
    /// When the lengths differ, a probability is not between 0 and 1, or an outcome has no meaning.
    pub fn fit(probabilities: &[f32], outcomes: &[u8]) -> Result<Self, HeadsError> {
        expect_len("outcomes to calibrate on", probabilities.len(), outcomes.len())?;
        let mut points = Vec::with_capacity(outcomes.len());
        for (sample, (&p, &outcome)) in probabilities.iter().zip(outcomes).enumerate() {
            if !(0.0..=1.0).contains(&p) {
                let value = p.to_string();
                return Err(HeadsError::Setting { what: "probability", value, hint: "it lies between 0 and 1" });
            }
            match outcome {
                ABSENT => {}
                0 | 1 => points.push((logit(p), f64::from(outcome))),
                value => return Err(HeadsError::Outcome { value, prefix: 0, suffix: 0, sample }),
            }
        }
        let free = minimise(&points, (1.0, 0.0), true);
        // The objective is convex: if its minimum lies beyond the limit, the best allowed point lies on the limit.
        let (scale, bias) = if free.0 >= MIN_SCALE { free } else { minimise(&points, (MIN_SCALE, 0.0), false) };
        Ok(Self { scale: scale as f32, bias: bias as f32 })
    }

    /// Checks a calibration that was read.
    ///
    /// # Errors
    /// When the scale is not positive or a value is not finite.
    pub fn check(self) -> Result<(), HeadsError> {
        if self.scale.is_finite() && self.scale > 0.0 && self.bias.is_finite() {
            return Ok(());
        }
        let value = format!("{} · logit + {}", self.scale, self.bias);
        Err(HeadsError::Setting { what: "calibration", value, hint: "the scale must be positive and both finite" })
    }
}

/// Newton's method with step halving, from `start`; the scale stays where it is unless `with_scale`.
fn minimise(points: &[(f64, f64)], start: (f64, f64), with_scale: bool) -> (f64, f64) {
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
        let (step_scale, step_bias) = if with_scale {
            let determinant = aa * bb - ab * ab;
            let step_scale = (bb * gradient[0] - ab * gradient[1]) / determinant;
            (step_scale, (aa * gradient[1] - ab * gradient[0]) / determinant)
        } else {
            (0.0, gradient[1] / bb)
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

    #[test]
    fn a_known_distortion_is_undone() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let distort = Calibration { scale: 2.0, bias: -0.5 };
        let (mut predicted, mut outcomes) = (Vec::new(), Vec::new());
        for _ in 0..40_000 {
            let p: f32 = random.random_range(0.02..0.98);
            outcomes.push(u8::from(random.random::<f32>() < p));
            predicted.push(distort.apply(p));
        }
        let found = Calibration::fit(&predicted, &outcomes).unwrap();
        // Undoing 2·z − 0.5 takes half the logit plus a quarter.
        assert!((found.scale - 0.5).abs() < 0.02 && (found.bias - 0.25).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn equal_outcomes_and_none_at_all() {
        assert_eq!(Calibration::fit(&[], &[]).unwrap(), Calibration::IDENTITY);
        assert_eq!(Calibration::fit(&[0.2, 0.9], &[ABSENT, ABSENT]).unwrap(), Calibration::IDENTITY);
        for outcome in [0, 1] {
            let found = Calibration::fit(&[0.0, 0.3, 1.0, 0.7], &[outcome; 4]).unwrap();
            assert!(found.check().is_ok(), "{found:?}");
            let moved = found.apply(0.5);
            assert!(if outcome == 0 { moved < 0.5 } else { moved > 0.5 }, "{found:?}");
        }
    }

    #[test]
    fn predictions_that_mislead_are_flattened_but_not_turned_round() {
        let probabilities: Vec<f32> = (0..200).map(|i| if i % 2 == 0 { 0.9 } else { 0.1 }).collect();
        let outcomes: Vec<u8> = (0..200).map(|i| i % 2).collect();
        let found = Calibration::fit(&probabilities, &outcomes).unwrap();
        assert!((found.scale - 0.01).abs() < 1e-6 && found.bias.abs() < 0.01, "{found:?}");
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(Calibration::fit(&[0.5], &[]).is_err());
        assert!(Calibration::fit(&[f32::NAN], &[0]).is_err());
        assert!(Calibration::fit(&[0.5], &[7]).is_err());
        assert!(Calibration { scale: 0.0, bias: 0.0 }.check().is_err());
    }

    proptest! {
        #[test]
        fn log_loss_on_its_own_data_is_at_most_that_of_identity(
            data in prop::collection::vec((0f32..=1.0, 0u8..2), 1..80),
        ) {
            let (probabilities, outcomes): (Vec<f32>, Vec<u8>) = data.into_iter().unzip();
            let found = Calibration::fit(&probabilities, &outcomes).unwrap();
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
            let calibration = Calibration { scale, bias };
            prop_assert!(calibration.apply(a.min(b)) <= calibration.apply(a.max(b)));
            prop_assert!((0.0..=1.0).contains(&calibration.apply(a)));
        }
    }
}
