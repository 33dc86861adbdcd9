//! MLP-Mixer (Tolstikhin et al., *MLP-Mixer: An all-MLP Architecture for Vision*, arXiv 2105.01601), with timm's tensor names.

use std::sync::Arc;

use crate::architecture::{Architecture, Pool, Variant};
use crate::backbone::{Backbone, Core};
use crate::checkpoint::CheckpointError;
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Linear, Norm, Window};
use crate::presets::{Interpolation, Preset};
use crate::weights::Weights;

/// Dimensions of a Mixer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixerConfig {
    /// Side of a square picture, in pixels.
    pub image: usize,
    /// Channels of a picture.
    pub channels: usize,
    /// Side of a patch, in pixels; divides `image`.
    pub patch: usize,
    /// Features of a token D.
    pub dim: usize,
    /// Blocks L.
    pub depth: usize,
    /// Hidden features of the MLP across tokens.
    pub token_hidden: usize,
    /// Hidden features of the MLP across features.
    pub hidden: usize,
}

/// Epsilon of every layer normalisation in timm's Mixers.
const NORM_EPS: f32 = 1e-6;

impl Architecture for MixerConfig {
    fn image_shape(&self) -> [usize; 3] {
        [self.channels, self.image, self.image]
    }

    /// The MLP across tokens is learned for one number of tokens: another picture size is an architecture of its own, which
    /// only a checkpoint of that size fits.
    fn varied(&self, variant: &Variant) -> Result<Arc<dyn Architecture>, String> {
        let image = variant.image.unwrap_or(self.image);
        if image == 0 || !image.is_multiple_of(self.patch) {
            return Err(format!("its pictures are cut into patches of {0}×{0} pixels", self.patch));
        }
        if variant.pool == Some(Pool::ClassToken) {
            return Err("it has no class token".into());
        }
        Ok(Arc::new(Self { image, ..self.clone() }))
    }

    fn build(&self, weights: &mut Weights) -> Result<Box<dyn Backbone>, CheckpointError> {
        let patch_embed = weights.patch_embed("stem.proj", self.channels, self.patch, self.dim)?;
        let blocks: Result<_, _> =
            (0..self.depth).map(|l| MixerBlock::take(weights, &format!("blocks.{l}"), self)).collect();
        let norm = weights.norm("norm", self.dim, NORM_EPS)?;
        let head = weights.classifier("head", self.dim)?;
        let core = weights.core(self.image_shape(), head);
        Ok(Box::new(Mixer { patch: Window::patch(self.patch), patch_embed, blocks: blocks?, norm, core }))
    }
}

/// Two linear layers with GELU between.
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn take(weights: &mut Weights, prefix: &str, inputs: usize, hidden: usize) -> Result<Self, CheckpointError> {
        Ok(Self {
            fc1: weights.linear(&format!("{prefix}.fc1"), inputs, hidden, true)?,
            fc2: weights.linear(&format!("{prefix}.fc2"), hidden, inputs, true)?,
        })
    }
}

/// An MLP across tokens and one across features, each with normalisation before and a residual around (equation 1).
struct MixerBlock {
    norm1: Norm,
    across_tokens: Mlp,
    norm2: Norm,
    across_features: Mlp,
}

impl MixerBlock {
    fn take(weights: &mut Weights, prefix: &str, config: &MixerConfig) -> Result<Self, CheckpointError> {
        let tokens = (config.image / config.patch).pow(2);
        Ok(Self {
            norm1: weights.norm(&format!("{prefix}.norm1"), config.dim, NORM_EPS)?,
            across_tokens: Mlp::take(weights, &format!("{prefix}.mlp_tokens"), tokens, config.token_hidden)?,
            norm2: weights.norm(&format!("{prefix}.norm2"), config.dim, NORM_EPS)?,
            across_features: Mlp::take(weights, &format!("{prefix}.mlp_channels"), config.dim, config.hidden)?,
        })
    }

    /// `[B, T, D] → [B, T, D]`.
    fn run(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let normed = executor.layer_norm(tokens, &self.norm1)?;
        // One row per feature, so that a linear layer mixes tokens.
        let rows = executor.transpose(&normed)?;
        let hidden = executor.linear(&rows, &self.across_tokens.fc1)?;
        let hidden = executor.gelu(&hidden)?;
        let mixed = executor.linear(&hidden, &self.across_tokens.fc2)?;
        let mixed = executor.transpose(&mixed)?;
        let tokens = executor.add(tokens, &mixed)?;
        let hidden = executor.norm_linear_gelu(&tokens, &self.norm2, &self.across_features.fc1)?;
        executor.linear_add(&hidden, &self.across_features.fc2, &tokens)
    }
}

/// A Mixer with its weights.
struct Mixer {
    patch: Window,
    patch_embed: Linear,
    blocks: Vec<MixerBlock>,
    norm: Norm,
    core: Core,
}

impl Backbone for Mixer {
    fn core(&self) -> &Core {
        &self.core
    }

    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn stem(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let patches = executor.unfold(images, &self.patch)?;
        executor.linear(&patches, &self.patch_embed)
    }

    fn block(&self, index: usize, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        self.blocks[index].run(executor, tokens)
    }

    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let normed = executor.layer_norm(tokens, &self.norm)?;
        executor.mean_tokens(&normed, 0)
    }
}

/// For pictures of 224×224 in patches of 16×16, normalised as timm's Mixers are; hidden sizes of table 1.
fn mixer(name: &'static str, dim: usize, depth: usize) -> Preset {
    Preset {
        name,
        architecture: Arc::new(MixerConfig {
            image: 224,
            channels: 3,
            patch: 16,
            dim,
            depth,
            token_hidden: dim / 2,
            hidden: 4 * dim,
        }),
        mean: &[0.5, 0.5, 0.5],
        std: &[0.5, 0.5, 0.5],
        crop: 0.875,
        interpolation: Interpolation::Bicubic,
    }
}

pub(crate) fn presets() -> Vec<Preset> {
    vec![
        mixer("mixer_s16_224", 512, 8),
        mixer("mixer_b16_224", 768, 12),
        // Small Mixer for 32×32 pictures, normalised with the statistics of CIFAR-10.
        Preset {
            name: "mixer_d8_w128_p4_32",
            architecture: Arc::new(MixerConfig {
                image: 32,
                channels: 3,
                patch: 4,
                dim: 128,
                depth: 8,
                token_hidden: 64,
                hidden: 512,
            }),
            mean: &[0.4914, 0.4822, 0.4465],
            std: &[0.2470, 0.2435, 0.2616],
            crop: 1.0,
            interpolation: Interpolation::Bilinear,
        },
    ]
}
