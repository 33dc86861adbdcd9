//! What the benches run: presets with random weights.

use std::sync::Arc;

use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::{Architecture, Backbone, ExecError, Executor, QuantPlan, Value, architecture};
use quee_cpu::{CpuEngine, CpuExecutor, Isa};
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A backbone with random weights, pictures of noise, and ranges calibrated on them.
pub struct Subject {
    pub backbone: Box<dyn Backbone>,
    pub engine: Arc<CpuEngine>,
    pictures: Vec<f32>,
}

fn numbers(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-size..size)).collect()
}

impl Subject {
    /// A backbone of ten classes, and `most` pictures.
    pub fn new(config: &dyn Architecture, most: usize, activations: ActQuantizer) -> Self {
        let tensors = architecture::tensors(config, 10).into_iter().enumerate().map(|(id, spec)| {
            let len: usize = spec.shape.iter().product();
            let inputs = len / spec.shape[0].max(1);
            let gain = spec.name.contains("norm") && spec.name.ends_with("weight");
            let size = if spec.shape.len() == 1 { 0.1 } else { (3.0 / inputs as f32).sqrt() };
            let offset = if gain { 1.0 } else { 0.0 };
            let data = numbers(len, size, id as u64).into_iter().map(|x| x + offset).collect();
            (spec.name, spec.shape, data)
        });
        let checkpoint = Checkpoint::from_tensors("random", tensors.collect::<Vec<_>>());
        let backbone = architecture::load(config, "random", checkpoint, false).expect("the checkpoint fits");
        let pictures = numbers(most * backbone.image_shape().iter().product::<usize>(), 2.0, 77);
        let mut float = CpuEngine::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Isa::best()).executor();
        let mut calibrator = Calibrator::new(&mut float).expect("the executor runs in float");
        let [c, h, w] = backbone.image_shape();
        let some = most.min(4);
        let images = calibrator.input(&[some, c, h, w], &pictures[..some * c * h * w]).expect("input");
        backbone.forward(&mut calibrator, &images).expect("float run");
        let observers = calibrator.finish();
        let plan = QuantPlan::calibrated(WeightQuantizer::Absmax, activations, &observers, &[eight_bits()]);
        Self { backbone, engine: CpuEngine::new(Arc::new(plan), Isa::best()), pictures }
    }

    /// An executor that divides operations among `threads` threads.
    pub fn executor(&self, threads: usize) -> CpuExecutor {
        let mut executor = self.engine.executor();
        executor.set_threads(threads);
        executor
    }

    /// Brings `count` pictures in, from `from` on.
    pub fn images(&self, executor: &mut dyn Executor, from: usize, count: usize) -> Result<Value, ExecError> {
        let [c, h, w] = self.backbone.image_shape();
        let size = c * h * w;
        executor.input(&[count, c, h, w], &self.pictures[from * size..(from + count) * size])
    }
}

/// w8a8.
pub fn eight_bits() -> Width {
    Width::new(8, 8).expect("a width")
}

/// The middle one, of an even number the upper one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
