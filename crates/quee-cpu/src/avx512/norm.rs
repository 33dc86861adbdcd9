//! Layer normalisation of rows.

use std::arch::x86_64::*;

use quee_backbone::{Norm, Param};

use super::codes::Encoder;
use super::{COLUMNS, LANES};
use crate::aligned::Aligned;

/// A normalisation over a multiple of 64 features.
#[derive(Debug)]
pub(crate) struct NormPlan {
    gain: Aligned<f32>,
    offset: Aligned<f32>,
    eps: f32,
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
pub(crate) const ROWS: usize = 8;

/// Mean and inverse deviation of each of a few rows, in all lanes.
struct Moments {
    means: [__m512; ROWS],
    inverses: [__m512; ROWS],
}

impl NormPlan {
    pub fn new(norm: &Norm) -> Self {
        let Norm { weight: Param { data: gain, .. }, bias: Param { data: offset, .. }, eps, .. } = norm;
        Self { gain: gain[..].into(), offset: offset[..].into(), eps: *eps }
    }

    /// Features of a row.
    pub fn features(&self) -> usize {
        self.gain.len()
    }

    /// No value that comes out is larger.
    pub fn largest(&self) -> f32 {
        let top = |values: &[f32]| values.iter().fold(0.0f32, |top, x| top.max(x.abs()));
        // A normalised value is at most √D.
        1.1 * (self.gain.len() as f32).sqrt() * top(&self.gain) + top(&self.offset)
    }

    /// [`crate::norm::layer_norm`] of every row of `x`, then its codes with 128 added; whether all values were finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn codes(&self, x: &[f32], encoder: &Encoder, out: &mut [u8]) -> bool {
        let d = self.check(x, out.len());
        // 0 · x is 0 but for infinity and NaN.
        let (zero, mut probe) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (x, out) in x.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)) {
            let moments = self.moments(x);
            for (r, (x, out)) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
                for i in (0..d).step_by(COLUMNS) {
                    let normed = self.four(x, i, moments.means[r], moments.inverses[r]);
                    for normed in normed {
                        probe = _mm512_fmadd_ps(normed, zero, probe);
                    }
                    // SAFETY: `out` has d bytes, a multiple of 64.
                    unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(i).cast(), encoder.encode(normed)) };
                }
            }
        }
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(probe, zero) == 0xffff
    }

    /// [`crate::norm::layer_norm`] of every row of `x`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn floats(&self, x: &[f32], out: &mut [f32]) {
        let d = self.check(x, out.len());
        for (x, out) in x.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)) {
            let moments = self.moments(x);
            for (r, (x, out)) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
                for i in (0..d).step_by(COLUMNS) {
                    let normed = self.four(x, i, moments.means[r], moments.inverses[r]);
                    for (v, normed) in normed.into_iter().enumerate() {
                        // SAFETY: `out` has d floats, a multiple of 64.
                        unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(i + v * LANES), normed) };
                    }
                }
            }
        }
    }

    /// The number of features.
    fn check(&self, x: &[f32], out: usize) -> usize {
        let d = self.gain.len();
        assert!(d > 0 && d.is_multiple_of(COLUMNS) && self.offset.len() == d);
        assert!(x.len().is_multiple_of(d) && out == x.len());
        d
    }

    /// Of at most [`ROWS`] rows. Each step is done for all rows before the next: one row alone would wait for its own sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn moments(&self, x: &[f32]) -> Moments {
        let d = self.gain.len();
        let m = x.len() / d;
        assert!(m <= ROWS);
        // SAFETY: r is below m, the number of rows, and i a multiple of 16 below d, itself one.
        let load = |r: usize, i: usize| unsafe { _mm512_loadu_ps(x.as_ptr().add(r * d + i)) };
        let mut means = [_mm512_setzero_ps(); ROWS];
        for (r, mean) in means[..m].iter_mut().enumerate() {
            let mut sum = _mm512_setzero_ps();
            for i in (0..d).step_by(LANES) {
                sum = _mm512_add_ps(sum, load(r, i));
            }
            *mean = _mm512_set1_ps(sum_lanes(sum) / d as f32);
        }
        let mut inverses = [_mm512_setzero_ps(); ROWS];
        for (r, inverse) in inverses[..m].iter_mut().enumerate() {
            let mut squares = _mm512_setzero_ps();
            for i in (0..d).step_by(LANES) {
                let x = _mm512_sub_ps(load(r, i), means[r]);
                squares = _mm512_add_ps(squares, _mm512_mul_ps(x, x));
            }
            *inverse = _mm512_set1_ps(1.0 / (sum_lanes(squares) / d as f32 + self.eps).sqrt());
        }
        Moments { means, inverses }
    }

    /// 64 normalised features of a row, from `i` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn four(&self, row: &[f32], i: usize, mean: __m512, inverse: __m512) -> [__m512; 4] {
        let within = i..i + COLUMNS;
        let (row, gain, offset) = (&row[within.clone()], &self.gain[within.clone()], &self.offset[within]);
        let mut normed = [_mm512_setzero_ps(); 4];
        for (v, normed) in normed.iter_mut().enumerate() {
            let at = v * LANES;
            // SAFETY: all have 64 floats.
            let load = |from: &[f32]| unsafe { _mm512_loadu_ps(from.as_ptr().add(at)) };
            let x = _mm512_mul_ps(_mm512_sub_ps(load(row), mean), inverse);
            *normed = _mm512_add_ps(_mm512_mul_ps(x, load(gain)), load(offset));
        }
        normed
    }
}
