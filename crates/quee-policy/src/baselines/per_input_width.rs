//! One width per input without exits: input-dependent quantization alone.
//!
//! Segment 1 runs at a width chosen by gate 0, the same for all samples. Gate 1 picks one width for all remaining
//! segments by its predictions, each as it is (pooled, they would tell no width from another). Everything runs at full
//! depth and answers at the last exit (a choice of this project: the technique that is left of the open-loop policy when
//! exits are taken away).

use std::sync::Arc;

use crate::cost::{Charge, Ledger, Price};
use crate::lambda::{Outlook, Step, Sweep, label, sweep};
use crate::open_loop::PredictionTable;
use crate::outcome::{Choices, Setting};
use crate::table::Outcomes;
use crate::tree::{NodeId, PathTree, ROOT};

/// A full-depth path that runs at one width behind segment 1.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Node behind segment 1.
    first: NodeId,
    /// Node at full depth.
    end: NodeId,
    /// Place of its prediction at gate 1.
    place: usize,
    cost: f64,
    /// Error rate on *fit*.
    rate: f64,
}

/// The policy, prepared for a tree.
#[derive(Clone, Debug)]
pub struct PerInputWidth {
    ways: Vec<Way>,
    prices: Arc<[Price]>,
}

impl PerInputWidth {
    /// Prepares the policy. It pays its segments, exit 1 (whose features gate 1 reads), gate 1 and the last exit; with a
    /// single segment there is no gate 1, and the last exit alone is paid. Error rates on *fit* serve gate 0.
    ///
    /// # Panics
    /// If the ledger or the outcomes belong to another tree.
    pub fn new(tree: &PathTree, ledger: &Ledger, fit: &Outcomes) -> Self {
        let mut prices = ledger.prices(tree, Charge::Static);
        if tree.segments() > 1 {
            for price in &mut prices {
                price.cost += ledger.cost().relative(ledger.cost().exit[0] + ledger.cost().gate[0]);
                price.ms = price.ms.zip(ledger.time()).map(|(ms, time)| ms + time.exit[0] + time.gate[0]);
            }
        }
        let mut ways = Vec::new();
        for first in tree.node(ROOT).children.clone() {
            for width in 0..tree.widths() {
                let suffix = vec![width; tree.segments() - 1];
                let end = suffix.iter().try_fold(first, |node, width| tree.child(node, *width));
                if let Some((end, way)) = end.and_then(|end| Some((end, tree.way(first, end)?))) {
                    ways.push(Way { first, end, place: way.place, cost: prices[end].cost, rate: fit.error_rate(end) });
                }
            }
        }
        Self { ways, prices: prices.into() }
    }

    /// Runs the policy on a split; returns the full-depth node of every sample. Gate 0 takes the width of the path with the
    /// least `error rate on fit + λ·cost`, gate 1 the least `predicted error + λ·cost`; ties to the cheaper.
    ///
    /// # Panics
    /// If the predictions belong to another tree.
    pub fn run(&self, predictions: &PredictionTable, lambda: f64) -> Vec<NodeId> {
        let least = |ways: &[Way], error: &dyn Fn(&Way) -> f64| -> Option<Way> {
            let outlook = |way: &Way| Outlook { error: error(way), cost: way.cost };
            ways.iter().copied().min_by(|a, b| outlook(a).compare(&outlook(b), lambda))
        };
        let Some(start) = least(&self.ways, &|way| way.rate) else { return Vec::new() };
        let ways: Vec<Way> = self.ways.iter().copied().filter(|way| way.first == start.first).collect();
        let end = |sample: usize| match start.first == start.end {
            true => start.end,
            false => {
                let predicted = predictions.get(start.first, sample);
                least(&ways, &|way| f64::from(predicted[way.place])).unwrap_or(start).end
            }
        };
        (0..predictions.samples()).map(end).collect()
    }

    /// Settings over λ, laid out on *cal-a*: tables and predictions are pairs of *cal-a* and *test*.
    ///
    /// # Panics
    /// If a table or the predictions belong to another tree or split.
    pub fn settings(
        &self,
        tables: [&Outcomes; 2],
        predictions: [&PredictionTable; 2],
        options: &Sweep,
    ) -> Vec<Setting> {
        let run = |split: usize, lambda: f64| {
            Choices::at_nodes(&self.prices, tables[split], &self.run(predictions[split], lambda))
        };
        let setting = |step: Step| Setting {
            name: format!("lambda {}", label(step.lambda)),
            parameter: step.lambda,
            test: run(1, step.lambda),
            cal: step.cal,
        };
        sweep(options, |lambda| run(0, lambda)).into_iter().map(setting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ledger, small};
    use super::*;
    use crate::tree::Monotone;

    #[test]
    fn gate_one_picks_the_rest_and_the_first_width_is_common() {
        let (tree, ledger, table) = small();
        let policy = PerInputWidth::new(&tree, &ledger, &table);
        // Places at gate 1: leave, low, high. Sample 0 needs the high width, sample 1 does not; leaving looks perfect.
        let predict = |_: NodeId, sample: usize, place: usize| [[0.0, 0.9, 0.1], [0.0, 0.2, 0.1]][sample][place];
        let predictions = PredictionTable::from_fn(&tree, 2, predict);
        // On fit, low > low and high > high make no error: the cheaper decides the first width.
        let ends = policy.run(&predictions, 2.0);
        let widths: Vec<Vec<usize>> = ends.iter().map(|end| tree.widths_of(*end)).collect();
        assert_eq!(widths, [[0, 1], [0, 0]], "0.1 of cost at a price of 2 is worth 0.8 of error and not 0.1");
        let choices = Choices::at_nodes(&policy.prices, &table, &ends);
        // Segments 30 and 20; exit 1, gate 1 and exit 2 cost 1 each.
        assert!((choices.price(0).cost - 0.33).abs() < 1e-12 && (choices.price(1).cost - 0.23).abs() < 1e-12);
        let settings = policy.settings([&table; 2], [&predictions; 2], &Sweep::default());
        assert_eq!(settings[0].test.options(), [4, 4], "nothing but predicted errors at a price of 0");
        assert_eq!(settings.last().unwrap().test.options(), [3, 3]);
        assert_eq!(settings.last().unwrap().name, "lambda inf");
        assert!(settings.iter().all(|setting| setting.test.exit_shares(2) == [0.0, 1.0]), "never leaves early");
    }

    #[test]
    fn forbidden_paths_are_never_taken_and_widths_are_constant_behind_segment_one() {
        let tree = PathTree::new(3, 3, Monotone::NonIncreasing, 100).unwrap();
        let paths = tree.paths().len();
        let fit = Outcomes::new(&tree, vec![0; paths], vec![0.5; paths], vec![0]).unwrap();
        let policy = PerInputWidth::new(&tree, &ledger(&tree), &fit);
        assert_eq!(policy.ways.len(), 6);
        for way in &policy.ways {
            let widths = tree.widths_of(way.end);
            assert!(widths[1] == widths[2] && widths[1] <= widths[0]);
            assert_eq!(tree.way(way.first, way.end).map(|way| way.place), Some(way.place));
        }
    }

    #[test]
    fn a_single_segment_has_no_gate_to_pay() {
        let tree = PathTree::new(1, 2, Monotone::Free, 10).unwrap();
        let fit = Outcomes::new(&tree, vec![0, 1, 1, 1], vec![0.5; 4], vec![1, 1]).unwrap();
        let policy = PerInputWidth::new(&tree, &ledger(&tree), &fit);
        let nothing = PredictionTable::new(&tree, 2, Vec::new()).unwrap();
        assert_eq!(policy.run(&nothing, 0.0), [2, 2]);
        assert_eq!(policy.run(&nothing, 100.0), [1, 1]);
        assert!((policy.prices[2].cost - 0.21).abs() < 1e-12);
    }
}
