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
    /// Static, both together: changed normalisations as in `Repq`, and at each place whichever of uniform steps, two step sizes and powers of √2 has
    /// the least error by the measure of `Ptq4vit`. Not from a paper.
    Combined,
}

impl ActQuantizer {
    /// All of them, from the plainest on.
    pub const ALL: [Self; 7] =
        [Self::Minmax, Self::Percentile, Self::Mse, Self::DynamicToken, Self::Ptq4vit, Self::Repq, Self::Combined];

    /// Name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minmax => "minmax",
            Self::Percentile => "percentile",
            Self::Mse => "mse",
            Self::DynamicToken => "dynamic-token",
            Self::Ptq4vit => "ptq4vit",
            Self::Repq => "repq",
            Self::Combined => "combined",
        }
    }

    /// Whether ranges are found before the run, from calibration pictures.
    pub fn is_static(self) -> bool {
        self != Self::DynamicToken
    }
}

/// Share of values that [`ActQuantizer::Percentile`] cuts off at each end.
const PERCENTILE_TAIL: f64 = 0.0005;
/// Shares among which [`RangeObserver::gentle`] chooses.
const GENTLE_TAILS: [f64; 4] = [0.0, 1e-5, 1e-4, 1e-3];
/// Bins of the histogram: sixteen for each step of 8 bits.
const BINS: usize = 4096;
/// Steps per axis of the grid that [`ActQuantizer::Mse`] searches.
const MSE_STEPS: usize = 32;
/// Smallest range of that grid, as a share of the range seen.
const MSE_SMALLEST: f32 = 0.1;

/// Collects the values that enter one quantized operation.
///
/// Minimum and maximum are exact; the other rules use a histogram of all values, so that no outlier is missed and memory does not grow with the
/// number of calibration pictures.
#[derive(Clone, Debug)]
pub struct RangeObserver {
    lo: f32,
    hi: f32,
    bins: Vec<Bin>,
    /// Width of a bin, a power of two; bin `BINS / 2` begins at 0.
    width: f64,
    seen: usize,
}

/// Values that lie side by side.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: u64,
    sum: f64,
}

impl Default for RangeObserver {
    fn default() -> Self {
        Self { lo: 0.0, hi: 0.0, bins: Vec::new(), width: 2f64.powi(-140), seen: 0 }
    }
}

impl RangeObserver {
    /// Adds values that entered the operation. They must be finite.
    pub fn observe(&mut self, values: &[f32]) {
        if self.bins.is_empty() {
            self.bins = vec![Bin::default(); BINS];
        }
        for &x in values {
            self.lo = self.lo.min(x);
            self.hi = self.hi.max(x);
            let mut at = (f64::from(x) / self.width).floor();
            while at < -(BINS as f64) / 2.0 || at >= BINS as f64 / 2.0 {
                self.widen();
                at = (f64::from(x) / self.width).floor();
            }
            let bin = &mut self.bins[(at + BINS as f64 / 2.0) as usize];
            bin.count += 1;
            bin.sum += f64::from(x);
        }
        self.seen += values.len();
    }

    /// Makes bins twice as wide.
    fn widen(&mut self) {
        let mut wider = vec![Bin::default(); BINS];
        for (at, bin) in self.bins.iter().enumerate() {
            let place = (at as isize - BINS as isize / 2).div_euclid(2) + BINS as isize / 2;
            let target = &mut wider[place as usize];
            target.count += bin.count;
            target.sum += bin.sum;
        }
        self.bins = wider;
        self.width *= 2.0;
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
            ActQuantizer::Percentile => self.without_tails(PERCENTILE_TAIL, bits),
            ActQuantizer::Mse => self.least_squares(bits),
            other => panic!("{other:?} does not follow from the values of one place alone"),
        }
    }

    /// The least squared error among ranges that cut off a thousandth of the values at either end, or less.
    ///
    /// # Panics
    /// When nothing was observed, or `bits` is outside 2..=8.
    pub fn gentle(&self, bits: u8) -> ActQuant {
        assert!(self.seen > 0, "no value was observed");
        let quants = GENTLE_TAILS.map(|tail| self.without_tails(tail, bits));
        let least = quants.into_iter().min_by(|a, b| self.squared_error(a).total_cmp(&self.squared_error(b)));
        least.expect("several candidates")
    }

    /// The range without a share of the values at each end.
    fn without_tails(&self, tail: f64, bits: u8) -> ActQuant {
        let cut = (self.seen as f64 * tail).round() as u64;
        if cut == 0 {
            return ActQuant::from_range(self.lo, self.hi, bits);
        }
        ActQuant::from_range(end(self.bins.iter(), cut), end(self.bins.iter().rev(), cut), bits)
    }

    /// Squared error over all values, each taken at the mean of its bin.
    fn squared_error(&self, quant: &ActQuant) -> f64 {
        let of = |bin: &Bin| {
            let x = (bin.sum / bin.count as f64) as f32;
            bin.count as f64 * f64::from(x - quant.value(quant.code(x))).powi(2)
        };
        self.bins.iter().filter(|bin| bin.count > 0).map(of).sum()
    }

    /// Shrinks the two ends of the range one after the other, each to the best of a grid.
    fn least_squares(&self, bits: u8) -> ActQuant {
        let error = |lo: f32, hi: f32| self.squared_error(&ActQuant::from_range(lo, hi, bits));
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

/// The value with which more than `cut` values have passed.
fn end<'b>(mut bins: impl Iterator<Item = &'b Bin>, cut: u64) -> f32 {
    let mut passed = 0;
    let last = bins.find(|bin| {
        passed += bin.count;
        passed > cut
    });
    last.map_or(0.0, |bin| (bin.sum / bin.count as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bell of values with two outliers.
    fn values() -> Vec<f32> {
        let mut values: Vec<f32> = (0..20_000).map(|i| ((i * 7919 % 20_000) as f32 / 10_000.0 - 1.0).powi(3)).collect();
        values.extend([12.0, -9.0]);
        values
    }

    fn observed() -> RangeObserver {
        let mut observer = RangeObserver::default();
        values().chunks(1000).for_each(|part| observer.observe(part));
        observer
    }

    fn error(quant: &ActQuant) -> f64 {
        values().iter().map(|&x| f64::from(x - quant.value(quant.code(x))).powi(2)).sum()
    }

    #[test]
    fn percentile_and_mse_cut_outliers_off() {
        let observer = observed();
        let minmax = observer.quant(ActQuantizer::Minmax, 4);
        let percentile = observer.quant(ActQuantizer::Percentile, 4);
        let mse = observer.quant(ActQuantizer::Mse, 4);
        assert!(percentile.scale < 0.2 * minmax.scale);
        assert!(error(&mse) <= error(&minmax));
        assert!(error(&mse) <= error(&percentile));
        let gentle = observer.gentle(4);
        assert!(error(&mse) <= error(&gentle) && error(&gentle) <= error(&minmax));
    }

    #[test]
    fn the_histogram_gives_the_error_of_the_values() {
        let observer = observed();
        for bits in [2, 4, 8] {
            for (lo, hi) in [(-9.0, 12.0), (-1.0, 1.0), (-0.3, 2.0)] {
                let quant = ActQuant::from_range(lo, hi, bits);
                let (got, want) = (observer.squared_error(&quant), error(&quant));
                assert!((got / want - 1.0).abs() < 0.15, "{bits} bits in {lo}..{hi}: {got}, not {want}");
            }
        }
        assert_eq!((observer.seen(), observer.range()), (20_002, (-9.0, 12.0)));
    }

    #[test]
    fn names_are_those_of_recipes() {
        for quantizer in ActQuantizer::ALL {
            assert_eq!(serde_json::to_value(quantizer).unwrap(), quantizer.name());
        }
    }

    #[test]
    fn values_of_any_size_find_a_bin() {
        for size in [0.0, 1e-34, 1e-20, 1.0, 1e20, 1e38] {
            let mut observer = RangeObserver::default();
            observer.observe(&[0.0, size, -size / 2.0, size / 3.0]);
            observer.observe(&[size]);
            assert_eq!(observer.bins.iter().map(|bin| bin.count).sum::<u64>(), 5);
            let quant = observer.quant(ActQuantizer::Mse, 8);
            assert!((quant.value(quant.code(size)) - size).abs() <= 0.02 * size, "{size}");
        }
    }
}
