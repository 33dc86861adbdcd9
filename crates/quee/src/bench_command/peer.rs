//! Our products beside the float product of burn's wgpu backend: same adapter, same run, in turns.

use std::sync::Arc;

use anyhow::Result;
use quee_backbone::{Executor, Linear, Param, QuantPlan, Value};
use quee_gpu::bench::{Bench, Case, Effort, median};
use quee_gpu::tiles::{Operands, Shape};
use quee_gpu::{Gpu, GpuEngine, GpuExecutor};
use quee_quant::{WeightQuantizer, Width};
use quee_train::{ProductChain, TrainDevice, TrainError};

use super::Row;
use crate::cancel::Cancel;
use crate::progress::Stage;

const SECTION: &str = "products beside burn-wgpu: ratio of our Gop/s to its Gflop/s, f32";

/// The comparison, where the program was built with burn's wgpu backend; what to say about it.
pub fn measure(gpu: &Arc<Gpu>, effort: Effort, cancel: &Cancel, rows: &mut Vec<Row>) -> Result<String> {
    let device = match TrainDevice::gpu() {
        Ok(device) => device,
        Err(TrainError::NoGpu) => return Ok("not built with train-gpu: no comparison with burn-wgpu".into()),
        Err(error) => return Ok(format!("no comparison with burn-wgpu: {error}")),
    };
    if !device.name().contains(&gpu.info().name) {
        return Ok(format!("no comparison with burn-wgpu: it takes another adapter, {}", device.name()));
    }
    let products = Bench::products(effort);
    let stage = Stage::start("beside burn-wgpu", products.len());
    for &shape in products {
        cancel.check()?;
        rows.extend(compare(gpu, &device, effort, shape)?);
        stage.advance(1);
    }
    stage.finish(device.name());
    Ok(format!("burn-wgpu: {}", device.name()))
}

fn compare(gpu: &Arc<Gpu>, device: &TrainDevice, effort: Effort, shape: Shape) -> Result<Vec<Row>> {
    let engine = GpuEngine::on(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Arc::clone(gpu));
    let mut bench = Bench::new(&engine, effort)?;
    let Shape { m, n, k, .. } = shape;
    let burn = ProductChain::new(device, m, n, k);
    // Two products at least: a chain closes after two.
    burn.time(1)?;
    let pairs = ((effort.seconds / burn.time(1)?) as usize).clamp(1, 64);
    burn.time(pairs)?;

    // The tiles that the executor takes; what the others take is among the single kernels.
    let mut cases = Vec::new();
    for shape in [shape, Shape { operands: Operands::Floats, ..shape }] {
        let tile = gpu.tile(shape);
        cases.extend(bench.tiles(shape)?.into_iter().filter(|case| case.variant == tile.name));
    }
    let mut layers = [Width::new(8, 8).expect("8 bits are a width"), Width::FLOAT]
        .map(|width| Layers::new(&engine, shape, width))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut times = vec![Vec::new(); 1 + cases.len() + layers.len()];
    for run in 0..=effort.runs {
        let mut round = vec![burn.time(pairs)?];
        for case in &cases {
            round.push(bench.time_as_called(case, 2 * pairs)?);
        }
        for layers in &mut layers {
            round.push(layers.time(pairs)?);
        }
        // The first round warms up.
        if run > 0 {
            times.iter_mut().zip(round).for_each(|(times, seconds)| times.push(seconds / (2 * pairs) as f64));
        }
    }
    let seconds: Vec<f64> = times.into_iter().map(median).collect();
    let row = |name: &str, variant: &str, seconds_of: f64| Row {
        section: SECTION,
        name: name.into(),
        variant: variant.into(),
        shape: shape.to_string(),
        clock: "host clock",
        runs: effort.runs,
        seconds: Some(seconds_of),
        operations: Some(shape.arithmetic() / seconds_of),
        ratio: Some(seconds[0] / seconds_of),
        ..Row::default()
    };
    let names = std::iter::once(("burn-wgpu", "matmul f32"))
        .chain(cases.iter().map(|case: &Case| (case.kernel, case.variant.as_str())))
        .chain([("linear layer", "w8a8, rows quantized in it"), ("linear layer", "float")]);
    Ok(names.zip(&seconds).map(|((name, variant), &seconds)| row(name, variant, seconds)).collect())
}

/// Two linear layers that feed each other, `[m, k] → [m, n] → [m, k]`.
struct Layers {
    executor: GpuExecutor,
    start: Value,
    there: Linear,
    back: Linear,
}

impl Layers {
    fn new(engine: &Arc<GpuEngine>, shape: Shape, width: Width) -> Result<Self> {
        let Shape { m, n, k, .. } = shape;
        let mut executor = engine.executor()?;
        executor.set_width(width)?;
        let start = executor.input(&[1, m, k], &noise(m * k, 1.0))?;
        let id = if width.is_float() { 2 } else { 0 };
        Ok(Self { executor, start, there: layer(id, k, n), back: layer(id + 1, n, k) })
    }

    /// Seconds of `pairs` times both layers.
    fn time(&mut self, pairs: usize) -> Result<f64> {
        let start = std::time::Instant::now();
        let mut x = self.start.clone();
        for _ in 0..pairs {
            let wide = self.executor.linear(&x, &self.there)?;
            x = self.executor.linear(&wide, &self.back)?;
        }
        self.executor.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn layer(id: usize, inputs: usize, outputs: usize) -> Linear {
    let data = noise(inputs * outputs, (3.0 / inputs as f32).sqrt());
    let shape = vec![outputs, inputs];
    let weight = Param { id, name: format!("bench.{id}"), shape, data: data.into(), frozen: true };
    Linear { site: format!("bench.{id}"), inputs, outputs, weight, bias: None }
}

/// Numbers between -`most` and `most` that look random.
fn noise(count: usize, most: f32) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        most * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}
