//! What happens to the sums of a tile whose rows have scales of their own.

use std::arch::x86_64::*;

use super::codes::{Range, RowQuantizer, RowScale};
use super::pair;
use crate::avx512::LANES;
use crate::avx512::attention::HEAD;
use crate::avx512::epilogue::{Outputs, four};
use crate::avx512::gelu::gelu;
use crate::avx512::matrix::Epilogue;

/// Scale and bias of every output channel, and scale and zero point of every row:
/// `(sum − zero · Σ codes) · (row's scale · scale) + bias`.
#[derive(Clone, Copy)]
pub(crate) struct RowAffine<'a> {
    pub scales: &'a [f32],
    pub biases: &'a [f32],
    /// Sums of the channels' codes as pairs: a sum is `128 · high + low`.
    pub sums: &'a [i32],
    pub rows: &'a [RowScale],
}

impl Outputs for RowAffine<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn of<const V: usize>(&self, row: usize, column: usize, sums: [__m512i; V]) -> [__m512; V] {
        let within = column..column + V * LANES;
        let (scales, biases) = (&self.scales[within.clone()], &self.biases[within.clone()]);
        let pairs = &self.sums[within];
        let RowScale { scale, zero } = self.rows[row];
        let (row_scale, zeros) = (_mm512_set1_ps(scale), _mm512_set1_epi32(pair(-zero, -128 * zero)));
        let mut out = [_mm512_setzero_ps(); V];
        for v in 0..V {
            let at = v * LANES;
            // SAFETY: all slices have V vectors.
            let (scale, bias, pairs) = unsafe {
                (
                    _mm512_loadu_ps(scales.as_ptr().add(at)),
                    _mm512_loadu_ps(biases.as_ptr().add(at)),
                    _mm512_loadu_si512(pairs.as_ptr().add(at).cast()),
                )
            };
            let sum = _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(sums[v], pairs, zeros));
            out[v] = _mm512_add_ps(_mm512_mul_ps(sum, _mm512_mul_ps(row_scale, scale)), bias);
        }
        out
    }
}

/// Codes with 128 added of the rows of heads: a panel is one head, and each of its rows makes its own scale. Rows of `out` are `stride`
/// apart, of `scales` one for each head.
pub(crate) struct ToHeads<'a> {
    pub affine: RowAffine<'a>,
    pub quantizer: RowQuantizer,
    pub out: &'a mut [u8],
    pub stride: usize,
    pub scales: &'a mut [RowScale],
    pub finite: bool,
}

impl Epilogue for ToHeads<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]) {
        // SAFETY: the same features.
        let y = four(unsafe { self.affine.of(row, column, sums) });
        let mut range = Range::new();
        range.add(y);
        self.finite &= range.finite();
        let (lo, hi) = range.ends();
        let (scale, encoder) = self.quantizer.of_range(lo, hi);
        self.scales[(row * self.stride + column) / HEAD] = scale;
        let to: &mut [u8; HEAD] =
            self.out[row * self.stride + column..].first_chunk_mut().expect("rows of whole heads");
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), encoder.encode(y)) };
    }
}

/// Floats, through GELU or not, into rows `stride` apart.
pub(crate) struct ToFloats<'a, O, const GELU: bool> {
    pub outputs: O,
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl<O: Outputs, const GELU: bool> Epilogue for ToFloats<'_, O, GELU> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]) {
        // SAFETY: the same features.
        let mut y = unsafe { self.outputs.of(row, column, sums) };
        if GELU {
            y = gelu(y);
        }
        let to = &mut self.out[row * self.stride + column..][..V * LANES];
        for (v, y) in y.into_iter().enumerate() {
            // SAFETY: V vectors.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr().add(v * LANES), y) };
        }
    }
}
