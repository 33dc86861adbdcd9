//! Weights and quantizers of a block.

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Linear, Norm};
use quee_quant::ActQuant;

use crate::avx512::attention::{AttentionPlan, HEAD};
use crate::avx512::block::{Dims, Source};
use crate::avx512::codes::Encoder;
use crate::avx512::linear::LinearPlan;
use crate::avx512::norm::NormPlan;
use crate::quantize::{RowRule, SiteRule};

/// An encoder block at one width, all of whose quantizers are static and uniform.
#[derive(Debug)]
pub(crate) struct FixedBlock {
    pub dims: Dims,
    /// Before attention, with the codes behind it.
    pub norm1: (NormPlan, Encoder),
    /// Queries, keys, values: the layer, and the codes of its outputs.
    pub thirds: [(LinearPlan, Encoder); 3],
    pub attention: AttentionPlan,
    pub proj: LinearPlan,
    /// Before the MLP, with the codes behind it.
    pub norm2: (NormPlan, Encoder),
    /// First layer of the MLP, with the codes behind GELU.
    pub fc1: (LinearPlan, Encoder),
    pub fc2: LinearPlan,
}

impl FixedBlock {
    /// `None` where a quantizer is of another kind, and where values might be too large for it.
    pub fn new(source: &Source) -> Option<Self> {
        let &Source { engine, block, width, dims } = source;
        let uniform = |site: &str| match engine.rule(site, width) {
            Ok(SiteRule::Uniform(RowRule::Static(quant))) => Some(quant),
            _ => None,
        };
        let attention = &block.attention;
        let operand = |operand| uniform(&attention.operand_site(operand));
        let at = |linear: &Linear| uniform(&linear.site);
        let (at_qkv, at_proj, at_fc1, at_fc2) = (at(&block.qkv)?, at(&block.proj)?, at(&block.fc1)?, at(&block.fc2)?);
        let normed = |norm: &Norm, linear: &Linear, quant: &ActQuant| {
            let norm = NormPlan::new(engine.plan().norm(&linear.site, norm).as_ref().unwrap_or(norm));
            let encoder = Encoder::new(quant, norm.largest())?;
            Some((norm, encoder))
        };
        let query = operand(AttentionOperand::Query)?;
        let key = operand(AttentionOperand::Key)?;
        let value = operand(AttentionOperand::Value)?;
        let probabilities = operand(AttentionOperand::Probabilities)?;
        let with_codes = |linear: LinearPlan, quant: &ActQuant| {
            let encoder = linear.encoder(quant)?;
            Some((linear, encoder))
        };
        let [queries, keys, values] = source.thirds(&at_qkv)?;
        let mixed_scale = probabilities.scale * value.scale;
        Some(Self {
            dims,
            norm1: normed(&block.norm1, &block.qkv, &at_qkv)?,
            thirds: [with_codes(queries, &query)?, with_codes(keys, &key)?, with_codes(values, &value)?],
            attention: AttentionPlan {
                zeros: [query.zero, key.zero, value.zero, probabilities.zero],
                score: query.scale * key.scale * attention.scale,
                probabilities: Encoder::new(&probabilities, 1.01)?,
                mixed: (&[mixed_scale; HEAD][..]).into(),
                // At most 2^16 tokens, codes that differ from their zero points by at most 255.
                out: Encoder::new(&at_proj, 65536.0 * 65536.0 * mixed_scale)?,
            },
            proj: source.linear(&block.proj, &at_proj)?,
            norm2: normed(&block.norm2, &block.fc1, &at_fc1)?,
            fc1: with_codes(source.linear(&block.fc1, &at_fc1)?, &at_fc2)?,
            fc2: source.linear(&block.fc2, &at_fc2)?,
        })
    }
}
