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
    /// Whether training leaves it alone.
    pub frozen: bool,
}

/// The kind of place that a site is: `blocks.3.attn.qkv` is `attn.qkv`.
pub fn place(site: &str) -> &str {
    let mut parts = site.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(number), Some(rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => site,
    }
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

impl AttentionOperand {
    /// Name under which the range of this operand of the attention at `site` is stored.
    pub fn site(self, site: &str) -> String {
        let suffix = match self {
            Self::Query => "q",
            Self::Key => "k",
            Self::Value => "v",
            Self::Probabilities => "softmax",
        };
        format!("{site}.{suffix}")
    }
}

impl Attention {
    /// Name under which the range of an operand is stored.
    pub fn operand_site(&self, operand: AttentionOperand) -> String {
        operand.site(&self.site)
    }
}

/// Attention of one head in linear time by random features (Choromanski et al., arXiv 2009.14794), as T2T-ViT uses it.
///
/// With E features and m directions w, the rows of `projection`: `φ(x) = exp(w·x − |x|²/2) / √m`, and a query q gets
/// `Σ φ(q)·φ(k) v / (Σ φ(q)·φ(k) + ε)`, sums over all keys k and their values v.
#[derive(Clone, Debug)]
pub struct Performer {
    /// Name of the place in the program.
    pub site: String,
    /// The random directions `[m, E]`, without a bias.
    pub projection: Linear,
}

impl Performer {
    /// ε: keeps the division possible.
    pub const EPS: f32 = 1e-8;
}

/// Square windows that are moved over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of a window, in pixels.
    pub kernel: usize,
    /// Pixels from one window to the next, in both directions.
    pub stride: usize,
    /// Zeros around the picture, on each side.
    pub padding: usize,
}

impl Window {
    /// Windows side by side.
    pub fn patch(side: usize) -> Self {
        Self { kernel: side, stride: side, padding: 0 }
    }

    /// Windows along a side of `pixels`; none where not even one fits.
    pub fn places(&self, pixels: usize) -> usize {
        match (pixels + 2 * self.padding).checked_sub(self.kernel) {
            Some(room) if self.stride > 0 && self.kernel > 0 => room / self.stride + 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_their_places() {
        for (site, kind) in [
            ("blocks.11.attn.qkv", "attn.qkv"),
            ("patch_embed.proj", "patch_embed.proj"),
            ("tokens_to_token.attention1.kqv", "tokens_to_token.attention1.kqv"),
            ("head", "head"),
            ("", ""),
        ] {
            assert_eq!(place(site), kind);
        }
    }
}
