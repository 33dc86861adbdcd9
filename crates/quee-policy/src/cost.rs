//! What a path costs, and who pays for what.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::table::StaticRun;
use crate::tree::{NodeId, PathTree, ROOT};

/// Which exits and gates a method pays for along its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The answering exit alone: static paths, the random policy, the oracle.
    Static,
    /// Every exit up to the answering one: threshold rules.
    Threshold,
    /// Every exit and every gate passed, the gate at the answering exit included (the last exit has none): learned
    /// policies.
    Learned,
    /// The same and gate 0: learned policies that look at the stem.
    LearnedFromStem,
}

/// Cost of every part of the network, per sample, all in one unit (billions of bit operations, milliseconds, …).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostTable {
    /// Stem of the quantized network: patch embedding or tokens-to-token.
    pub stem: f64,
    /// `[segment][width]`.
    pub segment: Vec<Vec<f64>>,
    /// `[segment]`: the exit behind each segment; the last is the backbone's own head.
    pub exit: Vec<f64>,
    /// `[segment - 1]`: the gate behind each segment but the last.
    pub gate: Vec<f64>,
    /// Gate 0 with its probe of the stem, for policies that have one; the others decide there by rates, which cost nothing.
    #[serde(default)]
    pub gate_zero: f64,
    /// The backbone in float, stem and head included, without exits: relative cost 1.0.
    pub float_total: f64,
    /// Whether every exit but the last reads what the one before it said, so that nobody who answers there can leave out those before.
    pub cascade: bool,
}

/// A cost table that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CostError {
    /// A list does not fit the path tree.
    #[error("{what}: {got} entries where the path tree needs {want}")]
    Length {
        /// Which list.
        what: &'static str,
        /// Entries there are.
        got: usize,
        /// Entries there should be.
        want: usize,
    },
    /// Not a number, infinite, negative, or a float total of zero.
    #[error("{what}: costs must be finite and not negative, and the float total positive")]
    Value {
        /// Which list.
        what: &'static str,
    },
}

pub(crate) fn check_length(what: &'static str, got: usize, want: usize) -> Result<(), CostError> {
    if got == want { Ok(()) } else { Err(CostError::Length { what, got, want }) }
}

pub(crate) fn check_values<'a>(what: &'static str, values: impl IntoIterator<Item = &'a f64>) -> Result<(), CostError> {
    if values.into_iter().all(|value| value.is_finite() && *value >= 0.0) {
        Ok(())
    } else {
        Err(CostError::Value { what })
    }
}

impl CostTable {
    /// Checks the table against a tree.
    ///
    /// # Errors
    /// If a list has the wrong length, or a cost is negative or not finite.
    pub fn check(&self, tree: &PathTree) -> Result<(), CostError> {
        check_length("segment costs", self.segment.len(), tree.segments())?;
        for widths in &self.segment {
            check_length("segment costs by width", widths.len(), tree.widths())?;
        }
        check_length("exit costs", self.exit.len(), tree.segments())?;
        check_length("gate costs", self.gate.len(), tree.segments() - 1)?;
        check_values("segment costs", self.segment.iter().flatten())?;
        check_values("exit costs", &self.exit)?;
        check_values("gate costs", &self.gate)?;
        check_values("stem, gate 0 and float total", [&self.stem, &self.float_total, &self.gate_zero])?;
        if self.float_total > 0.0 { Ok(()) } else { Err(CostError::Value { what: "float total" }) }
    }

    /// Cost of the exits and gates of a path that answers at exit `depth`; 0 at depth 0.
    pub fn overhead(&self, depth: usize, charge: Charge) -> f64 {
        let exits: f64 = self.exit[..depth].iter().sum();
        match charge {
            _ if depth == 0 => 0.0,
            Charge::Static if self.cascade && depth < self.exit.len() => exits,
            Charge::Static => self.exit[depth - 1],
            Charge::Threshold => exits,
            Charge::Learned => exits + self.gate[..depth.min(self.gate.len())].iter().sum::<f64>(),
            Charge::LearnedFromStem => self.gate_zero + self.overhead(depth, Charge::Learned),
        }
    }

    /// Stem and segments of a path.
    fn body(&self, tree: &PathTree, node: NodeId) -> f64 {
        let widths = tree.widths_of(node);
        self.stem + widths.iter().enumerate().map(|(segment, width)| self.segment[segment][*width]).sum::<f64>()
    }

    /// Cost of a path under a charge, in the table's unit; the stem alone for the root.
    ///
    /// # Panics
    /// If the table does not fit the tree ([`CostTable::check`]).
    pub fn path(&self, tree: &PathTree, node: NodeId, charge: Charge) -> f64 {
        self.body(tree, node) + self.overhead(tree.node(node).depth, charge)
    }

    /// Stem, segments and the answering exit.
    pub fn static_path(&self, tree: &PathTree, node: NodeId) -> f64 {
        self.path(tree, node, Charge::Static)
    }

    /// Stem, segments and all exits passed.
    pub fn threshold_path(&self, tree: &PathTree, node: NodeId) -> f64 {
        self.path(tree, node, Charge::Threshold)
    }

    /// Stem, segments, exits `1..=s` and gates `1..=min(s, S - 1)`.
    pub fn learned_path(&self, tree: &PathTree, node: NodeId) -> f64 {
        self.path(tree, node, Charge::Learned)
    }

    /// A cost relative to the float reference.
    pub fn relative(&self, cost: f64) -> f64 {
        cost / self.float_total
    }
}

/// What is needed for mean weight bits: an average over stem and segments, weighted by multiply-accumulates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BitTable {
    /// Multiply-accumulates of the stem per sample.
    pub stem_macs: f64,
    /// Weight bits of the quantized stem (32 for float).
    pub stem_bits: f64,
    /// `[segment]`: multiply-accumulates per sample.
    pub segment_macs: Vec<f64>,
    /// `[width]`: weight bits (32 for float).
    pub width_bits: Vec<f64>,
}

impl BitTable {
    /// Mean weight bits of a stem and a list of segments at the given bits.
    pub fn mean(&self, stem_bits: f64, segment_bits: impl IntoIterator<Item = f64>) -> f64 {
        let (mut macs, mut bits) = (self.stem_macs, self.stem_macs * stem_bits);
        for (segment, width) in self.segment_macs.iter().zip(segment_bits) {
            macs += segment;
            bits += segment * width;
        }
        if macs > 0.0 { bits / macs } else { 0.0 }
    }
}

/// What one option (a path under a charge) costs a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Exit that answers, from 1.
    pub exit: usize,
    /// Cost relative to the float reference.
    pub cost: f64,
    /// Mean weight bits of what was run.
    pub weight_bits: f64,
    /// Measured time in milliseconds per sample, if there is a time table.
    pub ms: Option<f64>,
}

/// All that prices paths: the cost model in force, the bits, and measured times where there are any.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    cost: CostTable,
    bits: BitTable,
    time: Option<CostTable>,
}

impl Ledger {
    /// Joins the tables; `time` is in milliseconds, laid out like the costs.
    ///
    /// # Errors
    /// If a table does not fit the tree or has impossible values.
    pub fn new(tree: &PathTree, cost: CostTable, bits: BitTable, time: Option<CostTable>) -> Result<Self, CostError> {
        cost.check(tree)?;
        if let Some(time) = &time {
            time.check(tree)?;
        }
        check_length("multiply-accumulates by segment", bits.segment_macs.len(), tree.segments())?;
        check_length("weight bits by width", bits.width_bits.len(), tree.widths())?;
        check_values("multiply-accumulates", bits.segment_macs.iter().chain([&bits.stem_macs]))?;
        check_values("weight bits", bits.width_bits.iter().chain([&bits.stem_bits]))?;
        Ok(Self { cost, bits, time })
    }

    /// The cost model in force.
    pub fn cost(&self) -> &CostTable {
        &self.cost
    }

    /// Multiply-accumulates and weight bits.
    pub fn bits(&self) -> &BitTable {
        &self.bits
    }

    /// Measured times in milliseconds.
    pub fn time(&self) -> Option<&CostTable> {
        self.time.as_ref()
    }

    /// Price of every node, root included (exit 0, the stem alone), indexed by node.
    pub fn prices(&self, tree: &PathTree, charge: Charge) -> Vec<Price> {
        let price = |node| Price {
            exit: tree.node(node).depth,
            cost: self.cost.relative(self.cost.path(tree, node, charge)),
            weight_bits: self
                .bits
                .mean(self.bits.stem_bits, tree.widths_of(node).into_iter().map(|width| self.bits.width_bits[width])),
            ms: self.time.as_ref().map(|time| time.path(tree, node, charge)),
        };
        tree.nodes().map(price).collect()
    }

    /// Price of a static run at every exit, index `s - 1` for exit `s`.
    pub fn run_prices(&self, run: &StaticRun, charge: Charge) -> Vec<Price> {
        let at = |depth: usize| Price {
            exit: depth,
            cost: self
                .cost
                .relative(run.stem + run.segment[..depth].iter().sum::<f64>() + self.cost.overhead(depth, charge)),
            weight_bits: self.bits.mean(run.stem_bits, run.segment_bits[..depth].iter().copied()),
            ms: self.time.as_ref().zip(run.time.as_ref()).map(|(table, time)| {
                time.stem + time.segment[..depth].iter().sum::<f64>() + table.overhead(depth, charge)
            }),
        };
        (1..=run.segment.len()).map(at).collect()
    }

    /// Relative cost of the cheapest one-segment path: where every curve's axis begins.
    pub fn least_cost(&self, tree: &PathTree) -> f64 {
        tree.node(ROOT)
            .children
            .clone()
            .map(|node| self.cost.relative(self.cost.static_path(tree, node)))
            .fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Monotone;

    fn table() -> CostTable {
        CostTable {
            stem: 1.0,
            segment: vec![vec![2.0, 4.0], vec![3.0, 6.0], vec![5.0, 10.0]],
            exit: vec![0.1, 0.2, 0.3],
            gate: vec![0.01, 0.02],
            gate_zero: 0.0,
            float_total: 100.0,
            cascade: false,
        }
    }

    #[test]
    fn who_pays_what() {
        let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
        let costs = table();
        costs.check(&tree).unwrap();
        let two = tree.find(&[0, 1]).unwrap();
        assert!((costs.static_path(&tree, two) - 9.2).abs() < 1e-12);
        assert!((costs.threshold_path(&tree, two) - 9.3).abs() < 1e-12);
        assert!((costs.learned_path(&tree, two) - 9.33).abs() < 1e-12);
        let full = tree.find(&[1, 1, 1]).unwrap();
        assert!((costs.learned_path(&tree, full) - (21.0 + 0.6 + 0.03)).abs() < 1e-12, "the last exit has no gate");
        assert_eq!(costs.learned_path(&tree, ROOT), 1.0);
    }

    #[test]
    fn prices_are_relative_and_bits_weighted_by_macs() {
        let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
        let bits =
            BitTable { stem_macs: 1.0, stem_bits: 8.0, segment_macs: vec![3.0, 4.0, 4.0], width_bits: vec![4.0, 32.0] };
        let ledger = Ledger::new(&tree, table(), bits, Some(table())).unwrap();
        let price = ledger.prices(&tree, Charge::Static)[tree.find(&[0, 1]).unwrap()];
        assert_eq!(price.exit, 2);
        assert!((price.cost - 0.092).abs() < 1e-12);
        assert!((price.weight_bits - (8.0 + 12.0 + 128.0) / 8.0).abs() < 1e-12);
        assert!((price.ms.unwrap() - 9.2).abs() < 1e-12);
        assert!((ledger.least_cost(&tree) - 0.031).abs() < 1e-12);
    }

    #[test]
    fn refuses_tables_that_do_not_fit() {
        let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
        let mut short = table();
        short.gate.pop();
        assert!(short.check(&tree).unwrap_err().to_string().contains("gate"));
        let mut negative = table();
        negative.segment[1][0] = -1.0;
        assert_eq!(negative.check(&tree), Err(CostError::Value { what: "segment costs" }));
        let free = CostTable { float_total: 0.0, ..table() };
        assert!(free.check(&tree).is_err());
    }
}
