//! GELU of vectors: [`crate::gelu`] with its operations.

use std::arch::x86_64::*;

use super::LANES;
use crate::isa::Cpu;
use crate::math::{ERF, ERF_END, TO_UNIT};

/// [`crate::gelu::gelu`] of a slice.
pub(crate) fn gelu_slice(cpu: Cpu, values: &mut [f32]) {
    assert!(cpu.isa().has_avx512());
    // SAFETY: the `Cpu` proves the features.
    unsafe { slice(values) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn slice(values: &mut [f32]) {
    let (chunks, tail) = values.as_chunks_mut::<LANES>();
    let one = |chunk: &mut [f32; LANES]| {
        // SAFETY: a chunk is a vector.
        unsafe {
            let [y] = gelu([_mm512_loadu_ps(chunk.as_ptr())]);
            _mm512_storeu_ps(chunk.as_mut_ptr(), y);
        }
    };
    chunks.iter_mut().for_each(one);
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    one(&mut last);
    tail.copy_from_slice(&last[..tail.len()]);
}

/// `c0 + c1·x + c2·x² + c3·x³`, as [`crate::math`] adds it up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn cubic(x: __m512, x2: __m512, c: &[f32; 4]) -> __m512 {
    let set = |i: usize| _mm512_set1_ps(c[i]);
    let low = _mm512_add_ps(set(0), _mm512_mul_ps(set(1), x));
    let high = _mm512_add_ps(set(2), _mm512_mul_ps(set(3), x));
    _mm512_add_ps(low, _mm512_mul_ps(high, x2))
}

/// `x · Φ(x)` of several vectors: the operations of [`crate::math::erf`] in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn gelu<const V: usize>(x: [__m512; V]) -> [__m512; V] {
    let (one, sign) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-0.0));
    x.map(|x| {
        let v = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::FRAC_1_SQRT_2));
        let u = _mm512_sub_ps(_mm512_mul_ps(_mm512_mul_ps(v, v), _mm512_set1_ps(TO_UNIT)), one);
        let u2 = _mm512_mul_ps(u, u);
        let u4 = _mm512_mul_ps(u2, u2);
        let low = _mm512_add_ps(cubic(u, u2, &ERF[0]), _mm512_mul_ps(cubic(u, u2, &ERF[1]), u4));
        let high = _mm512_add_ps(cubic(u, u2, &ERF[2]), _mm512_mul_ps(cubic(u, u2, &ERF[3]), u4));
        let inside = _mm512_mul_ps(v, _mm512_add_ps(low, _mm512_mul_ps(high, _mm512_mul_ps(u4, u4))));
        // Not for NaN, which the polynomial keeps.
        let beyond = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_abs_ps(v), _mm512_set1_ps(ERF_END));
        let erf = _mm512_mask_or_ps(inside, beyond, one, _mm512_and_ps(v, sign));
        _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5), x), _mm512_add_ps(one, erf))
    })
}
