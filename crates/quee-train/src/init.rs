//! Random weights to start a training from.

use quee_backbone::architecture::{Init, TensorSpec};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::positions::sinusoid;
use rand_chacha::ChaCha8Rng;

use crate::data::{normal, rng_for, truncated_normal};

/// Standard deviation of random weights (arXiv 2010.11929 and timm).
const DEVIATION: f32 = 0.02;

/// Weights of a backbone before training, as each of its [`TensorSpec`]s says.
///
/// Each tensor has random numbers of its own, which depend on `seed` and its place in the list.
pub fn random_weights(tensors: &[TensorSpec], seed: u64) -> Checkpoint {
    let drawn = tensors.iter().enumerate().map(|(place, spec)| {
        let data = draw(spec, &mut rng_for(seed, &[place as u64]));
        (spec.name.clone(), spec.shape.clone(), data)
    });
    Checkpoint::from_tensors(&format!("random weights of seed {seed}"), drawn)
}

/// Puts a fresh classifier into `checkpoint`: those of `tensors` that belong to the classifier, with the random numbers that
/// [`random_weights`] gives them. The checkpoint's own classifier may have another number of classes, or be missing.
pub fn reset_head(checkpoint: &mut Checkpoint, tensors: &[TensorSpec], seed: u64) {
    for (place, spec) in tensors.iter().enumerate().filter(|(_, spec)| spec.head) {
        checkpoint.insert(&spec.name, spec.shape.clone(), draw(spec, &mut rng_for(seed, &[place as u64])));
    }
}

fn draw(spec: &TensorSpec, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let count = spec.shape.iter().product();
    let rows = spec.shape.first().copied().unwrap_or(1);
    match spec.init {
        Init::Normal => (0..count).map(|_| DEVIATION * truncated_normal(rng)).collect(),
        Init::Ones => vec![1.0; count],
        Init::Zeros => vec![0.0; count],
        Init::OrthogonalRows => orthogonal_rows(rows, count / rows.max(1), rng),
        Init::Sinusoid => {
            let dim = spec.shape.last().copied().unwrap_or(1);
            sinusoid(count / dim.max(1), dim)
        }
    }
}

/// Random directions `[rows, columns]` of length √rows that are orthogonal to each other (Gram and Schmidt); needs as many
/// columns as rows.
fn orthogonal_rows(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(rows);
    for _ in 0..rows {
        let mut row: Vec<f64> = (0..columns).map(|_| f64::from(normal(rng))).collect();
        for other in &done {
            let shared: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(x, o)| *x -= shared * o);
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
        done.push(row);
    }
    let size = (rows as f64).sqrt();
    done.into_iter().flatten().map(|x| (x * size) as f32).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quee_backbone::architecture;
    use quee_backbone::families::t2t::T2tConfig;
    use quee_backbone::presets;
    use quee_backbone::{Backbone, Pool};

    use super::*;

    fn small() -> T2tConfig {
        T2tConfig {
            image: 32,
            channels: 1,
            token_dim: 16,
            dim: 64,
            depth: 4,
            heads: 4,
            hidden: 128,
            pool: Pool::ClassToken,
        }
    }

    fn random(seed: u64) -> Box<dyn Backbone> {
        let weights = random_weights(&architecture::tensors(&small(), 10), seed);
        architecture::load(&small(), "random", weights, false).unwrap()
    }

    fn values(backbone: &dyn Backbone, name: &str) -> Arc<[f32]> {
        backbone.params().iter().find(|p| p.name == name).unwrap().data.clone()
    }

    #[test]
    fn weights_have_the_stated_distribution() {
        let backbone = random(1);
        let fc1 = values(&*backbone, "blocks.3.mlp.fc1.weight");
        let n = fc1.len() as f32;
        let mean = fc1.iter().sum::<f32>() / n;
        let deviation = (fc1.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        // A normal distribution cut at two deviations keeps 0.88 of its deviation.
        assert!(mean.abs() < 0.001 && (deviation - 0.0176).abs() < 0.0005, "{mean} {deviation}");
        assert!(fc1.iter().all(|x| x.abs() <= 0.04));
        for param in backbone.params() {
            let expected = match param.name.as_str() {
                name if name.contains("norm") && name.ends_with("weight") => Some(1.0),
                name if name.ends_with("bias") => Some(0.0),
                _ => None,
            };
            assert!(expected.is_none_or(|value| param.data.iter().all(|&x| x == value)), "{}", param.name);
            let fixed = param.name == "pos_embed" || param.name.ends_with(".w");
            assert_eq!(param.frozen, fixed, "{}", param.name);
        }
        let directions = values(&*backbone, "tokens_to_token.attention1.w");
        for (i, j) in (0..8).flat_map(|i| (0..8).map(move |j| (i, j))) {
            let product: f32 = (0..16).map(|k| directions[i * 16 + k] * directions[j * 16 + k]).sum();
            assert!((product - if i == j { 8.0 } else { 0.0 }).abs() < 1e-5, "rows {i} and {j}: {product}");
        }
        assert_eq!(&values(&*backbone, "pos_embed")[..4], [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn seeds_and_tensors_differ_and_repeat() {
        let data = |seed, name: &str| values(&*random(seed), name);
        assert_eq!(data(1, "head.weight"), data(1, "head.weight"));
        assert_ne!(data(1, "head.weight"), data(2, "head.weight"));
        assert_ne!(data(1, "blocks.0.mlp.fc1.weight"), data(1, "blocks.1.mlp.fc1.weight"));
    }

    #[test]
    fn a_fresh_classifier_leaves_the_rest_alone() {
        for name in ["vit_d6_w80_p2_8", "deit_tiny_distilled_patch16_224", "t2t_vit_7"] {
            let preset = presets::find(name).unwrap();
            let mut checkpoint = random_weights(&preset.tensors(10), 1);
            reset_head(&mut checkpoint, &preset.tensors(3), 2);
            let backbone = preset.load(&Default::default(), checkpoint).unwrap();
            assert_eq!(backbone.classes(), 3, "{name}");
            let old = preset.load(&Default::default(), random_weights(&preset.tensors(10), 1)).unwrap();
            let same = |a: &quee_backbone::Param, b: &quee_backbone::Param| a.data == b.data && a.name == b.name;
            let equal = old.params().iter().zip(backbone.params()).filter(|(a, b)| same(a, b)).count();
            assert_eq!(equal, old.params().len() - 2, "{name}");
        }
    }

    #[test]
    fn small_presets_can_be_made_of_random_weights_and_written_out() {
        for preset in presets::all() {
            let tensors = preset.tensors(2);
            if tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum::<usize>() > 7_000_000 {
                continue;
            }
            let backbone = preset.load(&Default::default(), random_weights(&tensors, 3)).unwrap();
            assert_eq!((backbone.classes(), backbone.name()), (2, preset.name));
            assert!(backbone.params().iter().enumerate().all(|(id, param)| param.id == id), "{}", preset.name);
            let written = backbone.export(&backbone.params().iter().map(|p| p.data.to_vec()).collect::<Vec<_>>());
            let mut original = random_weights(&tensors, 3);
            for (name, shape, data) in written {
                assert_eq!(*original.take(&name, &shape).unwrap(), *data, "{}: {name}", preset.name);
            }
            original.finish().unwrap();
        }
    }
}
