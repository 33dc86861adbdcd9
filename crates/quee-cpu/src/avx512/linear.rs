//! The weights of a linear layer behind codes of one quantizer.

use quee_quant::ActQuant;

use super::codes::Encoder;
use super::epilogue::{AddTo, Affine, ToCodes};
use super::matrix::{Matrix, Rows, multiply};
use crate::aligned::Aligned;
use crate::isa::{Cpu, Isa};

/// A linear layer behind codes of one quantizer.
#[derive(Debug)]
pub(crate) struct LinearPlan {
    pub codes: Matrix,
    /// What the sums start from: `−(128 + zero) · Σ codes`.
    pub start: Aligned<i32>,
    pub scales: Aligned<f32>,
    pub biases: Aligned<f32>,
    /// No output is larger.
    largest: f32,
}

impl LinearPlan {
    /// Of weights `[n, k]` at integer width, for inputs quantized by `quant`.
    pub fn new(isa: Isa, k: usize, codes: &[i8], scales: &[f32], bias: Option<&[f32]>, quant: &ActQuant) -> Self {
        let n = scales.len();
        let (mut packed, mut start) = (Matrix::on(isa), Vec::new());
        packed.pack(n, k, codes);
        packed.sums(&mut start);
        start.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(-(128 + quant.zero)));
        let scales: Vec<f32> = scales.iter().map(|scale| quant.scale * scale).collect();
        let biases = bias.map_or_else(|| vec![0.0; n], <[f32]>::to_vec);
        // Codes differ from the zero point by at most 255.
        let most = (255 * 128 * k) as f32;
        let largest = scales.iter().zip(&biases).fold(0.0, |top: f32, (s, b)| top.max(most * s.abs() + b.abs()));
        let (start, scales, biases) = (start[..].into(), scales[..].into(), biases[..].into());
        Self { codes: packed, start, scales, biases, largest: 1.01 * largest }
    }

    /// Codes of the outputs.
    pub fn encoder(&self, quant: &ActQuant) -> Option<Encoder> {
        Encoder::new(quant, self.largest)
    }

    /// Runs the layer on `m` rows, GELU behind it or not.
    pub fn run_to_codes(&self, cpu: Cpu, m: usize, codes: &[u8], gelu: bool, encoder: Encoder, out: &mut [u8]) {
        assert!(cpu.isa().has_avx512() && out.len() == m * self.scales.len());
        let rows = Rows::new(codes, self.codes.k(), m, self.codes.k());
        // SAFETY: the `Cpu` proves the features.
        unsafe {
            match gelu {
                true => self.to_codes::<true>(rows, encoder, out),
                false => self.to_codes::<false>(rows, encoder, out),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn to_codes<const GELU: bool>(&self, rows: Rows, encoder: Encoder, out: &mut [u8]) {
        let mut to = ToCodes::<GELU> { affine: self.affine(), encoder, out, stride: self.scales.len() };
        multiply(rows, &self.codes, &self.start, &mut to);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn add_to(&self, rows: Rows, residual: Option<&[f32]>, out: &mut [f32]) {
        let mut to = AddTo { outputs: self.affine(), residual, out, stride: self.scales.len() };
        multiply(rows, &self.codes, &self.start, &mut to);
    }

    fn affine(&self) -> Affine<'_> {
        Affine { scales: &self.scales, biases: &self.biases }
    }
}
