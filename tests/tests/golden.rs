//! Imported checkpoints mean here what they mean in the public PyTorch implementations.
//!
//! `fixtures/golden` holds small backbones with random weights, evaluated in float32 by timm 1.0.31 and by the published
//! T2T-ViT definition. `make.py` there made those of other sizes and poolings and that of the Mixer. For each `<name>`: the configuration (`.json`), the weights under their public names (`.safetensors`
//! or `.pth.tar`), and `.expected.safetensors` with `input` [B, C, H, W], `logits` [B, classes] and, where recorded,
//! `tokens_in` [B, T, D] and `block_0` … [B, T, D]. Every executor must agree with all of them.
//!
//! `cargo test --release --test golden -- --nocapture` prints the largest differences.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quee_backbone::architecture::{self, Architecture};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::families::mixer::MixerConfig;
use quee_backbone::families::t2t::T2tConfig;
use quee_backbone::vit::VitConfig;
use quee_backbone::{Backbone, Executor, Pool, QuantPlan, Variant};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::WeightQuantizer;
use quee_train::{BurnExecutor, flex_device};

/// Largest difference, as a share of the largest magnitude: a hundred times what float32 sums of this length lose.
const TOLERANCE: f32 = 1e-4;

/// Everything that can run in float.
fn executors() -> Vec<Box<dyn Executor>> {
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax));
    let cpus =
        Isa::available().into_iter().map(|isa| Box::new(CpuExecutor::new(plan.clone(), isa)) as Box<dyn Executor>);
    cpus.chain([Box::new(BurnExecutor::float(flex_device())) as Box<dyn Executor>]).collect()
}

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden").join(file)
}

fn architecture(name: &str) -> Box<dyn Architecture> {
    let text = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("{name}.json: {key}")) as usize;
    if json["family"] == "mixer" {
        return Box::new(MixerConfig {
            image: number("img_size"),
            channels: 3,
            patch: number("patch_size"),
            dim: number("embed_dim"),
            depth: number("num_blocks"),
            token_hidden: number("token_hidden"),
            hidden: number("hidden"),
        });
    }
    let (dim, hidden) = (number("embed_dim"), number("embed_dim") * number("mlp_ratio"));
    let (image, depth, heads) = (number("img_size"), number("depth"), number("num_heads"));
    match json["family"].as_str().unwrap() {
        family @ ("vit" | "deit_distilled") => Box::new(VitConfig {
            image,
            channels: 3,
            patch: number("patch_size"),
            dim,
            depth,
            heads,
            hidden,
            qkv_bias: json["qkv_bias"].as_bool().unwrap_or(true),
            distilled: family == "deit_distilled",
            pool: if json["global_pool"].as_str() == Some("avg") { Pool::Mean } else { Pool::ClassToken },
        }),
        "t2t_vit" => Box::new(T2tConfig {
            image,
            channels: 3,
            token_dim: number("token_dim"),
            dim,
            depth,
            heads,
            hidden,
            pool: Pool::ClassToken,
        }),
        other => panic!("{name}.json: family {other}"),
    }
}

fn weights(name: &str) -> Checkpoint {
    let safetensors = fixture(&format!("{name}.safetensors"));
    let path = if safetensors.exists() { safetensors } else { fixture(&format!("{name}.pth.tar")) };
    Checkpoint::read(&path).unwrap()
}

/// Largest difference as a share of the largest expected magnitude.
#[track_caller]
fn difference(place: &str, got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "{place}");
    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let off = got.iter().zip(want).fold(0f32, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
    assert!(off <= TOLERANCE * largest, "{place}: off by {off:e} where the largest value is {largest}");
    off / largest
}

/// The backbone of a fixture as it is.
fn plain(name: &str) -> Box<dyn Backbone> {
    architecture::load(architecture(name).as_ref(), name, weights(name), false).unwrap()
}

/// The backbone of a fixture for pictures of another size.
fn resized(name: &str, image: usize) -> Box<dyn Backbone> {
    let varied = architecture(name).varied(&Variant { image: Some(image), pool: None }).unwrap();
    architecture::load(varied.as_ref(), name, weights(name), true).unwrap()
}

/// Runs a backbone on every executor against `<name>.expected.safetensors` and prints the largest difference over all
/// recorded places; `places` says how many there are.
fn check(name: &str, backbone: &dyn Backbone, places: usize) {
    for mut executor in executors() {
        let executor = executor.as_mut();
        let mut expected = Checkpoint::read(&fixture(&format!("{name}.expected.safetensors"))).unwrap();
        let shape = expected.shape("input").unwrap().to_vec();
        let images = executor.input(&shape, &expected.take("input", &shape).unwrap()).unwrap();
        let mut tokens = backbone.stem(executor, &images).unwrap();
        let mut values = vec![("tokens_in".to_owned(), tokens.clone())];
        for index in 0..backbone.depth() {
            tokens = backbone.block(index, executor, &tokens).unwrap();
            values.push((format!("block_{index}"), tokens.clone()));
        }
        let features = backbone.features(executor, &tokens).unwrap();
        values.push(("logits".to_owned(), executor.linear(&features, backbone.head()).unwrap()));
        let (mut worst, mut found) = (0f32, 0);
        for (place, value) in &values {
            let Some(shape) = expected.shape(place).map(<[usize]>::to_vec) else { continue };
            assert_eq!(executor.shape(value).unwrap(), shape, "{place}");
            let want = expected.take(place, &shape).unwrap();
            let place = format!("{name} on {}: {place}", executor.name());
            worst = worst.max(difference(&place, &executor.read(value).unwrap(), &want));
            found += 1;
        }
        expected.finish().unwrap();
        assert_eq!(found, places, "recorded places of {name}");
        println!("{name:<18} {:<16} {places} places, largest difference {worst:.1e}", executor.name());
    }
}

#[test]
fn plain_vision_transformer() {
    check("vit_micro", &*plain("vit_micro"), 5);
}

#[test]
fn odd_dimensions_mean_pooling_and_no_qkv_bias() {
    check("vit_micro_odd", &*plain("vit_micro_odd"), 4);
}

#[test]
fn distilled_transformer_answers_with_the_mean_of_both_classifiers() {
    check("deit_micro", &*plain("deit_micro"), 5);
}

#[test]
fn tokens_to_token_transformer() {
    check("t2t_micro", &*plain("t2t_micro"), 1);
}

#[test]
fn tokens_to_token_transformer_with_larger_pictures() {
    check("t2t_micro64", &*plain("t2t_micro64"), 1);
}

#[test]
fn normalisation_after_average_pooling() {
    check("vit_micro_fc_norm", &*plain("vit_micro_fc_norm"), 3);
}

#[test]
fn mixer_of_tokens_and_features() {
    check("mixer_micro", &*plain("mixer_micro"), 4);
}

#[test]
fn position_embeddings_are_resampled_for_larger_and_smaller_pictures() {
    check("vit_micro_48", &*resized("vit_micro", 48), 5);
    check("deit_micro_24", &*resized("deit_micro", 24), 5);
}

#[test]
fn sines_and_cosines_are_computed_for_another_size() {
    let positions = |backbone: &dyn Backbone| backbone.params().iter().find(|p| p.name == "pos_embed").unwrap().clone();
    let (computed, stored) = (positions(&*resized("t2t_micro", 64)), positions(&*plain("t2t_micro64")));
    assert_eq!(computed.shape, stored.shape);
    assert!(computed.data.iter().zip(&*stored.data).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn another_size_is_an_error_unless_it_was_asked_for() {
    for (name, image) in [("vit_micro", 48), ("t2t_micro", 64)] {
        let varied = architecture(name).varied(&Variant { image: Some(image), pool: None }).unwrap();
        let error = architecture::load(varied.as_ref(), name, weights(name), false).err().unwrap().to_string();
        assert!(error.contains("`pos_embed`"), "{error}");
    }
    let odd = architecture("vit_micro").varied(&Variant { image: Some(30), pool: None }).unwrap_err();
    assert!(odd.contains("8×8"), "{odd}");
}
