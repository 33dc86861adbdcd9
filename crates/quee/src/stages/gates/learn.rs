//! From features and outcomes on *fit* to predictors.

use anyhow::Result;
use quee_heads::targets::{Shape, smoothed_rates};
use quee_heads::{
    ABSENT, Cells, Ensemble, GatePredictor, Kind, RateTable, RowBlock, SharedModel, SharedPredictor, Standardizer,
    TreeConfig, pooled_rows, train_trees,
};
use quee_train::gates::{GateConfig, GateRows as TrainingRows, train_gate};
use rayon::prelude::*;

use super::rows::{GateInput, GateRows, rows, without_widths};
use super::{Gate, Setup};
use crate::recipe::{PredictorKind, Targets};

/// Most pairs of picture and continuation that a network for all gates learns from.
const SHARED_ROWS: usize = 200_000;

/// What one gate learns from.
pub struct Lesson {
    gate: usize,
    seed: u64,
    dim: usize,
    standardizer: Standardizer,
    cells: Cells,
    rates: RateTable,
    train: Part,
    held_out: Part,
}

/// Some pictures of *fit*.
struct Part {
    /// Standardised features `[prefix of the tree][picture][dim]`.
    features: Vec<f32>,
    /// `[prefix of the tree][picture][suffix]`, NaN where there is no path.
    targets: Vec<f32>,
}

impl Lesson {
    /// Features, cells and targets of gate `gate`. Pictures that are `held` out take no part in cells and rates, and their targets are outcomes.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn prepare(setup: Setup, gate: usize, fit: GateInput, held: &[bool], seed: u64) -> Result<Self> {
        let (tree, spec) = (setup.tree, setup.spec);
        let rows = rows(tree, spec, gate, fit);
        let samples = fit.labels.len();
        let (stopped, kept): (Vec<usize>, Vec<usize>) = (0..samples).partition(|&sample| held[sample]);
        let of = |chosen: &[usize]| -> Vec<f32> {
            let picture = |prefix: usize, sample: usize| {
                let start = (prefix * samples + sample) * rows.dim;
                &rows.features[start..start + rows.dim]
            };
            (0..tree.level(gate).len()).flat_map(|p| chosen.iter().flat_map(move |&s| picture(p, s))).copied().collect()
        };
        let mut features = of(&kept);
        let standardizer = Standardizer::fit(&features, rows.dim)?;
        standardizer.apply(&mut features);
        let mut held_features = of(&stopped);
        standardizer.apply(&mut held_features);
        let (cells, rates) = cells(setup, gate, seed, &rows, &features, &kept, samples)?;
        let soft = (setup.recipe.predictor.targets == Targets::Cells).then_some((&cells, &rates, &features[..]));
        let targets = targets(setup, gate, &rows, &kept, samples, soft);
        let held_out =
            Part { features: held_features, targets: self::targets(setup, gate, &rows, &stopped, samples, None) };
        let train = Part { features, targets };
        Ok(Self { gate, seed, dim: rows.dim, standardizer, cells, rates, train, held_out })
    }

    fn finish(self, setup: Setup, kind: Kind) -> Result<Gate> {
        let predictor = GatePredictor::new(setup.spec.clone(), self.gate, self.standardizer, kind)?;
        Ok(Gate { predictor, cells: self.cells })
    }
}

/// Clusters the kept rows of all prefixes and smooths the rates of each cell.
fn cells(
    setup: Setup,
    gate: usize,
    seed: u64,
    rows: &GateRows,
    kept_rows: &[f32],
    kept: &[usize],
    samples: usize,
) -> Result<(Cells, RateTable)> {
    let (tree, recipe, dim) = (setup.tree, setup.recipe, setup.spec.cell_dim());
    let plain = without_widths(kept_rows, rows.dim, dim);
    let cells = Cells::fit(&plain, dim, recipe.cells.count, seed)?;
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
    let table = smoothed_rates(shape, &wrong, &cell_of, cells.k(), recipe.cells.smoothing)?;
    Ok((cells, table))
}

/// Targets `[prefix of the tree][picture][suffix]`, NaN where there is no path: rates of the cells, or 0/1 outcomes.
fn targets(
    setup: Setup,
    gate: usize,
    rows: &GateRows,
    chosen: &[usize],
    samples: usize,
    soft: Option<(&Cells, &RateTable, &[f32])>,
) -> Vec<f32> {
    let (tree, cell_dim) = (setup.tree, setup.spec.cell_dim());
    let suffixes = tree.suffix_count(gate);
    let mut targets = Vec::new();
    for (row, node) in tree.level(gate).enumerate() {
        let prefix = tree.prefix_index(node);
        for (at, &sample) in chosen.iter().enumerate() {
            let outcome = |suffix: usize| rows.wrong[(prefix * suffixes + suffix) * samples + sample];
            let cell = soft.map(|(cells, table, features)| {
                let start = (row * chosen.len() + at) * rows.dim;
                table.row(cells.assign(&features[start..start + cell_dim]), prefix)
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

/// The predictors of all gates, without calibration; `seed` is that of a predictor that serves all of them.
///
/// # Errors
/// When training diverges.
pub fn predictors(setup: Setup, lessons: Vec<Lesson>, seed: u64) -> Result<Vec<Gate>> {
    let kind = setup.recipe.predictor.kind;
    let made = |lesson: Lesson| -> Result<Gate> {
        let kind = match kind {
            PredictorKind::Cells => Kind::Cells { cells: lesson.cells.clone(), rates: lesson.rates.clone() },
            PredictorKind::Trees => trees(setup, &lesson)?,
            _ => networks(setup, &lesson)?,
        };
        lesson.finish(setup, kind)
    };
    match kind {
        PredictorKind::SharedNetworks | PredictorKind::SharedTrees => shared(setup, lessons, seed),
        _ => lessons.into_par_iter().map(made).collect(),
    }
}

fn training(setup: Setup, seed: u64) -> GateConfig {
    let settings = &setup.recipe.predictor;
    GateConfig {
        hidden: if settings.kind == PredictorKind::Logistic { 0 } else { settings.hidden },
        members: settings.members,
        weight_decay: settings.weight_decay,
        learning_rate: settings.learning_rate,
        batch: settings.batch,
        max_epochs: settings.epochs,
        patience: settings.patience,
        seed,
    }
}

fn networks(setup: Setup, lesson: &Lesson) -> Result<Kind> {
    let (inputs, outputs) = (lesson.dim, setup.tree.suffix_count(lesson.gate));
    let rows = |part| rows_of(inputs, outputs, part);
    let members = train_gate(setup.on, rows(&lesson.train), rows(&lesson.held_out), &training(setup, lesson.seed))?;
    Ok(Kind::Ensemble(Ensemble { members: members.into_iter().map(|member| member.network).collect() }))
}

fn rows_of(inputs: usize, outputs: usize, part: &Part) -> TrainingRows<'_> {
    TrainingRows { inputs, outputs, features: &part.features, targets: &part.targets }
}

/// Relative cost of every suffix at a gate.
fn suffix_costs(setup: Setup, gate: usize) -> Vec<f32> {
    let cost = |suffix: usize| {
        let path = setup.tree.suffix_path(gate, suffix);
        path.iter().enumerate().map(|(at, &width)| setup.costs[gate + at][width]).sum::<f64>() as f32
    };
    (0..setup.tree.suffix_count(gate)).map(cost).collect()
}

fn trees<'a>(setup: Setup, lesson: &'a Lesson) -> Result<Kind> {
    let (tree, spec, gate) = (setup.tree, setup.spec, lesson.gate);
    let costs = suffix_costs(setup, gate);
    let mut descriptions = Vec::new();
    for (suffix, &cost) in costs.iter().enumerate() {
        spec.describe_suffix(gate, &tree.suffix_path(gate, suffix), cost, &mut descriptions);
    }
    let block =
        |part: &'a Part| RowBlock { features: &part.features, descriptions: &descriptions, targets: &part.targets };
    let (train, held) = ([block(&lesson.train)], [block(&lesson.held_out)]);
    let config = TreeConfig { seed: lesson.seed, ..TreeConfig::default() };
    let boosted = train_trees(lesson.dim, spec.suffix_dim(gate), &train, &held, &config)?;
    Ok(Kind::Trees { trees: boosted.trees, costs })
}

/// Rows of one prefix at one gate for a predictor of all gates.
struct SharedRows {
    features: Vec<f32>,
    descriptions: Vec<f32>,
    targets: Vec<f32>,
}

fn blocks<'r>(rows: &'r [SharedRows]) -> Vec<RowBlock<'r>> {
    let block = |rows: &'r SharedRows| {
        let SharedRows { features, descriptions, targets } = rows;
        RowBlock { features, descriptions, targets }
    };
    rows.iter().map(block).collect()
}

/// Rows of all gates and prefixes, features as they were before each gate standardised them.
fn shared_rows(setup: Setup, lessons: &[Lesson], part: impl Fn(&Lesson) -> &Part) -> Vec<SharedRows> {
    let (tree, spec) = (setup.tree, setup.spec);
    let mut all = Vec::new();
    for lesson in lessons {
        let (part, costs) = (part(lesson), suffix_costs(setup, lesson.gate));
        let nodes = tree.level(lesson.gate);
        let (suffixes, pictures) = (costs.len(), part.features.len() / lesson.dim / nodes.len());
        for (row, node) in nodes.enumerate() {
            let mut features = Vec::with_capacity(pictures * spec.cell_dim());
            let rows = &part.features[row * pictures * lesson.dim..(row + 1) * pictures * lesson.dim];
            for standard in rows.chunks_exact(lesson.dim) {
                let raw = standard.iter().zip(&lesson.standardizer.std).zip(&lesson.standardizer.mean);
                features.extend(raw.take(spec.cell_dim()).map(|((x, std), mean)| x * std + mean));
            }
            let (prefix, mut descriptions) = (tree.widths_of(node), Vec::new());
            for (suffix, &cost) in costs.iter().enumerate() {
                spec.describe_path(&prefix, &tree.suffix_path(lesson.gate, suffix), cost, &mut descriptions);
            }
            let targets = part.targets[row * pictures * suffixes..(row + 1) * pictures * suffixes].to_vec();
            all.push(SharedRows { features, descriptions, targets });
        }
    }
    all
}

fn shared(setup: Setup, lessons: Vec<Lesson>, seed: u64) -> Result<Vec<Gate>> {
    let spec = setup.spec;
    let (inputs, described) = (spec.cell_dim(), spec.path_dim());
    let train = shared_rows(setup, &lessons, |lesson| &lesson.train);
    let held = shared_rows(setup, &lessons, |lesson| &lesson.held_out);
    let predictor = match setup.recipe.predictor.kind {
        PredictorKind::SharedTrees => {
            let config = TreeConfig { seed, ..TreeConfig::default() };
            let boosted = train_trees(inputs, described, &blocks(&train), &blocks(&held), &config)?;
            let dim = inputs + described;
            let as_they_are = Standardizer { mean: vec![0.0; dim], std: vec![1.0; dim] };
            SharedPredictor::new(spec.clone(), as_they_are, SharedModel::Trees(boosted.trees))?
        }
        _ => {
            let mut rows = pooled_rows(inputs, described, &blocks(&train), SHARED_ROWS, seed)?;
            let mut held = pooled_rows(inputs, described, &blocks(&held), SHARED_ROWS, seed)?;
            let standardizer = Standardizer::fit(&rows.rows, inputs + described)?;
            standardizer.apply(&mut rows.rows);
            standardizer.apply(&mut held.rows);
            let of = |rows| {
                let quee_heads::PooledRows { rows, targets } = rows;
                Part { features: rows, targets }
            };
            let (rows, held) = (of(rows), of(held));
            let part = |part| rows_of(inputs + described, 1, part);
            let members = train_gate(setup.on, part(&rows), part(&held), &training(setup, seed))?;
            let members = members.into_iter().map(|member| member.network).collect();
            SharedPredictor::new(spec.clone(), standardizer, SharedModel::Ensemble(Ensemble { members }))?
        }
    };
    let gate = |lesson: Lesson| {
        let costs = suffix_costs(setup, lesson.gate);
        lesson.finish(setup, Kind::Shared { shared: predictor.clone(), costs })
    };
    lessons.into_iter().map(gate).collect()
}
