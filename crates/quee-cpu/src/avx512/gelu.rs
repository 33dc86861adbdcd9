//! GELU of vectors: [`crate::gelu`] with its operations.

use std::arch::x86_64::*;

use super::LANES;
use crate::gelu::{END, SHIFT, STEPS, TABLE};
use crate::isa::{Cpu, Isa};

/// [`crate::gelu::gelu`] of a slice.
pub(crate) fn gelu_slice(cpu: Cpu, values: &mut [f32]) {
    assert!(cpu.isa() == Isa::Avx512Vnni);
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

/// `x · Φ(x)` of several vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn gelu<const V: usize>(x: [__m512; V]) -> [__m512; V] {
    let table = |degree: usize, index: __m512i| {
        let row = TABLE.0[degree].as_ptr();
        // SAFETY: a row has 32 floats.
        let (low, high) = unsafe { (_mm512_load_ps(row), _mm512_load_ps(row.add(16))) };
        _mm512_permutex2var_ps(low, index, high)
    };
    x.map(|x| {
        let size = _mm512_abs_ps(x);
        // The second operand is what comes out where the first is NaN.
        let at = _mm512_min_ps(_mm512_mul_ps(size, _mm512_set1_ps(STEPS)), _mm512_set1_ps(END));
        let shifted = _mm512_add_ps(at, _mm512_set1_ps(SHIFT));
        let rest = _mm512_sub_ps(at, _mm512_sub_ps(shifted, _mm512_set1_ps(SHIFT)));
        let index = _mm512_castps_si512(shifted);
        let mut sum = table(3, index);
        for degree in [2, 1, 0] {
            sum = _mm512_add_ps(_mm512_mul_ps(sum, rest), table(degree, index));
        }
        _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5)), _mm512_mul_ps(size, sum))
    })
}
