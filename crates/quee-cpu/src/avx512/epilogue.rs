//! What happens to the sums of a tile.

use std::arch::x86_64::*;

use super::LANES;
use super::codes::Encoder;
use super::gelu::gelu;
use super::matrix::Epilogue;

/// Scale and bias of every output channel: `sum · scale + bias`.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub scales: &'a [f32],
    pub biases: &'a [f32],
}

/// Sums to outputs of a linear layer.
pub(crate) trait Outputs {
    /// [`quee_quant::reference::linear_epilogue`] of `V` vectors of columns, from `column` on, of row `row`.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and VNNI.
    unsafe fn of<const V: usize>(&self, row: usize, column: usize, sums: [__m512i; V]) -> [__m512; V];
}

impl Outputs for Affine<'_> {
    /// The sums started from what belongs to the zero point.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn of<const V: usize>(&self, _: usize, column: usize, sums: [__m512i; V]) -> [__m512; V] {
        let end = column + V * LANES;
        let (scales, biases) = (&self.scales[column..end], &self.biases[column..end]);
        let mut out = [_mm512_setzero_ps(); V];
        for v in 0..V {
            // SAFETY: both slices have V vectors.
            let (scale, bias) = unsafe {
                (_mm512_loadu_ps(scales.as_ptr().add(v * LANES)), _mm512_loadu_ps(biases.as_ptr().add(v * LANES)))
            };
            out[v] = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scale), bias);
        }
        out
    }
}

/// Four vectors of the `V` that a tile gives: here all panels are full ones.
#[inline]
pub(crate) fn four<T: Copy, const V: usize>(vectors: [T; V]) -> [T; 4] {
    std::array::from_fn(|v| vectors[v])
}

/// Codes with 128 added, through GELU or not, into rows `stride` apart. All panels are full ones.
pub(crate) struct ToCodes<'a, const GELU: bool> {
    pub affine: Affine<'a>,
    pub encoder: Encoder,
    pub out: &'a mut [u8],
    pub stride: usize,
}

impl<const GELU: bool> Epilogue for ToCodes<'_, GELU> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]) {
        // SAFETY: the same features.
        let mut y = four(unsafe { self.affine.of(row, column, sums) });
        if GELU {
            y = gelu(y);
        }
        let at = row * self.stride + column;
        let to: &mut [u8; 64] = self.out[at..].first_chunk_mut().expect("rows of whole panels");
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.encoder.encode(y)) };
    }
}

/// Added to the residual stream, or put beside it: `out = residual + y`, rows of `residual` and of `out` `stride` apart.
pub(crate) struct AddTo<'a, O> {
    pub outputs: O,
    /// `None` adds to what `out` holds.
    pub residual: Option<&'a [f32]>,
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl<O: Outputs> Epilogue for AddTo<'_, O> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]) {
        // SAFETY: the same features.
        let y = unsafe { self.outputs.of(row, column, sums) };
        let at = row * self.stride + column;
        let to = &mut self.out[at..at + V * LANES];
        let from = self.residual.map_or(to.as_ptr(), |residual| residual[at..at + V * LANES].as_ptr());
        for (v, y) in y.into_iter().enumerate() {
            // SAFETY: both have V vectors from here on.
            unsafe {
                let x = _mm512_loadu_ps(from.add(v * LANES));
                _mm512_storeu_ps(to.as_mut_ptr().add(v * LANES), _mm512_add_ps(x, y));
            }
        }
    }
}

/// The sums themselves, rows `stride` apart; whole vectors of them.
pub(crate) struct Sums<'a> {
    pub out: &'a mut [i32],
    pub stride: usize,
}

impl Epilogue for Sums<'_> {
    const STORES_SUMS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]) {
        let to = &mut self.out[row * self.stride + column..][..V * LANES];
        for (v, sums) in sums.into_iter().enumerate() {
            // SAFETY: `to` has V vectors.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(v * LANES).cast(), sums) };
        }
    }
}
