//! The regressions of one gate of a fitted policy: all that no λ touches.
//!
//! Action 0 answers at the gate, action `1 + b` goes on at width `b`. Lists by *view* have one entry per fold, for what
//! is fitted without it, and a last one for all samples together.

use rayon::prelude::*;

use crate::fitted::Ridge;
use crate::gate_features::GateFeatures;
use crate::ridge::{Basis, Factor, Gram, add_scaled};
use crate::table::Outcomes;
use crate::tree::{NodeId, PathTree};

/// Penalties to choose from: half decades from 1e-5 to 10.
fn candidates() -> Vec<f64> {
    (-10..=2).map(|half| 10f64.powf(f64::from(half) / 2.0)).collect()
}

/// The table of *fit*, its features, and its folds.
#[derive(Debug)]
pub(crate) struct FitTable<'a> {
    pub(crate) tree: &'a PathTree,
    pub(crate) outcomes: &'a Outcomes,
    pub(crate) features: &'a GateFeatures,
    /// `[fold]`: its samples, ascending.
    members: Vec<Vec<usize>>,
    /// `[node]`, each `[sample]`: mean error of the path and of all that go on from it; empty for the root.
    onward: Vec<Vec<f32>>,
}

impl<'a> FitTable<'a> {
    /// Joins the parts; `members` `[fold]` are the samples of every fold.
    pub(crate) fn new(
        tree: &'a PathTree,
        outcomes: &'a Outcomes,
        features: &'a GateFeatures,
        members: Vec<Vec<usize>>,
    ) -> Self {
        let mut sums = vec![Vec::new(); tree.node_count()];
        let mut paths = vec![1.0f32; tree.node_count()];
        for node in tree.paths().rev() {
            let mut errors: Vec<f32> =
                (0..outcomes.samples()).map(|sample| f32::from(u8::from(!outcomes.correct(node, sample)))).collect();
            for (_, child) in tree.steps(node) {
                let below: &Vec<f32> = &sums[child];
                errors.iter_mut().zip(below).for_each(|(error, below)| *error += below);
                paths[node] += paths[child];
            }
            sums[node] = errors;
        }
        sums.iter_mut().zip(&paths).for_each(|(sums, paths)| sums.iter_mut().for_each(|sum| *sum /= paths));
        Self { tree, outcomes, features, members, onward: sums }
    }

    /// Mean error on a sample of a path and of all that go on from it; at the last exit the path's own.
    fn onward(&self, node: NodeId, sample: usize) -> f64 {
        f64::from(self.onward[node][sample])
    }

    /// Error of a path on a sample, 0 or 1.
    pub(crate) fn error(&self, node: NodeId, sample: usize) -> f64 {
        f64::from(u8::from(!self.outcomes.correct(node, sample)))
    }

    /// Per fold, products `[width][basis]` of the basis functions at a gate with a value of going on at each width,
    /// given by child and sample.
    pub(crate) fn products(
        &self,
        depth: usize,
        basis: &Basis,
        value: impl Fn(NodeId, usize) -> f64 + Sync,
    ) -> Vec<Vec<Vec<f64>>> {
        let fold = |members: &Vec<usize>| {
            let mut sums = vec![vec![0.0; basis.len()]; self.tree.widths()];
            self.rows(depth, basis, members, |node, sample, row| {
                for (width, child) in self.tree.steps(node) {
                    add_scaled(&mut sums[width], value(child, sample), row);
                }
            });
            sums
        };
        self.members.par_iter().map(fold).collect()
    }

    /// Calls `visit` with node, sample and basis functions of all rows of some samples at a gate, in a fixed order.
    fn rows(&self, depth: usize, basis: &Basis, members: &[usize], mut visit: impl FnMut(NodeId, usize, &[f64])) {
        let mut row = Vec::new();
        for node in self.tree.level(depth) {
            for sample in members {
                basis.expand(self.features.get(self.tree, node, *sample), &mut row);
                visit(node, *sample, &row);
            }
        }
    }
}

/// Sums over the rows of one fold, by action: over the nodes that allow it.
struct Sums {
    /// `[action]`.
    gram: Vec<Gram>,
    /// `[action][basis]`: products with the error of answering at the gate.
    exit: Vec<Vec<f64>>,
    /// `[width]`: sum of squares of what going on changes about the error.
    changes: Vec<f64>,
}

impl Sums {
    fn new(table: &FitTable<'_>, depth: usize, basis: &Basis, members: &[usize]) -> Self {
        let (tree, dim) = (table.tree, basis.len());
        let actions = 1 + tree.widths();
        // Nodes with the same last width allow the same actions: they are summed once, then given to each action.
        let mut by_last = vec![(Gram::new(dim), vec![0.0; dim]); tree.widths()];
        let mut changes = vec![0.0; tree.widths()];
        let last_width = |node: NodeId| tree.node(node).width.unwrap_or(0);
        table.rows(depth, basis, members, |node, sample, row| {
            let (gram, exit) = &mut by_last[last_width(node)];
            let error = table.error(node, sample);
            gram.add_row(row);
            add_scaled(exit, error, row);
            for (width, child) in tree.steps(node) {
                changes[width] += (table.onward(child, sample) - error).powi(2);
            }
        });
        let (mut gram, mut exit) = (vec![Gram::new(dim); actions], vec![vec![0.0; dim]; actions]);
        for (last, sums) in by_last.iter().enumerate() {
            let Some(node) = tree.level(depth).find(|node| last_width(*node) == last) else { continue };
            for action in std::iter::once(0).chain(tree.steps(node).map(|(width, _)| 1 + width)) {
                gram[action].add(&sums.0);
                add_scaled(&mut exit[action], 1.0, &sums.1);
            }
        }
        Self { gram, exit, changes }
    }
}

/// Everything but one fold; everything for the last view.
fn others<T>(folds: &[T], view: usize) -> impl Iterator<Item = &T> {
    folds.iter().enumerate().filter(move |(fold, _)| *fold != view).map(|(_, part)| part)
}

fn total_gram(folds: &[Sums], view: usize, action: usize) -> Gram {
    let mut parts = others(folds, view).map(|sums| &sums.gram[action]);
    let first = parts.next().cloned().unwrap_or_else(|| Gram::new(0));
    parts.fold(first, |mut total, part| {
        total.add(part);
        total
    })
}

fn total<'v>(dim: usize, parts: impl Iterator<Item = &'v Vec<f64>>) -> Vec<f64> {
    let mut total = vec![0.0; dim];
    parts.for_each(|part| add_scaled(&mut total, 1.0, part));
    total
}

/// By candidate: squared error of what the other folds predict for a fold, summed over folds and widths. Predicted is
/// by how much going on changes the error ([`FitTable::onward`] less the gate's own).
fn held_out_losses(folds: &[Sums], step: &[Vec<Vec<f64>>], dim: usize) -> Vec<f64> {
    let gain = |fold: usize, width: usize| {
        let mut gain = step[fold][width].clone();
        add_scaled(&mut gain, -1.0, &folds[fold].exit[1 + width]);
        gain
    };
    let widths = step[0].len();
    let losses = |case: usize| -> Vec<f64> {
        let (fold, width) = (case / widths, case % widths);
        let gains: Vec<Vec<f64>> = (0..folds.len()).map(|fold| gain(fold, width)).collect();
        let (gram, targets) = (total_gram(folds, fold, 1 + width), total(dim, others(&gains, fold)));
        let loss = |ridge: f64| {
            let weights = gram.factor(ridge).solve(&targets);
            folds[fold].gram[1 + width].residual(&weights, &gains[fold], folds[fold].changes[width])
        };
        candidates().into_iter().map(loss).collect()
    };
    let cases: Vec<Vec<f64>> = (0..folds.len() * widths).into_par_iter().map(losses).collect();
    total(candidates().len(), cases.iter())
}

/// The regressions of one gate.
#[derive(Debug)]
pub(crate) struct GateFit {
    pub(crate) basis: Basis,
    /// Strength of the penalty in force.
    pub(crate) ridge: f64,
    /// `[view][action]`.
    factors: Vec<Vec<Factor>>,
    /// `[view][action][basis]`: weights of the error of answering at the gate, and of [`FitTable::onward`] at the next
    /// exit.
    pub(crate) errors: Vec<Vec<Vec<f64>>>,
}

impl GateFit {
    pub(crate) fn new(table: &FitTable<'_>, depth: usize, basis: Basis, ridge: Ridge) -> Self {
        let folds: Vec<Sums> =
            table.members.par_iter().map(|members| Sums::new(table, depth, &basis, members)).collect();
        let step = table.products(depth, &basis, |child, sample| table.onward(child, sample));
        let ridge = match ridge {
            Ridge::Given(ridge) => ridge,
            Ridge::CrossValidated => {
                let losses = held_out_losses(&folds, &step, basis.len());
                let (_, ridge) =
                    losses.into_iter().zip(candidates()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 1.0));
                ridge
            }
        };
        let factor =
            |view| (0..=table.tree.widths()).map(|action| total_gram(&folds, view, action).factor(ridge)).collect();
        let factors: Vec<Vec<Factor>> = (0..=folds.len()).into_par_iter().map(factor).collect();
        let exit: Vec<&Vec<f64>> = folds.iter().map(|sums| &sums.exit[0]).collect();
        let mut gate = Self { basis, ridge, factors, errors: Vec::new() };
        gate.errors = gate.solve(&step);
        for (view, errors) in gate.errors.iter_mut().enumerate() {
            let targets = total(gate.basis.len(), others(&exit, view).copied());
            errors.insert(0, gate.factors[view][0].solve(&targets));
        }
        gate
    }

    /// Weights `[view][width][basis]` for targets given by their products `[fold][width][basis]`.
    pub(crate) fn solve(&self, products: &[Vec<Vec<f64>>]) -> Vec<Vec<Vec<f64>>> {
        let solve = |(view, factors): (usize, &Vec<Factor>)| {
            let width = |(width, factor): (usize, &Factor)| {
                factor.solve(&total(self.basis.len(), others(products, view).map(|fold| &fold[width])))
            };
            factors[1..].iter().enumerate().map(width).collect()
        };
        self.factors.par_iter().enumerate().map(solve).collect()
    }
}
