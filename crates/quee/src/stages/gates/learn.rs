//! From features and outcomes on *fit* to predictors.

use anyhow::Result;
use quee_heads::targets::{Shape, smoothed_rates};
use quee_heads::{
    ABSENT, Cells, Ensemble, GatePaths, GatePredictor, Kind, PooledRows, RateTable, RowBlock, SharedModel,
    SharedPredictor, Standardizer, TreeConfig, pooled_rows, train_trees,
};
use quee_train::gates::{GateConfig, GateRows as TrainingRows, train_gate};
use rayon::prelude::*;

use super::rows::{GateInput, GateRows, paths, rows, without_widths};
use super::{Gate, Setup};
use crate::recipe::{PredictorKind, Targets};

/// Most pairs of picture and continuation that a network for all gates learns from.
const SHARED_ROWS: usize = 200_000;

/// What one gate learns from.
pub struct Lesson {
    gate: usize,
    paths: GatePaths,
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
    /// `[prefix of the tree]`, each `[picture][place]`.
    targets: Vec<Vec<f32>>,
}

impl Lesson {
    /// Features, cells and targets of gate `gate`. Pictures that are `held` out take no part in cells and rates, and their targets are outcomes.
    ///
    /// # Errors
    /// When features are not finite.
    pub fn prepare(setup: Setup, gate: usize, fit: GateInput, held: &[bool], seed: u64) -> Result<Self> {
        let (tree, spec) = (setup.tree, setup.spec);
        let (rows, paths) = (rows(tree, spec, gate, fit), paths(tree, gate));
        let samples = fit.samples();
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
        let (cells, rates) = cells(setup, &paths, seed, &rows, &features, &kept, samples)?;
        let soft = (setup.recipe.predictor.targets == Targets::Cells).then_some((&cells, &rates, &features[..]));
        let targets = targets(setup, &paths, &rows, &kept, samples, soft);
        let held_out =
            Part { features: held_features, targets: self::targets(setup, &paths, &rows, &stopped, samples, None) };
        let train = Part { features, targets };
        Ok(Self { gate, paths, seed, dim: rows.dim, standardizer, cells, rates, train, held_out })
    }

    fn finish(self, setup: Setup, kind: Kind) -> Result<Gate> {
        let predictor = GatePredictor::new(setup.spec.clone(), self.paths, self.standardizer, kind)?;
        Ok(Gate { predictor, cells: self.cells })
    }
}

/// Clusters the kept rows of all prefixes and smooths the rates of each cell.
fn cells(
    setup: Setup,
    paths: &GatePaths,
    seed: u64,
    rows: &GateRows,
    kept_rows: &[f32],
    kept: &[usize],
    samples: usize,
) -> Result<(Cells, RateTable)> {
    let (recipe, dim) = (setup.recipe, setup.spec.cell_dim());
    let plain = without_widths(kept_rows, rows.dim, dim);
    let cells = Cells::fit(&plain, dim, recipe.cells.count, seed)?;
    let assigned = cells.assign_all(&plain);
    let (prefixes, suffixes) = (paths.prefixes().len(), paths.suffixes().len());
    let mut wrong = vec![ABSENT; prefixes * suffixes * kept.len()];
    for (prefix, of_prefix) in rows.wrong.iter().enumerate() {
        for (&suffix, outcomes) in paths.places(prefix).iter().zip(of_prefix.chunks_exact(samples)) {
            let start = (prefix * suffixes + suffix) * kept.len();
            wrong[start..start + kept.len()].iter_mut().zip(kept).for_each(|(to, &sample)| *to = outcomes[sample]);
        }
    }
    let shape = Shape { prefixes, suffixes, samples: kept.len() };
    let table = smoothed_rates(shape, &wrong, &assigned, cells.k(), recipe.cells.smoothing)?;
    Ok((cells, table))
}

/// Targets `[prefix of the tree]`, each `[picture][place]`: rates of the cells, or 0/1 outcomes.
fn targets(
    setup: Setup,
    paths: &GatePaths,
    rows: &GateRows,
    chosen: &[usize],
    samples: usize,
    soft: Option<(&Cells, &RateTable, &[f32])>,
) -> Vec<Vec<f32>> {
    let cell_dim = setup.spec.cell_dim();
    let of_prefix = |(prefix, wrong): (usize, &Vec<u8>)| {
        let mut targets = Vec::with_capacity(chosen.len() * paths.places(prefix).len());
        for (at, &sample) in chosen.iter().enumerate() {
            match soft {
                Some((cells, table, features)) => {
                    let start = (prefix * chosen.len() + at) * rows.dim;
                    let rates = table.row(cells.assign(&features[start..start + cell_dim]), prefix);
                    targets.extend(paths.places(prefix).iter().map(|&suffix| rates[suffix]));
                }
                None => targets.extend(wrong.chunks_exact(samples).map(|outcomes| f32::from(outcomes[sample]))),
            }
        }
        targets
    };
    rows.wrong.iter().enumerate().map(of_prefix).collect()
}

/// Targets of all prefixes `[prefix][picture][suffix]`, NaN where there is no path.
fn by_suffix(paths: &GatePaths, targets: &[Vec<f32>]) -> Vec<f32> {
    let suffixes = paths.suffixes().len();
    let mut all = Vec::new();
    for (prefix, targets) in targets.iter().enumerate() {
        let places = paths.places(prefix);
        for row in targets.chunks_exact(places.len()) {
            let start = all.len();
            all.resize(start + suffixes, f32::NAN);
            places.iter().zip(row).for_each(|(&suffix, &target)| all[start + suffix] = target);
        }
    }
    all
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

/// Networks for each gate by itself, without calibration.
///
/// # Errors
/// When training diverges.
pub fn networks_of(setup: Setup, lessons: Vec<Lesson>) -> Result<Vec<Gate>> {
    let made = |lesson: Lesson| {
        let kind = networks(setup, &lesson)?;
        lesson.finish(setup, kind)
    };
    lessons.into_par_iter().map(made).collect()
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
    let (inputs, outputs) = (lesson.dim, lesson.paths.suffixes().len());
    let [train, held_out] = [&lesson.train, &lesson.held_out].map(|part| by_suffix(&lesson.paths, &part.targets));
    let train = TrainingRows { inputs, outputs, features: &lesson.train.features, targets: &train };
    let held_out = TrainingRows { inputs, outputs, features: &lesson.held_out.features, targets: &held_out };
    let members = train_gate(setup.on, train, held_out, &training(setup, lesson.seed))?;
    Ok(Kind::Ensemble(Ensemble { members: members.into_iter().map(|member| member.network).collect() }))
}

/// Relative cost of every suffix at a gate.
fn suffix_costs(setup: Setup, paths: &GatePaths) -> Vec<f32> {
    let cost = |path: &Vec<usize>| {
        path.iter().enumerate().map(|(at, &width)| setup.costs[paths.gate() + at][width]).sum::<f64>() as f32
    };
    paths.suffixes().iter().map(cost).collect()
}

fn trees<'l>(setup: Setup, lesson: &'l Lesson) -> Result<Kind> {
    let (spec, gate) = (setup.spec, lesson.gate);
    let costs = suffix_costs(setup, &lesson.paths);
    let mut descriptions = Vec::new();
    for (suffix, &cost) in lesson.paths.suffixes().iter().zip(&costs) {
        spec.describe_suffix(gate, suffix, cost, &mut descriptions);
    }
    let [train, held] = [&lesson.train, &lesson.held_out].map(|part| by_suffix(&lesson.paths, &part.targets));
    let block = |part: &'l Part, targets| RowBlock { features: &part.features, descriptions: &descriptions, targets };
    let (train, held) = ([block(&lesson.train, &train)], [block(&lesson.held_out, &held)]);
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
    let spec = setup.spec;
    let mut all = Vec::new();
    for lesson in lessons {
        let (part, paths, costs) = (part(lesson), &lesson.paths, suffix_costs(setup, &lesson.paths));
        let pictures = part.features.len() / lesson.dim / paths.prefixes().len();
        for (row, prefix) in paths.prefixes().iter().enumerate() {
            let mut features = Vec::with_capacity(pictures * spec.cell_dim());
            let rows = &part.features[row * pictures * lesson.dim..(row + 1) * pictures * lesson.dim];
            for standard in rows.chunks_exact(lesson.dim) {
                let raw = standard.iter().zip(&lesson.standardizer.std).zip(&lesson.standardizer.mean);
                features.extend(raw.take(spec.cell_dim()).map(|((x, std), mean)| x * std + mean));
            }
            let mut descriptions = Vec::new();
            for &suffix in paths.places(row) {
                spec.describe_path(prefix, &paths.suffixes()[suffix], costs[suffix], &mut descriptions);
            }
            all.push(SharedRows { features, descriptions, targets: part.targets[row].clone() });
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
            let [rows, held] = [&rows, &held].map(|PooledRows { rows, targets }| TrainingRows {
                inputs: inputs + described,
                outputs: 1,
                features: rows,
                targets,
            });
            let members = train_gate(setup.on, rows, held, &training(setup, seed))?;
            let members = members.into_iter().map(|member| member.network).collect();
            SharedPredictor::new(spec.clone(), standardizer, SharedModel::Ensemble(Ensemble { members }))?
        }
    };
    let gate = |lesson: Lesson| {
        let costs = suffix_costs(setup, &lesson.paths);
        lesson.finish(setup, Kind::Shared { shared: predictor.clone(), costs })
    };
    lessons.into_iter().map(gate).collect()
}
