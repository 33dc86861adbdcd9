//! A vision transformer with random weights and heads of 64 features.

use std::sync::Arc;

use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::vit::{Pool, VitConfig};
use quee_backbone::{Architecture, Backbone, Executor, QuantPlan, Value, architecture};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform numbers around 0.
pub fn numbers(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-size..size)).collect()
}

/// Heads of 64 features. `size` scales the weights.
pub fn backbone(side: usize, hidden: usize, distilled: bool, size: f32) -> Box<dyn Backbone> {
    let config = VitConfig {
        image: 2 * side,
        channels: 3,
        patch: 2,
        dim: 128,
        depth: 2,
        heads: 2,
        hidden,
        qkv_bias: true,
        distilled,
        pool: Pool::ClassToken,
    };
    random(&config, size)
}

/// A backbone of seven classes with random weights.
pub fn random(config: &dyn Architecture, size: f32) -> Box<dyn Backbone> {
    let tensors = architecture::tensors(config, 7).into_iter().enumerate().map(|(id, spec)| {
        let len: usize = spec.shape.iter().product();
        let inputs = len / spec.shape[0].max(1);
        let width =
            if spec.name.contains("norm") || spec.shape.len() == 1 { 1.0 } else { 2.0 / (inputs as f32).sqrt() };
        (spec.name, spec.shape, numbers(len, size * width, id as u64))
    });
    let checkpoint = Checkpoint::from_tensors("random", tensors.collect::<Vec<_>>());
    architecture::load(config, "random", checkpoint, false).unwrap()
}

/// Pictures of noise.
pub fn pictures(backbone: &dyn Backbone, count: usize) -> Vec<f32> {
    numbers(count * backbone.image_shape().iter().product::<usize>(), 2.0, 77)
}

/// Brings pictures in.
pub fn input(backbone: &dyn Backbone, executor: &mut dyn Executor, pictures: &[f32]) -> Value {
    let [c, h, w] = backbone.image_shape();
    executor.input(&[pictures.len() / (c * h * w), c, h, w], pictures).unwrap()
}

/// Widths of all kinds.
pub fn widths() -> Vec<Width> {
    ["w8a8", "w4a6", "w2a2"].iter().map(|width| width.parse().unwrap()).collect()
}

/// Static quantizers of every width.
pub fn plan(backbone: &dyn Backbone) -> Arc<QuantPlan> {
    let mut float = CpuExecutor::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Isa::Portable);
    let mut calibrator = Calibrator::new(&mut float).unwrap();
    let images = input(backbone, &mut calibrator, &pictures(backbone, 2));
    backbone.forward(&mut calibrator, &images).unwrap();
    let observers = calibrator.finish();
    Arc::new(QuantPlan::calibrated(WeightQuantizer::Absmax, ActQuantizer::Percentile, &observers, &widths()))
}

/// Rows that make their own scales.
pub fn dynamic() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}
