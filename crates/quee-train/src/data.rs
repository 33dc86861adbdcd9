//! Checks on what comes in, and the order in which training goes through it.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::TrainError;

/// Refuses arrays that are not `rows` lines of `dim` values.
pub(crate) fn expect_len(what: &'static str, expected: usize, found: usize) -> Result<(), TrainError> {
    if expected == found { Ok(()) } else { Err(TrainError::Length { what, expected, found }) }
}

/// Refuses NaN and infinities.
pub(crate) fn expect_finite(what: &'static str, values: &[f32]) -> Result<(), TrainError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => {
            Err(TrainError::Value { what, index, value: values[index], hint: "every value must be a finite number" })
        }
    }
}

/// Refuses labels that no class has.
pub(crate) fn expect_labels(labels: &[u16], classes: usize) -> Result<(), TrainError> {
    match labels.iter().position(|&label| usize::from(label) >= classes) {
        None => Ok(()),
        Some(index) => Err(TrainError::Label { index, label: labels[index], classes }),
    }
}

/// Refuses a setting below `least` or not finite.
pub(crate) fn expect_setting(what: &'static str, value: f64, least: f64, hint: &'static str) -> Result<(), TrainError> {
    if value.is_finite() && value >= least { Ok(()) } else { Err(TrainError::Setting { what, value, hint }) }
}

/// A generator of its own for each use: `path` says which.
pub(crate) fn rng_for(seed: u64, path: &[u64]) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    for (part, value) in key[8..].chunks_exact_mut(8).zip(path) {
        // 0 stays free for "no such part".
        part.copy_from_slice(&value.wrapping_add(1).to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The numbers below `n` in random order.
pub(crate) fn shuffled(n: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

/// A draw from the standard normal distribution (Box and Muller, *Ann. Math. Stat.* 29, 1958).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // 1 − u lies in (0, 1], so that its logarithm is finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
}

/// A normal draw within ± 2 deviations.
pub(crate) fn truncated_normal(rng: &mut ChaCha8Rng) -> f32 {
    loop {
        let draw = normal(rng);
        if draw.abs() <= 2.0 {
            return draw;
        }
    }
}
