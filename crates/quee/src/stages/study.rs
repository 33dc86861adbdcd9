//! One seed of a study: exits, gates, then every policy and baseline on the same tables.

use std::borrow::Cow;
use std::time::Instant;

use anyhow::Result;
use quee_heads::quality::{self, ReliabilityBin};
use quee_heads::{ABSENT, ExitHead, FeatureSpec, FourWay, PredictorRow};
use quee_policy::cost::Ledger;
use quee_policy::dynamic::Cells as CellTable;
use quee_policy::fitted::FittedOptions;
use quee_policy::gate_features::GateFeatures;
use quee_policy::lambda::Sweep;
use quee_policy::open_loop::{PredictionTable, candidates, one_step_candidates, root_rates};
use quee_policy::risk::RiskTarget;
use quee_policy::scores::FloatRun;
use quee_policy::study::{
    DynamicInput, FittedInput, OpenLoopInput, RiskInput, SeedInputs, SeedResult, StudyOptions, evaluate,
};
use quee_policy::table::{Outcomes, StaticRun, most_frequent};
use quee_policy::tree::{PathTree, ROOT};
use quee_quant::Width;
use quee_train::TrainDevice;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::answers::{
    ExitHeads, NodeAnswers, fit_scores, outcomes, run_answers, run_outcomes, run_scores, tree_answers,
};
use super::backbone_runs::{BackboneRuns, PerSplit};
use super::costs::{Counted, Timings};
use super::exits::{self, TrainedExits};
use super::gates as gate_stage;
use super::gates::{self, Gate, GateInput, GateRows};
use super::prepare::Prepared;
use crate::cancel::Cancel;
use crate::recipe::{Candidates, Recipe};

/// Name of the open-loop policy in results.
pub const OPEN_LOOP: &str = "QuEE open loop";
/// Name of the dynamic program in results.
pub const DYNAMIC: &str = "QuEE dynamic program";
/// Name of fitted backward induction in results.
pub const FITTED: &str = "QuEE fitted induction";
/// Name of the rule that looks one step ahead in results.
pub const ONE_STEP: &str = "QuEE one step";

/// Multiply-accumulates of one of JEI-DNN's gates: four scores and a bias.
const JEI_GATE_MACS: u64 = 5;

/// Trained exits and gates of one seed, and the tables made with them.
pub struct Trained {
    /// Exits.
    pub exits: TrainedExits,
    /// Positions in *fit* that cells and predictors learn from, where not all do.
    pub fit_pictures: Option<Vec<usize>>,
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
}

/// Trains exits and gates.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(shared: Shared, seed: u64) -> Result<(Trained, Predictions)> {
    let Shared { recipe, prepared, tree, runs, training, cancel, .. } = shared;
    let exits = exits::train(recipe, prepared, runs, training, seed, cancel)?;
    let splits = &prepared.splits;
    let mut labels = PerSplit {
        fit: prepared.data.labels_of(prepared.fit()),
        cal_a: prepared.data.labels_of(&splits.cal_a),
        cal_b: prepared.data.labels_of(&splits.cal_b),
        test: prepared.data.labels_of(&splits.test),
    };
    let heads = &exits.heads;
    let mut answers = PerSplit {
        fit: tree_answers(tree, |picture| exits.for_fit(picture), &runs.tree.fit),
        cal_a: tree_answers(tree, |_| heads, &runs.tree.cal_a),
        cal_b: tree_answers(tree, |_| heads, &runs.tree.cal_b),
        test: tree_answers(tree, |_| heads, &runs.tree.test),
    };
    let chosen = chosen_of_fit(recipe, labels.fit.len());
    let mut fit_tokens = Cow::Borrowed(&runs.tree.fit);
    if let Some(chosen) = &chosen {
        let (classes, dim) = (prepared.backbone.classes(), prepared.backbone.feature_dim());
        answers.fit = answers.fit.iter().map(|node| node.of(chosen, classes)).collect();
        labels.fit = chosen.iter().map(|&picture| labels.fit[picture]).collect();
        let token = |node: &Vec<f32>, picture: usize| node[picture * dim..(picture + 1) * dim].to_vec();
        let of_node = |node: &Vec<f32>| match node.is_empty() {
            true => Vec::new(),
            false => chosen.iter().flat_map(|&picture| token(node, picture)).collect(),
        };
        fit_tokens = Cow::Owned(runs.tree.fit.iter().map(of_node).collect());
    }
    let input = |nodes, tokens, labels| GateInput { nodes, tokens, labels };
    let inputs = PerSplit {
        fit: input(&answers.fit, &fit_tokens, &labels.fit),
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
    let relative =
        |width: &Width| shared.counted.segments(*width).into_iter().map(|cost| cost / shared.counted.float_total());
    let by_width: Vec<Vec<f64>> = recipe.quant.widths.iter().map(|width| relative(width).collect()).collect();
    let segments = 0..recipe.paths.segments.len();
    let costs: Vec<Vec<f64>> = segments.map(|s| by_width.iter().map(|costs| costs[s]).collect()).collect();
    let setup = gate_stage::Setup { recipe, tree, spec: &spec, costs: &costs, on: training };
    let gates = gate_stage::train(setup, &inputs, seed, cancel)?;
    let predictions = Predictions::compute(tree, &spec, &gates, &inputs)?;
    let root_rates = root_rates(tree, &tables.fit);
    Ok((Trained { exits, fit_pictures: chosen, gates, root_rates, outcomes: tables }, predictions))
}

/// The pictures of *fit* that `predictor.pictures` leaves, where it leaves some out.
fn chosen_of_fit(recipe: &Recipe, pictures: usize) -> Option<Vec<usize>> {
    let most = recipe.predictor.pictures;
    (most > 0 && most < pictures).then(|| {
        let mut chosen: Vec<usize> = (0..pictures).collect();
        chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(recipe.data.split_seed));
        chosen.truncate(most);
        chosen.sort_unstable();
        chosen
    })
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
    features: PerSplit<GateFeatures>,
    test_rows: Vec<GateRows>,
}

impl Predictions {
    fn compute(tree: &PathTree, spec: &FeatureSpec, gates: &[Gate], inputs: &PerSplit<GateInput>) -> Result<Self> {
        let counts: Vec<usize> = gates.iter().map(|gate| gate.cells.k()).collect();
        let mut test_rows = Vec::new();
        let mut of_split = |input: &GateInput, keep: bool| -> Result<(PredictionTable, CellTable, GateFeatures)> {
            let samples = input.labels.len();
            let (mut predicted, mut cells, mut features) = (Vec::new(), Vec::new(), Vec::new());
            for (index, gate) in gates.iter().enumerate() {
                let rows = gates::rows(tree, spec, index + 1, *input);
                predicted.extend(gates::predict(tree, &gate.predictor, &rows, samples));
                let standard = gates::standardised(gate, &rows);
                cells.extend(gates::assign_cells(gate, &rows, &standard, spec));
                features.extend(standard.chunks_exact(samples * rows.dim).map(<[f32]>::to_vec));
                if keep {
                    test_rows.push(rows);
                }
            }
            let predicted = PredictionTable::new(tree, samples, predicted)?;
            let features = GateFeatures::new(tree, samples, features)?;
            Ok((predicted, CellTable::new(tree, samples, counts.clone(), cells)?, features))
        };
        let (fit, cal_a) = (of_split(&inputs.fit, false)?, of_split(&inputs.cal_a, false)?);
        let (cal_b, test) = (of_split(&inputs.cal_b, false)?, of_split(&inputs.test, true)?);
        Ok(Self {
            predicted: PerSplit { fit: fit.0, cal_a: cal_a.0, cal_b: cal_b.0, test: test.0 },
            cells: PerSplit { fit: fit.1, cal_a: cal_a.1, cal_b: cal_b.1, test: test.1 },
            features: PerSplit { fit: fit.2, cal_a: cal_a.2, cal_b: cal_b.2, test: test.2 },
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
    let statics = static_runs(shared, &trained.exits.heads);
    let (run, extras) = statics.split_first().expect("the float run is always there");
    let float = float_run(shared, &trained, run);
    let float_on_b = run_outcomes(&trained.exits.heads, &shared.runs.statics[0].cal_b);
    let labels_b = tables.cal_b.labels();
    let last = float_on_b.answers.len() - labels_b.len();
    let float_correct: Vec<bool> = float_on_b.answers[last..].iter().zip(labels_b).map(|(a, l)| a == l).collect();
    let names: Vec<String> = recipe.quant.widths.iter().map(ToString::to_string).collect();
    let Predictions { predicted, cells, features, .. } = &predictions;
    let foresight = recipe.predictor.foresight;
    let predicted = &match foresight {
        0.0 => predicted.clone(),
        _ => foreseen(tree, predicted, tables, foresight),
    };
    let candidates = match recipe.policy.candidates {
        Candidates::All => None,
        Candidates::Front => Some(candidates(tree, &ledger, &tables.fit)),
    };
    let one_step = one_step_candidates(tree);
    let open_loop = |name, candidates| OpenLoopInput {
        name,
        cal: &predicted.cal_a,
        test: &predicted.test,
        cal_b: Some(&predicted.cal_b),
        candidates,
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
        open_loop: &[open_loop(OPEN_LOOP, candidates.as_deref()), open_loop(ONE_STEP, Some(&one_step))],
        dynamic: &[DynamicInput {
            name: DYNAMIC,
            alpha: recipe.cells.smoothing,
            fit: &cells.fit,
            cal: &cells.cal_a,
            test: &cells.test,
            cal_b: Some(&cells.cal_b),
        }],
        fitted: &[FittedInput {
            name: FITTED,
            options: FittedOptions { seed, ..FittedOptions::default() },
            fit: &features.fit,
            cal: &features.cal_a,
            test: &features.test,
            cal_b: Some(&features.cal_b),
        }],
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
            ..StudyOptions::default()
        },
    };
    let result = evaluate(&inputs)?;
    let quality = quality(shared, &predictions, seed);
    let foresight = (foresight != 0.0).then(|| match foresight > 0.0 {
        true => format!(
            "Predictions know a share of {foresight} of the outcomes, those of test included: a diagnosis, no result."
        ),
        false => format!(
            "A share of {} of every prediction is the same for all pictures: a diagnosis, no result.",
            -foresight
        ),
    });
    Ok(SeedStudy { seed, trained, ledger, candidates, result, quality, foresight })
}

/// Predictions mixed with the true outcomes (`share` above 0), or with the error rates of *fit* (below): how much depends on the predictor's
/// quality, from the prior to the oracle.
fn foreseen(
    tree: &PathTree,
    predicted: &PerSplit<PredictionTable>,
    tables: &PerSplit<Outcomes>,
    share: f64,
) -> PerSplit<PredictionTable> {
    let rates: Vec<f32> =
        tree.nodes().map(|node| if node == ROOT { 1.0 } else { tables.fit.error_rate(node) as f32 }).collect();
    let ends: Vec<Vec<Option<usize>>> = tree
        .gate_nodes()
        .map(|node| (0..tree.suffix_count(tree.node(node).depth)).map(|suffix| tree.join(node, suffix)).collect())
        .collect();
    let weight = share.abs() as f32;
    let mixed = |predicted: &PredictionTable, outcomes: &Outcomes| {
        PredictionTable::from_fn(tree, predicted.samples(), |node, sample, suffix| {
            let own = predicted.get(node, sample)[suffix];
            let Some(end) = ends[node - 1][suffix] else { return own };
            let other = match share > 0.0 {
                true => f32::from(u8::from(!outcomes.correct(end, sample))),
                false => rates[end],
            };
            own + weight * (other - own)
        })
    };
    PerSplit {
        fit: mixed(&predicted.fit, &tables.fit),
        cal_a: mixed(&predicted.cal_a, &tables.cal_a),
        cal_b: mixed(&predicted.cal_b, &tables.cal_b),
        test: mixed(&predicted.test, &tables.test),
    }
}

/// Prices: counted costs, mean bits, measured times.
fn ledger(shared: Shared, trained: &Trained, predictions: &Predictions) -> Result<Ledger> {
    let Shared { recipe, tree, counted, timings, .. } = shared;
    let (stem, widths) = (recipe.quant.stem, &recipe.quant.widths);
    let gate_macs: Vec<u64> = trained.gates.iter().map(|gate| gate.predictor.macs()).collect();
    let exit_macs: Vec<u64> = trained.exits.heads.0.iter().map(ExitHead::macs).collect();
    let cost = counted.table(stem, widths, &exit_macs, &gate_macs);
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
    std::hint::black_box(NodeAnswers::compute(&trained.exits.heads.0[0], &shared.runs.tree.test[1]));
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
    let (features, heads) = (&shared.runs.statics[0], &trained.exits.heads);
    let classes = shared.prepared.backbone.classes();
    let scores = |features| run_scores(&run_answers(|_| heads, features), classes);
    let mut on_fit = run_answers(|picture| trained.exits.for_fit(picture), &shared.runs.float_fit);
    if let Some(chosen) = &trained.fit_pictures {
        on_fit = on_fit.iter().map(|exit| exit.of(chosen, classes)).collect();
    }
    FloatRun {
        run: run.clone(),
        cal: scores(&features.cal_a),
        test: scores(&features.test),
        fit: fit_scores(&on_fit, classes, trained.outcomes.fit.labels()),
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
