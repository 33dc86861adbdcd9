//! The transformer encoder block that ViT, DeiT and T2T-ViT share.

use crate::checkpoint::CheckpointError;
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Attention, Linear, Norm};
use crate::weights::Weights;

/// Dimensions of an encoder block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Features of a token D.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Hidden features of the MLP.
    pub hidden: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Epsilon of the layer normalisations.
    pub eps: f32,
}

/// Attention and MLP, each with normalisation before and a residual around (arXiv 2010.11929, equations 2 and 3).
#[derive(Debug)]
pub struct EncoderBlock {
    /// Before attention.
    pub norm1: Norm,
    /// Queries, keys and values, `[D] → [3·D]`.
    pub qkv: Linear,
    /// Attention without its projections.
    pub attention: Attention,
    /// Projection of what attention mixed, `[D] → [D]`.
    pub proj: Linear,
    /// Before the MLP.
    pub norm2: Norm,
    /// First layer of the MLP, before GELU.
    pub fc1: Linear,
    /// Second layer of the MLP.
    pub fc2: Linear,
}

impl EncoderBlock {
    /// Takes the tensors below `prefix`, named as in timm.
    ///
    /// # Errors
    /// When one is missing, misshapen, or holds NaN or infinity.
    pub fn take(weights: &mut Weights, prefix: &str, config: &EncoderConfig) -> Result<Self, CheckpointError> {
        let EncoderConfig { dim, heads, hidden, qkv_bias, eps } = *config;
        let head_dim = dim / heads;
        let site = format!("{prefix}.attn");
        Ok(Self {
            norm1: weights.norm(&format!("{prefix}.norm1"), dim, eps)?,
            qkv: weights.linear(&format!("{prefix}.attn.qkv"), dim, 3 * dim, qkv_bias)?,
            attention: Attention { site, heads, head_dim, scale: (head_dim as f32).powf(-0.5) },
            proj: weights.linear(&format!("{prefix}.attn.proj"), dim, dim, true)?,
            norm2: weights.norm(&format!("{prefix}.norm2"), dim, eps)?,
            fc1: weights.linear(&format!("{prefix}.mlp.fc1"), dim, hidden, true)?,
            fc2: weights.linear(&format!("{prefix}.mlp.fc2"), hidden, dim, true)?,
        })
    }

    /// Runs the block: `[B, T, D] → [B, T, D]`.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        executor.encoder_block(tokens, self)
    }

    /// Runs the block for the first `count` tokens of every sample, which look at all: `[B, T, D] → [B, count, D]`.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run_first(&self, executor: &mut dyn Executor, tokens: &Value, count: usize) -> Result<Value, ExecError> {
        executor.encoder_block_first(tokens, self, count)
    }

    /// Runs the block one operation after the other: what [`Executor::encoder_block`] means.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn run_by_operation<E: Executor + ?Sized>(&self, executor: &mut E, tokens: &Value) -> Result<Value, ExecError> {
        let qkv = executor.norm_linear(tokens, &self.norm1, &self.qkv)?;
        let mixed = executor.attention(&qkv, &self.attention)?;
        let tokens = executor.linear_add(&mixed, &self.proj, tokens)?;
        let hidden = executor.norm_linear_gelu(&tokens, &self.norm2, &self.fc1)?;
        executor.linear_add(&hidden, &self.fc2, &tokens)
    }

    /// The first `count` tokens of the block's result.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn keep_first<E: Executor + ?Sized>(
        &self,
        executor: &mut E,
        all: &Value,
        count: usize,
    ) -> Result<Value, ExecError> {
        let first = executor.first_tokens(all, count)?;
        executor.reshape(&first, &[count, self.fc2.outputs])
    }
}
