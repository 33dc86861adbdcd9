//! `exp` and `erf` as branch-free polynomials that the compiler can vectorise.
//!
//! No fused multiply-add and no table: a value gives the same bits on every instruction set and at every place of a row.

/// 1.5 · 2^23: adding it to a float of magnitude below 2^22 rounds that to an integer, ties to even, and leaves the integer
/// in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The integer that `x + ROUND` holds in its low bits.
#[inline(always)]
pub(crate) fn rounded(x_plus_round: f32) -> i32 {
    x_plus_round.to_bits() as i32 - ROUND.to_bits() as i32
}

/// `c0 + c1·x + c2·x² + c3·x³`. Polynomials are made of such pieces (Estrin's scheme), because one long chain of operations would
/// keep the processor waiting.
#[inline(always)]
fn cubic(x: f32, x2: f32, c: &[f32; 4]) -> f32 {
    (c[0] + c[1] * x) + (c[2] + c[3] * x) * x2
}

/// Chebyshev interpolation of `exp` on ±ln 2 / 2.
pub(crate) const EXP: [[f32; 4]; 2] =
    [[1.0, 1.0, 0.5, 0.166_664_15], [0.041_666_35, 0.008_375_126, 0.001_394_110_8, 0.0]];
/// ln 2 in two parts, the first with few enough bits for exact products.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` for x ≤ 0, relative error below 2e-7; below −87 the result is e^−87 ≈ 1.6e-38. NaN gives NaN.
#[inline(always)]
pub(crate) fn exp_not_positive(x: f32) -> f32 {
    exp_in_range(if x < -87.0 { -87.0 } else { x })
}

/// `e^x`, relative error below 2e-7; below −87 the result is e^−87 ≈ 1.6e-38, above 88 infinity. NaN gives NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let power = exp_in_range(x.clamp(-87.0, 88.0));
    if x > 88.0 { f32::INFINITY } else { power }
}

/// `e^x` for −87 ≤ x ≤ 88.
#[inline(always)]
fn exp_in_range(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let rest = (x - n * LN2_HIGH) - n * LN2_LOW;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let square = rest * rest;
    let sum = cubic(rest, square, &EXP[0]) + cubic(rest, square, &EXP[1]) * (square * square);
    sum * f32::from_bits(power)
}

/// From here on, `erf` is 1 to within 8e-8.
pub(crate) const ERF_END: f32 = 3.8125;
/// From `x²` to `u + 1`.
pub(crate) const TO_UNIT: f32 = 2.0 / (ERF_END * ERF_END);
/// Chebyshev interpolation of `erf(x) / x` on 0..=ERF_END, in `u = 2 x² / ERF_END² − 1`.
pub(crate) const ERF: [[f32; 4]; 4] = [
    [0.370_890_23, -0.185_051_43, 0.137_358_78, -0.110_999_63],
    [0.090_810_98, -0.072_586_37, 0.055_589_717, -0.040_035_415],
    [0.026_519_645, -0.016_896_393, 0.011_156_827, -0.005_977_359],
    [0.001_701_504_1, -0.000_965_151_94, 0.001_309_432, -0.000_530_302_9],
];

/// The error function, absolute error below 2.5e-7. NaN gives NaN.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let u = x * x * TO_UNIT - 1.0;
    let (u2, u4) = (u * u, (u * u) * (u * u));
    let low = cubic(u, u2, &ERF[0]) + cubic(u, u2, &ERF[1]) * u4;
    let high = cubic(u, u2, &ERF[2]) + cubic(u, u2, &ERF[3]) * u4;
    let inside = x * (low + high * (u4 * u4));
    if x.abs() >= ERF_END { 1f32.copysign(x) } else { inside }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `erf` in double precision: `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms all have one sign.
    pub fn erf_f64(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return 1f64.copysign(x);
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_is_within_its_stated_error() {
        for i in 0..=870_000 {
            let x = -i as f32 * 1e-4;
            let want = f64::from(x).exp();
            assert!((f64::from(exp_not_positive(x)) / want - 1.0).abs() < 2e-7, "exp({x})");
        }
        for i in 0..=880_000 {
            let x = i as f32 * 1e-4;
            assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 2e-7, "exp({x})");
        }
        assert_eq!(exp_not_positive(0.0), 1.0);
        assert_eq!((exp(0.0), exp(f32::INFINITY)), (1.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan() && exp(-1e9) < 2e-38);
        assert!(exp_not_positive(f32::NEG_INFINITY) < 2e-38);
        assert!(exp_not_positive(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_its_stated_error_and_odd() {
        for i in 0..=60_000 {
            let x = i as f32 * 1e-4;
            assert!((f64::from(erf(x)) - erf_f64(f64::from(x))).abs() < 2.5e-7, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(f32::INFINITY), 1.0);
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn rounding_is_to_even() {
        for (x, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (65535.5, 65536), (-65536.0, -65536)] {
            assert_eq!(rounded(x + ROUND), want, "{x}");
        }
    }
}
