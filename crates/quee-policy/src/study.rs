//! One seed of a study: every method over its settings, on *cal-a* and *test*.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::baselines::fixed::{random_policy, static_paths, static_widths};
use crate::baselines::jei::jei_gates;
use crate::baselines::maqee::maqee_like;
use crate::baselines::per_input_width::PerInputWidth;
use crate::baselines::threshold::{QUANTILES, Score, early_exit, naive};
use crate::cost::{Charge, CostError, Ledger, Price};
use crate::cross_fit::Folds;
use crate::curve::{cal_points, pareto, within_drop};
use crate::dynamic::{Cells, Chain};
use crate::fitted::{Fitted, FittedError, FittedOptions, FittedPlan};
use crate::gate_features::GateFeatures;
use crate::lambda::{Sweep, within_budget};
use crate::learned::learned;
use crate::open_loop::{OpenLoop, PredictionTable, root_rates};
use crate::oracle::Oracle;
use crate::outcome::{Choices, Setting};
use crate::pooling::Pooling;
use crate::risk::{RiskError, RiskReport, RiskTarget};
use crate::scores::FloatRun;
use crate::table::{Outcomes, RunOutcomes, StaticRun, TableError, check_shape};
use crate::tree::{NodeId, PathTree};

/// What a method is, for "best single technique" and for the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodKind {
    /// Quantization alone or early exiting alone.
    Single,
    /// Both, without learning when to do which.
    Combination,
    /// A learned policy.
    Learned,
    /// Floor or ceiling: the random policy, the oracle.
    Bound,
}

/// Why a study could not be evaluated.
#[derive(Debug, Error, PartialEq)]
pub enum StudyError {
    /// A table or a list of predictions or cells does not fit.
    #[error("{context}: {source}")]
    Table {
        /// Which input.
        context: String,
        /// What is wrong with it.
        source: TableError,
    },
    /// Fitted backward induction cannot be prepared.
    #[error("{context}: {source}")]
    Fitted {
        /// Which input.
        context: String,
        /// What is wrong with it.
        source: FittedError,
    },
    /// The costs of a static run do not fit.
    #[error("{context}: {source}")]
    Cost {
        /// Which input.
        context: String,
        /// What is wrong with it.
        source: CostError,
    },
    /// The target of risk control means nothing.
    #[error(transparent)]
    Risk(#[from] RiskError),
    /// There are fewer names than widths.
    #[error("{names} names for {widths} widths")]
    Names {
        /// Names given.
        names: usize,
        /// Widths of the tree.
        widths: usize,
    },
    /// Seeds differ in methods, axis or number of samples, or there is none.
    #[error("the results of all seeds need the same methods, test samples and axis: {what}")]
    Seeds {
        /// What differs.
        what: String,
    },
    /// No such method.
    #[error("no method called \"{name}\"; there are {known}")]
    Method {
        /// Name asked for.
        name: String,
        /// Names there are.
        known: String,
    },
}

/// Name of the rule by largest probability on float; the other scores' names begin with it.
pub const FLOAT_EXIT: &str = "float early exit";
/// Name of the baseline with JEI-DNN's gates.
pub const JEI: &str = "JEI-DNN gates";
/// Name of the naive combination.
pub const NAIVE: &str = "naive combination";
/// Name of the baseline with static widths and a threshold per exit.
pub const MAQEE: &str = "MAQEE-like";
/// Name of the static widths.
pub const STATIC_WIDTH: &str = "static width";

fn table(context: &str) -> impl Fn(TableError) -> StudyError {
    move |source| StudyError::Table { context: context.to_owned(), source }
}

/// Predictions of one open-loop policy.
#[derive(Clone, Copy, Debug)]
pub struct OpenLoopInput<'a> {
    /// Name of the method.
    pub name: &'a str,
    /// Predictions on *cal-a*. Where they have some at gate 0, the others must, too.
    pub cal: &'a PredictionTable,
    /// Predictions on *test*.
    pub test: &'a PredictionTable,
    /// Predictions on *cal-b*, for risk control.
    pub cal_b: Option<&'a PredictionTable>,
    /// Places to consider at every node ([`crate::open_loop::candidates`]); all where there is none.
    pub candidates: Option<&'a [Vec<usize>]>,
    /// How predictions are pooled before the policy decides by them; each as it is where there is none.
    pub pooling: Option<&'a Pooling>,
}

impl<'a> OpenLoopInput<'a> {
    /// Predictions as the policy takes them.
    fn believed(&self, predictions: &'a PredictionTable) -> Cow<'a, PredictionTable> {
        match self.pooling {
            None => Cow::Borrowed(predictions),
            Some(pooling) => Cow::Owned(pooling.table(predictions.clone())),
        }
    }
}

/// Cells of one closed-loop policy.
#[derive(Clone, Copy, Debug)]
pub struct DynamicInput<'a> {
    /// Name of the method.
    pub name: &'a str,
    /// Weight of the smoothing, in samples (method default 8).
    pub alpha: f64,
    /// Cells on *fit*, from which the chain is counted.
    pub fit: &'a Cells,
    /// Cells on *cal-a*.
    pub cal: &'a Cells,
    /// Cells on *test*.
    pub test: &'a Cells,
    /// Cells on *cal-b*, for risk control.
    pub cal_b: Option<&'a Cells>,
}

/// Features of one policy by fitted backward induction.
#[derive(Clone, Copy, Debug)]
pub struct FittedInput<'a> {
    /// Name of the method.
    pub name: &'a str,
    /// How it is fitted.
    pub options: FittedOptions,
    /// Features on *fit*.
    pub fit: &'a GateFeatures,
    /// Features on *cal-a*.
    pub cal: &'a GateFeatures,
    /// Features on *test*.
    pub test: &'a GateFeatures,
    /// Features on *cal-b*, for risk control.
    pub cal_b: Option<&'a GateFeatures>,
}

/// *cal-b* and what is to be certified on it, for every learned policy that has inputs for it.
#[derive(Clone, Copy, Debug)]
pub struct RiskInput<'a> {
    /// ε and δ.
    pub target: RiskTarget,
    /// The table of *cal-b*.
    pub outcomes: &'a Outcomes,
    /// `[sample]`: whether float is right at full depth.
    pub float_correct: &'a [bool],
}

/// Details of the evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StudyOptions {
    /// How finely λ is laid out.
    pub sweep: Sweep,
    /// Quantiles of a score that become thresholds: on *cal-a*, on *fit* for the MAQEE-like combination.
    pub quantiles: usize,
    /// Seed of the random policy and of the training of JEI-DNN's gates.
    pub seed: u64,
    /// Whether gate 0 of a learned policy may commit to a path (see [`crate::learned`]).
    pub commit: bool,
    /// Whether to leave out the baselines that take long or are never the best: other scores on float, JEI-DNN's gates, the width per input, the
    /// MAQEE-like search.
    pub few: bool,
}

impl Default for StudyOptions {
    fn default() -> Self {
        Self { sweep: Sweep::default(), quantiles: QUANTILES, seed: 0, commit: true, few: false }
    }
}

/// Everything one seed needs.
#[derive(Clone, Copy, Debug)]
pub struct SeedInputs<'a> {
    /// The path tree.
    pub tree: &'a PathTree,
    /// Prices.
    pub ledger: &'a Ledger,
    /// Names of the widths, such as `w4a4`.
    pub width_names: &'a [String],
    /// The table of *fit*.
    pub fit: &'a Outcomes,
    /// The table of *cal-a*.
    pub cal: &'a Outcomes,
    /// Folds of *fit*, which then stands behind *cal-a* in everything that is said of *cal-a*, predictions being those of predictors that have not
    /// seen a sample's fold.
    pub folds: Option<&'a Folds>,
    /// The table of *test*.
    pub test: &'a Outcomes,
    /// The float backbone, every exit read.
    pub float: &'a FloatRun,
    /// Static runs beside the tree (its own widths are taken from the table). They join static widths and the naive
    /// combination, and the oracle may pick them.
    pub extras: &'a [StaticRun],
    /// Open-loop policies. The first one's predictions at gate 1 also serve the baseline with one width per input, which is
    /// left out where there is none.
    pub open_loop: &'a [OpenLoopInput<'a>],
    /// Closed-loop policies on cells.
    pub dynamic: &'a [DynamicInput<'a>],
    /// Closed-loop policies on features.
    pub fitted: &'a [FittedInput<'a>],
    /// Risk control, if asked for.
    pub risk: Option<RiskInput<'a>>,
    /// The most frequent class of the training part ([`crate::table::most_frequent`]).
    pub majority_class: u16,
    /// Details.
    pub options: StudyOptions,
}

/// One method over its settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MethodResult {
    /// Name of the method.
    pub name: String,
    /// What it is.
    pub kind: MethodKind,
    /// Its settings; learned policies in ascending order of λ.
    pub settings: Vec<Setting>,
    /// `[setting]`: the path that gate 0 commits to, if it does; empty for methods that are not learned.
    pub commits: Vec<Option<NodeId>>,
    /// Risk control on *cal-b*, for learned policies where it was asked for.
    pub risk: Option<RiskReport>,
    /// `[setting]`: choices on *cal-b*, for learned policies where risk control was asked for.
    pub on_b: Vec<Choices>,
}

impl MethodResult {
    /// Index of the setting for a budget (mean relative cost on *cal-a*), see [`within_budget`].
    pub fn for_budget(&self, budget: f64) -> Option<usize> {
        let pair = |setting: &Setting| (setting.parameter, setting.cal.mean_cost());
        within_budget(&self.settings.iter().map(pair).collect::<Vec<_>>(), budget)
    }

    /// Index of the cheapest setting of the front on *cal-a* that loses at most `drop` (a share) against float there; of the most accurate one
    /// where none does.
    ///
    /// # Panics
    /// Without settings.
    pub fn for_drop(&self, float: &Setting, drop: f64) -> usize {
        let points = cal_points(&self.settings);
        let front = pareto(&points);
        let on_front: Vec<(f64, f64)> = front.iter().map(|&at| points[at]).collect();
        front[within_drop(&on_front, float.cal.accuracy(), drop).unwrap_or(front.len() - 1)]
    }
}

/// All methods of one seed, and what they are measured against.
///
/// More methods can be pushed before the seeds are joined, as long as every seed has them in the same order and they pay
/// at least what [`Charge::Static`] asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedResult {
    /// Single techniques, combinations, the random policy, then the learned policies in the order of the inputs.
    pub methods: Vec<MethodResult>,
    /// The oracle on *test*.
    pub oracle: Oracle,
    /// The float reference at full depth, cost 1.0: drops are measured against it.
    pub float: Setting,
    /// Always the most frequent training class, at no cost.
    pub majority: Setting,
    /// Relative cost of the cheapest one-segment path.
    pub least_cost: f64,
}

/// The choices of a constant answer or a reference run, at one price for all samples.
fn constant(price: Price, correct: Vec<bool>) -> Choices {
    Choices::new(vec![price].into(), vec![0; correct.len()], correct)
}

/// Runs every method of one seed over its settings.
///
/// # Errors
/// If an input does not fit the tree or the splits.
pub fn evaluate(inputs: &SeedInputs<'_>) -> Result<SeedResult, StudyError> {
    check(inputs)?;
    let SeedInputs { tree, ledger, cal, test, float, .. } = *inputs;
    let (cal_labels, test_labels) = (cal.labels(), test.labels());
    let along = |width| StaticRun::along_tree(tree, ledger, width, &inputs.width_names[width], cal, test);
    let runs: Vec<StaticRun> = (0..tree.widths()).map(along).chain(inputs.extras.iter().cloned()).collect();
    let mut methods = baselines(inputs, &runs);
    for input in inputs.open_loop {
        let mut policy = OpenLoop::new(tree, ledger, root_rates(tree, inputs.fit)).map_err(table(input.name))?;
        if let Some(candidates) = input.candidates {
            policy = policy.with_candidates(candidates).map_err(table(input.name))?;
        }
        let (cal, test) = (input.believed(input.cal), input.believed(input.test));
        let cal_b = input.cal_b.map(|cal_b| input.believed(cal_b));
        let on_b = cal_b.as_ref().map(|cal_b| |lambda: f64| policy.run(cal_b, lambda));
        let run = |lambda: f64| policy.run(&cal, lambda);
        let on_test = |lambda: f64| policy.run(&test, lambda);
        methods.push(learned(inputs, input.name, cal.charge(), run, on_test, on_b)?);
    }
    for input in inputs.dynamic {
        let count = |fit: &Outcomes, cells: &Cells| Chain::count(tree, ledger, fit, cells, input.alpha);
        let chain = count(inputs.fit, input.fit).map_err(table(input.name))?;
        let without = |fold: usize, folds: &Folds| {
            let others = folds.others(fold);
            count(&inputs.fit.subset(&others), &input.fit.subset(&others)).map_err(table(input.name))
        };
        let chains = of_folds(inputs.folds, without)?;
        let run = |lambda: f64| {
            let whole = chain.solve(tree, lambda).run(input.cal);
            match inputs.folds {
                None => whole,
                Some(folds) => folds.put_together(whole, |fold| chains[fold].solve(tree, lambda).run(input.cal)),
            }
        };
        let on_b = input.cal_b.map(|cal_b| |lambda: f64| chain.solve(tree, lambda).run(cal_b));
        let on_test = |lambda: f64| chain.solve(tree, lambda).run(input.test);
        methods.push(learned(inputs, input.name, Charge::Learned, run, on_test, on_b)?);
    }
    for input in inputs.fitted {
        methods.push(fitted(inputs, input)?);
    }
    let at_no_cost = |labels: &[u16]| {
        let price = Price { exit: 0, cost: 0.0, weight_bits: 0.0, ms: ledger.time().map(|_| 0.0) };
        constant(price, labels.iter().map(|label| *label == inputs.majority_class).collect())
    };
    let full_depth = |outcomes: &RunOutcomes, labels: &[u16]| {
        let ms = ledger.time().map(|time| time.float_total);
        let answers = &outcomes.answers[(tree.segments() - 1) * labels.len()..];
        let correct = answers.iter().zip(labels).map(|(answer, label)| answer == label).collect();
        constant(Price { exit: tree.segments(), cost: 1.0, weight_bits: 32.0, ms }, correct)
    };
    Ok(SeedResult {
        oracle: oracle(inputs, &runs),
        float: Setting {
            name: "float".to_owned(),
            parameter: 0.0,
            cal: full_depth(&float.run.cal, cal_labels),
            test: full_depth(&float.run.test, test_labels),
        },
        majority: Setting {
            name: "most frequent class".to_owned(),
            parameter: f64::from(inputs.majority_class),
            cal: at_no_cost(cal_labels),
            test: at_no_cost(test_labels),
        },
        least_cost: ledger.least_cost(tree),
        methods,
    })
}

/// All methods that are not learned policies. `runs` are static runs: the tree's own widths, then the extras.
fn baselines(inputs: &SeedInputs<'_>, runs: &[StaticRun]) -> Vec<MethodResult> {
    use MethodKind::{Bound, Combination, Single};
    let SeedInputs { tree, ledger, width_names: names, fit, cal, folds, test, float, options, .. } = *inputs;
    let (on_cal, on_test, quantiles) = (cal.labels(), test.labels(), options.quantiles);
    let float_exit = |score| early_exit(ledger, float, score, on_cal, on_test, quantiles);
    let mut all = vec![
        (STATIC_WIDTH, Single, static_widths(ledger, runs, on_cal, on_test)),
        ("best static path", Single, static_paths(tree, ledger, names, cal, test)),
        (FLOAT_EXIT, Single, float_exit(Score::Confidence)),
    ];
    if !options.few {
        all.extend([
            ("float early exit, entropy", Single, float_exit(Score::Entropy)),
            ("float early exit, margin", Single, float_exit(Score::Margin)),
            ("float early exit, patience", Single, float_exit(Score::Patience)),
            (JEI, Single, jei_gates(ledger, float, folds, on_cal, on_test, options.seed)),
        ]);
    }
    if let (Some(input), false) = (inputs.open_loop.first(), options.few) {
        let policy = PerInputWidth::new(tree, ledger, fit);
        let settings = policy.settings([cal, test], [input.cal, input.test], &options.sweep);
        all.push(("per-input width", Single, settings));
    }
    all.push((NAIVE, Combination, naive(ledger, runs, on_cal, on_test, quantiles)));
    if !options.few {
        let maqee = maqee_like(tree, ledger, names, [fit, cal, test], folds, &options.sweep, quantiles);
        all.push((MAQEE, Combination, maqee));
    }
    all.push(("random", Bound, random_policy(tree, ledger, cal, test, options.seed)));
    let method = |(name, kind, settings): (&str, MethodKind, Vec<Setting>)| MethodResult {
        name: name.to_owned(),
        kind,
        settings,
        commits: Vec::new(),
        risk: None,
        on_b: Vec::new(),
    };
    all.into_iter().map(method).collect()
}

/// The oracle over all paths of the tree and all exits of all static runs, float included.
fn oracle(inputs: &SeedInputs<'_>, runs: &[StaticRun]) -> Oracle {
    let SeedInputs { tree, ledger, test, .. } = *inputs;
    let samples = test.samples();
    let mut costs: Vec<f64> = ledger.prices(tree, Charge::Static)[1..].iter().map(|price| price.cost).collect();
    let paths = costs.len();
    let others: Vec<&StaticRun> = runs[tree.widths()..].iter().chain([&inputs.float.run]).collect();
    for run in &others {
        costs.extend(ledger.run_prices(run, Charge::Static).iter().map(|price| price.cost));
    }
    Oracle::new(&costs, samples, |option, sample| match option.checked_sub(paths) {
        None => test.correct(option + 1, sample),
        Some(other) => {
            let (run, exit) = (others[other / tree.segments()], other % tree.segments());
            run.test.answers[exit * samples + sample] == test.labels()[sample]
        }
    })
}

/// What is made without each fold; nothing where there are none.
fn of_folds<T>(
    folds: Option<&Folds>,
    without: impl Fn(usize, &Folds) -> Result<T, StudyError>,
) -> Result<Vec<T>, StudyError> {
    folds.map_or_else(|| Ok(Vec::new()), |folds| (0..folds.count()).map(|fold| without(fold, folds)).collect())
}

/// A policy by fitted backward induction. Every λ is asked for several splits, and solving is what takes time, so plans are kept.
fn fitted(inputs: &SeedInputs<'_>, input: &FittedInput<'_>) -> Result<MethodResult, StudyError> {
    let (tree, ledger) = (inputs.tree, inputs.ledger);
    let wrong = |source| StudyError::Fitted { context: input.name.to_owned(), source };
    let subset = |fold: usize, folds: &Folds| {
        let others = folds.others(fold);
        Ok((inputs.fit.subset(&others), input.fit.subset(&others)))
    };
    let parts = of_folds(inputs.folds, subset)?;
    let tables = std::iter::once((inputs.fit, input.fit)).chain(parts.iter().map(|(fit, features)| (fit, features)));
    let prepare = |(fit, features)| Fitted::prepare(tree, ledger, fit, features, &input.options).map_err(wrong);
    // The first of all samples, then one without each fold.
    let prepared: Vec<Fitted<'_>> = tables.map(prepare).collect::<Result<_, _>>()?;
    for features in [Some(input.cal), Some(input.test), input.cal_b].into_iter().flatten() {
        prepared[0].check(features).map_err(table(input.name))?;
    }
    let plans: RefCell<HashMap<u64, Vec<FittedPlan<'_>>>> = RefCell::new(HashMap::new());
    let solved = |lambda: f64, use_plans: &dyn Fn(&[FittedPlan<'_>]) -> Vec<NodeId>| {
        let mut plans = plans.borrow_mut();
        let solve = || prepared.par_iter().map(|prepared| prepared.solve(lambda)).collect();
        use_plans(plans.entry(lambda.to_bits()).or_insert_with(solve))
    };
    let on_cal = |lambda: f64| {
        solved(lambda, &|plans| {
            let whole = plans[0].run(input.cal);
            match inputs.folds {
                None => whole,
                Some(folds) => folds.put_together(whole, |fold| plans[fold + 1].run(input.cal)),
            }
        })
    };
    let on_test = |lambda: f64| solved(lambda, &|plans| plans[0].run(input.test));
    let on_b = input.cal_b.map(|cal_b| |lambda: f64| solved(lambda, &|plans| plans[0].run(cal_b)));
    learned(inputs, input.name, Charge::Learned, on_cal, on_test, on_b)
}

/// Checks all inputs against the tree and the splits.
fn check(inputs: &SeedInputs<'_>) -> Result<(), StudyError> {
    let SeedInputs { tree, cal, test, .. } = *inputs;
    let (names, widths) = (inputs.width_names.len(), tree.widths());
    if names != widths {
        return Err(StudyError::Names { names, widths });
    }
    let segments = tree.segments();
    for run in inputs.extras {
        let context = format!("static run \"{}\"", run.name);
        run.check_outcomes(segments, cal.samples(), test.samples()).map_err(table(&context))?;
        run.check_costs(segments).map_err(|source| StudyError::Cost { context, source })?;
    }
    let context = "float run".to_owned();
    let samples = [inputs.fit, cal, test].map(Outcomes::samples);
    inputs.float.check_outcomes(segments, samples).map_err(table(&context))?;
    inputs.float.check_costs(segments).map_err(|source| StudyError::Cost { context, source })?;
    if let Some(folds) = inputs.folds {
        check_shape("folds of fit", folds.samples(), 1, inputs.fit.samples()).map_err(table("folds"))?;
        let behind = cal.samples().min(folds.samples());
        check_shape("samples of fit behind those of cal-a", behind, 1, folds.samples()).map_err(table("folds"))?;
    }
    let cal_b = inputs.risk.map(|risk| risk.outcomes.samples());
    if let Some(risk) = inputs.risk {
        let (got, want) = (risk.float_correct.len(), risk.outcomes.samples());
        check_shape("float outcomes", got, 1, want).map_err(table("cal-b"))?;
    }
    let splits = [("fit", Some(inputs.fit)), ("cal-a", Some(cal)), ("test", Some(test))];
    for (name, split) in splits.into_iter().chain([("cal-b", inputs.risk.map(|risk| risk.outcomes))]) {
        split.map_or(Ok(()), |split| split.check_tree(tree)).map_err(table(name))?;
    }
    for input in inputs.open_loop {
        input.pooling.map_or(Ok(()), |pooling| pooling.check(tree)).map_err(table(input.name))?;
        for predictions in [Some(input.cal), Some(input.test), input.cal_b].into_iter().flatten() {
            predictions.check_tree(tree).map_err(table(input.name))?;
        }
    }
    for input in inputs.dynamic {
        for cells in [Some(input.fit), Some(input.cal), Some(input.test), input.cal_b].into_iter().flatten() {
            cells.check_like(tree, input.fit).map_err(table(input.name))?;
        }
    }
    let open_loop = inputs.open_loop.iter().map(|input| {
        (input.name, [input.cal.samples(), input.test.samples()], input.cal_b.map(PredictionTable::samples))
    });
    let dynamic = inputs
        .dynamic
        .iter()
        .map(|input| (input.name, [input.cal.samples(), input.test.samples()], input.cal_b.map(Cells::samples)));
    for (name, [on_cal, on_test], on_b) in open_loop.chain(dynamic) {
        check_shape("samples of cal-a", on_cal, 1, cal.samples()).map_err(table(name))?;
        check_shape("samples of test", on_test, 1, test.samples()).map_err(table(name))?;
        if let Some((on_b, cal_b)) = on_b.zip(cal_b) {
            check_shape("samples of cal-b", on_b, 1, cal_b).map_err(table(name))?;
        }
    }
    Ok(())
}
