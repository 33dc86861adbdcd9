//! Random weights to start a training from.

use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::vit::VitConfig;

use crate::data::{rng_for, truncated_normal};

/// Standard deviation of random weights (arXiv 2010.11929 and timm).
const DEVIATION: f32 = 0.02;

/// Weights of a vision transformer before training: matrices, class token and position embedding from a normal
/// distribution of deviation 0.02 cut at two deviations, gains 1, biases 0.
///
/// Each tensor has random numbers of its own, which depend on `seed` and its place in [`VitConfig::tensors`].
pub fn init_vit(config: &VitConfig, seed: u64) -> Checkpoint {
    let tensors = config.tensors().into_iter().enumerate().map(|(place, (name, shape))| {
        let count = shape.iter().product();
        let mut rng = rng_for(seed, &[place as u64]);
        let data = match (shape.len(), name.ends_with(".weight")) {
            (1, true) => vec![1.0; count],
            (1, false) => vec![0.0; count],
            _ => (0..count).map(|_| DEVIATION * truncated_normal(&mut rng)).collect(),
        };
        (name, shape, data)
    });
    Checkpoint::from_tensors(&format!("random weights of seed {seed}"), tensors)
}

#[cfg(test)]
mod tests {
    use quee_backbone::Backbone;
    use quee_backbone::vit::{Pool, Vit};

    use super::*;

    fn vit(seed: u64) -> Vit {
        let config = VitConfig {
            image: 8,
            channels: 1,
            patch: 2,
            dim: 64,
            depth: 4,
            heads: 4,
            hidden: 128,
            classes: 10,
            qkv_bias: true,
            pool: Pool::ClassToken,
        };
        Vit::load("vit", config.clone(), init_vit(&config, seed)).unwrap()
    }

    #[test]
    fn weights_have_the_stated_distribution() {
        let vit = vit(1);
        let fc1 = vit.params().into_iter().find(|p| p.name == "blocks.3.mlp.fc1.weight").unwrap();
        let n = fc1.data.len() as f32;
        let mean = fc1.data.iter().sum::<f32>() / n;
        let deviation = (fc1.data.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        // A normal distribution cut at two deviations keeps 0.88 of its deviation.
        assert!(mean.abs() < 0.001 && (deviation - 0.0176).abs() < 0.0005, "{mean} {deviation}");
        assert!(fc1.data.iter().all(|x| x.abs() <= 0.04));
        for param in vit.params() {
            let expected = match param.name.as_str() {
                name if name.contains("norm") && name.ends_with("weight") => Some(1.0),
                name if name.ends_with("bias") => Some(0.0),
                _ => None,
            };
            assert!(expected.is_none_or(|value| param.data.iter().all(|&x| x == value)), "{}", param.name);
        }
    }

    #[test]
    fn seeds_and_tensors_differ_and_repeat() {
        let data = |seed, name: &str| vit(seed).params().into_iter().find(|p| p.name == name).unwrap().data.clone();
        assert_eq!(data(1, "head.weight"), data(1, "head.weight"));
        assert_ne!(data(1, "head.weight"), data(2, "head.weight"));
        assert_ne!(data(1, "blocks.0.mlp.fc1.weight"), data(1, "blocks.1.mlp.fc1.weight"));
    }
}
