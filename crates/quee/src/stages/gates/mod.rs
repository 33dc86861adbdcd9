//! The gates of one seed: features, cells, smoothed rates, predictors, calibration, predictions.

mod learn;
mod rows;

use anyhow::Result;
use quee_heads::{Calibration, CalibrationKind, Cells, FeatureSpec, GatePredictor};
use quee_policy::tree::PathTree;
use quee_train::TrainDevice;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

pub use rows::{GateInput, GateRows, assign_cells, numbering, predict, rows, standardised};

use super::backbone_runs::PerSplit;
use crate::cancel::Cancel;
use crate::recipe::Recipe;

/// A trained gate and what it was made of.
pub struct Gate {
    /// Predictor, calibrated.
    pub predictor: GatePredictor,
    /// Partition of the standardised features, which the dynamic program walks on.
    pub cells: Cells,
}

/// What the gates of a recipe have in common.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Settings.
    pub recipe: &'a Recipe,
    /// Paths.
    pub tree: &'a PathTree,
    /// Features.
    pub spec: &'a FeatureSpec,
    /// Relative cost of segments `[segment][width]`, for predictors that read the continuation.
    pub costs: &'a [Vec<f64>],
    /// Where networks are trained.
    pub on: &'a TrainDevice,
}

/// Pictures of *fit* that stop the training of networks early; they take no part in cells, rates or training.
fn held_out(samples: usize, share: f64, seed: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let count = ((samples as f64 * share).round() as usize).clamp(1, samples.saturating_sub(1).max(1));
    let mut held = vec![false; samples];
    order[..count].iter().for_each(|&sample| held[sample] = true);
    held
}

/// Trains and calibrates the predictor of every gate.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(setup: Setup, splits: &PerSplit<GateInput>, seed: u64, cancel: &Cancel) -> Result<Vec<Gate>> {
    let held = held_out(splits.fit.labels.len(), setup.recipe.predictor.held_out, seed);
    let of_gate = |gate: usize| seed.wrapping_mul(1000).wrapping_add(100 + gate as u64);
    let lessons: Vec<learn::Lesson> = (1..setup.tree.segments())
        .into_par_iter()
        .map(|gate| {
            cancel.check()?;
            learn::Lesson::prepare(setup, gate, splits.fit, &held, of_gate(gate))
        })
        .collect::<Result<_>>()?;
    cancel.check()?;
    let gates = learn::predictors(setup, lessons, of_gate(0))?;
    let kind = setup.recipe.predictor.calibration;
    gates.into_par_iter().map(|gate| calibrate(setup, gate, kind, splits.cal_a)).collect()
}

/// Fits the calibration of a gate on *cal-a*, all continuations together.
fn calibrate(setup: Setup, gate: Gate, kind: CalibrationKind, cal: GateInput) -> Result<Gate> {
    if kind == CalibrationKind::None {
        return Ok(gate);
    }
    let (tree, index) = (setup.tree, gate.predictor.gate());
    let rows = rows(tree, setup.spec, index, cal);
    let predictions = predict(tree, &gate.predictor, &rows, cal.labels.len());
    let (suffixes, samples) = (tree.suffix_count(index), cal.labels.len());
    let (mut probabilities, mut outcomes) = (Vec::new(), Vec::new());
    for (of_node, node) in predictions.iter().zip(tree.level(index)) {
        let prefix = tree.prefix_index(node);
        for sample in 0..samples {
            for suffix in 0..suffixes {
                probabilities.push(of_node[sample * suffixes + suffix]);
                outcomes.push(rows.wrong[(prefix * suffixes + suffix) * samples + sample]);
            }
        }
    }
    let calibration = Calibration::fit(kind, &probabilities, &outcomes)?;
    Ok(Gate { predictor: gate.predictor.with_calibration(calibration)?, cells: gate.cells })
}
