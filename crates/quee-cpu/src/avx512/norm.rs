//! Layer normalisation of rows into codes.

use std::arch::x86_64::*;

use super::codes::Encoder;
use super::{COLUMNS, LANES};

/// Gain, offset and epsilon of a normalisation over a multiple of 64 features.
pub(crate) struct NormCall<'a> {
    pub gain: &'a [f32],
    pub offset: &'a [f32],
    pub eps: f32,
    pub encoder: &'a Encoder,
}

/// Sum of 16 lanes, halves added to each other until one is left: the order of [`crate::lanes::reduce`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn sum_lanes(x: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Rows at a time.
const ROWS: usize = 8;

impl NormCall<'_> {
    /// [`crate::norm::layer_norm`] of every row of `x`, then its codes with 128 added; whether all values were finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn rows(&self, x: &[f32], out: &mut [u8]) -> bool {
        let d = self.gain.len();
        assert!(d > 0 && d.is_multiple_of(COLUMNS) && self.offset.len() == d);
        assert!(x.len().is_multiple_of(d) && out.len() == x.len());
        let mut finite = true;
        for (x, out) in x.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)) {
            // SAFETY: both hold the same number of whole rows, at most `ROWS`.
            finite &= unsafe { self.few(x.len() / d, x.as_ptr(), out.as_mut_ptr()) };
        }
        finite
    }

    /// Each step is done for all rows before the next: one row alone would wait for its own sums.
    ///
    /// # Safety
    /// `x` and `out` have `m` rows, m being at most [`ROWS`]; a row has as many features as `gain`, a multiple of 64.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn few(&self, m: usize, x: *const f32, out: *mut u8) -> bool {
        let d = self.gain.len();
        // SAFETY: all rows, gain and offset have d floats, and i is a multiple of 16 below d.
        let load = |from: *const f32, i: usize| unsafe { _mm512_loadu_ps(from.add(i)) };
        let row = |r: usize| x.wrapping_add(r * d);
        let mut means = [_mm512_setzero_ps(); ROWS];
        for (r, mean) in means[..m].iter_mut().enumerate() {
            let mut sum = _mm512_setzero_ps();
            for i in (0..d).step_by(LANES) {
                sum = _mm512_add_ps(sum, load(row(r), i));
            }
            *mean = _mm512_set1_ps(sum_lanes(sum) / d as f32);
        }
        let mut inverses = [_mm512_setzero_ps(); ROWS];
        for r in 0..m {
            let mut squares = _mm512_setzero_ps();
            for i in (0..d).step_by(LANES) {
                let x = _mm512_sub_ps(load(row(r), i), means[r]);
                squares = _mm512_add_ps(squares, _mm512_mul_ps(x, x));
            }
            inverses[r] = _mm512_set1_ps(1.0 / (sum_lanes(squares) / d as f32 + self.eps).sqrt());
        }
        // 0 · x is 0 but for infinity and NaN.
        let (zero, mut probe) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for r in 0..m {
            for i in (0..d).step_by(COLUMNS) {
                let mut normed = [zero; 4];
                for (v, normed) in normed.iter_mut().enumerate() {
                    let at = i + v * LANES;
                    let x = _mm512_mul_ps(_mm512_sub_ps(load(row(r), at), means[r]), inverses[r]);
                    let scaled = _mm512_mul_ps(x, load(self.gain.as_ptr(), at));
                    *normed = _mm512_add_ps(scaled, load(self.offset.as_ptr(), at));
                    probe = _mm512_fmadd_ps(*normed, zero, probe);
                }
                // SAFETY: `out` has m rows of d bytes.
                unsafe { _mm512_storeu_si512(out.add(r * d + i).cast(), self.encoder.encode(normed)) };
            }
        }
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(probe, zero) == 0xffff
    }
}
