//! Quantizers for the whole backbone, from pictures without labels.
//!
//! - [`calibrate`]: the plan that a recipe asks for
//! - `ranges`: scales of single places, searched with what goes in and out of them
//! - `layers`: weights, biases and changed normalisations of linear layers
//! - [`wider`]: which places run one step wider
//! - [`file`](mod@file): plans on disk; `quality`: how well codes hold values and weights
//! - [`command`]: `quee quantize`; `compare`, `sensitivity`, `speed`: what it measures

pub mod command;
mod compare;
pub mod file;
mod layers;
mod quality;
mod ranges;
mod sensitivity;
mod speed;
pub mod wider;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use quee_backbone::calibrate::Calibrator;
use quee_backbone::{Backbone, Executor, QuantPlan};
use quee_quant::{ActQuantizer, RangeObserver, WeightQuantizer, Width};
use quee_train::capture::{CaptureConfig, capture};

use crate::backend::{Device, Engine};
use crate::cancel::Cancel;
use crate::recipe::{Quant, Rounding};
use crate::stages::attempts;

/// Rows of a picture that searches see of a linear layer.
const ROWS: usize = 16;
/// Seed of the answers and rows that are drawn.
const SEED: u64 = 0;

/// What a plan is made for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The frozen backbone.
    pub backbone: &'a dyn Backbone,
    /// Quantizers by name.
    pub quant: &'a Quant,
    /// Widths that must be ready, float ones are passed over.
    pub widths: &'a [Width],
    /// Pictures per batch.
    pub batch: usize,
}

/// Every width that a recipe runs at.
pub fn widths(quant: &Quant) -> Vec<Width> {
    let mut widths: Vec<Width> = quant
        .widths
        .iter()
        .chain(&quant.static_widths)
        .chain([&quant.stem])
        .copied()
        .filter(|w| !w.is_float())
        .collect();
    widths.sort();
    widths.dedup();
    widths
}

/// Whether quantizers need pictures at all.
pub fn needs_pictures(quant: &Quant) -> bool {
    quant.activations.is_static() || needs_samples(quant)
}

/// Whether samples of inputs and gradients are needed.
fn needs_samples(quant: &Quant) -> bool {
    is_searched(quant.activations) || quant.rounding != Rounding::Nearest || quant.bias_correction
}

/// Whether quantizers are searched with inputs and outputs of the operations.
fn is_searched(activations: ActQuantizer) -> bool {
    matches!(activations, ActQuantizer::Ptq4vit | ActQuantizer::Repq | ActQuantizer::Combined)
}

/// The plan for `pictures` `[n, C, H, W]`, and a few words on it. `say` gets what the user should know meanwhile.
///
/// # Errors
/// When a picture is not finite, a device fails, or on a wish to stop.
pub fn calibrate(
    request: Request<'_>,
    device: &Device,
    pictures: &[f32],
    cancel: &Cancel,
    say: &dyn Fn(&str),
) -> Result<(QuantPlan, String)> {
    let Request { backbone, quant, .. } = request;
    let mut widths: Vec<Width> = request.widths.iter().copied().filter(|w| !w.is_float()).collect();
    let wider = wider::wider(&quant.wider, backbone, &widths)?;
    if !quant.wider.is_empty() {
        widths.extend(widths.clone().into_iter().filter_map(wider::steps));
    }
    widths.sort();
    widths.dedup();
    let mut plan = QuantPlan::new(quant.weights, quant.activations);
    if !needs_pictures(quant) {
        plan.set_wider(wider);
        return Ok((plan, "activations are quantized per token at run time".into()));
    }
    let observers = if quant.activations.is_static() {
        observe(backbone, device, quant.weights, request.batch, pictures, say)?
    } else {
        BTreeMap::new()
    };
    if let ActQuantizer::Minmax | ActQuantizer::Percentile | ActQuantizer::Mse = quant.activations {
        plan = QuantPlan::calibrated(quant.weights, quant.activations, &observers, &widths);
    }
    if needs_samples(quant) {
        let config = CaptureConfig { rows: ROWS, seed: SEED };
        let mut captured = capture(backbone, pictures, &config, || Ok::<_, anyhow::Error>(cancel.check()?))?;
        // Classifiers are in floats.
        captured.layers.retain(|sample| sample.linear.site != backbone.head().site);
        let bits = |of: fn(Width) -> u8| {
            let mut bits: Vec<u8> = widths.iter().map(|&width| of(width)).collect();
            bits.sort_unstable();
            bits.dedup();
            bits
        };
        let changed = layers::changed_norms(quant, &captured.layers);
        layers::weights(quant, &captured.layers, &changed, &bits(Width::weight_bits), &mut plan);
        cancel.check()?;
        if is_searched(quant.activations) {
            let search =
                ranges::Search { quantizer: quant.activations, bits: bits(Width::act_bits), observers: &observers };
            search.run(&captured, &changed, cancel, &mut plan)?;
        }
    }
    plan.set_wider(wider);
    let pictures = pictures.len() / backbone.image_shape().iter().product::<usize>().max(1);
    let sites = plan.sites().count();
    Ok((plan, format!("{sites} sites on {pictures} pictures")))
}

/// Watches what enters every quantized operation of the float program.
fn observe(
    backbone: &dyn Backbone,
    device: &Device,
    weights: WeightQuantizer,
    batch: usize,
    pictures: &[f32],
    say: &dyn Fn(&str),
) -> Result<BTreeMap<String, RangeObserver>> {
    let float: Arc<dyn Engine> = device.engine(Arc::new(QuantPlan::dynamic(weights)));
    let [c, h, w] = backbone.image_shape();
    attempts::whole(float.as_ref(), batch, say, |size| {
        let mut executor = float.executor()?;
        let mut calibrator = Calibrator::new(executor.as_mut())?;
        for batch in pictures.chunks(size * c * h * w) {
            let input = Executor::input(&mut calibrator, &[batch.len() / (c * h * w), c, h, w], batch)?;
            backbone.forward(&mut calibrator, &input)?;
        }
        Ok(calibrator.finish())
    })
}
