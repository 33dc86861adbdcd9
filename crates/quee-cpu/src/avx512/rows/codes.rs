//! Rows of floats to codes, each with scale and zero point of its own.

use std::arch::x86_64::*;

use quee_quant::ActQuant;

use crate::avx512::codes::Encoder;
use crate::avx512::{COLUMNS, LANES};

/// Scale and zero point of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RowScale {
    pub scale: f32,
    pub zero: i32,
}

/// Makes scale and zero point out of the least and the largest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowQuantizer {
    /// Steps from the least code to the largest.
    steps: f32,
    qmin: i32,
    qmax: i32,
}

/// Least and largest of values and 0.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    lo: __m512,
    hi: __m512,
    /// 0 but for infinity and NaN.
    probe: __m512,
}

/// Rows at a time.
const ROWS: usize = 8;

impl RowQuantizer {
    /// At `bits` bits.
    pub fn new(bits: u8) -> Self {
        let ActQuant { qmin, qmax, .. } = ActQuant::new(1.0, 0, bits);
        Self { steps: (qmax - qmin) as f32, qmin, qmax }
    }

    /// The least code.
    pub fn least(&self) -> i32 {
        self.qmin
    }

    /// [`ActQuant::from_range`] with its operations; `lo ≤ 0 ≤ hi`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn of_range(&self, lo: f32, hi: f32) -> (RowScale, Encoder) {
        let scale = (hi - lo) / self.steps;
        let scale = if scale < f32::MIN_POSITIVE { 1.0 } else { scale };
        let inverse = 1.0 / scale;
        // To the nearest, ties to even.
        let below = _mm_cvtss_si32(_mm_set_ss(lo * inverse));
        let zero = self.qmin.wrapping_sub(below).clamp(self.qmin, self.qmax);
        (RowScale { scale, zero }, Encoder::of_row(inverse, zero, self.qmin, self.qmax))
    }

    /// Codes with 128 added of rows of `d` values, a multiple of 64; whether all values were finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn rows(&self, d: usize, x: &[f32], scales: &mut [RowScale], out: &mut [u8]) -> bool {
        assert!(d > 0 && d.is_multiple_of(COLUMNS) && x.len() == scales.len() * d && out.len() == x.len());
        let mut finite = true;
        let few = x.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)).zip(scales.chunks_mut(ROWS));
        for ((x, out), scales) in few {
            // Each step is done for all rows before the next: one row alone would wait for its own ends.
            let mut ends = [(0.0, 0.0); ROWS];
            for (row, ends) in x.chunks_exact(d).zip(&mut ends) {
                let mut range = Range::new();
                for four in row.as_chunks::<COLUMNS>().0 {
                    range.add(load(four));
                }
                finite &= range.finite();
                *ends = range.ends();
            }
            let rows = x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(scales).zip(ends);
            for (((row, out), scale), (lo, hi)) in rows {
                let encoder;
                (*scale, encoder) = self.of_range(lo, hi);
                encode(&encoder, row, out);
            }
        }
        finite
    }
}

/// Codes with 128 added of values whose number is a multiple of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn encode(encoder: &Encoder, values: &[f32], out: &mut [u8]) {
    for (four, out) in values.as_chunks::<COLUMNS>().0.iter().zip(out.as_chunks_mut::<COLUMNS>().0) {
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), encoder.encode(load(four))) };
    }
}

/// Four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn load(values: &[f32; COLUMNS]) -> [__m512; 4] {
    // SAFETY: four vectors.
    std::array::from_fn(|v| unsafe { _mm512_loadu_ps(values.as_ptr().add(v * LANES)) })
}

impl Range {
    /// Of no values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn new() -> Self {
        let zero = _mm512_setzero_ps();
        Self { lo: zero, hi: zero, probe: zero }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn add(&mut self, values: [__m512; 4]) {
        let [a, b, c, d] = values;
        self.lo = _mm512_min_ps(self.lo, _mm512_min_ps(_mm512_min_ps(a, b), _mm512_min_ps(c, d)));
        self.hi = _mm512_max_ps(self.hi, _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)));
        for x in values {
            self.probe = _mm512_fmadd_ps(x, _mm512_setzero_ps(), self.probe);
        }
    }

    /// Whether all values were finite; the ends count only then.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn finite(&self) -> bool {
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.probe, _mm512_setzero_ps()) == 0xffff
    }

    /// The least and the largest.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn ends(&self) -> (f32, f32) {
        // One maximum for both: the lower half gets what is largest, the upper one what is least, with its sign turned.
        let low = _mm256_min_ps(_mm512_castps512_ps256(self.lo), _mm512_extractf32x8_ps::<1>(self.lo));
        let high = _mm256_max_ps(_mm512_castps512_ps256(self.hi), _mm512_extractf32x8_ps::<1>(self.hi));
        let low = _mm256_xor_ps(low, _mm256_set1_ps(-0.0));
        let eight = _mm256_max_ps(_mm256_permute2f128_ps::<0x20>(high, low), _mm256_permute2f128_ps::<0x31>(high, low));
        let four = _mm256_max_ps(eight, _mm256_permute_ps::<0x4e>(eight));
        let two = _mm256_max_ps(four, _mm256_permute_ps::<0xb1>(four));
        (-_mm_cvtss_f32(_mm256_extractf128_ps::<1>(two)), _mm256_cvtss_f32(two))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use proptest::prelude::*;
    use quee_quant::activation::quantize_row_dynamic;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn rows(bits: u8, d: usize, x: &[f32], scales: &mut [RowScale], out: &mut [u8]) -> bool {
        RowQuantizer::new(bits).rows(d, x, scales, out)
    }

    proptest! {
        #[test]
        fn rows_equal_the_scalar_quantizer(
            mut x in proptest::collection::vec(-3f32..5.0, 11 * 128), bits in 2u8..=8, exponent in -140i32..126, shape in 0..4,
        ) {
            if !Isa::available().contains(&Isa::Avx512Vnni) {
                return Ok(());
            }
            for (i, x) in x.iter_mut().enumerate() {
                *x = match shape {
                    // Halves of a step come up when the range is a power of two of steps.
                    0 => (*x * 8.0).round() / 8.0,
                    1 => x.abs(),
                    2 => if i / 128 % 3 == 0 { 0.0 } else { -x.abs() },
                    _ => *x,
                } * 2f32.powi(exponent);
            }
            let (mut scales, mut out) = (vec![RowScale::default(); 11], vec![0; x.len()]);
            // SAFETY: the processor has been asked.
            let finite = unsafe { rows(bits, 128, &x, &mut scales, &mut out) };
            prop_assert!(finite);
            for ((row, out), scale) in x.chunks(128).zip(out.chunks(128)).zip(scales) {
                let mut codes = vec![0; 128];
                let (quant, _) = quantize_row_dynamic(row, bits, &mut codes);
                prop_assert_eq!(scale, RowScale { scale: quant.scale, zero: quant.zero });
                prop_assert!(out.iter().zip(codes).all(|(&byte, code)| byte ^ 0x80 == code as u8));
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_seen_at_every_place() {
        if !Isa::available().contains(&Isa::Avx512Vnni) {
            return;
        }
        for (place, bad) in (0..192).flat_map(|place| [f32::NAN, f32::INFINITY, -f32::INFINITY].map(|bad| (place, bad)))
        {
            let mut x = vec![1.0; 192];
            x[place] = bad;
            // SAFETY: the processor has been asked.
            assert!(!unsafe { rows(8, 64, &x, &mut [RowScale::default(); 3], &mut [0; 192]) });
        }
    }
}
