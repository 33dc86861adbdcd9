//! The gates of one seed: features, cells, smoothed rates, networks, calibration, predictions.

use anyhow::Result;
use quee_heads::targets::{Shape, smoothed_rates};
use quee_heads::{
    ABSENT, Calibration, CalibrationKind, Cells, Continuations, Ensemble, FeatureSpec, GatePredictor, Kind, RateTable,
    Standardizer,
};
use quee_policy::tree::PathTree;
use quee_train::TrainDevice;
use quee_train::gates::{GateConfig, GateRows as TrainingRows, train_gate};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::answers::NodeAnswers;
use super::backbone_runs::PerSplit;
use crate::cancel::Cancel;
use crate::recipe::{PredictorCalibration, PredictorKind, Recipe, Targets};

/// What a gate sees of the pictures of a split.
pub struct GateRows {
    /// Features `[prefix][picture][dim]`; prefixes are the tree's nodes of this depth, in order.
    pub features: Vec<f32>,
    /// Number of features.
    pub dim: usize,
    /// Outcomes `[prefix][suffix][picture]`: 0 right, 1 wrong, 255 no such path. All prefixes of the free tree.
    pub wrong: Vec<u8>,
}

/// The split's answers and what gates need besides them.
#[derive(Clone, Copy)]
pub struct GateInput<'a> {
    /// Answers at every node.
    pub nodes: &'a [NodeAnswers],
    /// Class tokens at every node `[picture][dim]`.
    pub tokens: &'a [Vec<f32>],
    /// True classes.
    pub labels: &'a [u16],
}

/// A trained gate and what it was made of.
pub struct Gate {
    /// Predictor, calibrated.
    pub predictor: GatePredictor,
    /// Partition of the standardised features, which the dynamic program walks on.
    pub cells: Cells,
}

/// Features and outcomes at gate `gate` (1 to segments − 1).
pub fn rows(tree: &PathTree, spec: &FeatureSpec, gate: usize, input: GateInput) -> GateRows {
    let samples = input.labels.len();
    let mut features = Vec::new();
    for node in tree.level(gate) {
        let so_far = tree.widths_of(node);
        let parent = tree.node(node).parent.filter(|&parent| parent != quee_policy::tree::ROOT);
        let at = |node: usize, sample: usize| {
            &input.nodes[node].probabilities[sample * spec.classes..(sample + 1) * spec.classes]
        };
        for sample in 0..samples {
            let token = match spec.projection {
                0 => &[][..],
                _ => &input.tokens[node][sample * spec.token_dim..(sample + 1) * spec.token_dim],
            };
            spec.write(gate, at(node, sample), parent.map(|p| at(p, sample)), &so_far, token, &mut features);
        }
    }
    let suffixes = tree.suffix_count(gate);
    let prefixes = tree.widths().pow(gate as u32);
    let mut wrong = vec![ABSENT; prefixes * suffixes * samples];
    for node in tree.level(gate) {
        let prefix = tree.prefix_index(node);
        for way in tree.continuations(node) {
            let start = (prefix * suffixes + way.suffix) * samples;
            for (sample, cell) in wrong[start..start + samples].iter_mut().enumerate() {
                *cell = u8::from(input.nodes[way.end].answers[sample] != input.labels[sample]);
            }
        }
    }
    GateRows { features, dim: spec.dim(gate), wrong }
}

/// Pictures of *fit* that stop the training of networks early; they take no part in cells, rates or training.
pub fn held_out(samples: usize, share: f64, seed: u64) -> Vec<bool> {
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
pub fn train(
    recipe: &Recipe,
    tree: &PathTree,
    spec: &FeatureSpec,
    splits: &PerSplit<GateInput>,
    on: &TrainDevice,
    seed: u64,
    cancel: &Cancel,
) -> Result<Vec<Gate>> {
    let held = held_out(splits.fit.labels.len(), recipe.predictor.held_out, seed);
    (1..tree.segments())
        .into_par_iter()
        .map(|gate| {
            cancel.check()?;
            let seed = seed.wrapping_mul(1000).wrapping_add(100 + gate as u64);
            let made = Builder { recipe, tree, spec, on, gate, seed }.build(splits.fit, &held)?;
            match recipe.predictor.calibration {
                PredictorCalibration::None => Ok(made),
                PredictorCalibration::ScaleBias => calibrate(made, tree, spec, gate, splits.cal_a),
            }
        })
        .collect()
}

struct Builder<'a> {
    recipe: &'a Recipe,
    tree: &'a PathTree,
    spec: &'a FeatureSpec,
    on: &'a TrainDevice,
    gate: usize,
    seed: u64,
}

impl Builder<'_> {
    fn build(&self, fit: GateInput, held: &[bool]) -> Result<Gate> {
        let (tree, gate, spec) = (self.tree, self.gate, self.spec);
        let rows = rows(tree, spec, gate, fit);
        let samples = fit.labels.len();
        let kept: Vec<usize> = (0..samples).filter(|&s| !held[s]).collect();
        let stopped: Vec<usize> = (0..samples).filter(|&s| held[s]).collect();
        let of = |chosen: &[usize]| -> Vec<f32> {
            let picture = |prefix: usize, sample: usize| {
                let start = (prefix * samples + sample) * rows.dim;
                &rows.features[start..start + rows.dim]
            };
            (0..tree.level(gate).len()).flat_map(|p| chosen.iter().flat_map(move |&s| picture(p, s))).copied().collect()
        };
        let mut train_rows = of(&kept);
        let standardizer = Standardizer::fit(&train_rows, rows.dim)?;
        standardizer.apply(&mut train_rows);
        let (cells, table) = self.cells(&rows, &train_rows, &kept, samples)?;
        let kind = match self.recipe.predictor.kind {
            PredictorKind::Cells => Kind::Cells { cells: cells.clone(), rates: table },
            kind => {
                let mut held_rows = of(&stopped);
                standardizer.apply(&mut held_rows);
                let soft =
                    (self.recipe.predictor.targets == Targets::Cells).then_some((&cells, &table, &train_rows[..]));
                let (inputs, outputs) = (rows.dim, tree.suffix_count(gate));
                let targets = self.targets(&rows, &kept, samples, soft);
                let held_targets = self.targets(&rows, &stopped, samples, None);
                let train = TrainingRows { inputs, outputs, features: &train_rows, targets: &targets };
                let held_out = TrainingRows { inputs, outputs, features: &held_rows, targets: &held_targets };
                let members = train_gate(self.on, train, held_out, &self.training(kind))?;
                Kind::Ensemble(Ensemble { members: members.into_iter().map(|member| member.network).collect() })
            }
        };
        Ok(Gate { predictor: GatePredictor::new(spec.clone(), gate, standardizer, kind)?, cells })
    }

    fn training(&self, kind: PredictorKind) -> GateConfig {
        let settings = &self.recipe.predictor;
        GateConfig {
            hidden: if kind == PredictorKind::Logistic { 0 } else { settings.hidden },
            members: settings.members,
            weight_decay: settings.weight_decay,
            learning_rate: settings.learning_rate,
            batch: settings.batch,
            max_epochs: settings.epochs,
            patience: settings.patience,
            seed: self.seed,
        }
    }

    /// Clusters the kept rows of all prefixes and smooths the rates of each cell.
    fn cells(&self, rows: &GateRows, kept_rows: &[f32], kept: &[usize], samples: usize) -> Result<(Cells, RateTable)> {
        let (tree, gate) = (self.tree, self.gate);
        let plain = without_widths(kept_rows, rows.dim, self.spec.cell_dim());
        let cells = Cells::fit(&plain, self.spec.cell_dim(), self.recipe.cells.count, self.seed)?;
        let assigned = cells.assign_all(&plain);
        let (prefixes, suffixes) = (tree.widths().pow(gate as u32), tree.suffix_count(gate));
        // Prefixes that the tree leaves out have absent outcomes; any cell will do for them.
        let mut cell_of = vec![0u32; prefixes * kept.len()];
        for (row, node) in tree.level(gate).enumerate() {
            let start = tree.prefix_index(node) * kept.len();
            cell_of[start..start + kept.len()].copy_from_slice(&assigned[row * kept.len()..(row + 1) * kept.len()]);
        }
        let wrong: Vec<u8> =
            rows.wrong.chunks_exact(samples).flat_map(|list| kept.iter().map(move |&sample| list[sample])).collect();
        let shape = Shape { prefixes, suffixes, samples: kept.len() };
        let table = smoothed_rates(shape, &wrong, &cell_of, cells.k(), self.recipe.cells.smoothing)?;
        Ok((cells, table))
    }

    /// Targets `[prefix of the tree][picture][suffix]`, NaN where there is no path: rates of the cells, or 0/1 outcomes.
    fn targets(
        &self,
        rows: &GateRows,
        chosen: &[usize],
        samples: usize,
        soft: Option<(&Cells, &RateTable, &[f32])>,
    ) -> Vec<f32> {
        let (tree, gate) = (self.tree, self.gate);
        let suffixes = tree.suffix_count(gate);
        let mut targets = Vec::new();
        for (row, node) in tree.level(gate).enumerate() {
            let prefix = tree.prefix_index(node);
            for (at, &sample) in chosen.iter().enumerate() {
                let outcome = |suffix: usize| rows.wrong[(prefix * suffixes + suffix) * samples + sample];
                let cell = soft.map(|(cells, table, features)| {
                    let start = (row * chosen.len() + at) * rows.dim;
                    table.row(cells.assign(&features[start..start + self.spec.cell_dim()]), prefix)
                });
                targets.extend((0..suffixes).map(|suffix| match (outcome(suffix), cell) {
                    (ABSENT, _) => f32::NAN,
                    (_, Some(rates)) => rates[suffix],
                    (outcome, None) => f32::from(outcome),
                }));
            }
        }
        targets
    }
}

/// Rows without their last features, the widths so far.
fn without_widths(rows: &[f32], dim: usize, keep: usize) -> Vec<f32> {
    rows.chunks_exact(dim).flat_map(|row| &row[..keep]).copied().collect()
}

/// Fits scale and bias of a gate's logits on *cal-a*, all continuations together.
fn calibrate(gate: Gate, tree: &PathTree, spec: &FeatureSpec, index: usize, cal: GateInput) -> Result<Gate> {
    let rows = rows(tree, spec, index, cal);
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
    let calibration = Calibration::fit(CalibrationKind::ScaleBias, &probabilities, &outcomes)?;
    Ok(Gate { predictor: gate.predictor.with_calibration(calibration)?, cells: gate.cells })
}

/// Predicted probabilities of error at one gate: per node of its level `[picture][suffix]`.
pub fn predict(tree: &PathTree, predictor: &GatePredictor, rows: &GateRows, samples: usize) -> Vec<Vec<f32>> {
    let nodes: Vec<usize> = tree.level(predictor.gate()).collect();
    nodes
        .par_iter()
        .enumerate()
        .map(|(row, &node)| {
            let prefix = tree.prefix_index(node);
            let mut all = Vec::with_capacity(samples * predictor.suffixes());
            let mut out = Vec::new();
            for sample in 0..samples {
                let start = (row * samples + sample) * rows.dim;
                predictor.predict(&rows.features[start..start + rows.dim], prefix, &mut out);
                all.extend_from_slice(&out);
            }
            all
        })
        .collect()
}

/// The cell of every picture at every node of a gate's level, `[node][picture]`.
pub fn assign_cells(gate: &Gate, rows: &GateRows, spec: &FeatureSpec) -> Vec<u16> {
    let mut standard = rows.features.clone();
    gate.predictor.standardizer().apply(&mut standard);
    let cells = gate.cells.assign_all(&without_widths(&standard, rows.dim, spec.cell_dim()));
    cells.into_iter().map(|cell| cell as u16).collect()
}

/// The numbering that heads and tree share.
///
/// # Errors
/// When the tree is too large to number.
pub fn numbering(tree: &PathTree) -> Result<Continuations> {
    Ok(Continuations::new(tree.widths(), tree.segments())?)
}
