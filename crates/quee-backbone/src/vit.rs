//! Vision transformer (Dosovitskiy et al., *An Image is Worth 16x16 Words*, arXiv 2010.11929), with timm's tensor names.

use crate::backbone::Backbone;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::executor::{ExecError, Executor, Value};
use crate::params::{Attention, Linear, Norm, Param};

/// How the tokens of the last block become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The class token.
    ClassToken,
    /// The mean of the patch tokens.
    Mean,
}

/// Dimensions of a vision transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of a square picture, in pixels.
    pub image: usize,
    /// Channels of a picture.
    pub channels: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Features of a token D.
    pub dim: usize,
    /// Blocks L.
    pub depth: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Hidden features of the MLP.
    pub hidden: usize,
    /// Classes.
    pub classes: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// How tokens are pooled; a class token exists either way.
    pub pool: Pool,
}

/// Epsilon of every layer normalisation in timm's vision transformers.
const NORM_EPS: f32 = 1e-6;

impl VitConfig {
    /// Tokens of a picture, class token included.
    pub fn tokens(&self) -> usize {
        (self.image / self.patch).pow(2) + 1
    }

    /// Names and shapes of every tensor, in program order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, h) = (self.dim, self.hidden);
        let mut list = vec![
            ("cls_token".to_owned(), vec![1, 1, d]),
            ("pos_embed".to_owned(), vec![1, self.tokens(), d]),
            ("patch_embed.proj.weight".to_owned(), vec![d, self.channels, self.patch, self.patch]),
            ("patch_embed.proj.bias".to_owned(), vec![d]),
        ];
        for l in 0..self.depth {
            let mut push = |name: &str, shape: Vec<usize>| list.push((format!("blocks.{l}.{name}"), shape));
            push("norm1.weight", vec![d]);
            push("norm1.bias", vec![d]);
            push("attn.qkv.weight", vec![3 * d, d]);
            if self.qkv_bias {
                push("attn.qkv.bias", vec![3 * d]);
            }
            push("attn.proj.weight", vec![d, d]);
            push("attn.proj.bias", vec![d]);
            push("norm2.weight", vec![d]);
            push("norm2.bias", vec![d]);
            push("mlp.fc1.weight", vec![h, d]);
            push("mlp.fc1.bias", vec![h]);
            push("mlp.fc2.weight", vec![d, h]);
            push("mlp.fc2.bias", vec![d]);
        }
        list.push(("norm.weight".to_owned(), vec![d]));
        list.push(("norm.bias".to_owned(), vec![d]));
        list.push(("head.weight".to_owned(), vec![self.classes, d]));
        list.push(("head.bias".to_owned(), vec![self.classes]));
        list
    }
}

struct Block {
    norm1: Norm,
    qkv: Linear,
    attention: Attention,
    proj: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// A vision transformer with its weights.
pub struct Vit {
    name: String,
    config: VitConfig,
    patch_embed: Linear,
    class_token: Param,
    position: Param,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
}

impl Vit {
    /// Takes the weights of `config` out of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, left over, misshapen, or holds NaN or infinity.
    pub fn load(name: &str, config: VitConfig, mut checkpoint: Checkpoint) -> Result<Self, CheckpointError> {
        let mut params = std::collections::BTreeMap::new();
        for (id, (name, shape)) in config.tensors().into_iter().enumerate() {
            let data = checkpoint.take(&name, &shape)?;
            params.insert(name.clone(), Param { id, name, shape, data });
        }
        checkpoint.finish()?;
        let mut param = |name: String| params.remove(&name);
        let mut require = |name: String| param(name).expect("every tensor of the configuration was taken");
        let (d, h) = (config.dim, config.hidden);
        let class_token = require("cls_token".into());
        let position = require("pos_embed".into());
        let mut linear = |site: String, inputs: usize, outputs: usize, bias: bool| Linear {
            weight: require(format!("{site}.weight")),
            bias: bias.then(|| require(format!("{site}.bias"))),
            site,
            inputs,
            outputs,
        };
        let patch_embed = linear("patch_embed.proj".into(), config.channels * config.patch * config.patch, d, true);
        let mut blocks_linears = Vec::with_capacity(config.depth);
        for l in 0..config.depth {
            blocks_linears.push([
                linear(format!("blocks.{l}.attn.qkv"), d, 3 * d, config.qkv_bias),
                linear(format!("blocks.{l}.attn.proj"), d, d, true),
                linear(format!("blocks.{l}.mlp.fc1"), d, h, true),
                linear(format!("blocks.{l}.mlp.fc2"), h, d, true),
            ]);
        }
        let head = linear("head".into(), d, config.classes, true);
        let mut norm = |site: String| Norm {
            weight: require(format!("{site}.weight")),
            bias: require(format!("{site}.bias")),
            site,
            eps: NORM_EPS,
        };
        let head_dim = d / config.heads;
        let blocks = blocks_linears
            .into_iter()
            .enumerate()
            .map(|(l, [qkv, proj, fc1, fc2])| Block {
                norm1: norm(format!("blocks.{l}.norm1")),
                qkv,
                attention: Attention {
                    site: format!("blocks.{l}.attn"),
                    heads: config.heads,
                    head_dim,
                    scale: (head_dim as f32).powf(-0.5),
                },
                proj,
                norm2: norm(format!("blocks.{l}.norm2")),
                fc1,
                fc2,
            })
            .collect();
        let norm = norm("norm".into());
        Ok(Self { name: name.to_owned(), config, patch_embed, class_token, position, blocks, norm, head })
    }

    /// Dimensions of this transformer.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }
}

impl Block {
    fn params(&self) -> impl Iterator<Item = &Param> {
        [&self.norm1, &self.norm2]
            .into_iter()
            .flat_map(|n| [&n.weight, &n.bias])
            .chain([&self.qkv, &self.proj, &self.fc1, &self.fc2].into_iter().flat_map(Linear::params))
    }
}

impl Backbone for Vit {
    fn name(&self) -> &str {
        &self.name
    }

    fn image_shape(&self) -> [usize; 3] {
        [self.config.channels, self.config.image, self.config.image]
    }

    fn depth(&self) -> usize {
        self.config.depth
    }

    fn feature_dim(&self) -> usize {
        self.config.dim
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn params(&self) -> Vec<&Param> {
        let mut params: Vec<&Param> = [&self.class_token, &self.position]
            .into_iter()
            .chain(self.patch_embed.params())
            .chain(self.blocks.iter().flat_map(Block::params))
            .chain([&self.norm.weight, &self.norm.bias])
            .chain(self.head.params())
            .collect();
        params.sort_by_key(|p| p.id);
        params
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn stem(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let patches = executor.patches(images, self.config.patch)?;
        let tokens = executor.linear(&patches, &self.patch_embed)?;
        let tokens = executor.prepend(&tokens, &self.class_token)?;
        executor.add_position(&tokens, &self.position)
    }

    fn block(&self, index: usize, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        let block = &self.blocks[index];
        let qkv = executor.norm_linear(tokens, &block.norm1, &block.qkv)?;
        let mixed = executor.attention(&qkv, &block.attention)?;
        let tokens = executor.linear_add(&mixed, &block.proj, tokens)?;
        let hidden = executor.norm_linear_gelu(&tokens, &block.norm2, &block.fc1)?;
        executor.linear_add(&hidden, &block.fc2, &tokens)
    }

    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        match self.config.pool {
            // The token is picked before the normalisation, which works on each token alone.
            Pool::ClassToken => {
                let token = executor.first_token(tokens)?;
                executor.layer_norm(&token, &self.norm)
            }
            Pool::Mean => {
                let normed = executor.layer_norm(tokens, &self.norm)?;
                executor.mean_tokens(&normed, 1)
            }
        }
    }
}
