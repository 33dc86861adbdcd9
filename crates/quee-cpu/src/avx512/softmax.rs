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
    let x = _mm512_max_ps(x, set(-87.0));
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

/// Softmax of `t` scores, `(sums[j] + rest) · scale`, into codes with 128 added; returns the sum of the codes.
///
/// `sums` has whole vectors and is used up; `codes` has room for whole quadruples of vectors. Bytes from t on become 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn softmax_row(
    sums: &mut [i32],
    t: usize,
    rest: i32,
    scale: f32,
    encoder: &Encoder,
    codes: &mut [u8],
) -> i32 {
    let padded = t.next_multiple_of(LANES);
    assert!(t > 0 && sums.len() >= padded && codes.len() >= t.next_multiple_of(4 * LANES));
    let row = sums.as_mut_ptr();
    let last = padded - LANES;
    let inside: __mmask16 = 0xffff >> (padded - t);
    // SAFETY, here and below: vectors begin at multiples of 16 below `padded`, and `sums` has as many elements.
    let score = |j: usize| unsafe {
        let sum = _mm512_add_epi32(_mm512_loadu_si512(row.add(j).cast()), _mm512_set1_epi32(rest));
        _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale))
    };
    let mut top = _mm512_set1_ps(f32::NEG_INFINITY);
    for j in (0..padded).step_by(LANES) {
        let x = score(j);
        top = match j == last {
            true => _mm512_mask_max_ps(top, inside, top, x),
            false => _mm512_max_ps(top, x),
        };
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(row.add(j).cast(), x) };
    }
    let top = _mm512_set1_ps(largest(top));
    let mut total = _mm512_setzero_ps();
    for j in (0..padded).step_by(LANES) {
        // SAFETY: as above.
        let mut e = exp_not_positive(_mm512_sub_ps(unsafe { _mm512_loadu_ps(row.add(j).cast()) }, top));
        if j == last {
            e = _mm512_maskz_mov_ps(inside, e);
        }
        total = _mm512_add_ps(total, e);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(row.add(j).cast(), e) };
    }
    let inverse = _mm512_set1_ps(1.0 / sum_lanes(total));
    let mut code_sums = _mm512_setzero_si512();
    for j in (0..padded).step_by(4 * LANES) {
        let mut p = [_mm512_setzero_ps(); 4];
        for (v, p) in p.iter_mut().enumerate() {
            if j + v * LANES < padded {
                // SAFETY: as above.
                *p = _mm512_mul_ps(unsafe { _mm512_loadu_ps(row.add(j + v * LANES).cast()) }, inverse);
            }
        }
        let inside: __mmask64 = if t - j >= 64 { u64::MAX } else { u64::MAX >> (64 - (t - j)) };
        let bytes = _mm512_maskz_mov_epi8(inside, encoder.encode(p));
        code_sums = _mm512_dpbusd_epi32(code_sums, bytes, _mm512_set1_epi8(1));
        // SAFETY: `codes` has whole quadruples of vectors.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().add(j).cast(), bytes) };
    }
    _mm512_reduce_add_epi32(code_sums) - 128 * t as i32
}
