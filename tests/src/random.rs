//! Backbones with random weights, pictures of noise, and what an executor makes of them.

use std::sync::Arc;

use quee_backbone::architecture;
use quee_backbone::architecture::TensorSpec;
use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::families::t2t::T2tConfig;
use quee_backbone::params::AttentionOperand;
use quee_backbone::vit::{Pool, VitConfig};
use quee_backbone::{Architecture, Backbone, ExecError, Executor, LayerPlan, LayerWeight, QuantPlan, Wider};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::{ActQuant, ActQuantizer, LogSqrt2, QuantWeight, SiteQuant, Twin, WeightQuantizer, Width};
use quee_train::TrainError;
use quee_train::capture::{CaptureConfig, LayerSample, capture};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform numbers around 0.
pub fn numbers(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-size..size)).collect()
}

/// A transformer with random weights. `tokens` 65 takes two blocks of query rows; odd dimensions leave remainders everywhere.
pub fn vit(pool: Pool, qkv_bias: bool) -> Box<dyn Backbone> {
    random(&config(pool, qkv_bias))
}

fn config(pool: Pool, qkv_bias: bool) -> VitConfig {
    VitConfig {
        image: 24,
        channels: 3,
        patch: 3,
        dim: 20,
        depth: 2,
        heads: 4,
        hidden: 33,
        qkv_bias,
        distilled: false,
        pool,
    }
}

/// A backbone of another family.
pub fn t2t() -> Box<dyn Backbone> {
    let config = T2tConfig {
        image: 32,
        channels: 3,
        token_dim: 10,
        dim: 20,
        depth: 2,
        heads: 4,
        hidden: 33,
        pool: Pool::ClassToken,
    };
    random(&config)
}

/// Random weights for an architecture of seven classes.
///
/// # Panics
/// When the architecture does not take the tensors that it lists.
pub fn random(architecture: &dyn Architecture) -> Box<dyn Backbone> {
    let tensors =
        architecture::tensors(architecture, 7).into_iter().enumerate().map(|(id, TensorSpec { name, shape, .. })| {
            let len: usize = shape.iter().product();
            let inputs = len / shape[0].max(1);
            let size = if name.contains("norm") || shape.len() == 1 { 1.0 } else { 2.0 / (inputs as f32).sqrt() };
            (name, shape, numbers(len, size, id as u64))
        });
    let checkpoint = Checkpoint::from_tensors("random", tensors.collect::<Vec<_>>());
    architecture::load(architecture, "random", checkpoint, false)
        .expect("the checkpoint has the architecture's tensors")
}

/// Pictures for it, `[count, C, H, W]`.
pub fn pictures(backbone: &dyn Backbone, count: usize) -> Vec<f32> {
    numbers(count * backbone.image_shape().iter().product::<usize>(), 2.0, 77)
}

/// Widths of all kinds.
pub fn widths() -> Vec<Width> {
    ["w2a2", "w3a7", "w4a4", "w6a6", "w8a3", "w8a8"].iter().map(|w| w.parse().expect("a width")).collect()
}

/// A plan of each kind: dynamic and static.
///
/// # Panics
/// When the float run fails.
pub fn plans(backbone: &dyn Backbone) -> Vec<Arc<QuantPlan>> {
    let dynamic = QuantPlan::dynamic(WeightQuantizer::Absmax);
    let mut cpu = CpuExecutor::new(Arc::new(dynamic.clone()), Isa::Portable);
    let mut calibrator = Calibrator::new(&mut cpu).expect("the executor runs in float");
    let [c, h, w] = backbone.image_shape();
    let images = calibrator.input(&[3, c, h, w], &pictures(backbone, 3)).expect("input");
    backbone.forward(&mut calibrator, &images).expect("float run");
    let observers = calibrator.finish();
    let percentile = QuantPlan::calibrated(WeightQuantizer::Mse, ActQuantizer::Percentile, &observers, &widths());
    vec![Arc::new(dynamic), Arc::new(uneven(backbone, percentile.clone())), Arc::new(percentile)]
}

/// A plan with everything that calibration may do: uneven codes, changed normalisations, weights and biases of its own, other widths at single
/// sites.
fn uneven(backbone: &dyn Backbone, mut plan: QuantPlan) -> QuantPlan {
    let config = CaptureConfig { rows: 1, seed: 0 };
    let captured = capture::<TrainError>(backbone, &pictures(backbone, 1), &config, || Ok(())).expect("float run");
    for sample in captured.attentions {
        let site = sample.attention.operand_site(AttentionOperand::Probabilities);
        for bits in 2..=8 {
            // Both kinds, with one to four planes.
            let quant = if site.contains("blocks.0") {
                SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: 0.9 })
            } else {
                SiteQuant::Twin(Twin { bits, small: 0.25 / f32::from(bits), shift: 4, signed: false })
            };
            plan.set_site(&site, quant);
        }
    }
    let mut wider = Wider::default();
    for sample in captured.layers {
        let LayerSample { linear, norm, after_gelu, .. } = sample;
        let (n, k, site) = (linear.outputs, linear.inputs, &linear.site);
        if after_gelu {
            for bits in 2..=8 {
                let small = 0.17 / f32::from(1u8 << (bits - 1));
                plan.set_site(site, SiteQuant::Twin(Twin { bits, small, shift: 4, signed: true }));
            }
        }
        if let Some(norm) = norm {
            let changed = |param: &[f32], seed| -> Arc<[f32]> {
                param.iter().zip(numbers(param.len(), 0.3, seed)).map(|(p, x)| p * (1.0 + x)).collect()
            };
            let norm = [changed(&norm.weight.data, 5), changed(&norm.bias.data, 6)];
            let mut layer = LayerPlan { norm: Some(norm), ..LayerPlan::default() };
            for bits in 2..=8 {
                let weight = QuantWeight::quantize(&numbers(n * k, 0.3, 7), n, k, bits, WeightQuantizer::Mse);
                let bias = Some(numbers(n, 0.5, 8).into());
                layer.weights.insert(bits, Arc::new(LayerWeight { weight, bias }));
            }
            plan.set_layer(site, layer);
        }
        if site.ends_with("proj") {
            widths().into_iter().for_each(|width| wider.set(site, width, "w7a7".parse().expect("a width")));
        }
    }
    for (site, seven) in
        plan.sites().filter(|(site, _)| site.ends_with("proj")).map(|(s, q)| (s.to_owned(), q[&8])).collect::<Vec<_>>()
    {
        if let SiteQuant::Uniform(quant) = seven {
            plan.set_site(&site, SiteQuant::Uniform(ActQuant::new(2.0 * quant.scale, quant.zero / 2, 7)));
        }
    }
    plan.set_wider(wider);
    plan
}

/// What enters every block, the last block's output, and the logits.
///
/// # Errors
/// What the executor reports.
pub fn record(
    backbone: &dyn Backbone,
    executor: &mut dyn Executor,
    images: &[f32],
) -> Result<Vec<Vec<f32>>, ExecError> {
    let [c, h, w] = backbone.image_shape();
    let images = executor.input(&[images.len() / (c * h * w), c, h, w], images)?;
    let mut tokens = backbone.stem(executor, &images)?;
    let mut record = vec![executor.read(&tokens)?];
    for index in 0..backbone.depth() {
        tokens = backbone.block(index, executor, &tokens)?;
        record.push(executor.read(&tokens)?);
    }
    let features = backbone.features(executor, &tokens)?;
    let logits = executor.linear(&features, backbone.head())?;
    record.push(executor.read(&logits)?);
    Ok(record)
}
