//! One seed of a study: exits, gates, then every policy and baseline on the same tables.

use std::time::Instant;

use anyhow::Result;
use quee_heads::quality::{self, ReliabilityBin};
use quee_heads::{ABSENT, FeatureSpec, FourWay, PredictorRow};
use quee_policy::cost::Ledger;
use quee_policy::dynamic::Cells as CellTable;
use quee_policy::lambda::Sweep;
use quee_policy::open_loop::{PredictionTable, candidates, root_rates};
use quee_policy::risk::RiskTarget;
use quee_policy::scores::FloatRun;
use quee_policy::study::{DynamicInput, OpenLoopInput, RiskInput, SeedInputs, SeedResult, StudyOptions, evaluate};
use quee_policy::table::{Outcomes, StaticRun, most_frequent};
use quee_policy::tree::PathTree;
use quee_quant::Width;
use quee_train::TrainDevice;
use rayon::prelude::*;

use super::answers::{ExitHeads, NodeAnswers, fit_scores, outcomes, run_outcomes, run_scores, tree_answers};
use super::backbone_runs::{BackboneRuns, PerSplit};
use super::costs::{Counted, Timings};
use super::gates::{self, Gate, GateInput, GateRows};
use super::prepare::Prepared;
use super::{exits, gates as gate_stage};
use crate::cancel::Cancel;
use crate::recipe::{Candidates, Recipe};

/// Name of the open-loop policy in results.
pub const OPEN_LOOP: &str = "QuEE open loop";
/// Name of the dynamic program in results.
pub const DYNAMIC: &str = "QuEE dynamic program";

/// Multiply-accumulates of one of JEI-DNN's gates: four scores and a bias.
const JEI_GATE_MACS: u64 = 5;

/// Trained exits and gates of one seed, and the tables made with them.
pub struct Trained {
    /// Exits.
    pub heads: ExitHeads,
    /// Gates 1 to segments − 1.
    pub gates: Vec<Gate>,
    /// Predictions at gate 0: rates on *fit*, `[suffix]`.
    pub root_rates: Vec<f32>,
    /// Answers of every path.
    pub outcomes: PerSplit<Outcomes>,
}

/// How well one gate predicts, on *test*.
pub struct GateQuality {
    /// Gate.
    pub gate: usize,
    /// One row per continuation, over all prefixes.
    pub rows: Vec<PredictorRow>,
    /// All continuations together.
    pub reliability: Vec<ReliabilityBin>,
    /// Right or wrong now and at full depth and largest width, over all prefixes.
    pub four_way: FourWay,
}

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
    /// Policies and baselines.
    pub result: SeedResult,
    /// Quality of the predictions.
    pub quality: Vec<GateQuality>,
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
}

/// Trains exits and gates.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(shared: Shared, seed: u64) -> Result<(Trained, Predictions)> {
    let Shared { recipe, prepared, tree, runs, training, cancel, .. } = shared;
    let heads = exits::train(recipe, prepared, runs, training, seed, cancel)?;
    let splits = &prepared.splits;
    let labels = PerSplit {
        fit: prepared.data.labels_of(&splits.fit),
        cal_a: prepared.data.labels_of(&splits.cal_a),
        cal_b: prepared.data.labels_of(&splits.cal_b),
        test: prepared.data.labels_of(&splits.test),
    };
    let answers: PerSplit<Vec<NodeAnswers>> = runs.tree.map(|features| tree_answers(tree, &heads, features));
    let input = |nodes, tokens, labels| GateInput { nodes, tokens, labels };
    let inputs = PerSplit {
        fit: input(&answers.fit, &runs.tree.fit, &labels.fit),
        cal_a: input(&answers.cal_a, &runs.tree.cal_a, &labels.cal_a),
        cal_b: input(&answers.cal_b, &runs.tree.cal_b, &labels.cal_b),
        test: input(&answers.test, &runs.tree.test, &labels.test),
    };
    let tables = PerSplit {
        fit: outcomes(tree, &answers.fit, &labels.fit)?,
        cal_a: outcomes(tree, &answers.cal_a, &labels.cal_a)?,
        cal_b: outcomes(tree, &answers.cal_b, &labels.cal_b)?,
        test: outcomes(tree, &answers.test, &labels.test)?,
    };
    let spec = feature_spec(recipe, prepared);
    let gates = gate_stage::train(recipe, tree, &spec, &inputs, training, seed, cancel)?;
    let predictions = Predictions::compute(tree, &spec, &gates, &inputs)?;
    let root_rates = root_rates(tree, &tables.fit);
    Ok((Trained { heads, gates, root_rates, outcomes: tables }, predictions))
}

/// Which features gates have.
pub fn feature_spec(recipe: &Recipe, prepared: &Prepared) -> FeatureSpec {
    FeatureSpec {
        classes: prepared.backbone.classes(),
        widths: recipe.quant.widths.clone(),
        segments: recipe.paths.segments.len(),
        projection: recipe.features.projection,
        token_dim: prepared.backbone.feature_dim(),
        projection_seed: recipe.data.split_seed,
    }
}

/// Predicted errors and cells of every split at every gate node.
pub struct Predictions {
    predicted: PerSplit<PredictionTable>,
    cells: PerSplit<CellTable>,
    test_rows: Vec<GateRows>,
}

impl Predictions {
    fn compute(tree: &PathTree, spec: &FeatureSpec, gates: &[Gate], inputs: &PerSplit<GateInput>) -> Result<Self> {
        let counts: Vec<usize> = gates.iter().map(|gate| gate.cells.k()).collect();
        let mut test_rows = Vec::new();
        let mut of_split = |input: &GateInput, keep: bool| -> Result<(PredictionTable, CellTable)> {
            let samples = input.labels.len();
            let (mut predicted, mut cells) = (Vec::new(), Vec::new());
            for (index, gate) in gates.iter().enumerate() {
                let rows = gates::rows(tree, spec, index + 1, *input);
                predicted.extend(gates::predict(tree, &gate.predictor, &rows, samples));
                cells.extend(gates::assign_cells(gate, &rows, spec));
                if keep {
                    test_rows.push(rows);
                }
            }
            let predicted = PredictionTable::new(tree, samples, predicted)?;
            Ok((predicted, CellTable::new(tree, samples, counts.clone(), cells)?))
        };
        let (fit, cal_a) = (of_split(&inputs.fit, false)?, of_split(&inputs.cal_a, false)?);
        let (cal_b, test) = (of_split(&inputs.cal_b, false)?, of_split(&inputs.test, true)?);
        Ok(Self {
            predicted: PerSplit { fit: fit.0, cal_a: cal_a.0, cal_b: cal_b.0, test: test.0 },
            cells: PerSplit { fit: fit.1, cal_a: cal_a.1, cal_b: cal_b.1, test: test.1 },
            test_rows,
        })
    }
}

/// Runs every policy and baseline of one seed.
///
/// # Errors
/// When tables do not fit together, or a wish to stop.
pub fn study(shared: Shared, seed: u64) -> Result<SeedStudy> {
    let Shared { recipe, prepared, tree, cancel, .. } = shared;
    let (trained, predictions) = train(shared, seed)?;
    cancel.check()?;
    let ledger = ledger(shared, &trained, &predictions)?;
    let tables = &trained.outcomes;
    let statics = static_runs(shared, &trained.heads);
    let (run, extras) = statics.split_first().expect("the float run is always there");
    let float = float_run(shared, &trained, run);
    let float_on_b = run_outcomes(&trained.heads, &shared.runs.statics[0].cal_b);
    let labels_b = tables.cal_b.labels();
    let last = float_on_b.answers.len() - labels_b.len();
    let float_correct: Vec<bool> = float_on_b.answers[last..].iter().zip(labels_b).map(|(a, l)| a == l).collect();
    let names: Vec<String> = recipe.quant.widths.iter().map(ToString::to_string).collect();
    let Predictions { predicted, cells, .. } = &predictions;
    let candidates = match recipe.policy.candidates {
        Candidates::All => None,
        Candidates::Front => Some(candidates(tree, &ledger, &tables.fit)),
    };
    let inputs = SeedInputs {
        tree,
        ledger: &ledger,
        width_names: &names,
        fit: &tables.fit,
        cal: &tables.cal_a,
        test: &tables.test,
        float: &float,
        extras,
        open_loop: &[OpenLoopInput {
            name: OPEN_LOOP,
            cal: &predicted.cal_a,
            test: &predicted.test,
            cal_b: Some(&predicted.cal_b),
            candidates: candidates.as_deref(),
        }],
        dynamic: &[DynamicInput {
            name: DYNAMIC,
            alpha: recipe.cells.smoothing,
            fit: &cells.fit,
            cal: &cells.cal_a,
            test: &cells.test,
            cal_b: Some(&cells.cal_b),
        }],
        risk: Some(RiskInput {
            target: RiskTarget { epsilon: recipe.policy.risk, delta: recipe.policy.risk_level },
            outcomes: &tables.cal_b,
            float_correct: &float_correct,
        }),
        majority_class: most_frequent(&prepared.data.labels_of(&prepared.splits.exit_train)),
        options: StudyOptions {
            sweep: Sweep { settings: recipe.policy.max_settings, ..Sweep::default() },
            seed,
            commit: recipe.policy.commit,
            ..StudyOptions::default()
        },
    };
    let result = evaluate(&inputs)?;
    let quality = quality(shared, &predictions, seed);
    Ok(SeedStudy { seed, trained, ledger, candidates, result, quality })
}

/// Prices: counted costs, mean bits, measured times.
fn ledger(shared: Shared, trained: &Trained, predictions: &Predictions) -> Result<Ledger> {
    let Shared { recipe, tree, counted, timings, .. } = shared;
    let (stem, widths) = (recipe.quant.stem, &recipe.quant.widths);
    let gate_macs: Vec<u64> = trained.gates.iter().map(|gate| gate.predictor.macs()).collect();
    let cost = counted.table(stem, widths, &gate_macs);
    let time = timings.map(|timings| {
        let (exit_ms, gate_ms) = head_times(shared, trained, predictions);
        timings.table(stem, widths, exit_ms, &gate_ms)
    });
    Ok(Ledger::new(tree, cost, counted.bits(stem, widths), time)?)
}

/// Milliseconds per picture of an exit's classifier and of each gate, on one thread.
fn head_times(shared: Shared, trained: &Trained, predictions: &Predictions) -> (f64, Vec<f64>) {
    let samples = shared.prepared.splits.test.len();
    let per_picture = |start: Instant, count: usize| start.elapsed().as_secs_f64() * 1e3 / count as f64;
    let start = Instant::now();
    std::hint::black_box(NodeAnswers::compute(&trained.heads.0[0], &shared.runs.tree.test[1]));
    let exit = per_picture(start, samples);
    let gates = trained.gates.iter().zip(&predictions.test_rows).map(|(gate, rows)| {
        let mut out = Vec::new();
        let start = Instant::now();
        for row in rows.features[..samples * rows.dim].chunks_exact(rows.dim) {
            gate.predictor.predict(row, 0, &mut out);
            std::hint::black_box(&out);
        }
        per_picture(start, samples)
    });
    (exit, gates.collect())
}

/// Float first, then the widths that the tree does not hold.
fn static_runs(shared: Shared, heads: &ExitHeads) -> Vec<StaticRun> {
    let Shared { recipe, counted, timings, .. } = shared;
    let run = |features: &super::backbone_runs::StaticFeatures| {
        let width = features.width;
        let stem = if width.is_float() { Width::FLOAT } else { recipe.quant.stem };
        StaticRun {
            name: width.to_string(),
            stem: counted.stem(stem),
            segment: counted.segments(width),
            stem_bits: f64::from(stem.weight_bits()),
            segment_bits: vec![f64::from(width.weight_bits()); recipe.paths.segments.len()],
            time: timings.map(|timings| timings.run(recipe.quant.stem, width)),
            cal: run_outcomes(heads, &features.cal_a),
            test: run_outcomes(heads, &features.test),
        }
    };
    shared.runs.statics.iter().map(run).collect()
}

/// The float run with the scores of its exits.
fn float_run(shared: Shared, trained: &Trained, run: &StaticRun) -> FloatRun {
    let (features, heads) = (&shared.runs.statics[0], &trained.heads);
    FloatRun {
        run: run.clone(),
        cal: run_scores(heads, &features.cal_a),
        test: run_scores(heads, &features.test),
        fit: fit_scores(heads, &shared.runs.float_fit, trained.outcomes.fit.labels()),
        gate_cost: shared.counted.gate(JEI_GATE_MACS),
    }
}

/// Quality of the predictions on *test*.
fn quality(shared: Shared, predictions: &Predictions, seed: u64) -> Vec<GateQuality> {
    let Shared { recipe, prepared, tree, .. } = shared;
    let samples = prepared.splits.test.len();
    let numbering = gates::numbering(tree).expect("the tree was numbered before");
    let largest = recipe
        .quant
        .widths
        .iter()
        .enumerate()
        .max_by_key(|(_, w)| (w.weight_bits(), w.act_bits()))
        .map_or(0, |(i, _)| i);
    let of_gate = |(index, rows): (usize, &GateRows)| {
        let gate = index + 1;
        let suffixes = tree.suffix_count(gate);
        let nodes: Vec<usize> = tree.level(gate).collect();
        // Predictions and outcomes of one suffix over all prefixes.
        let pairs = |suffix: usize| -> (Vec<f32>, Vec<u8>) {
            let of_node = |&node: &usize| {
                let start = (tree.prefix_index(node) * suffixes + suffix) * samples;
                let outcome = &rows.wrong[start..start + samples];
                (0..samples).map(move |sample| (predictions.predicted.test.get(node, sample)[suffix], outcome[sample]))
            };
            nodes.iter().flat_map(of_node).unzip()
        };
        let row = |suffix: usize| {
            let (p, y) = pairs(suffix);
            PredictorRow::compute(gate, numbering.suffix_name(suffix, &recipe.quant.widths), &p, &y, seed)
        };
        let (mut p, mut y) = (Vec::new(), Vec::new());
        for suffix in 0..suffixes {
            let (some_p, some_y) = pairs(suffix);
            for (p_i, y_i) in some_p.into_iter().zip(some_y).filter(|(_, y)| *y != ABSENT) {
                p.push(p_i);
                y.push(y_i);
            }
        }
        let full = numbering.suffix_index(&vec![largest; tree.segments() - gate]);
        GateQuality {
            gate,
            rows: (0..suffixes).into_par_iter().filter_map(row).collect(),
            reliability: quality::reliability(&p, &y, quality::ECE_BINS),
            four_way: FourWay::count(&pairs(0).1, &pairs(full).1),
        }
    };
    predictions.test_rows.iter().enumerate().map(of_gate).collect()
}
