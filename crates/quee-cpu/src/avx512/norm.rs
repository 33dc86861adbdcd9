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

impl NormCall<'_> {
    /// [`crate::norm::layer_norm`] of a row, then its codes with 128 added; whether all values were finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn row(&self, row: &[f32], out: &mut [u8]) -> bool {
        let d = row.len();
        assert!(d % COLUMNS == 0 && self.gain.len() == d && self.offset.len() == d && out.len() == d);
        // SAFETY: of all slices, at least i + 16 elements are there, i being a multiple of 16 below d.
        let load = |from: &[f32], i: usize| unsafe { _mm512_loadu_ps(from.as_ptr().add(i)) };
        let mut sum = _mm512_setzero_ps();
        for i in (0..d).step_by(LANES) {
            sum = _mm512_add_ps(sum, load(row, i));
        }
        let mean = _mm512_set1_ps(sum_lanes(sum) / d as f32);
        let mut squares = _mm512_setzero_ps();
        for i in (0..d).step_by(LANES) {
            let x = _mm512_sub_ps(load(row, i), mean);
            squares = _mm512_add_ps(squares, _mm512_mul_ps(x, x));
        }
        let inverse = _mm512_set1_ps(1.0 / (sum_lanes(squares) / d as f32 + self.eps).sqrt());
        // 0 · x is 0 but for infinity and NaN.
        let (zero, mut probe) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for i in (0..d).step_by(COLUMNS) {
            let mut normed = [zero; 4];
            for (v, normed) in normed.iter_mut().enumerate() {
                let at = i + v * LANES;
                let x = _mm512_mul_ps(_mm512_sub_ps(load(row, at), mean), inverse);
                *normed = _mm512_add_ps(_mm512_mul_ps(x, load(self.gain, at)), load(self.offset, at));
                probe = _mm512_fmadd_ps(*normed, zero, probe);
            }
            // SAFETY: `out` has d bytes and i + 64 ≤ d.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(i).cast(), self.encoder.encode(normed)) };
        }
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(probe, zero) == 0xffff
    }
}
