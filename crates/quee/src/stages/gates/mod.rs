//! The gates of one seed: features, cells, smoothed rates, predictors, calibration, predictions.

mod learn;
mod rows;

use std::ops::Range;

use anyhow::Result;
use quee_heads::{Calibration, CalibrationKind, Cells, FeatureSpec, GatePredictor};
use quee_policy::cross_fit::Folds;
use quee_policy::tree::PathTree;
use quee_train::TrainDevice;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use rows::{Chosen, GateInput, GateRows, assign_cells, paths, predict, rows, standardised};

use crate::cancel::Cancel;
use crate::recipe::Recipe;

/// A trained gate and what it was made of.
#[derive(Serialize, Deserialize)]
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

/// Gates 1 to segments − 1 of one seed, or gate 0.
#[derive(Serialize, Deserialize)]
pub struct Gates {
    /// Trained on all of *fit*.
    pub whole: Vec<Gate>,
    /// `[fold]`: trained without the pictures of a fold; empty without folds.
    pub without: Vec<Vec<Gate>>,
}

/// Trains and calibrates the predictor of every gate, and with `folds` as many more.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(
    setup: Setup,
    fit: GateInput,
    cal_a: GateInput,
    folds: Option<&Folds>,
    seed: u64,
    cancel: &Cancel,
) -> Result<Gates> {
    let gates = 1..setup.tree.segments();
    train_each(setup, gates, fit, cal_a, folds, seed, cancel, |lessons, seed| learn::predictors(setup, lessons, seed))
}

/// The same for gate 0 alone, which sees the probe behind the stem. Its predictor is an ensemble of networks, whatever the others are.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train_zero(
    setup: Setup,
    fit: GateInput,
    cal_a: GateInput,
    folds: Option<&Folds>,
    seed: u64,
    cancel: &Cancel,
) -> Result<Gates> {
    train_each(setup, 0..1, fit, cal_a, folds, seed, cancel, |lessons, _| learn::networks_of(setup, lessons))
}

#[allow(clippy::too_many_arguments)]
fn train_each(
    setup: Setup,
    gates: Range<usize>,
    fit: GateInput,
    cal_a: GateInput,
    folds: Option<&Folds>,
    seed: u64,
    cancel: &Cancel,
    predictors: impl Fn(Vec<learn::Lesson>, u64) -> Result<Vec<Gate>> + Sync,
) -> Result<Gates> {
    let learn = |fit: GateInput| -> Result<Vec<Gate>> {
        let held = held_out(fit.samples(), setup.recipe.predictor.held_out, seed);
        let of_gate = |gate: usize| seed.wrapping_mul(1000).wrapping_add(100 + gate as u64);
        let lessons: Vec<learn::Lesson> = gates
            .clone()
            .into_par_iter()
            .map(|gate| {
                cancel.check()?;
                learn::Lesson::prepare(setup, gate, fit, &held, of_gate(gate))
            })
            .collect::<Result<_>>()?;
        cancel.check()?;
        predictors(lessons, of_gate(0))
    };
    let others: Vec<Vec<usize>> =
        folds.map_or_else(Vec::new, |folds| (0..folds.count()).map(|fold| folds.others(fold)).collect());
    let without = others.par_iter().map(|others| learn(fit.choose(others).input()));
    let without = without.collect::<Result<Vec<_>>>()?;
    let gates = Gates { whole: learn(fit)?, without };
    calibrate(setup, gates, fit, cal_a, folds)
}

/// Fits the calibration of each gate, all continuations together: on *cal-a*, and with folds also on *fit*, by what was trained without a fold. It
/// serves the gate and those of the folds alike.
fn calibrate(setup: Setup, gates: Gates, fit: GateInput, cal_a: GateInput, folds: Option<&Folds>) -> Result<Gates> {
    let kind = setup.recipe.predictor.calibration;
    if kind == CalibrationKind::None {
        return Ok(gates);
    }
    let members: Vec<Chosen> =
        folds.map_or_else(Vec::new, |folds| (0..folds.count()).map(|fold| fit.choose(&folds.members(fold))).collect());
    let calibration = |at: usize| -> Result<Calibration> {
        let (mut probabilities, mut outcomes) = (Vec::new(), Vec::new());
        pairs(setup, &gates.whole[at].predictor, cal_a, &mut probabilities, &mut outcomes);
        for (gates, members) in gates.without.iter().zip(&members) {
            pairs(setup, &gates[at].predictor, members.input(), &mut probabilities, &mut outcomes);
        }
        Ok(Calibration::fit(kind, &probabilities, &outcomes)?)
    };
    let fitted: Vec<Calibration> = (0..gates.whole.len()).into_par_iter().map(calibration).collect::<Result<_>>()?;
    let apply = |gates: Vec<Gate>| -> Result<Vec<Gate>> {
        let one = |(gate, calibration): (Gate, &Calibration)| {
            Ok(Gate { predictor: gate.predictor.with_calibration(calibration.clone())?, cells: gate.cells })
        };
        gates.into_iter().zip(&fitted).map(one).collect()
    };
    Ok(Gates { whole: apply(gates.whole)?, without: gates.without.into_iter().map(apply).collect::<Result<_>>()? })
}

/// Appends what a gate predicts, and what came of it.
fn pairs(
    setup: Setup,
    predictor: &GatePredictor,
    input: GateInput,
    probabilities: &mut Vec<f32>,
    outcomes: &mut Vec<u8>,
) {
    let (tree, index, samples) = (setup.tree, predictor.gate(), input.samples());
    let rows = rows(tree, setup.spec, index, input);
    let predictions = predict(tree, predictor, &rows, samples);
    for (row, (of_node, wrong)) in predictions.iter().zip(&rows.wrong).enumerate() {
        let places = predictor.paths().places(row).len();
        for sample in 0..samples {
            for place in 0..places {
                probabilities.push(of_node[sample * places + place]);
                outcomes.push(wrong[place * samples + sample]);
            }
        }
    }
}
