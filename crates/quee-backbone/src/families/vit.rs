//! Vision transformer (Dosovitskiy et al., *An Image is Worth 16x16 Words*, arXiv 2010.11929), with timm's tensor names.

use std::sync::Arc;

pub use crate::architecture::Pool;
use crate::architecture::{Architecture, Init, Variant};
use crate::backbone::{Backbone, Core, NamedTensor};
use crate::checkpoint::CheckpointError;
use crate::encoder::{EncoderBlock, EncoderConfig};
use crate::executor::{ExecError, Executor, Value};
use crate::families::deit;
use crate::params::{Linear, Norm, Param, Window};
use crate::presets::{Interpolation, Preset};
use crate::weights::Weights;

/// Dimensions of a vision transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitConfig {
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
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Hidden features of the MLP.
    pub hidden: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether there is a distillation token beside the class token, with a classifier of its own (DeiT).
    pub distilled: bool,
    /// How tokens are pooled; a class token exists either way.
    pub pool: Pool,
}

/// Epsilon of every layer normalisation in timm's vision transformers.
const NORM_EPS: f32 = 1e-6;

impl VitConfig {
    /// Tokens of a picture, class and distillation token included.
    pub fn tokens(&self) -> usize {
        (self.image / self.patch).pow(2) + self.prefix()
    }

    /// Tokens in front of the patches.
    fn prefix(&self) -> usize {
        1 + usize::from(self.distilled)
    }
}

impl Architecture for VitConfig {
    fn image_shape(&self) -> [usize; 3] {
        [self.channels, self.image, self.image]
    }

    fn varied(&self, variant: &Variant) -> Result<Arc<dyn Architecture>, String> {
        let image = variant.image.unwrap_or(self.image);
        if image == 0 || !image.is_multiple_of(self.patch) {
            return Err(format!("its pictures are cut into patches of {0}×{0} pixels", self.patch));
        }
        let pool = variant.pool.unwrap_or(self.pool);
        if self.distilled && pool == Pool::Mean {
            return Err("its class and distillation tokens have classifiers of their own".into());
        }
        Ok(Arc::new(Self { image, pool, ..self.clone() }))
    }

    fn build(&self, weights: &mut Weights) -> Result<Box<dyn Backbone>, CheckpointError> {
        let d = self.dim;
        let mut extra = vec![weights.param("cls_token", &[1, 1, d], Init::Normal)?];
        if self.distilled {
            // Tokens are put in front one by one: the last one here becomes the first.
            extra.insert(0, weights.param("dist_token", &[1, 1, d], Init::Normal)?);
        }
        let position = weights.positions("pos_embed", self.prefix(), self.image / self.patch, d)?;
        let patch_embed = weights.patch_embed("patch_embed.proj", self.channels, self.patch, d)?;
        let encoder =
            EncoderConfig { dim: d, heads: self.heads, hidden: self.hidden, qkv_bias: self.qkv_bias, eps: NORM_EPS };
        let blocks: Result<_, _> =
            (0..self.depth).map(|l| EncoderBlock::take(weights, &format!("blocks.{l}"), &encoder)).collect();
        // Some average-pooled checkpoints normalise after pooling instead of before.
        let pooling = match self.pool {
            Pool::Mean if weights.has("fc_norm.weight") => Pooling::MeanThenNorm,
            Pool::Mean => Pooling::NormThenMean,
            Pool::ClassToken => Pooling::Tokens,
        };
        let norm = weights.norm(if pooling == Pooling::MeanThenNorm { "fc_norm" } else { "norm" }, d, NORM_EPS)?;
        let head = if self.distilled { deit::take_heads(weights, d)? } else { weights.classifier("head", d)? };
        Ok(Box::new(Vit {
            config: self.clone(),
            patch_embed,
            extra,
            position,
            blocks: blocks?,
            pooling,
            norm,
            core: weights.core(self.image_shape(), head),
        }))
    }
}

/// What happens between the last block and the classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    Tokens,
    NormThenMean,
    MeanThenNorm,
}

/// A vision transformer with its weights.
struct Vit {
    config: VitConfig,
    patch_embed: Linear,
    extra: Vec<Param>,
    position: Param,
    blocks: Vec<EncoderBlock>,
    pooling: Pooling,
    norm: Norm,
    core: Core,
}

impl Backbone for Vit {
    fn core(&self) -> &Core {
        &self.core
    }

    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn stem(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let patches = executor.unfold(images, &Window::patch(self.config.patch))?;
        let mut tokens = executor.linear(&patches, &self.patch_embed)?;
        for token in &self.extra {
            tokens = executor.prepend(&tokens, token)?;
        }
        executor.add_position(&tokens, &self.position)
    }

    fn block(&self, index: usize, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        self.blocks[index].run(executor, tokens)
    }

    fn last_block(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let Some(last) = self.blocks.last() else { return Ok(tokens.clone()) };
        match self.pooling {
            Pooling::Tokens => last.run_first(executor, tokens, self.config.prefix()),
            Pooling::NormThenMean | Pooling::MeanThenNorm => last.run(executor, tokens),
        }
    }

    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let (prefix, d) = (self.config.prefix(), self.config.dim);
        match self.pooling {
            // Tokens are picked before the normalisation, which works on each token alone.
            Pooling::Tokens if prefix == 1 => {
                let token = executor.first_tokens(tokens, 1)?;
                executor.layer_norm(&token, &self.norm)
            }
            Pooling::Tokens => {
                let picked = executor.first_tokens(tokens, prefix)?;
                let picked = executor.reshape(&picked, &[prefix, d])?;
                let normed = executor.layer_norm(&picked, &self.norm)?;
                executor.reshape(&normed, &[prefix * d])
            }
            Pooling::NormThenMean => {
                let normed = executor.layer_norm(tokens, &self.norm)?;
                executor.mean_tokens(&normed, prefix)
            }
            Pooling::MeanThenNorm => {
                let mean = executor.mean_tokens(tokens, prefix)?;
                executor.layer_norm(&mean, &self.norm)
            }
        }
    }

    fn export(&self, values: &[Vec<f32>]) -> Vec<NamedTensor> {
        let tensors = self.core.export(values);
        if self.config.distilled { deit::split_heads(tensors) } else { tensors }
    }
}

/// A plain transformer for pictures of 224×224 in patches of 16×16, as timm's AugReg checkpoints (arXiv 2106.10270).
fn augreg(name: &'static str, dim: usize, heads: usize) -> Preset {
    Preset {
        name,
        architecture: Arc::new(VitConfig {
            image: 224,
            channels: 3,
            patch: 16,
            dim,
            depth: 12,
            heads,
            hidden: 4 * dim,
            qkv_bias: true,
            distilled: false,
            pool: Pool::ClassToken,
        }),
        mean: &[0.5, 0.5, 0.5],
        std: &[0.5, 0.5, 0.5],
        crop: 0.9,
        interpolation: Interpolation::Bicubic,
    }
}

pub(crate) fn presets() -> Vec<Preset> {
    vec![
        // The embedded backbone for 8×8 digits: 16 patches of 2×2 pixels.
        Preset {
            name: "vit_d6_w80_p2_8",
            architecture: Arc::new(VitConfig {
                image: 8,
                channels: 1,
                patch: 2,
                dim: 80,
                depth: 6,
                heads: 4,
                hidden: 160,
                qkv_bias: true,
                distilled: false,
                pool: Pool::ClassToken,
            }),
            mean: &[0.305],
            std: &[0.376],
            crop: 1.0,
            interpolation: Interpolation::Bilinear,
        },
        // Small transformer for 32×32 pictures, normalised with the statistics of CIFAR-10.
        Preset {
            name: "vit_d7_w192_p4_32",
            architecture: Arc::new(VitConfig {
                image: 32,
                channels: 3,
                patch: 4,
                dim: 192,
                depth: 7,
                heads: 3,
                hidden: 384,
                qkv_bias: true,
                distilled: false,
                pool: Pool::ClassToken,
            }),
            mean: &[0.4914, 0.4822, 0.4465],
            std: &[0.2470, 0.2435, 0.2616],
            crop: 1.0,
            interpolation: Interpolation::Bilinear,
        },
        augreg("vit_tiny_patch16_224", 192, 3),
        augreg("vit_small_patch16_224", 384, 6),
        augreg("vit_base_patch16_224", 768, 12),
    ]
}
