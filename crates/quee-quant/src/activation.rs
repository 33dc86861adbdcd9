//! Uniform asymmetric quantization of activations.

/// Scale, zero point and code range of one row of activations (or of a whole tensor).
///
/// `code = clamp(round_ties_even(x · inv_scale) + zero, qmin, qmax)` and `x ≈ (code − zero) · scale`.
/// The range always contains 0.0, which is represented exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActQuant {
    /// Real value of one step.
    pub scale: f32,
    /// `1 / scale`, computed once: every executor multiplies and none divides, so that all round alike.
    pub inv_scale: f32,
    /// Code of 0.0.
    pub zero: i32,
    /// Least code, −2^(bits−1).
    pub qmin: i32,
    /// Largest code, 2^(bits−1) − 1.
    pub qmax: i32,
}

impl ActQuant {
    /// Maps the range `lo..=hi`, widened to contain 0.0, onto the codes of `bits` bits (2 to 8).
    ///
    /// A range of zero width (a row of zeros) gets scale 1, and every code is then the zero point.
    ///
    /// # Panics
    /// When `bits` is outside 2..=8.
    pub fn from_range(lo: f32, hi: f32, bits: u8) -> Self {
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let mut scale = (hi - lo) / ((1u32 << bits) - 1) as f32;
        // A subnormal scale has no finite reciprocal.
        if scale < f32::MIN_POSITIVE {
            scale = 1.0;
        }
        let quant = Self::new(scale, 0, bits);
        let zero = quant.qmin - (lo * quant.inv_scale).round_ties_even() as i32;
        Self { zero: zero.clamp(quant.qmin, quant.qmax), ..quant }
    }

    /// Given scale and zero point at `bits` bits (2 to 8).
    ///
    /// # Panics
    /// When `bits` is outside 2..=8.
    pub fn new(scale: f32, zero: i32, bits: u8) -> Self {
        assert!((2..=8).contains(&bits), "activation bits outside 2..=8: {bits}");
        Self { scale, inv_scale: 1.0 / scale, zero, qmin: -(1i32 << (bits - 1)), qmax: (1i32 << (bits - 1)) - 1 }
    }

    /// The code of `x`. `x` must be finite.
    #[inline]
    pub fn code(&self, x: f32) -> i8 {
        (steps(x, self.inv_scale) + self.zero).clamp(self.qmin, self.qmax) as i8
    }

    /// The real value that `code` stands for.
    #[inline]
    pub fn value(&self, code: i8) -> f32 {
        (i32::from(code) - self.zero) as f32 * self.scale
    }
}

/// `x · inverse` to the nearest whole number, ties to even. Values far outside of any range are cut off before they overflow.
#[inline]
pub(crate) fn steps(x: f32, inverse: f32) -> i32 {
    round((x * inverse).clamp(-65536.0, 65536.0)) as i32
}

/// To the nearest whole number, ties to even, for magnitudes below 2^22.
#[inline]
pub(crate) fn round(x: f32) -> f32 {
    // From 2^23 on, floats are whole. Faster than `round_ties_even` where that is a call.
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// Quantizes one row with its own minimum and maximum; writes the codes and returns their parameters and their sum.
///
/// # Panics
/// When `codes` and `row` differ in length or `bits` is outside 2..=8.
pub fn quantize_row_dynamic(row: &[f32], bits: u8, codes: &mut [i8]) -> (ActQuant, i32) {
    let lo = row.iter().copied().fold(0.0f32, f32::min);
    let hi = row.iter().copied().fold(0.0f32, f32::max);
    let quant = ActQuant::from_range(lo, hi, bits);
    let sum = quantize_row(row, &quant, codes);
    (quant, sum)
}

/// Quantizes one row with given parameters; writes the codes and returns their sum.
///
/// # Panics
/// When `codes` and `row` differ in length.
pub fn quantize_row(row: &[f32], quant: &ActQuant, codes: &mut [i8]) -> i32 {
    assert_eq!(row.len(), codes.len());
    let mut sum = 0;
    for (code, &x) in codes.iter_mut().zip(row) {
        *code = quant.code(x);
        sum += i32::from(*code);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_ends_are_within_half_a_step() {
        for bits in 2..=8 {
            for (lo, hi) in [(-1.0, 1.0), (0.0, 6.3), (-0.17, 2.9), (-4.0, 0.0), (-1e-3, 7.0)] {
                let quant = ActQuant::from_range(lo, hi, bits);
                assert_eq!(quant.value(quant.code(0.0)), 0.0);
                for x in [lo, hi, 0.3 * lo + 0.7 * hi] {
                    let error = (quant.value(quant.code(x)) - x).abs();
                    assert!(error <= 1.001 * quant.scale, "bits {bits}, {x} in {lo}..{hi}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_has_zero_point_codes() {
        let mut codes = [5i8; 4];
        let (quant, sum) = quantize_row_dynamic(&[0.0; 4], 4, &mut codes);
        assert!(codes.iter().all(|&code| i32::from(code) == quant.zero));
        assert_eq!(sum, 4 * quant.zero);
        assert!(quant.scale.is_finite() && quant.inv_scale.is_finite());
    }

    #[test]
    fn rounding_is_to_the_nearest_and_to_even() {
        for i in -400_000..400_000 {
            let x = i as f32 * 0.25;
            assert_eq!(round(x), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn values_outside_a_static_range_are_clamped() {
        let quant = ActQuant::from_range(-1.0, 1.0, 8);
        assert_eq!(quant.code(1e30), 127);
        assert_eq!(quant.code(-1e30), -128);
    }
}
