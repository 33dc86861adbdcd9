//! Weights and quantizers of an encoder block.

use std::sync::Arc;

use quee_backbone::encoder::EncoderBlock;
use quee_backbone::params::AttentionOperand;
use quee_backbone::{Linear, Norm, Param};
use quee_quant::{ActQuant, Width};

use super::COLUMNS;
use super::attention::{AttentionPlan, HEAD};
use super::codes::Encoder;
use super::epilogue::{AddTo, Affine, ToCodes};
use super::matrix::{Matrix, Rows, multiply};
use super::norm::NormCall;
use crate::aligned::Aligned;
use crate::engine::CpuEngine;
use crate::isa::{Cpu, Isa};
use crate::quantize::{RowRule, SiteRule};

/// A linear layer behind codes of one quantizer.
#[derive(Debug)]
pub(crate) struct LinearPlan {
    codes: Matrix,
    /// What the sums start from: `−(128 + zero) · Σ codes`.
    start: Aligned<i32>,
    scales: Aligned<f32>,
    biases: Aligned<f32>,
    /// No output is larger.
    largest: f32,
}

impl LinearPlan {
    /// Of weights `[n, k]` at integer width, for inputs quantized by `quant`.
    pub fn new(k: usize, codes: &[i8], scales: &[f32], bias: Option<&[f32]>, quant: &ActQuant) -> Self {
        let n = scales.len();
        let (mut packed, mut start) = (Matrix::default(), Vec::new());
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
        assert!(cpu.isa() == Isa::Avx512Vnni && out.len() == m * self.scales.len());
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
        let mut to = AddTo { affine: self.affine(), residual, out, stride: self.scales.len() };
        multiply(rows, &self.codes, &self.start, &mut to);
    }

    fn affine(&self) -> Affine<'_> {
        Affine { scales: &self.scales, biases: &self.biases }
    }
}

/// A normalisation and the codes behind it.
#[derive(Debug)]
struct NormPlan {
    gain: Aligned<f32>,
    offset: Aligned<f32>,
    eps: f32,
    encoder: Encoder,
}

impl NormPlan {
    fn new(norm: &Norm, quant: &ActQuant) -> Option<Self> {
        let Norm { weight: Param { data: gain, .. }, bias: Param { data: offset, .. }, eps, .. } = norm;
        let top = |values: &[f32]| values.iter().fold(0.0f32, |top, x| top.max(x.abs()));
        // A normalised value is at most √D.
        let largest = 1.1 * (gain.len() as f32).sqrt() * top(gain) + top(offset);
        let encoder = Encoder::new(quant, largest)?;
        Some(Self { gain: gain[..].into(), offset: offset[..].into(), eps: *eps, encoder })
    }

    fn call(&self) -> NormCall<'_> {
        NormCall { gain: &self.gain, offset: &self.offset, eps: self.eps, encoder: &self.encoder }
    }
}

/// An encoder block at one width, all of whose quantizers are static and uniform.
#[derive(Debug)]
pub(crate) struct BlockPlan {
    cpu: Cpu,
    dim: usize,
    hidden: usize,
    norm1: NormPlan,
    /// Queries, keys, values: the layer, and the codes of its outputs.
    thirds: [(LinearPlan, Encoder); 3],
    attention: AttentionPlan,
    proj: LinearPlan,
    norm2: NormPlan,
    fc1: LinearPlan,
    gelu: Encoder,
    fc2: LinearPlan,
    /// The weights that this was made of.
    sources: [Arc<[f32]>; 4],
}

/// A norm whose result is not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BadNorm {
    First,
    Second,
}

fn sources(block: &EncoderBlock) -> [&Arc<[f32]>; 4] {
    [&block.qkv, &block.proj, &block.fc1, &block.fc2].map(|linear| &linear.weight.data)
}

impl BlockPlan {
    /// The block at `width`; `None` where something about it is not what this module is written for. What is wrong with it is then
    /// found by the operations one by one.
    pub fn new(engine: &CpuEngine, block: &EncoderBlock, width: Width) -> Option<Self> {
        let EncoderBlock { norm1, qkv, attention, proj, norm2, fc1, fc2 } = block;
        let (d, hidden) = (qkv.inputs, fc1.outputs);
        let plan = engine.plan();
        let fits = engine.isa() == Isa::Avx512Vnni
            && !width.is_float()
            && attention.head_dim == HEAD
            && [d, hidden].iter().all(|features| *features > 0 && features % COLUMNS == 0)
            && d == attention.heads * HEAD
            && [(proj.inputs, proj.outputs), (fc1.inputs, hidden), (fc2.inputs, fc2.outputs)]
                == [(d, d), (d, hidden), (hidden, d)]
            && qkv.outputs == 3 * d
            && [norm1, norm2].iter().all(|norm| norm.weight.data.len() == d && norm.bias.data.len() == d);
        if !fits {
            return None;
        }
        let uniform = |site: &str| match engine.rule(site, width) {
            Ok(SiteRule::Uniform(RowRule::Static(quant))) => Some(quant),
            _ => None,
        };
        let operand = |operand| uniform(&attention.operand_site(operand));
        let [at_qkv, at_proj, at_fc1, at_fc2] = [qkv, proj, fc1, fc2].map(|linear| uniform(&linear.site));
        let (at_qkv, at_proj, at_fc1, at_fc2) = (at_qkv?, at_proj?, at_fc1?, at_fc2?);
        let layer = |linear: &Linear| {
            let bits = plan.width_at(&linear.site, width).weight_bits();
            plan.weight(linear, bits).ok()
        };
        for linear in [proj, fc2] {
            plan.without_norm(&linear.site).ok()?;
        }
        let normed = |norm: &Norm, site: &str, quant| {
            let changed = plan.norm(site, norm);
            NormPlan::new(changed.as_ref().unwrap_or(norm), quant)
        };
        let whole = |linear: &Linear, quant: &ActQuant| {
            let layer = layer(linear)?;
            let bias = layer.bias.as_deref();
            Some(LinearPlan::new(linear.inputs, &layer.weight.codes, &layer.weight.scales, bias, quant))
        };
        let query = operand(AttentionOperand::Query)?;
        let key = operand(AttentionOperand::Key)?;
        let value = operand(AttentionOperand::Value)?;
        let probabilities = operand(AttentionOperand::Probabilities)?;
        let of_qkv = layer(qkv)?;
        let third = |i: usize, quant: &ActQuant| {
            let (weight, rows) = (&of_qkv.weight, i * d..(i + 1) * d);
            let codes = &weight.codes[i * d * d..(i + 1) * d * d];
            let bias = of_qkv.bias.as_deref().map(|bias| &bias[rows.clone()]);
            let linear = LinearPlan::new(d, codes, &weight.scales[rows], bias, &at_qkv);
            let encoder = linear.encoder(quant)?;
            Some((linear, encoder))
        };
        let mixed_scale = probabilities.scale * value.scale;
        let (fc1_plan, gelu) = {
            let linear = whole(fc1, &at_fc1)?;
            let encoder = linear.encoder(&at_fc2)?;
            (linear, encoder)
        };
        Some(Self {
            cpu: engine.cpu(),
            dim: d,
            hidden,
            norm1: normed(norm1, &qkv.site, &at_qkv)?,
            thirds: [third(0, &query)?, third(1, &key)?, third(2, &value)?],
            attention: AttentionPlan {
                zeros: [query.zero, key.zero, value.zero, probabilities.zero],
                score: query.scale * key.scale * attention.scale,
                probabilities: Encoder::new(&probabilities, 1.01)?,
                mixed: (&[mixed_scale; HEAD][..]).into(),
                // At most 2^16 tokens, codes that differ from their zero points by at most 255.
                out: Encoder::new(&at_proj, 65536.0 * 65536.0 * mixed_scale)?,
            },
            proj: whole(proj, &at_proj)?,
            norm2: normed(norm2, &fc1.site, &at_fc1)?,
            fc1: fc1_plan,
            gelu,
            fc2: whole(fc2, &at_fc2)?,
            sources: sources(block).map(Arc::clone),
        })
    }

    /// Whether it was made of the weights of `block`.
    pub fn is_of(&self, block: &EncoderBlock) -> bool {
        self.sources.iter().zip(sources(block)).all(|(own, other)| Arc::ptr_eq(own, other))
    }

    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Features of a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Hidden features of the MLP.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    pub fn norm1(&self) -> NormCall<'_> {
        self.norm1.call()
    }

    /// Queries, keys and values.
    pub fn thirds(&self) -> &[(LinearPlan, Encoder); 3] {
        &self.thirds
    }

    pub fn attention(&self) -> &AttentionPlan {
        &self.attention
    }

    pub fn proj(&self) -> &LinearPlan {
        &self.proj
    }

    pub fn norm2(&self) -> NormCall<'_> {
        self.norm2.call()
    }

    /// The layer, and the codes behind GELU.
    pub fn fc1(&self) -> (&LinearPlan, Encoder) {
        (&self.fc1, self.gelu)
    }

    pub fn fc2(&self) -> &LinearPlan {
        &self.fc2
    }
}
