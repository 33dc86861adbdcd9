//! Static activation ranges, chosen from values seen during calibration.

use serde::{Deserialize, Serialize};

use crate::activation::ActQuant;

/// How activations get their scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActQuantizer {
    /// Per token at run time, from the token's own minimum and maximum; needs no calibration.
    DynamicToken,
    /// Static per tensor: the minimum and maximum seen.
    Minmax,
    /// Static per tensor: cuts off 0.05% of the values seen at either end.
    Percentile,
    /// Static per tensor: the range with the least squared error on the values seen.
    Mse,
    /// Static: ranges with the least error of the layer's output, weighted by the gradient; two step sizes for the outputs of softmax and GELU
    /// (Yuan et al., *PTQ4ViT*, ECCV 2022).
    Ptq4vit,
    /// Static: outputs of layer normalisation are brought to one range, channel by channel, by changing the normalisation and the weights after
    /// it; powers of √2 for the outputs of softmax (Li et al., *RepQ-ViT*, ICCV 2023).
    Repq,
}

impl ActQuantizer {
    /// Whether ranges are found before the run, from calibration pictures.
    pub fn is_static(self) -> bool {
        self != Self::DynamicToken
    }
}

/// Share of values that [`ActQuantizer::Percentile`] cuts off at each end.
const PERCENTILE_TAIL: f64 = 0.0005;
/// Values kept of what was seen; beyond it, every second one is dropped and the stride doubles.
const KEPT_VALUES: usize = 1 << 17;
/// Steps per axis of the grid that [`ActQuantizer::Mse`] searches.
const MSE_STEPS: usize = 32;
/// Smallest range of that grid, as a share of the range seen.
const MSE_SMALLEST: f32 = 0.1;

/// Collects the values that enter one quantized operation.
///
/// Minimum and maximum are exact; the other rules use an evenly strided subset of bounded size, so memory does not
/// grow with the number of calibration pictures.
#[derive(Clone, Debug)]
pub struct RangeObserver {
    lo: f32,
    hi: f32,
    kept: Vec<f32>,
    stride: usize,
    seen: usize,
}

impl Default for RangeObserver {
    fn default() -> Self {
        Self { lo: 0.0, hi: 0.0, kept: Vec::new(), stride: 1, seen: 0 }
    }
}

impl RangeObserver {
    /// Adds values that entered the operation.
    pub fn observe(&mut self, values: &[f32]) {
        for &x in values {
            self.lo = self.lo.min(x);
            self.hi = self.hi.max(x);
            if self.seen.is_multiple_of(self.stride) {
                if self.kept.len() == KEPT_VALUES {
                    self.kept = self.kept.iter().copied().step_by(2).collect();
                    self.stride *= 2;
                }
                if self.seen.is_multiple_of(self.stride) {
                    self.kept.push(x);
                }
            }
            self.seen += 1;
        }
    }

    /// Least and largest value seen; 0 is always inside.
    pub fn range(&self) -> (f32, f32) {
        (self.lo, self.hi)
    }

    /// Number of values seen.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// The static quantization of this place at `bits` bits.
    ///
    /// # Panics
    /// When `method` is none of [`Minmax`](ActQuantizer::Minmax), [`Percentile`](ActQuantizer::Percentile) and [`Mse`](ActQuantizer::Mse), nothing was
    /// observed, or `bits` is outside 2..=8.
    pub fn quant(&self, method: ActQuantizer, bits: u8) -> ActQuant {
        assert!(self.seen > 0, "no value was observed");
        match method {
            ActQuantizer::Minmax => ActQuant::from_range(self.lo, self.hi, bits),
            ActQuantizer::Percentile => {
                let mut sorted = self.kept.clone();
                sorted.sort_unstable_by(f32::total_cmp);
                let last = sorted.len() - 1;
                let cut = (last as f64 * PERCENTILE_TAIL).round() as usize;
                ActQuant::from_range(sorted[cut], sorted[last - cut], bits)
            }
            ActQuantizer::Mse => self.least_squares(bits),
            other => panic!("{other:?} does not follow from the values of one place alone"),
        }
    }

    /// Shrinks the two ends of the range one after the other, each to the best of a grid.
    fn least_squares(&self, bits: u8) -> ActQuant {
        let step = (self.kept.len() / 16_384).max(1);
        let values: Vec<f32> = self.kept.iter().copied().step_by(step).collect();
        let error = |lo: f32, hi: f32| -> f64 {
            let quant = ActQuant::from_range(lo, hi, bits);
            values.iter().map(|&x| f64::from(x - quant.value(quant.code(x))).powi(2)).sum()
        };
        let shares = || (0..MSE_STEPS).map(|i| 1.0 - (1.0 - MSE_SMALLEST) * i as f32 / (MSE_STEPS - 1) as f32);
        let (mut lo, mut hi) = (self.lo, self.hi);
        let mut best = error(lo, hi);
        // Both ends together first, then each alone: long tails are mostly on one side.
        for share in shares() {
            let e = error(self.lo * share, self.hi * share);
            if e < best {
                (best, lo, hi) = (e, self.lo * share, self.hi * share);
            }
        }
        let (both_lo, both_hi) = (lo, hi);
        for share in shares() {
            let e = error(both_lo * share, hi);
            if e < best {
                (best, lo) = (e, both_lo * share);
            }
        }
        for share in shares() {
            let e = error(lo, both_hi * share);
            if e < best {
                (best, hi) = (e, both_hi * share);
            }
        }
        ActQuant::from_range(lo, hi, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bell of values with two outliers.
    fn observed() -> RangeObserver {
        let mut observer = RangeObserver::default();
        let values: Vec<f32> = (0..20_000).map(|i| ((i * 7919 % 20_000) as f32 / 10_000.0 - 1.0).powi(3)).collect();
        observer.observe(&values);
        observer.observe(&[12.0, -9.0]);
        observer
    }

    fn error(observer: &RangeObserver, quant: &ActQuant) -> f64 {
        observer.kept.iter().map(|&x| f64::from(x - quant.value(quant.code(x))).powi(2)).sum()
    }

    #[test]
    fn percentile_and_mse_cut_outliers_off() {
        let observer = observed();
        let minmax = observer.quant(ActQuantizer::Minmax, 4);
        let percentile = observer.quant(ActQuantizer::Percentile, 4);
        let mse = observer.quant(ActQuantizer::Mse, 4);
        assert!(percentile.scale < 0.2 * minmax.scale);
        assert!(error(&observer, &mse) <= error(&observer, &minmax));
        assert!(error(&observer, &mse) <= error(&observer, &percentile));
    }

    #[test]
    fn memory_is_bounded() {
        let mut observer = RangeObserver::default();
        for _ in 0..40 {
            observer.observe(&vec![0.5; 10_000]);
        }
        assert_eq!(observer.seen(), 400_000);
        assert!(observer.kept.len() <= KEPT_VALUES && observer.kept.len() >= KEPT_VALUES / 2);
    }
}
