//! Quantizers of one place in the network: uniform ones and those whose codes lie unevenly.
//!
//! Uneven codes are computed with as whole numbers all the same. A place has one to four *planes*, each a uniform grid of 8-bit numbers with a
//! scale and a zero point of its own; a value lies in one plane and is 0 in the others. A product then is the sum over the planes of (sum of
//! whole numbers) × (scale of the plane) × (scale of the other operand), added in the order of the planes.

use serde::{Deserialize, Serialize};

use crate::activation::{ActQuant, steps};

/// The static quantizer of a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SiteQuant {
    /// Steps of one size.
    Uniform(ActQuant),
    /// Steps of two sizes.
    Twin(Twin),
    /// Powers of √2.
    LogSqrt2(LogSqrt2),
}

/// Most planes of a place.
pub const MOST_PLANES: usize = 4;

/// What the numbers of a plane mean: `x ≈ (number − zero) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    /// Real value of one step.
    pub scale: f32,
    /// Number of 0.0.
    pub zero: i32,
}

/// Twin uniform ranges (Yuan et al., *PTQ4ViT*, ECCV 2022, section 3.2): half of the codes in steps of `small`, the other half in steps of
/// `small · 2^shift`. The numbers of both are shifted to one plane where they fit 8 bits, else each half is a plane.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// The smaller step.
    pub small: f32,
    /// How often the larger step is twice the smaller one.
    pub shift: u8,
    /// Whether negative values get the small steps (outputs of GELU); otherwise values near 0 do (outputs of softmax, none negative).
    pub signed: bool,
}

/// Powers of √2 (Li et al., *RepQ-ViT*, ICCV 2023, section 3.3): code `q` is `scale · 2^(−q/2)`, values beyond the last code are 0. Even and odd
/// codes are planes of their own, each once more for the exponents from 8 to 15; smaller values are 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogSqrt2 {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// The largest value, code 0.
    pub scale: f32,
}

impl SiteQuant {
    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        match self {
            Self::Uniform(quant) => (quant.qmax - quant.qmin + 1).ilog2() as u8,
            Self::Twin(twin) => twin.bits,
            Self::LogSqrt2(log) => log.bits,
        }
    }

    /// Number of planes.
    pub fn planes(&self) -> usize {
        match self {
            Self::Uniform(_) => 1,
            Self::Twin(twin) => twin.planes(),
            Self::LogSqrt2(log) => log.planes(),
        }
    }

    /// What the numbers of plane `p` mean.
    ///
    /// # Panics
    /// When there are fewer planes.
    pub fn plane(&self, p: usize) -> Plane {
        assert!(p < self.planes(), "plane {p} of {}", self.planes());
        match self {
            Self::Uniform(quant) => Plane { scale: quant.scale, zero: quant.zero },
            Self::Twin(twin) => Plane { scale: if p == 0 { twin.small } else { twin.large() }, zero: 0 },
            Self::LogSqrt2(log) => log.plane(p),
        }
    }

    /// The number of `x` in plane `p`. `x` must be finite.
    #[inline]
    pub fn number(&self, x: f32, p: usize) -> i8 {
        match self {
            Self::Uniform(quant) => quant.code(x),
            Self::Twin(twin) => twin.number(x, p),
            Self::LogSqrt2(log) => log.number(x, p),
        }
    }

    /// What quantizing adds to each of `values`.
    pub fn errors(&self, values: &[f32]) -> Vec<f32> {
        match self {
            Self::Uniform(quant) => values.iter().map(|&x| quant.value(quant.code(x)) - x).collect(),
            Self::Twin(twin) => values.iter().map(|&x| twin.value(x) - x).collect(),
            Self::LogSqrt2(_) => values.iter().map(|&x| self.value(x) - x).collect(),
        }
    }

    /// The real value that stands for `x`.
    pub fn value(&self, x: f32) -> f32 {
        let of = |p: usize| {
            let Plane { scale, zero } = self.plane(p);
            (i32::from(self.number(x, p)) - zero) as f32 * scale
        };
        (0..self.planes()).map(of).sum()
    }
}

impl Twin {
    /// The larger step.
    pub fn large(&self) -> f32 {
        self.small * (1u32 << self.shift) as f32
    }

    /// Codes of a half, `2^(bits − 1)`.
    pub fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }

    /// Whether both halves share a plane.
    pub fn is_shifted(&self) -> bool {
        (self.half() - 1) << self.shift <= 127
    }

    fn planes(&self) -> usize {
        if self.is_shifted() { 1 } else { 2 }
    }

    /// What the steps of the small and of the large size are multiplied by in plane `p`: 0 where they belong to another plane.
    pub fn factors(&self, p: usize) -> [i32; 2] {
        match (self.is_shifted(), p) {
            (true, _) => [1, 1 << self.shift],
            (false, 0) => [1, 0],
            (false, _) => [0, 1],
        }
    }

    #[inline]
    fn number(&self, x: f32, p: usize) -> i8 {
        let (small, large) = self.halves(x);
        let [of_small, of_large] = self.factors(p);
        (small * of_small + large * of_large) as i8
    }

    /// The real value that stands for `x`.
    fn value(&self, x: f32) -> f32 {
        let (small, large) = self.halves(x);
        small as f32 * self.small + large as f32 * self.large()
    }

    /// Steps of `x` in either size; one of the two is 0.
    #[inline]
    fn halves(&self, x: f32) -> (i32, i32) {
        let half = self.half();
        let small = steps(x, 1.0 / self.small);
        let large = || steps(x, 1.0 / self.large()).clamp(0, half - 1);
        if self.signed {
            if x < 0.0 { (small.max(-half), 0) } else { (0, large()) }
        } else if small < half {
            (small.max(0), 0)
        } else {
            (0, large())
        }
    }
}

/// Exponents of a plane.
const EXPONENTS: i32 = 8;
/// Most exponents: a number of 16 bits has no room for more shifts.
const MOST_EXPONENTS: i32 = 16;
/// Mantissa bits of √2, rounded down.
const SQRT2_MANTISSA: i32 = 0x0035_04f3;

impl LogSqrt2 {
    /// What values are multiplied by before their exponent is taken: 2^¼ / scale, so that cutting off rounds to the nearest code.
    pub fn factor(&self) -> f32 {
        2f32.powf(0.25) / self.scale
    }

    fn planes(&self) -> usize {
        if self.bits <= 4 { 2 } else { 4 }
    }

    /// Even exponents-of-√2 first, odd ones next, then both for smaller values.
    fn plane(&self, p: usize) -> Plane {
        let top = if p.is_multiple_of(2) { self.scale } else { self.scale * std::f32::consts::FRAC_1_SQRT_2 };
        let shift = EXPONENTS * (p as i32 / 2 + 1) - 1;
        // 2^7 is one more than an i8 holds, so numbers are counted from −128.
        Plane { scale: top * 2f32.powi(-shift), zero: -128 }
    }

    /// The code of `x`, or a larger number than any where it is 0.
    #[inline(always)]
    fn code_by(&self, x: f32, factor: f32) -> i32 {
        let bits = (x * factor).to_bits() as i32;
        // Twice the exponent, and one more from √2 on. Zeros, subnormal and negative numbers have the least exponents.
        let exponent = (bits >> 23) - 127;
        let q = -(2 * exponent + i32::from(bits & 0x007f_ffff >= SQRT2_MANTISSA));
        q.max(0)
    }

    /// The code of `x`, or `None` where it is 0.
    pub fn code(&self, x: f32) -> Option<u8> {
        let q = self.code_by(x, self.factor());
        (q < self.codes()).then_some(q as u8)
    }

    /// Codes of values that are not 0.
    #[inline(always)]
    pub fn codes(&self) -> i32 {
        (1 << self.bits).min(2 * MOST_EXPONENTS)
    }

    /// The number of `x` in plane `p`, with [`factor`](Self::factor) at hand.
    #[inline(always)]
    pub fn number_by(&self, x: f32, factor: f32, p: i32) -> i32 {
        let q = self.code_by(x, factor);
        let exponent = q >> 1;
        let is_here = q < self.codes() && (q & 1) == (p & 1) && (exponent >> 3) == (p >> 1);
        let power = (1 << (EXPONENTS - 1 - (exponent & (EXPONENTS - 1)))) - 128;
        if is_here { power } else { -128 }
    }

    fn number(&self, x: f32, p: usize) -> i8 {
        self.number_by(x, self.factor(), p as i32) as i8
    }
}

/// Writes the numbers of plane `p` of a row and returns their sum.
///
/// # Panics
/// When `numbers` and `row` differ in length, or there are fewer planes.
pub fn quantize_row_plane(row: &[f32], quant: &SiteQuant, p: usize, numbers: &mut [i8]) -> i32 {
    assert_eq!(row.len(), numbers.len());
    let mut sum = 0;
    for (number, &x) in numbers.iter_mut().zip(row) {
        *number = quant.number(x, p);
        sum += i32::from(*number);
    }
    sum
}

/// As files hold it: what cannot be derived.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stored {
    Uniform { bits: u8, scale: f32, zero: i32 },
    Twin(Twin),
    LogSqrt2(LogSqrt2),
}

impl Serialize for SiteQuant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Uniform(quant) => Stored::Uniform { bits: self.bits(), scale: quant.scale, zero: quant.zero },
            Self::Twin(twin) => Stored::Twin(twin),
            Self::LogSqrt2(log) => Stored::LogSqrt2(log),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SiteQuant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let (bits, scale) = match stored {
            Stored::Uniform { bits, scale, .. } => (bits, scale),
            Stored::Twin(twin) => (twin.bits, twin.small),
            Stored::LogSqrt2(log) => (log.bits, log.scale),
        };
        let good = (2..=8).contains(&bits) && scale.is_normal() && scale > 0.0 && (1.0 / scale).is_finite();
        match stored {
            Stored::Uniform { bits, scale, zero } if good && (-128..=127).contains(&zero) => {
                Ok(Self::Uniform(ActQuant::new(scale, zero, bits)))
            }
            Stored::Twin(twin) if good && twin.shift <= 16 && twin.large().is_finite() => Ok(Self::Twin(twin)),
            Stored::LogSqrt2(log) if good => Ok(Self::LogSqrt2(log)),
            _ => Err(serde::de::Error::custom("scale, zero point or bits of a quantizer out of range")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn twin(bits: u8, small: f32, shift: u8, signed: bool) -> SiteQuant {
        SiteQuant::Twin(Twin { bits, small, shift, signed })
    }

    #[test]
    fn small_values_get_small_steps() {
        // Eight codes of 1/64, eight of 1/8.
        let quant = twin(4, 1.0 / 64.0, 3, false);
        assert_eq!(quant.planes(), 1);
        for (x, want) in
            [(0.0, 0.0), (0.02, 1.0 / 64.0), (0.11, 7.0 / 64.0), (0.13, 0.125), (0.6, 0.625), (5.0, 0.875), (-1.0, 0.0)]
        {
            assert_eq!(quant.value(x), want, "{x}");
        }
        let quant = twin(4, 0.02, 4, true);
        for (x, want) in [(-0.17, -0.16), (-0.013, -0.02), (-0.009, 0.0), (0.5, 0.64), (0.1, 0.0), (9.0, 2.24)] {
            assert!((quant.value(x) - want).abs() < 1e-6, "{x}: {}", quant.value(x));
        }
    }

    #[test]
    fn halves_that_do_not_fit_a_byte_are_planes() {
        let quant = twin(8, 0.001, 5, true);
        assert_eq!(quant.planes(), 2);
        assert_eq!((quant.number(-0.1, 0), quant.number(-0.1, 1)), (-100, 0));
        assert_eq!((quant.number(0.32, 0), quant.number(0.32, 1)), (0, 10));
        assert!((quant.plane(1).scale - 0.032).abs() < 1e-9);
    }

    #[test]
    fn powers_of_the_root_of_two_are_exact_and_others_go_to_the_nearest() {
        for bits in 2..=8 {
            let log = LogSqrt2 { bits, scale: 0.7 };
            let quant = SiteQuant::LogSqrt2(log);
            let last = ((1i32 << bits) - 1).min(31);
            for q in 0..=last {
                let exact = 0.7 * 2f64.powf(-f64::from(q) / 2.0);
                for factor in [0.86, 1.0, 1.16] {
                    let x = (exact * factor) as f32;
                    assert_eq!(log.code(x), Some(q as u8), "{bits} bits, {q}, {factor}");
                    assert!((f64::from(quant.value(x)) / exact - 1.0).abs() < 1e-6);
                }
            }
            let beyond = (0.7 * 2f64.powf(-f64::from(last + 1) / 2.0)) as f32;
            assert_eq!((log.code(beyond), quant.value(beyond)), (None, 0.0));
            assert_eq!((log.code(0.0), log.code(-0.3), log.code(5.0)), (None, None, Some(0)));
        }
    }

    proptest! {
        #[test]
        fn errors_are_those_of_the_values(x in -2f32..2.0, bits in 2u8..=8, small in 1e-4f32..0.1, shift in 0u8..10, signed: bool) {
            for quant in [
                twin(bits, small, shift, signed),
                SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: small }),
                SiteQuant::Uniform(ActQuant::from_range(-small, 2.0 * small, bits)),
            ] {
                prop_assert!((quant.errors(&[x])[0] - (quant.value(x) - x)).abs() <= 1e-6);
            }
        }

        #[test]
        fn values_lie_in_one_plane(
            x in -2f32..2.0, bits in 2u8..=8, small in 1e-4f32..0.1, shift in 0u8..10, signed: bool, log: bool,
        ) {
            let quant = if log { SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: small }) } else { twin(bits, small, shift, signed) };
            prop_assert!(quant.planes() <= MOST_PLANES);
            let inside = (0..quant.planes()).filter(|&p| i32::from(quant.number(x, p)) != quant.plane(p).zero);
            prop_assert!(inside.count() <= 1);
            prop_assert_eq!(quant.bits(), bits);
        }

        /// No code is nearer than the chosen one, but where a range ends.
        #[test]
        fn twins_round_to_the_nearest_code_of_their_half(x in -0.5f32..3.0, bits in 2u8..=8, small in 1e-3f32..0.1, shift in 0u8..6) {
            let quant = twin(bits, small, shift, true);
            let SiteQuant::Twin(inner) = quant else { unreachable!() };
            let half = f64::from(inner.half());
            let (step, most) = if x < 0.0 { (small, -half * f64::from(small)) } else { (inner.large(), (half - 1.0) * f64::from(inner.large())) };
            let inside = if x < 0.0 { f64::from(x) >= most } else { f64::from(x) <= most };
            let error = f64::from((quant.value(x) - x).abs());
            if inside {
                prop_assert!(error <= 0.5001 * f64::from(step), "{} for {}", quant.value(x), x);
            } else {
                prop_assert!((f64::from(quant.value(x)) - most).abs() < 1e-4 * most.abs().max(1.0));
            }
        }

        #[test]
        fn quantizers_come_back_from_text(bits in 2u8..=8, small in 1e-4f32..0.1, shift in 0u8..10, signed: bool, zero in -2i32..2) {
            for quant in [
                SiteQuant::Uniform(ActQuant::new(small, zero, bits)),
                twin(bits, small, shift, signed),
                SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: small }),
            ] {
                let text = serde_json::to_string(&quant).unwrap();
                prop_assert_eq!(serde_json::from_str::<SiteQuant>(&text).unwrap(), quant);
            }
        }
    }

    #[test]
    fn text_that_makes_no_sense_is_refused() {
        for text in [
            r#"{"uniform":{"bits":9,"scale":1.0,"zero":0}}"#,
            r#"{"uniform":{"bits":8,"scale":0.0,"zero":0}}"#,
            r#"{"uniform":{"bits":8,"scale":1.0,"zero":4000}}"#,
            r#"{"twin":{"bits":4,"small":-1.0,"shift":2,"signed":true}}"#,
            r#"{"twin":{"bits":4,"small":1.0,"shift":99,"signed":true}}"#,
            r#"{"log-sqrt2":{"bits":1,"scale":1.0}}"#,
        ] {
            assert!(serde_json::from_str::<SiteQuant>(text).is_err(), "{text}");
        }
    }
}
