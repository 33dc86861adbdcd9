//! Softmax of a row of scores into codes.

use std::arch::x86_64::*;

use super::LANES;
use super::codes::Encoder;
use super::norm::sum_lanes;
use crate::math::{EXP, LN2_HIGH, LN2_LOW, ROUND};

/// `e^x` for x ≤ 0: [`crate::math::exp_not_positive`] with its operations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn exp_not_positive(x: __m512) -> __m512 {
    let (set, mul, add, sub) = (_mm512_set1_ps, _mm512_mul_ps, _mm512_add_ps, _mm512_sub_ps);
    // The second operand is what comes out where one is NaN.
    let x = _mm512_max_ps(set(-87.0), x);
    let shifted = add(mul(x, set(std::f32::consts::LOG2_E)), set(ROUND));
    let n = sub(shifted, set(ROUND));
    let rest = sub(sub(x, mul(n, set(LN2_HIGH))), mul(n, set(LN2_LOW)));
    // (n + 127) · 2^23 as an integer: the exponent of 2^n.
    let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let power = _mm512_add_epi32(power, _mm512_set1_epi32((127i32 - ROUND.to_bits() as i32) << 23));
    let square = mul(rest, rest);
    let low = add(
        add(set(EXP[0][0]), mul(set(EXP[0][1]), rest)),
        mul(add(set(EXP[0][2]), mul(set(EXP[0][3]), rest)), square),
    );
    // The last coefficient is 0, and so is its product.
    let high = add(add(set(EXP[1][0]), mul(set(EXP[1][1]), rest)), mul(set(EXP[1][2]), square));
    let sum = add(low, mul(high, mul(square, square)));
    mul(sum, _mm512_castsi512_ps(power))
}

/// The largest lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn largest(x: __m512) -> f32 {
    let eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

/// Query rows at a time: as many as a tile of five vectors has.
pub(crate) const QUERIES: usize = 5;

/// What is particular about rows of scores and their probabilities.
pub(crate) trait Scores {
    /// Scores of row `i` against the 16 keys from `j` on, whose sums are `sums`.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and VNNI.
    unsafe fn score(&self, i: usize, j: usize, sums: __m512i) -> __m512;

    /// The codes of the probabilities of row `i`, the largest of which is `largest`.
    ///
    /// # Safety
    /// As of [`score`](Self::score).
    unsafe fn encoder(&mut self, i: usize, largest: f32) -> Encoder;
}

/// Softmax of rows of `t` scores into codes.
#[derive(Clone, Copy)]
pub(crate) struct SoftmaxCall {
    pub t: usize,
    /// From row to row of the sums, in elements: `t` with what fills the last vector.
    pub padded: usize,
    /// From row to row of the codes, in bytes: a multiple of 64.
    pub width: usize,
}

/// What a row of codes has besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowSums {
    /// Sum of the codes of each row.
    pub codes: [i32; QUERIES],
    /// Whether a probability is not a number.
    pub nan: bool,
}

impl SoftmaxCall {
    /// Softmax of the scores of `m` rows into codes with 128 added, 0 from t on. `sums` is used up.
    ///
    /// Each step is done for all rows before the next: one row alone would wait for its own maximum and sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn rows(self, m: usize, scores: &mut impl Scores, sums: &mut [i32], codes: &mut [u8]) -> RowSums {
        let Self { t, padded, width } = self;
        assert!(t > 0 && padded == t.next_multiple_of(LANES) && width == t.next_multiple_of(4 * LANES));
        assert!(m <= QUERIES && sums.len() >= m * padded && sums.as_ptr().align_offset(64) == 0);
        assert!(codes.len() >= m * width);
        let last = padded - LANES;
        let inside: __mmask16 = 0xffff >> (padded - t);
        let start = sums.as_mut_ptr().cast::<f32>();
        // SAFETY: there are m rows of `padded` elements.
        let row = |i: usize| unsafe { start.add(i * padded) };
        let mut tops = [_mm512_setzero_ps(); QUERIES];
        for (i, all) in tops.iter_mut().enumerate().take(m) {
            let row = row(i);
            let mut top = _mm512_set1_ps(f32::NEG_INFINITY);
            for j in (0..padded).step_by(LANES) {
                // SAFETY: j is a multiple of 16 below `padded`, the length of a row; rows begin at cache lines.
                let x = unsafe { scores.score(i, j, _mm512_load_si512(row.add(j).cast())) };
                let within = if j == last { inside } else { 0xffff };
                top = _mm512_mask_max_ps(top, within, top, x);
                // SAFETY: as above.
                unsafe { _mm512_store_ps(row.add(j), x) };
            }
            *all = _mm512_set1_ps(largest(top));
        }
        let mut inverses = [0.0; QUERIES];
        for i in 0..m {
            let (row, top) = (row(i), tops[i]);
            let mut total = _mm512_setzero_ps();
            for j in (0..padded).step_by(LANES) {
                let within = if j == last { inside } else { 0xffff };
                // SAFETY: as above.
                let x = _mm512_sub_ps(unsafe { _mm512_load_ps(row.add(j)) }, top);
                let power = _mm512_maskz_mov_ps(within, exp_not_positive(x));
                total = _mm512_add_ps(total, power);
                // SAFETY: as above.
                unsafe { _mm512_store_ps(row.add(j), power) };
            }
            inverses[i] = 1.0 / sum_lanes(total);
        }
        let mut row_sums = RowSums::default();
        for (i, inverse) in inverses.into_iter().enumerate().take(m) {
            // The largest score gives e^0, which is 1.
            // SAFETY: the same features.
            let encoder = unsafe { scores.encoder(i, inverse) };
            row_sums.nan |= inverse.is_nan();
            let (row, inverse) = (row(i), _mm512_set1_ps(inverse));
            let mut code_sum = _mm512_setzero_si512();
            for j in (0..padded).step_by(4 * LANES) {
                let mut p = [_mm512_setzero_ps(); 4];
                for (v, p) in p.iter_mut().enumerate() {
                    if j + v * LANES < padded {
                        // SAFETY: as above.
                        *p = _mm512_mul_ps(unsafe { _mm512_load_ps(row.add(j + v * LANES)) }, inverse);
                    }
                }
                let within: __mmask64 = if t - j >= 64 { u64::MAX } else { u64::MAX >> (64 - (t - j)) };
                let bytes = _mm512_maskz_mov_epi8(within, encoder.encode(p));
                code_sum = _mm512_dpbusd_epi32(code_sum, bytes, _mm512_set1_epi8(1));
                // SAFETY: a row of codes has whole quadruples of vectors.
                unsafe { _mm512_storeu_si512(codes.as_mut_ptr().add(i * width + j).cast(), bytes) };
            }
            row_sums.codes[i] = _mm512_reduce_add_epi32(code_sum) - 128 * t as i32;
        }
        row_sums
    }
}
