//! What exits and gates take: parameters, memory, operations, and their share of a policy's cost.

use quee_policy::cost::Charge;
use serde::Serialize;

use super::Study;
use crate::stages::study::{OPEN_LOOP, gate_macs};

/// Its place in `summary.json`; figures of the first seed.
#[derive(Clone, Debug, Serialize)]
pub struct HeadsFile {
    /// Weights and biases of all exits but the backbone's own.
    pub exit_parameters: usize,
    /// Numbers that all gates store.
    pub gate_parameters: usize,
    /// Bytes of both, in floats.
    pub bytes: usize,
    /// Their share of the backbone's parameters.
    pub share_of_parameters: f64,
    /// Multiply-accumulates of each exit.
    pub exit_macs: Vec<u64>,
    /// Multiply-accumulates of each gate.
    pub gate_macs: Vec<u64>,
    /// Setting of the open-loop policy within a point of float on *cal-a* (its most accurate one where there is none).
    pub setting: String,
    /// Share of its cost on *test* that goes to exits and gates.
    pub share_of_cost: f64,
    /// Seconds that training exits and gates, tables, policies and baselines took, by seed.
    pub seconds: Vec<f64>,
}

/// What the heads of a study take.
pub fn heads(study: &Study) -> HeadsFile {
    let seed = &study.seeds[0];
    let exits = &seed.trained.exits.heads.0;
    let exit_parameters = exits[..exits.len() - 1].iter().map(|head| head.network.parameters()).sum();
    let gate_parameters = seed.trained.gates.iter().map(|gate| gate.predictor.parameters()).sum();
    let parameters: usize = study.prepared.backbone.params().iter().map(|param| param.data.len()).sum();
    let (setting, share_of_cost) = share_of_cost(study);
    HeadsFile {
        exit_parameters,
        gate_parameters,
        bytes: 4 * (exit_parameters + gate_parameters),
        share_of_parameters: (exit_parameters + gate_parameters) as f64 / parameters as f64,
        exit_macs: exits.iter().map(|head| head.macs()).collect(),
        gate_macs: gate_macs(&study.tree, &seed.trained, seed.pooling.as_ref()),
        setting,
        share_of_cost,
        seconds: study.records.iter().filter(|r| r.stage.starts_with("train and test")).map(|r| r.seconds).collect(),
    }
}

fn share_of_cost(study: &Study) -> (String, f64) {
    let seed = &study.seeds[0];
    let Some(method) = seed.result.methods.iter().find(|method| method.name == OPEN_LOOP) else {
        return (String::new(), 0.0);
    };
    let at = method.for_drop(&seed.result.float, 0.01);
    let charge = if method.commits[at].is_some() { Charge::Static } else { Charge::Learned };
    let (setting, cost) = (&method.settings[at], seed.ledger.cost());
    let overhead = |&node: &u32| cost.relative(cost.overhead(study.tree.node(node as usize).depth, charge));
    let spent: f64 = setting.test.options().iter().map(overhead).sum();
    (setting.name.clone(), spent / (setting.test.mean_cost() * setting.test.samples() as f64))
}
