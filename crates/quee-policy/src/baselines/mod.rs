//! Baselines on the same exits, quantizers, tables and costs (method, section 10).
//!
//! | file | rules | pay |
//! | --- | --- | --- |
//! | [`fixed`] | static widths, static paths, the random policy | the answering exit |
//! | [`threshold`] | early exit by a score, one threshold for all exits; the naive combination | every exit passed |
//! | [`jei`] | JEI-DNN's gates on float | every exit and gate passed |
//! | [`per_input_width`] | one width per input, full depth | exit 1, gate 1 and the last exit |
//! | [`maqee`] | a static path with one threshold per exit | every exit passed |
//!
//! Whatever is fitted is fitted on *fit*; thresholds of a single rule are laid out on *cal-a*; nothing sees *test*.

use std::sync::Arc;

use crate::cost::Price;
use crate::outcome::Choices;
use crate::table::RunOutcomes;

pub mod fixed;
pub mod jei;
pub mod maqee;
pub mod per_input_width;
pub mod threshold;

/// Choices of a run by a rule that names the exit of every sample, from 1.
fn by_exit(prices: &Arc<[Price]>, run: &RunOutcomes, labels: &[u16], mut exit: impl FnMut(usize) -> usize) -> Choices {
    let samples = labels.len();
    let exits: Vec<usize> = (0..samples).map(&mut exit).collect();
    let correct = exits.iter().enumerate().map(|(at, exit)| run.answers[(exit - 1) * samples + at] == labels[at]);
    let correct = correct.collect();
    Choices::new(Arc::clone(prices), exits.iter().map(|exit| (exit - 1) as u32).collect(), correct)
}

/// A tree of two segments and two widths with two samples of class 0, for tests.
#[cfg(test)]
pub(crate) mod fixture {
    use crate::cost::{BitTable, CostTable, Ledger};
    use crate::table::{Outcomes, StaticRun};
    use crate::tree::{Monotone, PathTree};

    /// Segments cost 10 and 20, exits and gates 1, float 100.
    pub(crate) fn ledger(tree: &PathTree) -> Ledger {
        let segments = tree.segments();
        let widths: Vec<f64> = (1..=tree.widths()).map(|width| 10.0 * width as f64).collect();
        let cost = CostTable {
            stem: 0.0,
            segment: vec![widths; segments],
            exit: vec![1.0; segments],
            gate: vec![1.0; segments - 1],
            gate_zero: 0.0,
            float_total: 100.0,
            cascade: false,
        };
        let bits = BitTable {
            stem_macs: 0.0,
            stem_bits: 8.0,
            segment_macs: vec![1.0; segments],
            width_bits: (1..=tree.widths()).map(|width| 4.0 * width as f64).collect(),
        };
        Ledger::new(tree, cost, bits, None).unwrap()
    }

    /// Paths `[0]`, `[1]`, `[00]`, `[01]`, `[10]`, `[11]`.
    pub(crate) fn small() -> (PathTree, Ledger, Outcomes) {
        let tree = PathTree::new(2, 2, Monotone::Free, 100).unwrap();
        let answers = vec![0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0];
        let confidence = vec![0.9, 0.4, 0.8, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9];
        let table = Outcomes::new(&tree, answers, confidence, vec![0, 0]).unwrap();
        let ledger = ledger(&tree);
        (tree, ledger, table)
    }

    /// The static runs of a tree's own widths.
    pub(crate) fn runs(tree: &PathTree, ledger: &Ledger, table: &Outcomes) -> Vec<StaticRun> {
        let run = |width: usize| StaticRun::along_tree(tree, ledger, width, ["low", "high"][width], table, table);
        vec![run(0), run(1)]
    }
}
