//! From stored runs to what is shown: figures on a common axis, and differences to the first run.

use std::collections::BTreeMap;

use quee_policy::bootstrap::{Bootstrap, Interval};
use quee_policy::curve::Axis;
use quee_policy::outcome::Choices;
use quee_policy::overlay::{Lead, Overlay, Sampled, SeedFront};

use super::differing::differing;
use super::slots::Slot;
use super::stored::{CompareError, Points, StoredRun};
use super::warnings::warnings;
use crate::experiment::BOOTSTRAP_SEED;
use crate::report::compare::{AtCost, CompareReport, DifferenceRow, MethodRow, RunFacts};
use crate::results::choices::{FLOAT, MAJORITY};

/// Costs at which accuracies are compared, evenly spaced on the log axis.
const GRID: usize = 61;
/// Most resamples, whatever a recipe says.
const MOST_RESAMPLES: usize = 20_000;
/// Curves of at most this many settings, the same for all seeds, are drawn setting by setting.
const FEW: usize = 12;

/// Differences below this share are rounding.
pub const ROUNDING: f64 = 1e-9;

/// What all runs share: costs are relative to the dearest float backbone among them.
pub struct Scale {
    /// Absolute cost of relative cost 1.0.
    pub float_cost: f64,
    /// `[run]`: factor from a run's own relative costs.
    pub factors: Vec<f64>,
    /// Cost at which the axis of the areas begins; `None` where no run knows its own.
    pub least_cost: Option<f64>,
}

impl Scale {
    /// # Errors
    /// When runs count different things.
    pub fn new(runs: &[StoredRun]) -> Result<Self, CompareError> {
        let first = &runs[0];
        if let Some(other) = runs.iter().find(|run| run.summary.cost_model != first.summary.cost_model) {
            return Err(CompareError::CostModels {
                first: first.folder.display().to_string(),
                first_unit: first.summary.cost_model.unit(),
                other: other.folder.display().to_string(),
                other_unit: other.summary.cost_model.unit(),
            });
        }
        let float_cost = runs.iter().map(|run| run.summary.float_cost).fold(0.0, f64::max);
        let factor = |run: &StoredRun| match run.summary.float_cost / float_cost {
            factor if factor > 1.0 - ROUNDING => 1.0,
            factor => factor,
        };
        let factors: Vec<f64> = runs.iter().map(factor).collect();
        let least =
            runs.iter().zip(&factors).filter_map(|(run, factor)| Some(run.choices.as_ref()?.least_cost * factor));
        Ok(Self { float_cost, least_cost: least.min_by(f64::total_cmp), factors })
    }
}

/// The choices of one run: `[seed][setting]` by method.
struct Fronts {
    by_method: BTreeMap<String, Vec<Vec<Choices>>>,
    float: Vec<Vec<Choices>>,
    majority: Vec<Vec<Choices>>,
}

/// Compares the methods in `slots`; takes their choices out of the runs.
///
/// # Errors
/// When runs count different things, or choices are damaged.
pub fn compare(runs: &mut [StoredRun], slots: &[Slot]) -> Result<CompareReport, CompareError> {
    let scale = Scale::new(runs)?;
    let resamples = runs.iter().map(resamples).max().unwrap_or_default();
    let mut fronts = Vec::new();
    for (at, run) in runs.iter_mut().enumerate() {
        fronts.push(take(run, at, slots, scale.factors[at])?);
    }
    let costs = scale.least_cost.map_or_else(Vec::new, grid);
    let groups = groups(runs);
    let mut sampled: BTreeMap<(usize, String), Sampled> = BTreeMap::new();
    for group in 0..runs.len() {
        let members: Vec<usize> = (0..runs.len()).filter(|run| groups[*run] == Some(group)).collect();
        // Different pictures are resampled on their own.
        let bootstrap = Bootstrap { resamples, seed: BOOTSTRAP_SEED + group as u64 };
        sampled.extend(evaluate(&members, runs, &fronts, &scale, &costs, &bootstrap));
    }
    let mut rows = Vec::new();
    let mut differences = Vec::new();
    for (at, slot) in slots.iter().enumerate() {
        for (run, method) in slot.methods.iter().enumerate() {
            let Some(method) = method else { continue };
            let area = sampled.get(&(run, method.clone())).map(Sampled::area);
            rows.extend(row(&runs[run], run, at, method, area, &scale));
            let first = slot.methods[0].as_ref().filter(|_| run > 0 && same_data(runs, run));
            let pair = first.and_then(|first| {
                Some((first, sampled.get(&(0, first.clone()))?, sampled.get(&(run, method.clone()))?))
            });
            if let Some((first, against, own)) = pair {
                let paired = groups[run] == groups[0];
                let names = (run, at, method.as_str(), first.as_str());
                differences.push(difference(names, own.lead(against, &costs), paired, &costs));
            }
        }
    }
    Ok(CompareReport {
        unit: runs[0].summary.cost_model.unit().to_owned(),
        float_cost: scale.float_cost,
        least_cost: scale.least_cost,
        resamples,
        warnings: warnings(runs, slots, &scale, &groups),
        runs: runs.iter().zip(&scale.factors).map(|(run, factor)| facts(run, *factor)).collect(),
        methods: slots.iter().map(|slot| slot.title.clone()).collect(),
        rows,
        differences,
        settings: differing(runs),
    })
}

/// Resamples that a run's recipe asks for.
fn resamples(run: &StoredRun) -> usize {
    let asked = run.recipe.get("statistics").and_then(|table| table.get("resamples")).and_then(toml::Value::as_integer);
    asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(2_000).min(MOST_RESAMPLES)
}

fn take(run: &mut StoredRun, at: usize, slots: &[Slot], factor: f64) -> Result<Option<Fronts>, CompareError> {
    let Some(choices) = &mut run.choices else { return Ok(None) };
    let mut by_method = BTreeMap::new();
    for method in slots.iter().filter_map(|slot| slot.methods[at].as_ref()) {
        if choices.has(method) && !by_method.contains_key(method) {
            by_method.insert(method.clone(), choices.take(method, factor)?);
        }
    }
    Ok(Some(Fronts { by_method, float: choices.take(FLOAT, factor)?, majority: choices.take(MAJORITY, factor)? }))
}

/// Log-spaced costs from `least` to 1.0.
fn grid(least: f64) -> Vec<f64> {
    (0..GRID).map(|at| least.powf(1.0 - at as f64 / (GRID - 1) as f64)).collect()
}

/// `[run]`: the first run that was tested on the same pictures; `None` without choices.
fn groups(runs: &[StoredRun]) -> Vec<Option<usize>> {
    let pictures = |run: &StoredRun| run.choices.as_ref().map(|choices| choices.pictures.clone());
    let all: Vec<_> = runs.iter().map(pictures).collect();
    all.iter().map(|own| own.as_ref().and_then(|_| all.iter().position(|other| other == own))).collect()
}

/// Whether a run was tested on the first run's data set, whichever pictures of it.
fn same_data(runs: &[StoredRun], run: usize) -> bool {
    runs[run].summary.dataset == runs[0].summary.dataset
}

/// All methods of the runs that were tested on the same pictures.
fn evaluate(
    members: &[usize],
    runs: &[StoredRun],
    fronts: &[Option<Fronts>],
    scale: &Scale,
    costs: &[f64],
    bootstrap: &Bootstrap,
) -> Vec<((usize, String), Sampled)> {
    let (mut names, mut methods) = (Vec::new(), Vec::new());
    for (run, fronts) in members.iter().filter_map(|run| Some((*run, fronts[*run].as_ref()?))) {
        for (name, seeds) in &fronts.by_method {
            let parts = seeds.iter().zip(&fronts.float).zip(&fronts.majority);
            let front = parts.map(|((settings, float), majority)| SeedFront {
                settings: settings.as_slice(),
                float: &float[0],
                majority: &majority[0],
            });
            methods.push(front.collect::<Vec<_>>());
            names.push((run, name.clone()));
        }
    }
    let first = members.first().and_then(|run| Some((fronts[*run].as_ref()?, runs[*run].choices.as_ref()?)));
    let (Some((first, choices)), Some(least_cost)) = (first, scale.least_cost) else { return Vec::new() };
    let reference = first.float.iter().map(|float| &float[0]).collect();
    let overlay = Overlay { methods, reference, least_cost, costs: costs.to_vec() };
    let sampled = overlay.evaluate(choices.pictures.indices.len(), bootstrap);
    names.into_iter().zip(sampled).collect()
}

fn facts(run: &StoredRun, factor: f64) -> RunFacts {
    let summary = &run.summary;
    RunFacts {
        name: run.name(),
        folder: run.folder.display().to_string(),
        dataset: summary.dataset.clone(),
        subset: summary.subset.clone(),
        test_pictures: summary.test_samples,
        backbone: summary.backbone.clone(),
        seeds: summary.seeds.clone(),
        float_accuracy: summary.float_accuracy,
        float_cost: factor,
        backend: run.environment.backend.clone(),
    }
}

/// A method of a run. Without choices its area is the run's own, as long as the run's axis is the common one.
fn row(
    run: &StoredRun,
    at: usize,
    slot: usize,
    name: &str,
    area: Option<Interval>,
    scale: &Scale,
) -> Option<MethodRow> {
    let (method, factor) = (run.method(name)?, scale.factors[at]);
    let own_axis = run.choices.as_ref().map(|choices| choices.least_cost * factor);
    let comparable =
        factor == 1.0 && own_axis.zip(scale.least_cost).is_none_or(|(own, common)| own - common < ROUNDING);
    let at_drop = |drop: usize| method.at_drop()[drop].map(|(cost, drop)| (cost * factor, drop));
    let scaled = |i: Interval| Interval { value: i.value * factor, low: i.low * factor, high: i.high * factor };
    Some(MethodRow {
        run: at,
        slot,
        method: name.to_owned(),
        area: area.or(comparable.then(|| method.area())),
        at_drop_0_5: at_drop(0),
        at_drop_1_0: at_drop(1),
        cost_of_0_5: method.cost_of_0_5().map(scaled),
        curve: mean_curve(run.curves.get(name).map_or(&[], Vec::as_slice), factor),
    })
}

/// The mean over seeds at costs evenly spaced between the mean first and the mean last setting; the settings themselves where they are few and the same
/// for all seeds.
fn mean_curve(seeds: &[Points], factor: f64) -> Points {
    let by_cost = |points: &Points| {
        let mut points: Points = points.iter().map(|(cost, accuracy)| (cost * factor, *accuracy)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let seeds: Vec<Points> = seeds.iter().map(by_cost).filter(|points| !points.is_empty()).collect();
    let Some(first) = seeds.first() else { return Points::new() };
    if first.len() <= FEW && seeds.iter().all(|other| other == first) {
        return first.clone();
    }
    let mean = |of: &dyn Fn(&Points) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
    let (low, high) = (mean(&|points| points[0].0), mean(&|points| points[points.len() - 1].0));
    let axis = Axis { least_cost: low, floor: 0.0 };
    let steps = if high > low && low > 0.0 { GRID } else { 1 };
    let at = |step: usize| {
        let cost = if step == 0 { low } else { low * (high / low).powf(step as f64 / (steps - 1) as f64) };
        // Left of its first setting a seed counts as that setting.
        (cost, mean(&|points| axis.accuracy_at(points, cost.max(points[0].0))))
    };
    (0..steps).map(at).collect()
}

fn difference(
    (run, slot, method, against): (usize, usize, &str, &str),
    lead: Lead,
    paired: bool,
    costs: &[f64],
) -> DifferenceRow {
    let points = costs.iter().zip(&lead.accuracies).filter_map(|(cost, accuracy)| {
        let Interval { value, low, high } = (*accuracy)?;
        Some(AtCost { cost: *cost, points: Interval { value: 100.0 * value, low: 100.0 * low, high: 100.0 * high } })
    });
    DifferenceRow {
        run,
        slot,
        method: method.to_owned(),
        against: against.to_owned(),
        paired,
        area: lead.area,
        // Shares of cost are taken at one accuracy, and other pictures have another.
        saved_0_5: lead.saved[0].filter(|_| paired),
        saved_1_0: lead.saved[1].filter(|_| paired),
        accuracy: points.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_seeds_are_averaged_at_equal_cost() {
        let flat = vec![(0.1, 0.5), (0.4, 0.8)];
        assert_eq!(mean_curve(&[flat.clone(), flat.clone()], 0.5), [(0.05, 0.5), (0.2, 0.8)], "the same settings");
        let mean = mean_curve(&[flat, vec![(0.2, 0.7), (0.6, 0.9)]], 1.0);
        assert_eq!(mean.len(), GRID);
        let (first, last) = (mean[0], mean[GRID - 1]);
        assert!((first.0 - 0.15).abs() < 1e-12 && (first.1 - (0.55 + 0.7) / 2.0).abs() < 1e-12, "{first:?}");
        assert!((last.0 - 0.5).abs() < 1e-12 && (last.1 - (0.8 + 0.85) / 2.0).abs() < 1e-12, "{last:?}");
        assert!(mean_curve(&[], 1.0).is_empty());
    }
}
