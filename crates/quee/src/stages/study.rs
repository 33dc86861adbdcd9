//! One seed of a study: exits, gates, then every policy and baseline on the same tables.

use std::borrow::Cow;
use std::time::Instant;

use anyhow::{Context, Result};
use quee_heads::ExitHead;
use quee_policy::cost::{CostTable, Ledger};
use quee_policy::dynamic::Cells;
use quee_policy::fitted::FittedOptions;
use quee_policy::gate_features::GateFeatures;
use quee_policy::lambda::Sweep;
use quee_policy::open_loop::{PredictionTable, candidates, one_step_candidates};
use quee_policy::pooling::Pooling;
use quee_policy::risk::RiskTarget;
use quee_policy::scores::FloatRun;
use quee_policy::study::{
    DynamicInput, FittedInput, OpenLoopInput, RiskInput, SeedInputs, SeedResult, StudyOptions, evaluate,
};
use quee_policy::table::{Outcomes, RunOutcomes, StaticRun, most_frequent};
use quee_policy::tree::PathTree;
use quee_quant::Width;
use quee_train::TrainDevice;

use super::answers::{NodeAnswers, fit_scores, run_answers, run_outcomes, run_scores};
use super::backbone_runs::{BackboneRuns, PerSplit, StaticFeatures};
use super::costs::{Counted, Timings};
use super::gates::Gate;
use super::guarantees::{Guarantees, guarantees};
use super::prepare::Prepared;
use super::quality::{GateQuality, quality};
use super::tables::Table;
use super::trained::{Predictions, Trained, foreseen, train};
use crate::cache::Cache;
use crate::cache::keys::Keys;
use crate::cancel::Cancel;
use crate::recipe::{Candidates, Continuations, CostModel, Methods, Recipe};

/// Name of the open-loop policy in results.
pub const OPEN_LOOP: &str = "QuEE open loop";
/// Name of the dynamic program in results.
pub const DYNAMIC: &str = "QuEE dynamic program";
/// Name of fitted backward induction in results.
pub const FITTED: &str = "QuEE fitted induction";
/// Name of the open-loop policy whose gate 0 looks at the stem.
pub const GATE_ZERO: &str = "QuEE with gate zero";
/// Name of the rule that looks one step ahead in results.
pub const ONE_STEP: &str = "QuEE one step";

/// Multiply-accumulates of one of JEI-DNN's gates: four scores and a bias.
const JEI_GATE_MACS: u64 = 5;

/// All results of one seed.
pub struct SeedStudy {
    /// Seed.
    pub seed: u64,
    /// Exits, gates, tables.
    pub trained: Trained,
    /// Prices of paths.
    pub ledger: Ledger,
    /// Suffixes that the open-loop policy considers at every node; all where there is none.
    pub candidates: Option<Vec<Vec<usize>>>,
    /// How the open-loop policy pools predictions, if it does.
    pub pooling: Option<Pooling>,
    /// Policies and baselines.
    pub result: SeedResult,
    /// Quality of the predictions.
    pub quality: Vec<GateQuality>,
    /// What risk control and prediction sets promise, and what they keep.
    pub guarantees: Guarantees,
    /// What the policy knows or ignores on purpose, which makes this no result.
    pub foresight: Option<String>,
}

/// What all seeds share.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// Settings.
    pub recipe: &'a Recipe,
    /// Data, splits, backbone.
    pub prepared: &'a Prepared,
    /// Paths.
    pub tree: &'a PathTree,
    /// Features of all runs.
    pub runs: &'a BackboneRuns,
    /// Counted operations.
    pub counted: &'a Counted,
    /// Measured times, where they were measured.
    pub timings: Option<&'a Timings>,
    /// Where exits and gates are trained.
    pub training: &'a TrainDevice,
    /// Checked between steps.
    pub cancel: &'a Cancel,
    /// Keeps what was trained.
    pub cache: &'a Cache,
    /// What it depends on.
    pub keys: &'a Keys,
    /// Told to the user.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// Runs every policy and baseline of one seed.
///
/// # Errors
/// When tables do not fit together, or a wish to stop.
pub fn study(shared: Shared, seed: u64) -> Result<SeedStudy> {
    let Shared { recipe, prepared, tree, cancel, cache, keys, say, .. } = shared;
    let (trained, predictions) = train(shared, seed)?;
    cancel.check()?;
    let tables = &trained.outcomes;
    let Predictions { predicted, cells, features, .. } = &predictions;
    let foresight = recipe.predictor.foresight;
    let predicted = &match foresight {
        0.0 => predicted.clone(),
        _ => foreseen(tree, predicted, tables, foresight),
    };
    let pooling = match recipe.policy.continuations {
        Continuations::Each => None,
        Continuations::Pooled => Some(Pooling::fit(tree, &predicted.fit, recipe.policy.half_trust)?),
    };
    let ledger = ledger(shared, &trained, &predictions, pooling.as_ref(), seed)?;
    let statics = static_runs(shared, &trained)?;
    let (run, extras) = statics.split_first().expect("the float run is always there");
    let float = float_run(shared, &trained, run)?;
    let float_on_b = run_outcomes(&run_answers(|_| &trained.exits.heads, shared.runs.statics[0].on.cal_b.lists())?);
    let float_correct = right_at_full_depth(&float_on_b, tables.cal_b.labels());
    let names: Vec<String> = recipe.quant.widths.iter().map(ToString::to_string).collect();
    let on_cal = Selection::new(&trained, predicted, cells, features);
    let candidates = match recipe.policy.candidates {
        Candidates::All => None,
        Candidates::Front => Some(candidates(tree, &ledger, &tables.fit)),
    };
    let one_step = one_step_candidates(tree);
    let open_loop = |name, candidates| OpenLoopInput {
        name,
        cal: &on_cal.predicted,
        test: &predicted.test,
        cal_b: Some(&predicted.cal_b),
        candidates,
        pooling: pooling.as_ref(),
    };
    let mut open_loops = vec![open_loop(OPEN_LOOP, candidates.as_deref())];
    let few = recipe.policy.methods == Methods::Few;
    if !few {
        open_loops.push(open_loop(ONE_STEP, Some(&one_step)));
    }
    // Gate 0 knows nothing of outcomes.
    let from_stem = predictions.from_stem.as_ref().filter(|_| foresight == 0.0);
    let stem_on_cal = from_stem.map(|predicted| match trained.folds {
        None => Cow::Borrowed(&predicted.cal_a),
        Some(_) => Cow::Owned(predicted.cal_a.with(&predicted.fit)),
    });
    if let (Some(predicted), Some(cal)) = (from_stem, &stem_on_cal) {
        open_loops.push(OpenLoopInput {
            name: GATE_ZERO,
            cal,
            test: &predicted.test,
            cal_b: Some(&predicted.cal_b),
            candidates: candidates.as_deref(),
            pooling: pooling.as_ref(),
        });
    }
    let fitted = [FittedInput {
        name: FITTED,
        options: FittedOptions { seed, ..FittedOptions::default() },
        fit: &features.fit,
        cal: &on_cal.features,
        test: &features.test,
        cal_b: Some(&features.cal_b),
    }];
    let inputs = SeedInputs {
        tree,
        ledger: &ledger,
        width_names: &names,
        fit: &tables.fit,
        cal: &on_cal.outcomes,
        folds: trained.folds.as_ref(),
        test: &tables.test,
        float: &float,
        extras,
        open_loop: &open_loops,
        dynamic: &[DynamicInput {
            name: DYNAMIC,
            alpha: recipe.cells.smoothing,
            fit: &cells.fit,
            cal: &on_cal.cells,
            test: &cells.test,
            cal_b: Some(&cells.cal_b),
        }],
        fitted: if few { &[] } else { &fitted },
        risk: Some(RiskInput {
            target: RiskTarget { epsilon: recipe.policy.risk, delta: recipe.policy.risk_level },
            outcomes: &tables.cal_b,
            float_correct: &float_correct,
        }),
        majority_class: most_frequent(&prepared.data.labels_of(prepared.exit_train())),
        options: StudyOptions {
            sweep: Sweep { settings: recipe.policy.max_settings, ..Sweep::default() },
            seed,
            commit: recipe.policy.commit,
            few,
            ..StudyOptions::default()
        },
    };
    let times = postcard::to_stdvec(&ledger.time()).context("times are not representable")?;
    let (result, _) = cache.stage(&keys.policies(seed, &times)?, cancel, say, |_| Ok(evaluate(&inputs)?))?;
    cancel.check()?;
    let quality = quality(shared, &predictions, seed);
    let float_on_test = right_at_full_depth(&float.run.test, tables.test.labels());
    let guarantees = guarantees(shared, &trained, &result, [&float_correct, &float_on_test], seed)?;
    let foresight = (foresight != 0.0).then(|| match foresight > 0.0 {
        true => format!(
            "Predictions know a share of {foresight} of the outcomes, those of test included: a diagnosis, no result."
        ),
        false => format!(
            "A share of {} of every prediction is the same for all pictures: a diagnosis, no result.",
            -foresight
        ),
    });
    Ok(SeedStudy { seed, trained, ledger, candidates, pooling, result, quality, guarantees, foresight })
}

/// Where fronts and λ are chosen: *cal-a*, and with folds *fit* behind it.
struct Selection<'a> {
    outcomes: Cow<'a, Outcomes>,
    predicted: Cow<'a, PredictionTable>,
    cells: Cow<'a, Cells>,
    features: Cow<'a, GateFeatures>,
}

impl<'a> Selection<'a> {
    fn new(
        trained: &'a Trained,
        predicted: &'a PerSplit<PredictionTable>,
        cells: &'a PerSplit<Cells>,
        features: &'a PerSplit<GateFeatures>,
    ) -> Self {
        let tables = &trained.outcomes;
        match trained.folds {
            None => Self {
                outcomes: Cow::Borrowed(&tables.cal_a),
                predicted: Cow::Borrowed(&predicted.cal_a),
                cells: Cow::Borrowed(&cells.cal_a),
                features: Cow::Borrowed(&features.cal_a),
            },
            Some(_) => Self {
                outcomes: Cow::Owned(tables.cal_a.with(&tables.fit)),
                predicted: Cow::Owned(predicted.cal_a.with(&predicted.fit)),
                cells: Cow::Owned(cells.cal_a.with(&cells.fit)),
                features: Cow::Owned(features.cal_a.with(&features.fit)),
            },
        }
    }
}

/// Whether a run is right at its last exit, by picture.
fn right_at_full_depth(run: &RunOutcomes, labels: &[u16]) -> Vec<bool> {
    let last = run.answers.len() - labels.len();
    run.answers[last..].iter().zip(labels).map(|(answer, label)| answer == label).collect()
}

/// Multiply-accumulates of every gate, those of pooling included.
pub fn gate_macs(tree: &PathTree, trained: &Trained, pooling: Option<&Pooling>) -> Vec<u64> {
    let macs = |gate: &Gate| gate.predictor.macs() + pooling.map_or(0, |_| Pooling::macs(tree, gate.predictor.gate()));
    trained.gates.iter().map(macs).collect()
}

/// Prices: counted costs, mean bits, measured times.
fn ledger(
    shared: Shared,
    trained: &Trained,
    predictions: &Predictions,
    pooling: Option<&Pooling>,
    seed: u64,
) -> Result<Ledger> {
    let Shared { recipe, tree, counted, timings, cancel, cache, keys, say, .. } = shared;
    let (stem, widths) = (recipe.quant.stem, &recipe.quant.widths);
    let gate_macs = gate_macs(tree, trained, pooling);
    let exit_macs: Vec<u64> = trained.exits.heads.0.iter().map(ExitHead::macs).collect();
    let mut cost = counted.table(stem, widths, &exit_macs, &gate_macs);
    if let Some(gate) = &trained.gate_zero {
        cost.gate_zero = counted.gate(trained.exits.probe.macs() + gate.predictor.macs());
    }
    let priced = |timings: &Timings| -> Result<CostTable> {
        let ((exit_ms, gate_ms), _) =
            cache.stage(&keys.head_times(seed)?, cancel, say, |_| head_times(shared, trained, predictions, pooling))?;
        let mut time = timings.table(stem, widths, exit_ms, &gate_ms);
        if trained.gate_zero.is_some() {
            // An exit and a gate of the same sizes.
            time.gate_zero = exit_ms + gate_ms.first().copied().unwrap_or(0.0);
        }
        Ok(time)
    };
    let time = timings.map(priced).transpose()?;
    if let (CostModel::Latency, Some(time)) = (counted.model(), &time) {
        // Gates do more than multiply. Exits stay as counted: the axis begins at one, and all seeds need the same.
        cost.gate.clone_from(&time.gate);
        cost.gate_zero = time.gate_zero;
    }
    Ok(Ledger::new(tree, cost, counted.bits(stem, widths), time)?)
}

/// Milliseconds per picture of an exit's classifier and of each gate, on one thread.
fn head_times(
    shared: Shared,
    trained: &Trained,
    predictions: &Predictions,
    pooling: Option<&Pooling>,
) -> Result<(f64, Vec<f64>)> {
    let samples = shared.prepared.splits.test.len();
    let per_picture = |start: Instant, count: usize| start.elapsed().as_secs_f64() * 1e3 / count as f64;
    let features = shared.runs.tree.test.list(1)?;
    let start = Instant::now();
    std::hint::black_box(NodeAnswers::compute(&trained.exits.heads.0[0], &features));
    let exit = per_picture(start, samples);
    let gates = trained.gates.iter().zip(&predictions.test_rows).map(|(gate, rows)| {
        let mut out = Vec::new();
        let first = shared.tree.level(gate.predictor.gate()).start;
        let start = Instant::now();
        for row in rows.features[..samples * rows.dim].chunks_exact(rows.dim) {
            gate.predictor.predict(row, 0, &mut out);
            if let Some(pooling) = pooling {
                pooling.apply(first, &mut out);
            }
            std::hint::black_box(&out);
        }
        per_picture(start, samples)
    });
    Ok((exit, gates.collect()))
}

/// Float first, then the widths that the tree does not hold.
fn static_runs(shared: Shared, trained: &Trained) -> Result<Vec<StaticRun>> {
    let Shared { recipe, counted, timings, .. } = shared;
    let heads = &trained.exits.heads;
    let run = |(index, features): (usize, &StaticFeatures)| -> Result<StaticRun> {
        let width = features.width;
        let stem = if width.is_float() { Width::FLOAT } else { recipe.quant.stem };
        let mut cal = run_outcomes(&run_answers(|_| heads, features.on.cal_a.lists())?);
        if trained.folds.is_some() {
            let fit = run_outcomes(&run_on_fit(shared, trained, index)?);
            cal = cal.with(trained.outcomes.cal_a.samples(), &fit, trained.outcomes.fit.samples());
        }
        Ok(StaticRun {
            name: width.to_string(),
            stem: counted.stem(stem),
            segment: counted.segments(width),
            stem_bits: f64::from(stem.weight_bits()),
            segment_bits: vec![f64::from(width.weight_bits()); recipe.paths.segments.len()],
            time: timings.map(|timings| timings.run(recipe.quant.stem, width)),
            cal,
            test: run_outcomes(&run_answers(|_| heads, features.on.test.lists())?),
        })
    };
    shared.runs.statics.iter().enumerate().map(run).collect()
}

/// What the exits say of the pictures of *fit* along static run `index`, each exit one that has not seen the picture.
fn run_on_fit(shared: Shared, trained: &Trained, index: usize) -> Result<Vec<NodeAnswers>> {
    let classes = shared.prepared.backbone.classes();
    let exits = run_answers(|picture| trained.exits.for_fit(picture), shared.runs.on_fit(index))?;
    Ok(match &trained.fit_pictures {
        None => exits,
        Some(chosen) => exits.iter().map(|exit| exit.of(chosen, classes)).collect(),
    })
}

/// The float run with the scores of its exits.
fn float_run(shared: Shared, trained: &Trained, run: &StaticRun) -> Result<FloatRun> {
    let (features, heads) = (&shared.runs.statics[0].on, &trained.exits.heads);
    let classes = shared.prepared.backbone.classes();
    let scores = |of: &Table| -> Result<_> { Ok(run_scores(&run_answers(|_| heads, of.lists())?, classes)) };
    let on_fit = run_on_fit(shared, trained, 0)?;
    let fit = fit_scores(&on_fit, classes, trained.outcomes.fit.labels());
    let mut cal = scores(&features.cal_a)?;
    if trained.folds.is_some() {
        cal = cal.with(trained.outcomes.cal_a.samples(), &fit.scores, trained.outcomes.fit.samples());
    }
    let gate_cost = shared.counted.gate(JEI_GATE_MACS);
    Ok(FloatRun { run: run.clone(), cal, test: scores(&features.test)?, fit, gate_cost })
}
