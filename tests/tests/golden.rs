//! Imported checkpoints mean here what they mean in the public PyTorch implementation.
//!
//! `fixtures/golden` holds small transformers with random weights, evaluated by timm 1.0.31 in float32. For each `<name>`: the configuration
//! (`.json`), the weights under timm's names (`.safetensors`), and `.expected.safetensors` with `input` [B, C, H, W],
//! `tokens_in` [B, T, D], `block_0` … [B, T, D], and `logits` [B, classes]. Every executor must agree with all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::vit::{Pool, Vit, VitConfig};
use quee_backbone::{Backbone, Executor, QuantPlan, Value};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::WeightQuantizer;

/// Largest difference, as a share of the largest magnitude: a hundred times what float32 sums of this length lose.
const TOLERANCE: f32 = 1e-4;

/// Everything that can run in float.
fn executors() -> Vec<Box<dyn Executor>> {
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax));
    Isa::available().into_iter().map(|isa| Box::new(CpuExecutor::new(plan.clone(), isa)) as Box<dyn Executor>).collect()
}

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden").join(file)
}

fn config(name: &str) -> VitConfig {
    let text = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("{name}.json: {key}")) as usize;
    VitConfig {
        image: number("img_size"),
        channels: 3,
        patch: number("patch_size"),
        dim: number("embed_dim"),
        depth: number("depth"),
        heads: number("num_heads"),
        hidden: number("embed_dim") * number("mlp_ratio"),
        classes: number("num_classes"),
        qkv_bias: json["qkv_bias"].as_bool().unwrap_or(true),
        pool: if json["global_pool"].as_str() == Some("avg") { Pool::Mean } else { Pool::ClassToken },
    }
}

#[track_caller]
fn assert_close(place: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{place}");
    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let off = got.iter().zip(want).fold(0f32, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
    assert!(off <= TOLERANCE * largest, "{place}: off by {off:e} where the largest value is {largest}");
}

fn check(name: &str) {
    let config = config(name);
    let tokens_shape = |batch| [batch, config.tokens(), config.dim];
    let weights = Checkpoint::read(&fixture(&format!("{name}.safetensors"))).unwrap();
    let vit = Vit::load(name, config.clone(), weights).unwrap();
    for mut executor in executors() {
        let executor = executor.as_mut();
        let mut expected = Checkpoint::read(&fixture(&format!("{name}.expected.safetensors"))).unwrap();
        let shape = expected.shape("input").unwrap().to_vec();
        let images = executor.input(&shape, &expected.take("input", &shape).unwrap()).unwrap();
        let mut compare = |executor: &mut dyn Executor, place: &str, value: &Value, shape: &[usize]| {
            assert_eq!(executor.shape(value).unwrap(), shape, "{place}");
            let place_of = format!("{name} on {}: {place}", executor.name());
            assert_close(&place_of, &executor.read(value).unwrap(), &expected.take(place, shape).unwrap());
        };
        let mut tokens = vit.stem(executor, &images).unwrap();
        compare(executor, "tokens_in", &tokens, &tokens_shape(shape[0]));
        for index in 0..vit.depth() {
            tokens = vit.block(index, executor, &tokens).unwrap();
            compare(executor, &format!("block_{index}"), &tokens, &tokens_shape(shape[0]));
        }
        let features = vit.features(executor, &tokens).unwrap();
        let logits = executor.linear(&features, vit.head()).unwrap();
        compare(executor, "logits", &logits, &[shape[0], config.classes]);
    }
}

#[test]
fn plain_vision_transformer() {
    check("vit_micro");
}

#[test]
fn odd_dimensions_mean_pooling_and_no_qkv_bias() {
    check("vit_micro_odd");
}
