//! Data-efficient image transformers (Touvron et al., arXiv 2012.12877): vision transformers, optionally with a distillation
//! token.
//!
//! A distilled transformer has a classifier on the class token and one on the distillation token, and answers with the mean
//! of their logits. Here that is one linear layer on both tokens side by side, whose weight is half of each classifier's.

use std::sync::Arc;

use crate::architecture::{Init, Pool};
use crate::backbone::NamedTensor;
use crate::checkpoint::CheckpointError;
use crate::families::vit::VitConfig;
use crate::params::Linear;
use crate::presets::{IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preset};
use crate::weights::Weights;

/// The classifiers of class and distillation token, in the order of the tokens.
const HEADS: [&str; 2] = ["head", "head_dist"];

/// Takes both classifiers `[classes, dim]` and makes one layer `[B, 2·dim] → [B, classes]` of them.
pub(crate) fn take_heads(weights: &mut Weights, dim: usize) -> Result<Linear, CheckpointError> {
    let classes = weights.classes("head.weight");
    let [mut rows, mut biases] = [const { Vec::new() }; 2];
    for head in HEADS {
        rows.push(weights.take(&format!("{head}.weight"), &[classes, dim], Init::Normal, true)?);
        biases.push(weights.take(&format!("{head}.bias"), &[classes], Init::Zeros, true)?);
    }
    let of_class = |class: usize| rows.iter().flat_map(move |row| &row[class * dim..][..dim]).map(|w| 0.5 * w);
    // Without a checkpoint there are no values.
    let present = if rows[0].is_empty() { 0 } else { classes };
    let weight: Vec<f32> = (0..present).flat_map(of_class).collect();
    let bias: Vec<f32> = biases[0].iter().zip(&*biases[1]).map(|(a, b)| 0.5 * (a + b)).collect();
    Ok(Linear {
        site: "head".into(),
        inputs: 2 * dim,
        outputs: classes,
        weight: weights.register("head.weight", &[classes, 2 * dim], weight.into(), false),
        bias: Some(weights.register("head.bias", &[classes], bias.into(), false)),
    })
}

/// Undoes [`take_heads`] in a list of all tensors: both classifiers get the merged one's bias, which leaves the mean of
/// their logits as it is.
pub(crate) fn split_heads(tensors: Vec<NamedTensor>) -> Vec<NamedTensor> {
    let split = |(name, shape, data): NamedTensor| match name.as_str() {
        "head.weight" => {
            let (classes, dim) = (shape[0], shape[1] / 2);
            let half = |half: usize| data.chunks_exact(2 * dim).flat_map(move |row| &row[half * dim..][..dim]);
            let tensor = |(i, head): (usize, &&str)| {
                (format!("{head}.weight"), vec![classes, dim], half(i).map(|w| 2.0 * w).collect())
            };
            HEADS.iter().enumerate().map(tensor).collect()
        }
        "head.bias" => HEADS.iter().map(|head| (format!("{head}.bias"), shape.clone(), data.clone())).collect(),
        _ => vec![(name, shape, data)],
    };
    tensors.into_iter().flat_map(split).collect()
}

fn deit(name: &'static str, dim: usize, heads: usize, distilled: bool) -> Preset {
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
            distilled,
            pool: Pool::ClassToken,
        }),
        mean: &IMAGENET_MEAN,
        std: &IMAGENET_STD,
        crop: 0.9,
        interpolation: Interpolation::Bicubic,
    }
}

pub(crate) fn presets() -> Vec<Preset> {
    vec![
        deit("deit_tiny_patch16_224", 192, 3, false),
        deit("deit_small_patch16_224", 384, 6, false),
        deit("deit_base_patch16_224", 768, 12, false),
        deit("deit_tiny_distilled_patch16_224", 192, 3, true),
        deit("deit_small_distilled_patch16_224", 384, 6, true),
        deit("deit_base_distilled_patch16_224", 768, 12, true),
    ]
}
