//! Evaluating a learned policy over λ, with the freedom to ask no gate at all.
//!
//! Gates cost something and predictions are noisy, so at some prices the best a policy can do is to send every sample along
//! one path. Gate 0 may therefore *commit*: at a λ where the best static path has a lower `error + λ·cost` on *cal-a* than the
//! policy itself, samples run that path, and nobody pays for the exits and gates on its way (a choice of this project).

use std::cmp::Ordering;
use std::sync::Arc;

use crate::cost::{Charge, Price};
use crate::lambda::{Outlook, Step, label, sweep};
use crate::outcome::{Choices, Setting};
use crate::risk::{control, losses};
use crate::study::{MethodKind, MethodResult, SeedInputs, StudyError};
use crate::tree::NodeId;

/// Static paths as gate 0 sees them: their figures on *cal-a*.
struct Commitments {
    prices: Arc<[Price]>,
    paths: Vec<(NodeId, Outlook)>,
}

impl Commitments {
    fn new(inputs: &SeedInputs<'_>) -> Self {
        let prices: Arc<[Price]> = inputs.ledger.prices(inputs.tree, Charge::Static).into();
        let outlook = |node| Outlook { error: inputs.cal.error_rate(node), cost: prices[node].cost };
        let paths = match inputs.options.commit {
            true => inputs.tree.paths().map(|node| (node, outlook(node))).collect(),
            false => Vec::new(),
        };
        Self { prices, paths }
    }

    /// The path to commit to at `lambda`, if that is better than what the policy itself does on *cal-a*.
    fn instead_of(&self, policy: &Choices, lambda: f64) -> Option<NodeId> {
        let own = Outlook { error: 1.0 - policy.accuracy(), cost: policy.mean_cost() };
        let best = self.paths.iter().min_by(|a, b| a.1.compare(&b.1, lambda))?;
        (best.1.compare(&own, lambda) == Ordering::Less).then_some(best.0)
    }
}

/// Lays settings of λ out on *cal-a*, runs them on *test*, and tests them on *cal-b* where asked for. The closures give the
/// node at which each sample of a split is answered.
pub(crate) fn learned(
    inputs: &SeedInputs<'_>,
    name: &str,
    charge: Charge,
    on_cal: impl Fn(f64) -> Vec<NodeId>,
    on_test: impl Fn(f64) -> Vec<NodeId>,
    on_b: Option<impl Fn(f64) -> Vec<NodeId>>,
) -> Result<MethodResult, StudyError> {
    let prices: Arc<[Price]> = inputs.ledger.prices(inputs.tree, charge).into();
    let commitments = Commitments::new(inputs);
    let along = |outcomes, node: NodeId| {
        let samples = crate::table::Outcomes::samples(outcomes);
        Choices::at_nodes(&commitments.prices, outcomes, &vec![node; samples])
    };
    let decide = |lambda: f64| {
        let own = Choices::at_nodes(&prices, inputs.cal, &on_cal(lambda));
        let commit = commitments.instead_of(&own, lambda);
        (commit.map_or(own, |node| along(inputs.cal, node)), commit)
    };
    let steps = sweep(&inputs.options.sweep, |lambda| decide(lambda).0);
    let commits: Vec<Option<NodeId>> = steps.iter().map(|step| decide(step.lambda).1).collect();
    let (mut risk, mut choices_b) = (None, Vec::new());
    if let (Some(asked), Some(run)) = (inputs.risk, on_b) {
        let choose = |(step, commit): (&Step, &Option<NodeId>)| match commit {
            Some(node) => along(asked.outcomes, *node),
            None => Choices::at_nodes(&prices, asked.outcomes, &run(step.lambda)),
        };
        choices_b = steps.iter().zip(&commits).map(choose).collect();
        let lost = |(step, choices): (&Step, &Choices)| (step.lambda, losses(asked.float_correct, choices.correct()));
        let tested: Vec<(f64, usize)> = steps.iter().zip(&choices_b).map(lost).collect();
        risk = Some(control(asked.target, asked.outcomes.samples(), &tested)?);
    }
    let setting = |(step, commit): (Step, &Option<NodeId>)| {
        let lambda = label(step.lambda);
        let (way, test) = match commit {
            Some(node) => {
                let path = inputs.tree.label(*node, inputs.width_names);
                (format!(" commits to {path}"), along(inputs.test, *node))
            }
            None => (String::new(), Choices::at_nodes(&prices, inputs.test, &on_test(step.lambda))),
        };
        Setting { name: format!("lambda {lambda}{way}"), parameter: step.lambda, cal: step.cal, test }
    };
    let settings = steps.into_iter().zip(&commits).map(setting).collect();
    Ok(MethodResult { name: name.to_owned(), kind: MethodKind::Learned, settings, commits, risk, on_b: choices_b })
}
