//! Quantizes rows of activations; the codes equal those of [`quee_quant::activation`] bit for bit.

use quee_quant::{ActQuant, LogSqrt2, Plane, SiteQuant, Twin};

use crate::isa::{Cpu, per_isa};
use crate::lanes::{self, LANES};
use crate::math::{ROUND, rounded};

/// How the rows of one operand get their codes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SiteRule {
    /// In steps of one size.
    Uniform(RowRule),
    /// In planes.
    Uneven(SiteQuant),
}

/// How the rows of one operand get their scale and zero point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowRule {
    /// Each row from its own minimum and maximum, at so many bits.
    Dynamic(u8),
    /// The same for every row.
    Static(ActQuant),
}

/// What a quantized row carries besides its codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowQuant {
    /// Real value of one step.
    pub scale: f32,
    /// Code of 0.0.
    pub zero: i32,
    /// Sum of the codes.
    pub sum: i32,
}

/// A value that is not finite was to be quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NotFinite;

impl RowRule {
    /// The quantization of a row, or of several rows that share one.
    pub fn quant(self, cpu: Cpu, values: &[f32]) -> Result<ActQuant, NotFinite> {
        let range = range(cpu, values);
        if !range.finite {
            return Err(NotFinite);
        }
        Ok(match self {
            Self::Dynamic(bits) => ActQuant::from_range(range.lo, range.hi, bits),
            Self::Static(quant) => quant,
        })
    }

    /// Quantizes one row into `codes`.
    pub fn quantize(self, cpu: Cpu, row: &[f32], codes: &mut [i8]) -> Result<RowQuant, NotFinite> {
        let quant = self.quant(cpu, row)?;
        Ok(RowQuant { scale: quant.scale, zero: quant.zero, sum: encode(cpu, row, quant, codes) })
    }
}

impl SiteRule {
    /// Planes of the codes.
    pub fn planes(&self) -> usize {
        match self {
            Self::Uniform(_) => 1,
            Self::Uneven(quant) => quant.planes(),
        }
    }

    /// Quantizes one row into `codes`: what plane `p` has of it.
    pub fn quantize(&self, cpu: Cpu, row: &[f32], p: usize, codes: &mut [i8]) -> Result<RowQuant, NotFinite> {
        match self {
            Self::Uniform(rule) => rule.quantize(cpu, row, codes),
            Self::Uneven(quant) => {
                if !range(cpu, row).finite {
                    return Err(NotFinite);
                }
                let sum = match *quant {
                    SiteQuant::Uniform(quant) => encode(cpu, row, quant, codes),
                    SiteQuant::Twin(twin) => encode_twin(cpu, row, twin, TwinScales::new(&twin, p), codes),
                    SiteQuant::LogSqrt2(log) => encode_log(cpu, row, log, log.factor(), p as i32, codes),
                };
                let Plane { scale, zero } = quant.plane(p);
                Ok(RowQuant { scale, zero, sum })
            }
        }
    }
}

struct Range {
    lo: f32,
    hi: f32,
    finite: bool,
}

per_isa! {
    /// Least and largest of the values and 0.
    fn range(cpu, row: &[f32]) -> Range {
        let mut range = Lanes { lo: [0.0; LANES], hi: [0.0; LANES], top: [0; LANES] };
        let (chunks, tail) = row.as_chunks::<LANES>();
        for chunk in chunks {
            range.add(chunk);
        }
        if !tail.is_empty() {
            let mut chunk = [0.0; LANES];
            chunk[..tail.len()].copy_from_slice(tail);
            range.add(&chunk);
        }
        Range {
            lo: lanes::reduce(range.lo, smaller),
            hi: lanes::reduce(range.hi, larger),
            finite: lanes::reduce(range.top, u32::max) < f32::INFINITY.to_bits(),
        }
    }
}

/// A range in interleaved parts.
struct Lanes {
    lo: [f32; LANES],
    hi: [f32; LANES],
    /// The largest magnitude, as bits: infinity and NaN lie above every finite number.
    top: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, chunk: &[f32; LANES]) {
        for (i, &x) in chunk.iter().enumerate() {
            self.lo[i] = smaller(self.lo[i], x);
            self.hi[i] = larger(self.hi[i], x);
            self.top[i] = self.top[i].max(x.to_bits() & 0x7fff_ffff);
        }
    }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `x · inverse` to the nearest whole number, far values cut off.
#[inline(always)]
fn whole(x: f32, inverse: f32) -> i32 {
    let steps = x * inverse;
    let steps = if steps < -65536.0 { -65536.0 } else { steps };
    let steps = if steps > 65536.0 { 65536.0 } else { steps };
    rounded(steps + ROUND)
}

per_isa! {
    /// Writes the codes of finite values and returns their sum.
    pub(crate) fn encode(cpu, row: &[f32], quant: ActQuant, codes: &mut [i8]) -> i32 {
        let codes = &mut codes[..row.len()];
        let mut sum = 0;
        for (code, &x) in codes.iter_mut().zip(row) {
            let q = (whole(x, quant.inv_scale) + quant.zero).max(quant.qmin).min(quant.qmax);
            *code = q as i8;
            sum += q;
        }
        sum
    }
}

/// What the numbers of [`Twin`] are made with.
#[derive(Clone, Copy)]
struct TwinScales {
    small: f32,
    large: f32,
    /// Factors on the steps of either size: 0 where they belong to another plane.
    factors: [i32; 2],
}

impl TwinScales {
    fn new(twin: &Twin, p: usize) -> Self {
        Self { small: 1.0 / twin.small, large: 1.0 / twin.large(), factors: twin.factors(p) }
    }
}

per_isa! {
    /// Writes the numbers of a plane of finite values and returns their sum.
    fn encode_twin(cpu, row: &[f32], twin: Twin, scales: TwinScales, codes: &mut [i8]) -> i32 {
        let codes = &mut codes[..row.len()];
        let (half, signed, TwinScales { small, large, factors: [of_small, of_large] }) = (twin.half(), twin.signed, scales);
        let mut sum = 0;
        for (code, &x) in codes.iter_mut().zip(row) {
            let fine = whole(x, small);
            let coarse = whole(x, large).max(0).min(half - 1);
            let is_small = if signed { x < 0.0 } else { fine < half };
            let least = if signed { -half } else { 0 };
            let q = if is_small { fine.max(least) * of_small } else { coarse * of_large };
            *code = q as i8;
            sum += q;
        }
        sum
    }
}

per_isa! {
    /// The same for powers of √2.
    fn encode_log(cpu, row: &[f32], log: LogSqrt2, factor: f32, p: i32, codes: &mut [i8]) -> i32 {
        let codes = &mut codes[..row.len()];
        let mut sum = 0;
        for (code, &x) in codes.iter_mut().zip(row) {
            let q = log.number_by(x, factor, p);
            *code = q as i8;
            sum += q;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;
    use proptest::prelude::*;
    use quee_quant::activation::{quantize_row, quantize_row_dynamic};
    use quee_quant::site::quantize_row_plane;

    proptest! {
        #[test]
        fn rows_equal_the_scalar_quantizer(
            mut row in proptest::collection::vec(-3f32..5.0, 0..200), bits in 2u8..=8, scale in -20i32..20, tie in any::<bool>(),
        ) {
            for x in &mut row {
                // Halves of a step come up when the range is a power of two of steps.
                *x = if tie { (*x * 8.0).round() / 8.0 } else { *x } * 2f32.powi(scale);
            }
            let mut want = vec![0i8; row.len()];
            let (quant, sum) = quantize_row_dynamic(&row, bits, &mut want);
            let other = ActQuant::new(quant.scale * 0.4, -1, bits);
            let mut want_static = want.clone();
            let sum_static = quantize_row(&row, &other, &mut want_static);
            for cpu in every_cpu() {
                let mut codes = vec![0i8; row.len()];
                let got = RowRule::Dynamic(bits).quantize(cpu, &row, &mut codes).unwrap();
                prop_assert_eq!(got, RowQuant { scale: quant.scale, zero: quant.zero, sum });
                prop_assert_eq!(&codes, &want);
                let got = RowRule::Static(other).quantize(cpu, &row, &mut codes).unwrap();
                prop_assert_eq!(got, RowQuant { scale: other.scale, zero: -1, sum: sum_static });
                prop_assert_eq!(&codes, &want_static);
            }
        }
    }

    proptest! {
        #[test]
        fn uneven_rows_equal_the_scalar_quantizer(
            row in proptest::collection::vec(-0.6f32..1.5, 0..100), bits in 2u8..=8, small in 1e-4f32..0.1, shift in 0u8..9, kind in 0..3,
        ) {
            let quant = match kind {
                0 => SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: 10.0 * small }),
                kind => SiteQuant::Twin(Twin { bits, small, shift, signed: kind == 1 }),
            };
            for (cpu, p) in every_cpu().into_iter().flat_map(|cpu| (0..quant.planes()).map(move |p| (cpu, p))) {
                let mut want = vec![0i8; row.len()];
                let sum = quantize_row_plane(&row, &quant, p, &mut want);
                let mut codes = vec![0i8; row.len()];
                let got = SiteRule::Uneven(quant).quantize(cpu, &row, p, &mut codes).unwrap();
                let Plane { scale, zero } = quant.plane(p);
                prop_assert_eq!(got, RowQuant { scale, zero, sum });
                prop_assert_eq!(&codes, &want);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        let quant = ActQuant::new(0.5, 1, 8);
        let row: Vec<f32> = (-40..40).map(|i| i as f32 * 0.25).collect();
        for cpu in every_cpu() {
            let mut codes = vec![0; row.len()];
            encode(cpu, &row, quant, &mut codes);
            assert!(row.iter().zip(&codes).all(|(&x, &code)| code == quant.code(x)), "{codes:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused_at_every_place() {
        for cpu in every_cpu() {
            for length in [1, 16, 35] {
                for place in 0..length {
                    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut row = vec![1.0; length];
                        row[place] = bad;
                        for rule in [RowRule::Dynamic(8), RowRule::Static(ActQuant::new(0.1, 0, 8))] {
                            assert_eq!(rule.quantize(cpu, &row, &mut vec![0; length]), Err(NotFinite));
                        }
                        let uneven = SiteRule::Uneven(SiteQuant::LogSqrt2(LogSqrt2 { bits: 4, scale: 1.0 }));
                        assert_eq!(uneven.quantize(cpu, &row, 0, &mut vec![0; length]), Err(NotFinite));
                    }
                }
            }
            let huge = [f32::MAX / 4.0, -f32::MAX / 4.0];
            assert!(RowRule::Static(ActQuant::new(0.1, 0, 8)).quantize(cpu, &huge, &mut [0; 2]).is_ok());
        }
    }
}
