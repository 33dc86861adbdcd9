//! Tokens-to-token vision transformer (Yuan et al., *Tokens-to-Token ViT*, arXiv 2101.11986), with the performer variant of its
//! tokens-to-token module and the tensor names of its published implementation.

use std::sync::Arc;

use crate::architecture::{Architecture, Init, Pool, Variant};
use crate::backbone::{Backbone, Core};
use crate::checkpoint::CheckpointError;
use crate::encoder::{EncoderBlock, EncoderConfig};
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Linear, Norm, Param, Performer, Window};
use crate::presets::{IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preset};
use crate::weights::Weights;

/// Dimensions of a T2T-ViT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct T2tConfig {
    /// Side of a square picture, in pixels; a multiple of 16.
    pub image: usize,
    /// Channels of a picture.
    pub channels: usize,
    /// Features of a token inside the tokens-to-token module.
    pub token_dim: usize,
    /// Features of a token D.
    pub dim: usize,
    /// Blocks L.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Hidden features of the MLP.
    pub hidden: usize,
    /// How tokens are pooled; a class token exists either way.
    pub pool: Pool,
}

/// Epsilon of every layer normalisation, the default of the published implementation's framework.
const NORM_EPS: f32 = 1e-5;
/// The three overlapping cuts of section 3.1; together they shrink a side by 16.
const SPLITS: [Window; 3] = [
    Window { kernel: 7, stride: 4, padding: 2 },
    Window { kernel: 3, stride: 2, padding: 1 },
    Window { kernel: 3, stride: 2, padding: 1 },
];

impl Architecture for T2tConfig {
    fn image_shape(&self) -> [usize; 3] {
        [self.channels, self.image, self.image]
    }

    fn varied(&self, variant: &Variant) -> Result<Arc<dyn Architecture>, String> {
        let image = variant.image.unwrap_or(self.image);
        if image == 0 || !image.is_multiple_of(16) {
            return Err("its sides are multiples of 16 pixels".into());
        }
        Ok(Arc::new(Self { image, pool: variant.pool.unwrap_or(self.pool), ..self.clone() }))
    }

    fn build(&self, weights: &mut Weights) -> Result<Box<dyn Backbone>, CheckpointError> {
        let (d, token) = (self.dim, self.token_dim);
        let class_token = weights.param("cls_token", &[1, 1, d], Init::Normal)?;
        let position = weights.sinusoid("pos_embed", (self.image / 16).pow(2) + 1, d)?;
        let inputs = SPLITS.map(|split| split.kernel * split.kernel);
        let mixers = [
            TokenPerformer::take(weights, "tokens_to_token.attention1", self.channels * inputs[0], token)?,
            TokenPerformer::take(weights, "tokens_to_token.attention2", token * inputs[1], token)?,
        ];
        let project = weights.linear("tokens_to_token.project", token * inputs[2], d, true)?;
        let encoder = EncoderConfig { dim: d, heads: self.heads, hidden: self.hidden, qkv_bias: false, eps: NORM_EPS };
        let blocks: Result<_, _> =
            (0..self.depth).map(|l| EncoderBlock::take(weights, &format!("blocks.{l}"), &encoder)).collect();
        let norm = weights.norm("norm", d, NORM_EPS)?;
        let head = weights.classifier("head", d)?;
        let (pool, core) = (self.pool, weights.core(self.image_shape(), head));
        Ok(Box::new(T2tVit { mixers, project, class_token, position, blocks: blocks?, norm, pool, core }))
    }
}

/// One transformer layer of the tokens-to-token module, with performer attention of one head (arXiv 2009.14794).
struct TokenPerformer {
    norm1: Norm,
    kqv: Linear,
    attention: Performer,
    proj: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

impl TokenPerformer {
    /// `inputs` features go in, `dim` come out.
    fn take(weights: &mut Weights, prefix: &str, inputs: usize, dim: usize) -> Result<Self, CheckpointError> {
        let features = dim / 2;
        let directions = weights.frozen(&format!("{prefix}.w"), &[features, dim], Init::OrthogonalRows)?;
        let projection =
            Linear { site: format!("{prefix}.w"), inputs: dim, outputs: features, weight: directions, bias: None };
        Ok(Self {
            norm1: weights.norm(&format!("{prefix}.norm1"), inputs, NORM_EPS)?,
            kqv: weights.linear(&format!("{prefix}.kqv"), inputs, 3 * dim, true)?,
            attention: Performer { site: prefix.to_owned(), projection },
            proj: weights.linear(&format!("{prefix}.proj"), dim, dim, true)?,
            norm2: weights.norm(&format!("{prefix}.norm2"), dim, NORM_EPS)?,
            fc1: weights.linear(&format!("{prefix}.mlp.0"), dim, dim, true)?,
            fc2: weights.linear(&format!("{prefix}.mlp.2"), dim, dim, true)?,
        })
    }

    /// `[B, T, inputs] → [B, T, dim]`.
    fn run(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let dim = self.proj.inputs;
        let kqv = executor.norm_linear(tokens, &self.norm1, &self.kqv)?;
        let mixed = executor.performer(&kqv, &self.attention)?;
        // Inputs and outputs differ in size, so the residual starts from the values.
        let values = executor.slice_features(&kqv, 2 * dim, dim)?;
        let tokens = executor.linear_add(&mixed, &self.proj, &values)?;
        let hidden = executor.norm_linear_gelu(&tokens, &self.norm2, &self.fc1)?;
        executor.linear_add(&hidden, &self.fc2, &tokens)
    }
}

/// A T2T-ViT with its weights.
struct T2tVit {
    mixers: [TokenPerformer; 2],
    project: Linear,
    class_token: Param,
    position: Param,
    blocks: Vec<EncoderBlock>,
    norm: Norm,
    pool: Pool,
    core: Core,
}

impl Backbone for T2tVit {
    fn core(&self) -> &Core {
        &self.core
    }

    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn stem(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let mut side = self.core.image_shape[1];
        let mut tokens = executor.unfold(images, &SPLITS[0])?;
        for ((mixer, before), split) in self.mixers.iter().zip(&SPLITS).zip(&SPLITS[1..]) {
            tokens = mixer.run(executor, &tokens)?;
            // Tokens become the pixels of a picture again.
            side = before.places(side);
            let channels = executor.transpose(&tokens)?;
            let picture = executor.reshape(&channels, &[mixer.proj.outputs, side, side])?;
            tokens = executor.unfold(&picture, split)?;
        }
        let tokens = executor.linear(&tokens, &self.project)?;
        let tokens = executor.prepend(&tokens, &self.class_token)?;
        executor.add_position(&tokens, &self.position)
    }

    fn block(&self, index: usize, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        self.blocks[index].run(executor, tokens)
    }

    fn last_block(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let Some(last) = self.blocks.last() else { return Ok(tokens.clone()) };
        match self.pool {
            Pool::ClassToken => last.run_first(executor, tokens, 1),
            Pool::Mean => last.run(executor, tokens),
        }
    }

    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        match self.pool {
            Pool::ClassToken => {
                let token = executor.first_tokens(tokens, 1)?;
                executor.layer_norm(&token, &self.norm)
            }
            Pool::Mean => {
                let normed = executor.layer_norm(tokens, &self.norm)?;
                executor.mean_tokens(&normed, 1)
            }
        }
    }
}

fn t2t(name: &'static str, dim: usize, depth: usize, heads: usize, hidden: usize) -> Preset {
    Preset {
        name,
        architecture: Arc::new(T2tConfig {
            image: 224,
            channels: 3,
            token_dim: 64,
            dim,
            depth,
            heads,
            hidden,
            pool: Pool::ClassToken,
        }),
        mean: &IMAGENET_MEAN,
        std: &IMAGENET_STD,
        crop: 0.9,
        interpolation: Interpolation::Bicubic,
    }
}

pub(crate) fn presets() -> Vec<Preset> {
    vec![t2t("t2t_vit_7", 256, 7, 4, 512), t2t("t2t_vit_14", 384, 14, 6, 1152)]
}
