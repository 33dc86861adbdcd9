//! What is promised with a probability, and whether it is kept: risk control by resampling, prediction sets on *test*.

use anyhow::{Context, Result};
use quee_policy::conformal::{Answers, Conformal, PolicySets, SetReport, Threshold};
use quee_policy::risk_validation::{RiskCheck, RiskPlan, RiskPopulation, validate};
use quee_policy::study::{MethodResult, SeedResult};
use serde::Serialize;

use super::study::{OPEN_LOOP, Shared};
use super::trained::Trained;

/// Drop against float on *cal-a* of the setting that prediction sets are made for.
const SETS_DROP: f64 = 0.01;

/// Promises of one seed.
#[derive(Clone, Debug)]
pub struct Guarantees {
    /// Risk control of the open-loop policy, by size of the calibration set, ε and δ.
    pub risk: Vec<RiskCheck>,
    /// Prediction sets, where they were asked for.
    pub sets: Option<Sets>,
}

/// Prediction sets of every path, and of the open-loop policy at one setting.
#[derive(Clone, Debug, Serialize)]
pub struct Sets {
    /// Allowed probability of missing the true class.
    pub alpha: f64,
    /// By path.
    pub paths: Vec<PathSet>,
    /// Setting of the policy, and its sets.
    pub policy: (String, PolicySets),
}

/// Prediction sets of one path for all pictures.
#[derive(Clone, Debug, Serialize)]
pub struct PathSet {
    /// Path.
    pub path: String,
    /// What was calibrated on *cal-b*.
    pub threshold: Threshold,
    /// What came of it on *test*.
    pub report: SetReport,
}

/// Checks the promises of one seed. `float_right` are by picture of *cal-b* and of *test*.
///
/// # Errors
/// When settings and pictures do not fit together.
pub fn guarantees(
    shared: Shared,
    trained: &Trained,
    result: &SeedResult,
    float_right: [&[bool]; 2],
    seed: u64,
) -> Result<Guarantees> {
    let policy = &shared.recipe.policy;
    let method =
        result.methods.iter().find(|method| method.name == OPEN_LOOP).context("there is an open-loop policy")?;
    let risk = match policy.risk_checks {
        0 => Vec::new(),
        resamplings => {
            let mut plan = RiskPlan { resamplings, seed, ..RiskPlan::default() };
            plan.sizes.push(float_right[0].len());
            plan.epsilons.push(policy.risk);
            plan.deltas.push(policy.risk_level);
            plan.sizes.sort_unstable();
            plan.sizes.dedup();
            for list in [&mut plan.epsilons, &mut plan.deltas] {
                list.sort_by(f64::total_cmp);
                list.dedup();
            }
            validate(&population(method, float_right)?, &plan)?
        }
    };
    let sets = policy.makes_sets().then(|| sets(shared, trained, result, method, policy.sets, seed)).transpose()?;
    Ok(Guarantees { risk, sets })
}

/// Losses and costs of every setting on *cal-b* and *test* together.
fn population(method: &MethodResult, float_right: [&[bool]; 2]) -> Result<RiskPopulation> {
    let (mut losses, mut costs) = (Vec::new(), Vec::new());
    for (setting, on_b) in method.settings.iter().zip(&method.on_b) {
        let mut lost = Vec::new();
        let (mut cost, mut pictures) = (0.0, 0.0);
        for (choices, float) in [on_b, &setting.test].into_iter().zip(float_right) {
            lost.extend(choices.correct().iter().zip(float).map(|(own, float)| *float && !own));
            cost += choices.mean_cost() * choices.samples() as f64;
            pictures += choices.samples() as f64;
        }
        losses.push(lost);
        costs.push(cost / pictures);
    }
    Ok(RiskPopulation::new(&losses, costs)?)
}

fn sets(
    shared: Shared,
    trained: &Trained,
    result: &SeedResult,
    method: &MethodResult,
    alpha: f64,
    seed: u64,
) -> Result<Sets> {
    let (tree, classes) = (shared.tree, shared.prepared.backbone.classes());
    let conformal = Conformal::new(shared.recipe.policy.set_score, alpha, seed)?;
    let [on_b, on_test] = &trained.probabilities;
    let labels = [trained.outcomes.cal_b.labels(), trained.outcomes.test.labels()];
    let names: Vec<String> = shared.recipe.quant.widths.iter().map(ToString::to_string).collect();
    let mut paths = Vec::new();
    for node in tree.paths() {
        let cal = Answers::new(&on_b[node], classes, labels[0])?;
        let (threshold, report) = conformal.path_sets(&cal, &Answers::new(&on_test[node], classes, labels[1])?)?;
        paths.push(PathSet { path: tree.label(node, &names), threshold, report });
    }
    // The setting is fixed on cal-a, before anything is calibrated.
    let at = method.for_drop(&result.float, SETS_DROP);
    let setting = &method.settings[at];
    let rows = |nodes: &[Vec<f32>], options: &[u32]| -> Vec<f32> {
        let row =
            |(picture, &node): (usize, &u32)| nodes[node as usize][picture * classes..(picture + 1) * classes].to_vec();
        options.iter().enumerate().flat_map(row).collect()
    };
    let options = [method.on_b[at].options(), setting.test.options()];
    let (cal, test) = (rows(on_b, options[0]), rows(on_test, options[1]));
    let cal = Answers::new(&cal, classes, labels[0])?;
    let policy = conformal.policy_sets(&cal, options[0], &Answers::new(&test, classes, labels[1])?, options[1])?;
    Ok(Sets { alpha, paths, policy: (setting.name.clone(), policy) })
}
