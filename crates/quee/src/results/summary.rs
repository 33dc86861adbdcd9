//! `summary.json`: the figures of a run.

use std::collections::BTreeMap;

use quee_heads::PredictorRow;
use quee_policy::bootstrap::Interval;
use quee_policy::study::{MAQEE, MethodKind, NAIVE, STATIC_WIDTH};
use quee_policy::summary::{AtDrop, Difference};
use serde::Serialize;

use super::Study;
use super::device::{DeviceWork, DeviceWorkFile};
use super::heads::{HeadsFile, heads};
use crate::recipe::{CostModel, Recipe};
use crate::report::model::PredictorSummary;
use crate::report::text::count;
use crate::stages::efficiency::Efficiency;
use crate::stages::prepare::Prepared;
use crate::stages::study::{OPEN_LOOP, SeedStudy};

/// The file's content.
#[derive(Serialize)]
pub struct SummaryFile {
    recipe: String,
    dataset: String,
    /// How many of the published pictures there are, where some are missing.
    subset: Option<String>,
    test_samples: usize,
    splits: BTreeMap<String, usize>,
    backbone: String,
    weights: String,
    backbone_seen: String,
    backend: String,
    adapter: String,
    device_type: String,
    seeds: Vec<u64>,
    paths: usize,
    paths_in_all: u128,
    segment_runs_per_sample: usize,
    float_accuracy: f64,
    float_accuracy_low: f64,
    float_accuracy_high: f64,
    /// What is counted, and in which unit absolute costs are.
    cost_model: CostModel,
    cost_unit: &'static str,
    /// The backbone in float, relative cost 1.0.
    float_cost: f64,
    /// Accuracy of the backbone at full depth and each static width.
    static_accuracy: BTreeMap<String, f64>,
    methods: Vec<MethodFile>,
    best_single: Option<String>,
    /// Share of the gap between the best single technique and the oracle that the open-loop policy closes.
    gap_closed: Option<f64>,
    differences: Vec<DifferenceFile>,
    predictor: PredictorSummary,
    risk: Vec<String>,
    heads: HeadsFile,
    /// What a device apart from the processor was asked to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_work: Option<DeviceWorkFile>,
    /// What the seconds below must not be taken for.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_caveat: Option<String>,
    /// The first seed's policy on batches, where times were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<Efficiency>,
    seconds_by_stage: Vec<(String, f64)>,
    peak_bytes_by_stage: Vec<(String, Option<u64>)>,
}

#[derive(Serialize)]
struct MethodFile {
    name: String,
    area: f64,
    area_low: f64,
    area_high: f64,
    area_cal: Option<f64>,
    cost_at_drop_0_5: Option<f64>,
    test_drop_points_0_5: Option<f64>,
    cost_at_drop_1_0: Option<f64>,
    test_drop_points_1_0: Option<f64>,
    /// Test cost of an accuracy 0.5 points below float's on test.
    cost_of_0_5: f64,
    cost_of_0_5_low: f64,
    cost_of_0_5_high: f64,
    gap_closed: Option<f64>,
}

#[derive(Serialize)]
struct DifferenceFile {
    method: String,
    against: String,
    area: f64,
    area_low: f64,
    area_high: f64,
    /// Share of the other's cost that the method saves at an accuracy 0.5 points below float's on test.
    saved_0_5: f64,
    saved_0_5_low: f64,
    saved_0_5_high: f64,
}

/// The content of `summary.json`.
pub fn summary(study: &Study) -> SummaryFile {
    let summary = &study.summary;
    let cost = |at: &Option<AtDrop>| at.as_ref().map(|at| at.cost.value);
    let drop = |at: &Option<AtDrop>| at.as_ref().map(|at| at.drop_points.value);
    let methods = summary.methods.iter().map(|m| MethodFile {
        name: m.name.clone(),
        area: m.area.value,
        area_low: m.area.low,
        area_high: m.area.high,
        area_cal: m.area_cal,
        cost_at_drop_0_5: cost(&m.cost_at_drop_0_5),
        test_drop_points_0_5: drop(&m.cost_at_drop_0_5),
        cost_at_drop_1_0: cost(&m.cost_at_drop_1_0),
        test_drop_points_1_0: drop(&m.cost_at_drop_1_0),
        cost_of_0_5: m.cost_of_0_5.value,
        cost_of_0_5_low: m.cost_of_0_5.low,
        cost_of_0_5_high: m.cost_of_0_5.high,
        gap_closed: m.gap_closed.as_ref().map(|g| g.value),
    });
    let prepared = &study.prepared;
    let Interval { value, low, high } = summary.float_accuracy;
    SummaryFile {
        recipe: study.recipe.name.clone(),
        dataset: prepared.data.name.clone(),
        subset: subset(&study.recipe, prepared),
        test_samples: prepared.splits.test.len(),
        splits: prepared.splits.parts().iter().map(|(name, part)| ((*name).to_owned(), part.len())).collect(),
        backbone: prepared.backbone.name().to_owned(),
        weights: prepared.weights_origin.clone(),
        backbone_seen: prepared.seen.sentence().to_owned(),
        backend: study.environment.backend.clone(),
        adapter: study.environment.adapter.clone(),
        device_type: study.environment.device_type.clone(),
        seeds: study.recipe.seeds.clone(),
        paths: study.tree.paths().len(),
        paths_in_all: study.tree.count_in_all(),
        segment_runs_per_sample: study.tree.paths().len(),
        float_accuracy: value,
        float_accuracy_low: low,
        float_accuracy_high: high,
        cost_model: study.counted.model(),
        cost_unit: study.counted.model().unit(),
        float_cost: study.counted.float_total(),
        static_accuracy: static_accuracy(study),
        methods: methods.collect(),
        best_single: summary.best_single.clone(),
        gap_closed: summary
            .methods
            .iter()
            .find(|m| m.name == OPEN_LOOP)
            .and_then(|m| m.gap_closed.as_ref().map(|g| g.value)),
        differences: differences(study).iter().map(difference_file).collect(),
        predictor: predictor(study),
        risk: risk(study),
        heads: heads(study),
        device_work: study.device_work.as_ref().map(DeviceWork::file),
        time_caveat: study.time_caveat.clone(),
        routing: study.routing.clone(),
        seconds_by_stage: study.records.iter().map(|r| (r.stage.clone(), r.seconds)).collect(),
        peak_bytes_by_stage: study.records.iter().map(|r| (r.stage.clone(), r.peak_bytes)).collect(),
    }
}

/// How many pictures of the published data set are used, where it isn't all of them:
/// `subset: 8,000 of 50,000 train and 2,000 of 10,000 test pictures`. Pictures that only the backbone has seen count.
pub fn subset(recipe: &Recipe, prepared: &Prepared) -> Option<String> {
    if recipe.data.development {
        return Some("for development: tested on pictures of the training part".to_owned());
    }
    let (data, official) = (&prepared.data, prepared.data.official_size()?);
    let mut size = data.part_sizes();
    if recipe.data.limit_train > 0 {
        let parts = prepared.splits.parts();
        let drawn = if official.test > 0 { &parts[..5] } else { &parts[..] };
        size.train = drawn.iter().map(|(_, part)| part.len()).sum();
    }
    if size.test > 0 {
        size.test = prepared.splits.test.len();
    }
    if size.train >= official.train && size.test >= official.test {
        return None;
    }
    let train = format!("subset: {} of {}", count(size.train), count(official.train));
    Some(match official.test {
        0 => format!("{train} pictures"),
        test => format!("{train} train and {} of {} test pictures", count(size.test), count(test)),
    })
}

fn difference_file(difference: &Difference) -> DifferenceFile {
    DifferenceFile {
        method: difference.method.clone(),
        against: difference.against.clone(),
        area: difference.area.value,
        area_low: difference.area.low,
        area_high: difference.area.high,
        saved_0_5: difference.saved_0_5.value,
        saved_0_5_low: difference.saved_0_5.low,
        saved_0_5_high: difference.saved_0_5.high,
    }
}

/// The open-loop policy against every baseline, the other learned policies against both combinations and the best single technique; on the same
/// resamples.
pub fn differences(study: &Study) -> Vec<Difference> {
    let methods = &study.summary.methods;
    let baseline = |kind| matches!(kind, MethodKind::Single | MethodKind::Combination);
    let all: Vec<&str> = methods.iter().filter(|m| baseline(m.kind)).map(|m| m.name.as_str()).collect();
    let leading = leading(study);
    let learned = methods.iter().filter(|m| m.kind == MethodKind::Learned).map(|m| m.name.as_str());
    let pairs = learned.flat_map(|method| {
        let others = if method == OPEN_LOOP { &all } else { &leading };
        others.iter().map(move |other| (method, *other))
    });
    pairs.filter_map(|(method, other)| study.summary.difference(method, other).ok()).collect()
}

/// What a learned policy must beat: both combinations and the best single technique.
pub fn leading(study: &Study) -> Vec<&str> {
    [NAIVE, MAQEE].into_iter().chain(study.summary.best_single.as_deref()).collect()
}

/// Means over seeds, gates and continuations.
pub fn predictor(study: &Study) -> PredictorSummary {
    let rows: Vec<_> = study.seeds.iter().flat_map(|s| &s.quality).flat_map(|gate| &gate.rows).collect();
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let ranks: Vec<f64> = rows.iter().filter_map(|row| row.auroc).collect();
    PredictorSummary {
        brier: mean(rows.iter().map(|row| row.brier).collect()),
        ece: mean(rows.iter().map(|row| row.ece).collect()),
        ece_floor: mean(rows.iter().map(|row| row.ece_floor).collect()),
        auroc: (!ranks.is_empty()).then(|| mean(ranks)),
    }
}

/// Share of the variance of errors on *test* that predictions explain, 1 − Brier / variance, mean over gates, continuations and seeds; continuations
/// that are always right or always wrong have no variance and are left out.
pub fn skill(seeds: &[SeedStudy]) -> f64 {
    let rows = seeds.iter().flat_map(|seed| &seed.quality).flat_map(|gate| &gate.rows);
    let of_row = |row: &PredictorRow| {
        let variance = row.base_rate * (1.0 - row.base_rate);
        (variance > 0.0).then(|| 1.0 - row.brier / variance)
    };
    let all: Vec<f64> = rows.filter_map(of_row).collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// Test accuracy at full depth of every static width, mean over seeds (the last exit is the backbone's own).
fn static_accuracy(study: &Study) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let seed = &study.seeds[0];
    for method in seed.result.methods.iter().filter(|m| m.name == STATIC_WIDTH) {
        for setting in &method.settings {
            all.insert(setting.name.clone(), setting.test.accuracy());
        }
    }
    all.insert("float".to_owned(), seed.result.float.test.accuracy());
    all
}

/// What risk control says of the open-loop policy, by seed.
pub fn risk(study: &Study) -> Vec<String> {
    let of_seed = |seed: &crate::stages::study::SeedStudy| {
        let method = seed.result.methods.iter().find(|m| m.name == OPEN_LOOP)?;
        Some(format!("Seed {}: {}", seed.seed, method.risk.as_ref()?.statement()))
    };
    study.seeds.iter().filter_map(of_seed).collect()
}
