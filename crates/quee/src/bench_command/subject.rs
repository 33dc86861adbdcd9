//! What is run: a backbone with weights, pictures of noise, and quantizers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::{Backbone, ExecError, Executor, QuantPlan, Value, presets};
use quee_cpu::{CpuEngine, Isa};
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use quee_train::random_weights;

use crate::inspect::usual_classes;

/// A backbone, and pictures that are the same every time.
pub struct Subject {
    /// The backbone.
    pub backbone: Box<dyn Backbone>,
    pictures: Vec<f32>,
    picture: usize,
}

/// Seed of random weights.
const SEED: u64 = 1;
/// Most pictures that ranges are calibrated on.
const CALIBRATION: usize = 4;

impl Subject {
    /// The preset `name` with the weights of a file, or random ones, and `most` pictures.
    ///
    /// # Errors
    /// When there is no such preset, or the file does not fit it.
    pub fn new(name: &str, weights: Option<&Path>, most: usize) -> Result<Self> {
        let preset = presets::find(name)?;
        let checkpoint = match weights {
            Some(path) => Checkpoint::read(path)?,
            None => {
                let [_, side, _] = preset.architecture.image_shape();
                random_weights(&preset.tensors(usual_classes(side)), SEED)
            }
        };
        let backbone = preset.load(&Default::default(), checkpoint)?;
        let picture = backbone.image_shape().iter().product();
        // Values of all sizes and signs.
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0x3ff) as f32 / 256.0 - 2.0;
        let pictures = (0..most * picture).map(value).collect();
        Ok(Self { backbone, pictures, picture })
    }

    /// Brings `count` pictures in, from `from` on.
    ///
    /// # Errors
    /// What the executor reports.
    pub fn input(&self, executor: &mut dyn Executor, from: usize, count: usize) -> Result<Value, ExecError> {
        let [c, h, w] = self.backbone.image_shape();
        executor.input(&[count, c, h, w], &self.pictures[from * self.picture..(from + count) * self.picture])
    }

    /// Quantizers whose ranges, where they need some, are those of a few of the pictures.
    ///
    /// # Errors
    /// When `activations` needs more than ranges, or what the executor reports.
    pub fn plan(&self, activations: ActQuantizer, width: Width) -> Result<QuantPlan> {
        let weights = WeightQuantizer::Absmax;
        match activations {
            ActQuantizer::DynamicToken => return Ok(QuantPlan::dynamic(weights)),
            ActQuantizer::Minmax | ActQuantizer::Percentile | ActQuantizer::Mse => {}
            other => bail!(
                "quantizer `{}` is calibrated on pictures of a data set; hint: take dynamic-token, minmax, percentile or mse here, \
                 and `quee quantize --speed` for the others",
                other.name()
            ),
        }
        let mut float = CpuEngine::new(Arc::new(QuantPlan::dynamic(weights)), Isa::best()).executor();
        let mut calibrator = Calibrator::new(&mut float)?;
        let images = self.input(&mut calibrator, 0, CALIBRATION.min(self.pictures.len() / self.picture))?;
        self.backbone.forward(&mut calibrator, &images)?;
        Ok(QuantPlan::calibrated(weights, activations, &calibrator.finish(), &[width]))
    }
}
