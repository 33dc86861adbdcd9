//! Whole studies on made-up tables: the oracle's bound, what learned policies gain, determinism, refusals.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bootstrap::Bootstrap;
use crate::cost::{BitTable, Charge, CostTable, Ledger};
use crate::curve::{Axis, pareto, test_points};
use crate::dynamic::Cells;
use crate::open_loop::PredictionTable;
use crate::pooling::Pooling;
use crate::risk::{RiskOutcome, RiskTarget};
use crate::scores::{FitScores, FloatRun, Scores};
use crate::study::{
    DynamicInput, MethodKind, MethodResult, OpenLoopInput, RiskInput, SeedInputs, SeedResult, StudyError, StudyOptions,
    evaluate,
};
use crate::summary::{Summary, summarise};
use crate::table::{Outcomes, RunOutcomes, StaticRun, most_frequent};
use crate::tree::{Monotone, PathTree};

/// Tables of one split, with the hidden error probability of every path.
struct Split {
    table: Outcomes,
    float: RunOutcomes,
    /// Scores of the float run, made up from its confidence.
    scores: FitScores,
    /// `[path][sample]`.
    error: Vec<f32>,
    difficulty: Vec<f32>,
}

/// Samples of a difficulty between 0 and 1; deeper exits and higher widths forgive more of it. `signal` mixes between
/// answers at random (0) and answers that follow the difficulty (1).
fn split(tree: &PathTree, samples: usize, classes: u16, signal: f32, seed: u64) -> Split {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<u16> = (0..samples).map(|_| rng.random_range(0..classes)).collect();
    let difficulty: Vec<f32> = (0..samples).map(|_| rng.random()).collect();
    let mut row = |power: f32, error: &mut Vec<f32>, answers: &mut Vec<u16>, confidence: &mut Vec<f32>| {
        for (label, difficulty) in labels.iter().zip(&difficulty) {
            let chance = 1.0 / f32::from(classes);
            let wrong = 1.0 / (1.0 + (-12.0 * (difficulty - power)).exp());
            let wrong = signal * wrong + (1.0 - signal) * (1.0 - chance);
            let right = rng.random::<f32>() >= wrong;
            answers.push(if right { *label } else { (label + 1 + rng.random_range(0..classes - 1)) % classes });
            confidence.push((1.0 - wrong + 0.8 * (rng.random::<f32>() - 0.5)).clamp(0.0, 1.0));
            error.push(wrong);
        }
    };
    let (mut error, mut answers, mut confidence) = (Vec::new(), Vec::new(), Vec::new());
    for node in tree.paths() {
        let widths = tree.widths_of(node);
        let mean = widths.iter().sum::<usize>() as f32 / widths.len() as f32;
        let power = 0.2 + 0.5 * widths.len() as f32 / tree.segments() as f32 + 0.1 * mean;
        row(power, &mut error, &mut answers, &mut confidence);
    }
    let (mut ignored, mut float) = (Vec::new(), RunOutcomes { answers: Vec::new(), confidence: Vec::new() });
    for depth in 1..=tree.segments() {
        let power = 0.4 + 0.5 * depth as f32 / tree.segments() as f32;
        row(power, &mut ignored, &mut float.answers, &mut float.confidence);
    }
    let score = |of: fn(f32) -> f32| float.confidence.iter().map(|confidence| of(*confidence)).collect::<Vec<f32>>();
    let scores = FitScores {
        confidence: float.confidence.clone(),
        scores: Scores {
            margin: score(|confidence| confidence * confidence),
            entropy: score(|confidence| 1.0 - confidence),
            entropy_of_squares: score(|confidence| (1.0 - confidence).powi(2)),
        },
        true_class: ignored.iter().map(|wrong| 1.0 - wrong).collect(),
    };
    Split { table: Outcomes::new(tree, answers, confidence, labels).unwrap(), float, scores, error, difficulty }
}

fn ledger(tree: &PathTree, overhead: f64) -> Ledger {
    let cost = CostTable {
        stem: 2.0,
        segment: vec![(0..tree.widths()).map(|width| 2.0 * (width + 1).pow(2) as f64).collect(); tree.segments()],
        exit: vec![overhead; tree.segments()],
        gate: vec![overhead / 2.0; tree.segments() - 1],
        gate_zero: 0.0,
        float_total: 4.0 + 40.0 * tree.segments() as f64,
        cascade: false,
    };
    let bits = BitTable {
        stem_macs: 1.0,
        stem_bits: 8.0,
        segment_macs: vec![2.0; tree.segments()],
        width_bits: (0..tree.widths()).map(|width| 2.0 + width as f64).collect(),
    };
    Ledger::new(tree, cost.clone(), bits, Some(cost)).unwrap()
}

/// Predictions that know the hidden error probability up to noise.
fn predictions(tree: &PathTree, split: &Split, noise: f32, seed: u64) -> PredictionTable {
    let samples = split.table.samples();
    PredictionTable::from_fn(tree, samples, |node, sample, place| {
        let end = tree.continuations(node)[place].end;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((end * samples + sample) as u64);
        split.error[(end - 1) * samples + sample] + noise * (rng.random::<f32>() - 0.5)
    })
}

/// Cells that are bins of the difficulty.
fn cells(tree: &PathTree, split: &Split, count: usize) -> Cells {
    let bin = |difficulty: &f32| ((difficulty * count as f32) as u16).min(count as u16 - 1);
    let cells = tree.gate_nodes().flat_map(|_| split.difficulty.iter().map(bin)).collect();
    Cells::new(tree, split.table.samples(), vec![count; tree.segments() - 1], cells).unwrap()
}

struct Shape {
    tree: PathTree,
    samples: usize,
    classes: u16,
    signal: f32,
    overhead: f64,
    pictures: u64,
    extras: usize,
}

fn with_inputs<T>(shape: &Shape, seed: u64, then: impl FnOnce(&SeedInputs<'_>) -> T) -> T {
    let Shape { tree, samples, classes, signal, overhead, pictures, extras } = shape;
    let ledger = ledger(tree, *overhead);
    let part = |at: u64| split(tree, *samples, *classes, *signal, 4 * pictures + at);
    // Seeds differ in their predictions, never in their pictures.
    let (fit, cal, cal_b, test) = (part(1), part(2), part(3), part(4));
    let float = StaticRun {
        name: "float".to_owned(),
        stem: 4.0,
        segment: vec![40.0; tree.segments()],
        stem_bits: 32.0,
        segment_bits: vec![32.0; tree.segments()],
        time: None,
        cal: cal.float.clone(),
        test: test.float.clone(),
    };
    let extra = [StaticRun { name: "extra".to_owned(), segment: vec![30.0; tree.segments()], ..float.clone() }];
    let (cal_scores, test_scores) = (cal.scores.scores.clone(), test.scores.scores.clone());
    let float = FloatRun {
        run: float,
        cal: cal_scores,
        test: test_scores,
        fit: fit.scores.clone(),
        gate_cost: overhead / 10.0,
    };
    let last = (tree.segments() - 1) * samples;
    let float_b: Vec<bool> =
        cal_b.float.answers[last..].iter().zip(cal_b.table.labels()).map(|(answer, label)| answer == label).collect();
    let predict = |split| predictions(tree, split, 0.1, seed);
    let (on_cal, on_test, on_b) = (predict(&cal), predict(&test), predict(&cal_b));
    let (fit_cells, cal_cells, test_cells, b_cells) =
        (cells(tree, &fit, 8), cells(tree, &cal, 8), cells(tree, &test, 8), cells(tree, &cal_b, 8));
    let names: Vec<String> = (0..tree.widths()).map(|width| format!("w{}a8", width + 2)).collect();
    then(&SeedInputs {
        tree,
        ledger: &ledger,
        width_names: &names,
        fit: &fit.table,
        cal: &cal.table,
        test: &test.table,
        float: &float,
        extras: &extra[..*extras],
        open_loop: &[OpenLoopInput {
            name: "open loop",
            cal: &on_cal,
            test: &on_test,
            cal_b: Some(&on_b),
            candidates: None,
            pooling: None,
        }],
        folds: None,
        fitted: &[],
        dynamic: &[DynamicInput {
            name: "closed loop",
            alpha: 8.0,
            fit: &fit_cells,
            cal: &cal_cells,
            test: &test_cells,
            cal_b: Some(&b_cells),
        }],
        risk: Some(RiskInput {
            target: RiskTarget { epsilon: 0.25, delta: 0.1 },
            outcomes: &cal_b.table,
            float_correct: &float_b,
        }),
        majority_class: most_frequent(fit.table.labels()),
        options: StudyOptions { seed, ..StudyOptions::default() },
    })
}

fn study(shape: &Shape, seeds: u64, bootstrap: &Bootstrap) -> (Vec<SeedResult>, Summary) {
    let results: Vec<SeedResult> =
        (0..seeds).map(|seed| with_inputs(shape, seed, |inputs| evaluate(inputs).unwrap())).collect();
    let summary = summarise(&results, bootstrap).unwrap();
    (results, summary)
}

fn find_in<'a>(result: &'a SeedResult, name: &str) -> &'a MethodResult {
    result.methods.iter().find(|method| method.name == name).unwrap()
}

fn learnable(samples: usize) -> Shape {
    let tree = PathTree::new(3, 3, Monotone::Free, 2_000).unwrap();
    Shape { tree, samples, classes: 10, signal: 1.0, overhead: 0.01, pictures: 0, extras: 1 }
}

#[test]
fn pooled_predictions_are_those_that_the_policy_decides_by() {
    with_inputs(&learnable(200), 0, |inputs| {
        let input = inputs.open_loop[0];
        let pooling = Pooling::fit(inputs.tree, input.cal, 200.0).unwrap();
        let pooled = [input.cal, input.test, input.cal_b.unwrap()].map(|table| pooling.table(table.clone()));
        let settings = |open_loop| {
            let inputs = SeedInputs { open_loop: &[open_loop], ..*inputs };
            let result = evaluate(&inputs).unwrap();
            let method = find_in(&result, "open loop");
            (method.settings.clone(), method.on_b.clone(), method.risk.clone())
        };
        let by_hand = settings(OpenLoopInput { cal: &pooled[0], test: &pooled[1], cal_b: Some(&pooled[2]), ..input });
        assert_eq!(settings(OpenLoopInput { pooling: Some(&pooling), ..input }), by_hand);
        assert_ne!(settings(input), by_hand);
    });
}

#[test]
fn a_study_from_tables_to_intervals() {
    let (results, summary) = study(&learnable(600), 2, &Bootstrap { resamples: 200, seed: 3 });
    let find = |name: &str| summary.methods.iter().find(|method| method.name == name).unwrap();
    assert_eq!(summary.methods.last().unwrap().name, "oracle");
    let (open, naive, random, oracle) = (find("open loop"), find("naive combination"), find("random"), find("oracle"));
    assert!(open.area.value > naive.area.value, "knows the truth: {:?} {:?}", open.area, naive.area);
    assert!(find("closed loop").area.value > naive.area.value);
    assert!(random.area.value < naive.area.value);
    for name in ["float early exit, entropy", "float early exit, margin"] {
        // Made up as functions of the largest probability, they make the same rule but for the places of quantiles.
        assert!((find(name).area.value - find("float early exit").area.value).abs() < 0.02, "{name}");
    }
    for name in ["float early exit, patience", "JEI-DNN gates", "per-input width"] {
        assert_eq!(find(name).kind, MethodKind::Single);
        assert!(find(name).front.len() > 1, "{name} has something to trade");
    }
    assert_eq!(find("MAQEE-like").kind, MethodKind::Combination);
    assert!(find("MAQEE-like").area.value > naive.area.value);
    assert!(oracle.area.value > open.area.value);
    assert_eq!(oracle.gap_closed.unwrap().value, 1.0);
    let gap = open.gap_closed.unwrap();
    assert!(0.0 < gap.value && gap.value < 1.0 && gap.low <= gap.value && gap.value <= gap.high, "{gap:?}");
    let best = find(summary.best_single.as_deref().unwrap());
    assert_eq!(best.kind, MethodKind::Single);
    let paired = summary.difference("open loop", "naive combination").unwrap().area;
    assert!((paired.value - (open.area.value - naive.area.value)).abs() < 1e-12);
    assert!(paired.high - paired.low < (open.area.high - open.area.low) + (naive.area.high - naive.area.low));
    assert!(paired.low > 0.0, "{paired:?}");
    assert!(matches!(summary.difference("open loop", "none"), Err(StudyError::Method { .. })));

    let drop = open.cost_at_drop_1_0.as_ref().unwrap();
    assert_eq!(drop.settings.len(), 2);
    let lost = |(result, name): (&SeedResult, &String)| {
        let setting = find_in(result, "open loop").settings.iter().find(|setting| setting.name == *name).unwrap();
        assert!(setting.cal.accuracy() >= result.float.cal.accuracy() - 0.01 - 1e-9);
        50.0 * (result.float.test.accuracy() - setting.test.accuracy())
    };
    let mean: f64 = results.iter().zip(&drop.settings).map(lost).sum();
    assert!((drop.drop_points.value - mean).abs() < 1e-9, "{drop:?} {mean}");
    assert!(drop.cost.value < 0.6 && drop.cost.low <= drop.cost.value && drop.cost.value <= drop.cost.high);
    assert!(find("random").cost_at_drop_0_5.is_none(), "never as good as float");
    for point in &open.front {
        assert!((point.exit_shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((2.0..=8.0).contains(&point.weight_bits) && point.ms.is_some());
        assert!(point.accuracy.low <= point.accuracy.value && point.accuracy.value <= point.accuracy.high);
    }
    for result in &results {
        let open = find_in(result, "open loop");
        assert!(open.settings.len() <= 200 && open.settings.is_sorted_by_key(|setting| setting.parameter));
        assert!(open.settings.last().unwrap().cal.mean_cost() < open.settings[0].cal.mean_cost());
        let RiskOutcome::Certified { index, lambda, .. } = open.risk.as_ref().unwrap().outcome else { panic!() };
        assert!(index > 0 && open.settings[index].parameter == lambda);
        let lost = result.float.test.accuracy() - open.settings[index].test.accuracy();
        // The certificate is about the population; 0.07 is four standard errors of a rate of 0.25 in 600 samples.
        assert!(lost < 0.25 + 0.07, "the loss rate bounds the fall in accuracy: {lost}");
        let affordable = open.for_budget(0.05).unwrap();
        assert!(open.settings[affordable].cal.mean_cost() <= 0.05);
        assert!(open.settings[affordable - 1].cal.mean_cost() > 0.05);
    }
}

#[test]
fn the_same_whatever_the_number_of_threads() {
    let bootstrap = Bootstrap { resamples: 100, seed: 1 };
    let shape = learnable(150);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = one.install(|| study(&shape, 1, &bootstrap).1);
    assert_eq!(alone, study(&shape, 1, &bootstrap).1);
}

#[test]
fn refuses_what_does_not_fit() {
    let shape = learnable(50);
    with_inputs(&shape, 0, |inputs| {
        let names = vec!["w2a8".to_owned()];
        let error = evaluate(&SeedInputs { width_names: &names, ..*inputs }).unwrap_err();
        assert!(matches!(error, StudyError::Names { names: 1, widths: 3 }));
        let mut float = inputs.float.clone();
        float.run.test.answers.pop();
        let error = evaluate(&SeedInputs { float: &float, ..*inputs }).unwrap_err();
        assert!(error.to_string().contains("float"), "{error}");
        let mut float = inputs.float.clone();
        float.fit.true_class[7] = f32::NAN;
        let error = evaluate(&SeedInputs { float: &float, ..*inputs }).unwrap_err();
        assert!(error.to_string().contains("true class"), "{error}");
        let float = FloatRun { gate_cost: -1.0, ..inputs.float.clone() };
        assert!(matches!(evaluate(&SeedInputs { float: &float, ..*inputs }), Err(StudyError::Cost { .. })));
        let few = predictions(&shape.tree, &split(&shape.tree, 49, 10, 1.0, 9), 0.0, 0);
        let open_loop = [OpenLoopInput { test: &few, ..inputs.open_loop[0] }];
        let error = evaluate(&SeedInputs { open_loop: &open_loop, ..*inputs }).unwrap_err();
        assert!(error.to_string().contains("samples of test"), "{error}");
        let other = PathTree::new(2, 3, Monotone::Free, 2_000).unwrap();
        let foreign = split(&other, 50, 10, 1.0, 9);
        let error = evaluate(&SeedInputs { fit: &foreign.table, ..*inputs }).unwrap_err();
        assert!(error.to_string().contains("fit"), "{error}");
        let predictions = predictions(&other, &foreign, 0.0, 0);
        let open_loop = [OpenLoopInput { cal: &predictions, ..inputs.open_loop[0] }];
        assert!(evaluate(&SeedInputs { open_loop: &open_loop, ..*inputs }).is_err());
        let finer = cells(&shape.tree, &split(&shape.tree, 50, 10, 1.0, 9), 9);
        let dynamic = [DynamicInput { test: &finer, ..inputs.dynamic[0] }];
        assert!(evaluate(&SeedInputs { dynamic: &dynamic, ..*inputs }).is_err());
    });
    assert!(matches!(summarise(&[], &Bootstrap::default()), Err(StudyError::Seeds { .. })));
    let mut results = study(&learnable(50), 2, &Bootstrap { resamples: 0, seed: 0 }).0;
    results[1].methods.pop();
    assert!(matches!(summarise(&results, &Bootstrap::default()), Err(StudyError::Seeds { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// On the same samples nothing beats the oracle: neither in area nor at any single setting, whatever the tables,
    /// and on no resample.
    #[test]
    fn nothing_beats_the_oracle(
        segments in 1usize..4, widths in 1usize..3, rule in 0usize..3, classes in 2u16..5,
        signal in 0.0f32..1.0, overhead in 0.0f64..4.0, seed in 0u64..1_000_000,
    ) {
        let rule = [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing][rule];
        let tree = PathTree::new(segments, widths, rule, 2_000).unwrap();
        let shape = Shape { tree, samples: 25, classes, signal, overhead, pictures: seed, extras: (seed % 2) as usize };
        let result = with_inputs(&shape, seed, |inputs| evaluate(inputs).unwrap());
        let axis = Axis { least_cost: result.least_cost, floor: result.majority.test.accuracy() };
        let bound = result.oracle.area(&axis, |_| 1.0);
        let steps = result.oracle.points();
        for method in &result.methods {
            let points = test_points(&method.settings);
            prop_assert!(axis.area(&points) <= bound + 1e-9, "{} {}", method.name, bound);
            let front: Vec<_> = pareto(&points).into_iter().map(|at| points[at]).collect();
            prop_assert!(axis.area(&front) <= bound + 1e-9, "{} chosen on test", method.name);
            for (cost, accuracy) in points {
                let nothing = Axis { floor: -1.0, ..axis };
                let most = nothing.accuracy_at(&steps, cost + 1e-12);
                prop_assert!(accuracy <= most + 1e-9, "{}: {accuracy} > {most} at {cost}", method.name);
            }
        }
        let bootstrap = Bootstrap { resamples: 20, seed };
        let summary = summarise(std::slice::from_ref(&result), &bootstrap).unwrap();
        for method in &summary.methods {
            let difference = summary.difference("oracle", &method.name).unwrap().area;
            prop_assert!(difference.low > -1e-6 && difference.value > -1e-9, "{} {difference:?}", method.name);
        }
    }
}

#[test]
fn gate_zero_commits_where_a_path_is_better_on_cal_and_then_asks_nobody() {
    // Predictions that know nothing and gates that cost a lot: some prices are better served by one path.
    let shape = Shape { signal: 0.0, overhead: 5.0, ..learnable(60) };
    let run = |commit: bool| {
        with_inputs(&shape, 0, |inputs| {
            let options = StudyOptions { commit, ..inputs.options };
            let result = evaluate(&SeedInputs { options, ..*inputs }).unwrap();
            let prices = inputs.ledger.prices(inputs.tree, Charge::Static);
            let method = result.methods.into_iter().find(|m| m.name == "open loop").unwrap();
            (method, prices)
        })
    };
    let (free, prices) = run(true);
    let (bound, _) = run(false);
    assert!(bound.commits.iter().all(Option::is_none));
    assert!(free.commits.iter().any(Option::is_some));
    for (setting, commit) in free.settings.iter().zip(&free.commits) {
        if let Some(node) = commit {
            assert!(setting.test.options().iter().all(|option| *option as usize == *node));
            let paid = setting.test.mean_cost();
            assert!((paid - prices[*node].cost).abs() < 1e-12, "a committed path pays the answering exit alone");
        }
    }
    let objective = |method: &MethodResult, lambda: f64| {
        let setting = method.settings.iter().find(|s| s.parameter == lambda).unwrap();
        1.0 - setting.cal.accuracy() + lambda * setting.cal.mean_cost()
    };
    for lambda in [0.0, 0.1, 1.0, 10.0] {
        assert!(objective(&free, lambda) <= objective(&bound, lambda) + 1e-12, "never worse on cal-a at {lambda}");
    }
}
