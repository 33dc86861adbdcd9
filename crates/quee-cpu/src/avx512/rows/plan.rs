//! Weights and quantizers of a block.

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Linear, Norm};
use quee_quant::ActQuant;

use super::attention::RowAttention;
use super::codes::{RowQuantizer, RowScale};
use super::epilogue::{RowAffine, ToFloats, ToHeads};
use super::pair;
use crate::aligned::Aligned;
use crate::avx512::block::{Dims, Source};
use crate::avx512::epilogue::AddTo;
use crate::avx512::linear::LinearPlan;
use crate::avx512::matrix::{Rows, multiply};
use crate::avx512::norm::NormPlan;
use crate::quantize::{RowRule, SiteRule};

/// An encoder block at one width, all of whose quantizers make their scales from the values.
#[derive(Debug)]
pub(crate) struct RowBlock {
    pub dims: Dims,
    pub norm1: NormPlan,
    /// Of the input of queries, keys and values.
    pub at_qkv: RowQuantizer,
    pub queries: (RowLinear, RowQuantizer),
    pub keys: (RowLinear, RowQuantizer),
    pub values: RowLinear,
    pub attention: RowAttention,
    /// The layer behind its quantizer; so are the others.
    pub proj: (RowQuantizer, RowLinear),
    pub norm2: NormPlan,
    pub fc1: (RowQuantizer, RowLinear),
    pub fc2: (RowQuantizer, RowLinear),
}

/// Most features: a sum of codes divided by 128 then has 16 bits.
const MOST_FEATURES: usize = 1 << 15;

impl RowBlock {
    /// `None` where a quantizer is of another kind.
    pub fn new(source: &Source) -> Option<Self> {
        let &Source { engine, block, width, dims } = source;
        if dims.dim.max(dims.hidden) > MOST_FEATURES {
            return None;
        }
        let dynamic = |site: &str| match engine.rule(site, width) {
            Ok(SiteRule::Uniform(RowRule::Dynamic(bits))) => Some(RowQuantizer::new(bits)),
            _ => None,
        };
        let operand = |operand| dynamic(&block.attention.operand_site(operand));
        let norm = |norm: &Norm, site: &str| NormPlan::new(engine.plan().norm(site, norm).as_ref().unwrap_or(norm));
        // Sums start from what belongs to codes with 128 added alone; rows add the rest.
        let none = ActQuant::new(1.0, 0, 8);
        let [queries, keys, values] = source.thirds(&none)?.map(RowLinear::new);
        let layer = |linear: &Linear| Some((dynamic(&linear.site)?, RowLinear::new(source.linear(linear, &none)?)));
        Some(Self {
            dims,
            norm1: norm(&block.norm1, &block.qkv.site),
            at_qkv: dynamic(&block.qkv.site)?,
            queries: (queries, operand(AttentionOperand::Query)?),
            keys: (keys, operand(AttentionOperand::Key)?),
            values,
            attention: RowAttention {
                value: operand(AttentionOperand::Value)?,
                probabilities: operand(AttentionOperand::Probabilities)?,
                scale: block.attention.scale,
            },
            proj: layer(&block.proj)?,
            norm2: norm(&block.norm2, &block.fc1.site),
            fc1: layer(&block.fc1)?,
            fc2: layer(&block.fc2)?,
        })
    }
}

/// A linear layer behind codes of rows with scales of their own.
#[derive(Debug)]
pub(crate) struct RowLinear {
    linear: LinearPlan,
    /// Sums of the channels' codes, as [`RowAffine`] wants them.
    sums: Aligned<i32>,
}

/// Rows of codes with 128 added, one after the other, and their scales.
#[derive(Clone, Copy)]
pub(crate) struct CodedRows<'a> {
    pub codes: &'a [u8],
    pub scales: &'a [RowScale],
}

impl RowLinear {
    /// `linear` is a layer whose sums start from `−128 · Σ codes`.
    fn new(linear: LinearPlan) -> Self {
        let sums: Vec<i32> =
            linear.start.iter().map(|start| start / -128).map(|sum| pair(sum & 127, sum >> 7)).collect();
        Self { sums: sums[..].into(), linear }
    }

    fn affine<'a>(&'a self, rows: CodedRows<'a>) -> RowAffine<'a> {
        let LinearPlan { scales, biases, .. } = &self.linear;
        RowAffine { scales, biases, sums: &self.sums, rows: rows.scales }
    }

    fn rows<'a>(&self, rows: CodedRows<'a>) -> Rows<'a> {
        let k = self.linear.codes.k();
        Rows::new(rows.codes, k, rows.scales.len(), k)
    }

    /// To codes of heads, `[rows, heads, 64]`, and a scale for each; whether all outputs were finite.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn to_heads(&self, rows: CodedRows, quantizer: RowQuantizer, out: &mut [u8], scales: &mut [RowScale]) -> bool {
        let stride = self.linear.scales.len();
        let mut to = ToHeads { affine: self.affine(rows), quantizer, out, stride, scales, finite: true };
        multiply(self.rows(rows), &self.linear.codes, &self.linear.start, &mut to);
        to.finite
    }

    /// To floats, through GELU or not.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn to_floats<const GELU: bool>(&self, rows: CodedRows, out: &mut [f32]) {
        let mut to = ToFloats::<_, GELU> { outputs: self.affine(rows), out, stride: self.linear.scales.len() };
        multiply(self.rows(rows), &self.linear.codes, &self.linear.start, &mut to);
    }

    /// Added to the residual stream: `out = residual + y`, or `out = out + y` without one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn add_to(&self, rows: CodedRows, residual: Option<&[f32]>, out: &mut [f32]) {
        let mut to = AddTo { outputs: self.affine(rows), residual, out, stride: self.linear.scales.len() };
        multiply(self.rows(rows), &self.linear.codes, &self.linear.start, &mut to);
    }
}
