//! Closed-loop control: dynamic programming on (cell, prefix).
//!
//! Every sample of *fit* visits every prefix, so all counterfactuals are known: transitions between cells and error
//! rates are counted, smoothed towards their average over prefixes, and solved backward for each λ.

use crate::cost::{Charge, Ledger};
use crate::cross_fit::{columns, side_by_side};
use crate::lambda::Outlook;
use crate::table::{Outcomes, TableError, check_shape};
use crate::tree::{NodeId, PathTree, ROOT};

/// Cell of every sample at every gate node of one split.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    samples: usize,
    /// Number of cells by gate, gate `s` at `s - 1`.
    counts: Vec<usize>,
    cells: Vec<u16>,
}

impl Cells {
    /// `counts`: number of cells by gate, gate `s` at `s - 1`; `cells`: `[gate node][sample]` in the order of
    /// [`PathTree::gate_nodes`].
    ///
    /// # Errors
    /// If a list has the wrong length, or a cell is not below its gate's count.
    pub fn new(tree: &PathTree, samples: usize, counts: Vec<usize>, cells: Vec<u16>) -> Result<Self, TableError> {
        check_shape("cells by gate", counts.len(), tree.segments() - 1, 1)?;
        check_shape("cells", cells.len(), tree.gate_nodes().count(), samples)?;
        for node in tree.gate_nodes() {
            let row = &cells[(node - 1) * samples..node * samples];
            let count = counts[tree.node(node).depth - 1];
            if let Some(sample) = row.iter().position(|cell| usize::from(*cell) >= count) {
                return Err(TableError::Value { what: "cells", row: node - 1, sample, range: "the gate's cells" });
            }
        }
        Ok(Self { samples, counts, cells })
    }

    /// Whether there is one row for every gate node of the tree, and the same cells as in `other`.
    pub(crate) fn check_like(&self, tree: &PathTree, other: &Self) -> Result<(), TableError> {
        check_shape("cells", self.cells.len(), tree.gate_nodes().count(), self.samples)?;
        check_shape("cells by gate", self.counts.len(), tree.segments() - 1, 1)?;
        let mut pairs = self.counts.iter().zip(&other.counts);
        pairs.try_for_each(|(got, want)| check_shape("number of cells of a gate", *got, *want, 1))
    }

    /// The cells of the samples `chosen` alone.
    ///
    /// # Panics
    /// If a sample is unknown.
    pub fn subset(&self, chosen: &[usize]) -> Self {
        let cells = columns(&self.cells, self.samples, chosen);
        Self { samples: chosen.len(), counts: self.counts.clone(), cells }
    }

    /// The cells with those of the samples of `other` behind them.
    ///
    /// # Panics
    /// If they belong to different trees or have different numbers of cells.
    pub fn with(&self, other: &Self) -> Self {
        assert_eq!(self.counts, other.counts, "cells of one tree");
        let cells = side_by_side((&self.cells, self.samples), (&other.cells, other.samples));
        Self { samples: self.samples + other.samples, counts: self.counts.clone(), cells }
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of cells of the gate after `depth` segments; gate 0 has one.
    fn count(&self, depth: usize) -> usize {
        if depth == 0 { 1 } else { self.counts[depth - 1] }
    }

    fn get(&self, node: NodeId, sample: usize) -> usize {
        if node == ROOT { 0 } else { usize::from(self.cells[(node - 1) * self.samples + sample]) }
    }
}

/// `(m + α·r) / (n + α)`; `r` itself where there is nothing to divide.
fn smooth(m: f64, n: f64, rate: f64, alpha: f64) -> f64 {
    if n + alpha > 0.0 { (m + alpha * rate) / (n + alpha) } else { rate }
}

/// Counts of events by (cell, kind of event), to be turned into smoothed rates.
struct Counts {
    kinds: usize,
    /// `[cell][kind]`.
    events: Vec<f64>,
    /// `[cell]`: visits.
    visits: Vec<f64>,
}

impl Counts {
    fn new(cells: usize, kinds: usize) -> Self {
        Self { kinds, events: vec![0.0; cells * kinds], visits: vec![0.0; cells] }
    }

    fn add(&mut self, other: &Self) {
        self.events.iter_mut().zip(&other.events).for_each(|(sum, n)| *sum += n);
        self.visits.iter_mut().zip(&other.visits).for_each(|(sum, n)| *sum += n);
    }

    /// Rates by (cell, kind), smoothed towards the prior `[cell][kind]`.
    fn rates(&self, prior: &[f64], alpha: f64) -> Vec<f64> {
        let rate = |(at, prior): (usize, &f64)| smooth(self.events[at], self.visits[at / self.kinds], *prior, alpha);
        prior.iter().enumerate().map(rate).collect()
    }

    /// The rates of all cells together, repeated for every cell; without any visit, evenly spread.
    fn overall(&self) -> Vec<f64> {
        let visits: f64 = self.visits.iter().sum();
        let rate = |kind: usize| {
            let events: f64 = self.events.iter().skip(kind).step_by(self.kinds).sum();
            smooth(events, visits, 1.0 / self.kinds.max(2) as f64, 0.0)
        };
        let all: Vec<f64> = (0..self.kinds).map(rate).collect();
        (0..self.visits.len()).flat_map(|_| all.iter().copied()).collect()
    }
}

/// Rates of a group of prefixes: pooled rates smoothed towards those of the whole gate, then each prefix towards the
/// pooled ones.
fn pooled_rates(group: &[Counts], alpha: f64) -> Vec<Vec<f64>> {
    let Some(first) = group.first() else { return Vec::new() };
    let mut pool = Counts::new(first.visits.len(), first.kinds);
    group.iter().for_each(|counts| pool.add(counts));
    let pooled = pool.rates(&pool.overall(), alpha);
    group.iter().map(|counts| counts.rates(&pooled, alpha)).collect()
}

/// The Markov chain on (cell, prefix) counted from *fit*. It forgets earlier cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// `[node][cell]`: error rate of answering here; empty but at gates with features.
    exit_error: Vec<Vec<f64>>,
    /// `[node]`: probabilities `[cell before][cell here]`, or error rates `[cell before]` at the last exit; empty at
    /// the root.
    arrival: Vec<Vec<f64>>,
    /// `[node]`: relative cost of the last step to this node: segment, exit and gate.
    step_cost: Vec<f64>,
    /// `[depth]`: number of cells, 1 at depth 0.
    cells: Vec<usize>,
}

impl Chain {
    /// Counts the chain from the table and cells of *fit*; `alpha` is the weight of the smoothing in samples.
    ///
    /// # Errors
    /// If `cells` and `fit` have different numbers of samples.
    ///
    /// # Panics
    /// If they belong to another tree.
    pub fn count(
        tree: &PathTree,
        ledger: &Ledger,
        fit: &Outcomes,
        cells: &Cells,
        alpha: f64,
    ) -> Result<Self, TableError> {
        check_shape("cells of fit", cells.samples(), 1, fit.samples())?;
        let last = tree.segments();
        let kinds = |depth: usize| if depth == last { 1 } else { cells.count(depth) };
        let mut exit_error = vec![Vec::new(); tree.node_count()];
        let mut arrival = vec![Vec::new(); tree.node_count()];
        for depth in 1..=last {
            for width in 0..tree.widths() {
                let nodes = tree.level(depth).filter(|node| tree.node(*node).width == Some(width));
                let nodes: Vec<NodeId> = nodes.collect();
                let count = |node: &NodeId| {
                    let parent = tree.node(*node).parent.unwrap_or(ROOT);
                    let mut counts = Counts::new(cells.count(depth - 1), kinds(depth));
                    for sample in 0..fit.samples() {
                        let before = cells.get(parent, sample);
                        counts.visits[before] += 1.0;
                        if depth < last {
                            counts.events[before * counts.kinds + cells.get(*node, sample)] += 1.0;
                        } else if !fit.correct(*node, sample) {
                            counts.events[before] += 1.0;
                        }
                    }
                    counts
                };
                let group: Vec<Counts> = nodes.iter().map(count).collect();
                for (node, rates) in nodes.iter().zip(pooled_rates(&group, alpha)) {
                    arrival[*node] = rates;
                }
            }
            if depth < last {
                let count = |node: NodeId| {
                    let mut counts = Counts::new(cells.count(depth), 1);
                    for sample in 0..fit.samples() {
                        let cell = cells.get(node, sample);
                        counts.visits[cell] += 1.0;
                        counts.events[cell] += if fit.correct(node, sample) { 0.0 } else { 1.0 };
                    }
                    counts
                };
                let group: Vec<Counts> = tree.level(depth).map(count).collect();
                for (node, rates) in tree.level(depth).zip(pooled_rates(&group, alpha)) {
                    exit_error[node] = rates;
                }
            }
        }
        let prices = ledger.prices(tree, Charge::Learned);
        let step = |node: NodeId| tree.node(node).parent.map_or(0.0, |parent| prices[node].cost - prices[parent].cost);
        let step_cost = tree.nodes().map(step).collect();
        Ok(Self { exit_error, arrival, step_cost, cells: (0..last).map(|depth| cells.count(depth)).collect() })
    }

    /// Expected errors and cost after stepping to `child` from `cell`, given the values behind it.
    fn step(&self, child: NodeId, cell: usize, values: &[Outlook]) -> Outlook {
        let mut outlook = Outlook { error: 0.0, cost: self.step_cost[child] };
        if values.is_empty() {
            outlook.error = self.arrival[child][cell];
            return outlook;
        }
        let row = &self.arrival[child][cell * values.len()..(cell + 1) * values.len()];
        for (probability, value) in row.iter().zip(values) {
            outlook.error += probability * value.error;
            outlook.cost += probability * value.cost;
        }
        outlook
    }

    /// Backward recursion: the best deterministic policy of the chain for one λ. Ties go to the cheaper, then to
    /// exiting, then to the lower width.
    pub fn solve(&self, tree: &PathTree, lambda: f64) -> Plan {
        let mut values: Vec<Vec<Outlook>> = vec![Vec::new(); tree.node_count()];
        let mut actions: Vec<Vec<Option<NodeId>>> = vec![Vec::new(); tree.node_count()];
        for node in tree.nodes().rev().filter(|node| !tree.node(*node).children.is_empty()) {
            for cell in 0..self.cells[tree.node(node).depth] {
                let exit = self.exit_error[node].get(cell).map(|error| (Outlook { error: *error, cost: 0.0 }, None));
                let steps = tree.node(node).children.clone();
                let steps = steps.map(|child| (self.step(child, cell, &values[child]), Some(child)));
                let best = exit.into_iter().chain(steps).min_by(|a, b| a.0.compare(&b.0, lambda));
                let (value, action) = best.unwrap_or((Outlook { error: 1.0, cost: 0.0 }, None));
                values[node].push(value);
                actions[node].push(action);
            }
        }
        Plan { value: values[ROOT][0], actions }
    }
}

/// A solved chain: what to do in every state.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    value: Outlook,
    /// `[node][cell]`: next node, or `None` to answer here; empty at the last exit.
    actions: Vec<Vec<Option<NodeId>>>,
}

impl Plan {
    /// Expected errors and relative cost (without the stem) that the chain promises.
    pub fn value(&self) -> Outlook {
        self.value
    }

    /// Runs the plan on a split; returns the node at which every sample is answered.
    ///
    /// # Panics
    /// If the cells belong to another tree or have more cells than those of *fit*.
    pub fn run(&self, cells: &Cells) -> Vec<NodeId> {
        let answer = |sample| {
            let mut node = ROOT;
            while let Some(Some(next)) =
                (!self.actions[node].is_empty()).then(|| self.actions[node][cells.get(node, sample)])
            {
                node = next;
            }
            node
        };
        (0..cells.samples()).map(answer).collect()
    }
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
