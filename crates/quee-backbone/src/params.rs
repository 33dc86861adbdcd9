//! What the operations of a program carry: learned tensors and their names.

use std::sync::Arc;

/// A learned tensor of a backbone.
#[derive(Clone, Debug)]
pub struct Param {
    /// Position in [`Backbone::params`](crate::Backbone::params); executors use it as the key of what they derive.
    pub id: usize,
    /// Name in the checkpoint, e.g. `blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Arc<[f32]>,
}

/// A linear layer; `y = x · Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Name of the place in the program, e.g. `blocks.0.attn.qkv`; calibrated ranges are stored under it.
    pub site: String,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// Weight; its elements are read as `[outputs, inputs]`, whatever the shape in the checkpoint (convolutions of patches have four axes).
    pub weight: Param,
    /// Bias `[outputs]`.
    pub bias: Option<Param>,
}

impl Linear {
    /// Weight and, where there is one, bias.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(&self.weight).chain(&self.bias)
    }
}

/// Layer normalisation over the last axis.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Name of the place in the program.
    pub site: String,
    /// Gain `[D]`.
    pub weight: Param,
    /// Offset `[D]`.
    pub bias: Param,
    /// Added to the variance.
    pub eps: f32,
}

/// Multi-head self-attention without its projections.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Name of the place in the program, e.g. `blocks.0.attn`.
    pub site: String,
    /// Heads H.
    pub heads: usize,
    /// Features per head d.
    pub head_dim: usize,
    /// Factor on the scores, usually d^(−1/2).
    pub scale: f32,
}

/// The quantized operands of attention; each has its own range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionOperand {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Softmax output.
    Probabilities,
}

impl Attention {
    /// Name under which the range of an operand is stored.
    pub fn operand_site(&self, operand: AttentionOperand) -> String {
        let suffix = match operand {
            AttentionOperand::Query => "q",
            AttentionOperand::Key => "k",
            AttentionOperand::Value => "v",
            AttentionOperand::Probabilities => "softmax",
        };
        format!("{}.{suffix}", self.site)
    }
}
