//! Symmetric per-channel quantization of weights.

use serde::{Deserialize, Serialize};

use crate::activation::round;

/// How the scale of an output channel is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightQuantizer {
    /// The largest magnitude becomes the largest code.
    Absmax,
    /// Least squared error over a grid of clipped ranges.
    Mse,
}

/// A weight matrix `[n, k]` as integer codes.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantWeight {
    /// Output channels.
    pub n: usize,
    /// Input channels.
    pub k: usize,
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Codes `[n, k]`, each within ±(2^(bits−1) − 1).
    pub codes: Vec<i8>,
    /// Scales `[n]`.
    pub scales: Vec<f32>,
    /// Sum of each channel's codes `[n]`, which the activation's zero point multiplies.
    pub sums: Vec<i32>,
}

/// Steps of the grid that [`WeightQuantizer::Mse`] searches: ranges from 100% of the largest magnitude down.
const MSE_STEPS: usize = 80;
/// The smallest range of that grid, as a share of the largest magnitude.
const MSE_SMALLEST: f32 = 0.2;

impl QuantWeight {
    /// Quantizes `weight` (`[n, k]`, row-major) to `bits` bits.
    ///
    /// # Panics
    /// When `weight.len() != n * k` or `bits` is outside 2..=8.
    pub fn quantize(weight: &[f32], n: usize, k: usize, bits: u8, method: WeightQuantizer) -> Self {
        assert_eq!(weight.len(), n * k, "weight of {n} x {k}");
        assert!((2..=8).contains(&bits), "weight bits outside 2..=8: {bits}");
        let top = ((1i32 << (bits - 1)) - 1) as f32;
        let mut codes = Vec::with_capacity(n * k);
        let mut scales = Vec::with_capacity(n);
        let mut sums = Vec::with_capacity(n);
        for row in weight.chunks_exact(k.max(1)) {
            let scale = channel_scale(row, top, method);
            let inverse = 1.0 / scale;
            let start = codes.len();
            codes.extend(row.iter().map(|&w| round((w * inverse).clamp(-128.0, 128.0)).clamp(-top, top) as i8));
            sums.push(codes[start..].iter().map(|&c| i32::from(c)).sum());
            scales.push(scale);
        }
        Self { n, k, bits, codes, scales, sums }
    }

    /// Codes `[n, k]` that are there already, with their scales `[n]`.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn from_codes(n: usize, k: usize, bits: u8, codes: Vec<i8>, scales: Vec<f32>) -> Self {
        assert_eq!((codes.len(), scales.len()), (n * k, n), "codes and scales of {n} x {k}");
        let mut sums: Vec<i32> =
            codes.chunks_exact(k.max(1)).map(|row| row.iter().map(|&code| i32::from(code)).sum()).collect();
        sums.resize(n, 0);
        Self { n, k, bits, codes, scales, sums }
    }

    /// The real weights that the codes stand for, `[n, k]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let rows = self.codes.chunks_exact(self.k.max(1)).zip(&self.scales);
        rows.flat_map(|(row, &scale)| row.iter().map(move |&code| f32::from(code) * scale)).collect()
    }
}

fn channel_scale(row: &[f32], top: f32, method: WeightQuantizer) -> f32 {
    let absmax = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    if absmax < f32::MIN_POSITIVE * 256.0 {
        return 1.0;
    }
    match method {
        WeightQuantizer::Absmax => absmax / top,
        WeightQuantizer::Mse => {
            let mut best = (f64::INFINITY, absmax / top);
            for step in 0..MSE_STEPS {
                let share = 1.0 - (1.0 - MSE_SMALLEST) * step as f32 / (MSE_STEPS - 1) as f32;
                let scale = absmax * share / top;
                let error = squared_error(row, scale, top);
                if error < best.0 {
                    best = (error, scale);
                }
            }
            best.1
        }
    }
}

fn squared_error(row: &[f32], scale: f32, top: f32) -> f64 {
    let inverse = 1.0 / scale;
    let error = |w: f32| w - round((w * inverse).clamp(-128.0, 128.0)).clamp(-top, top) * scale;
    row.iter().map(|&w| f64::from(error(w)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<f32> {
        (0..3 * 40).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).powi(3) * (1 + i / 40) as f32).collect()
    }

    #[test]
    fn codes_stay_inside_the_symmetric_range_and_sums_match() {
        for bits in 2..=8 {
            for method in [WeightQuantizer::Absmax, WeightQuantizer::Mse] {
                let q = QuantWeight::quantize(&sample(), 3, 40, bits, method);
                let top = (1i32 << (bits - 1)) - 1;
                assert!(q.codes.iter().all(|&c| i32::from(c).abs() <= top));
                for (row, sum) in q.codes.chunks(40).zip(&q.sums) {
                    assert_eq!(row.iter().map(|&c| i32::from(c)).sum::<i32>(), *sum);
                }
            }
        }
    }

    #[test]
    fn mse_is_never_worse_than_absmax_and_better_at_few_bits() {
        let error = |bits, method| {
            let values = QuantWeight::quantize(&sample(), 3, 40, bits, method).dequantize();
            values.iter().zip(sample()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        for bits in 2..=8 {
            assert!(error(bits, WeightQuantizer::Mse) <= error(bits, WeightQuantizer::Absmax) * (1.0 + 1e-6));
        }
        assert!(error(3, WeightQuantizer::Mse) < 0.9 * error(3, WeightQuantizer::Absmax));
    }

    #[test]
    fn a_channel_of_zeros_has_a_finite_scale() {
        let q = QuantWeight::quantize(&[0.0; 8], 2, 4, 4, WeightQuantizer::Mse);
        assert!(q.scales.iter().all(|s| s.is_finite() && *s > 0.0));
        assert!(q.codes.iter().all(|&c| c == 0));
    }
}
