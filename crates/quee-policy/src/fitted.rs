//! Closed-loop control without cells: fitted backward induction.
//!
//! The recursion of [`crate::dynamic`] with a regression per gate instead of cells. From the last gate to the first,
//! the value that every action turned out to have (answer here: wrong or not; go on at a width: what the already fitted
//! policy of later gates then did with the sample) is regressed on the gate's features. The regression is a choice of
//! this project: ridge regression on the features and random ReLU units. Its factors don't depend on λ, so one
//! preparation serves the whole curve.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

use crate::cost::{Charge, Ledger};
use crate::gate_features::GateFeatures;
use crate::gate_fit::{FitTable, GateFit};
use crate::lambda::Outlook;
use crate::ridge::{Basis, dot};
use crate::table::{Outcomes, TableError, check_shape};
use crate::tree::{NodeId, PathTree, ROOT};

/// Strength of the regression's penalty, per sample and in units of a column's variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ridge {
    /// The same at every gate; at least 1e-9, which keeps the equations solvable.
    Given(f64),
    /// Per gate, from half decades between 1e-5 and 10, by cross-validation over the folds of *fit*. The target is what
    /// no λ touches: by how much going on at a width changes the error, averaged over all paths from there. Generalised
    /// cross-validation would take the rows of one sample under many prefixes for independent ones, and choose too
    /// little.
    CrossValidated,
}

/// How to regress. All of it is a choice of this project.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FittedOptions {
    /// Random ReLU units per gate beside the features themselves; 0 for a linear regression.
    pub units: usize,
    /// Strength of the penalty.
    pub ridge: Ridge,
    /// Parts of *fit*, drawn at random by sample, for cross-validation and cross-fitting; 2 to the number of samples.
    pub folds: usize,
    /// Whether what later gates do with a sample of *fit* is decided by regressions without the sample's fold. That
    /// makes [`FittedPlan::value`] true to new samples, where a policy that knows its samples by heart promises too
    /// much (0.03 to 0.06 of the objective with 1,000 made-up samples, against at most 0.01). The policy itself got no
    /// better by it: off by default.
    pub cross_fit: bool,
    /// Seed of units and folds.
    pub seed: u64,
}

impl Default for FittedOptions {
    fn default() -> Self {
        Self { units: 64, ridge: Ridge::CrossValidated, folds: 5, cross_fit: false, seed: 0 }
    }
}

/// Why a policy cannot be fitted.
#[derive(Debug, Error, PartialEq)]
pub enum FittedError {
    /// Features or outcomes do not fit each other or the tree.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A number of folds that cannot be drawn.
    #[error("fitted policy: {folds} folds of {samples} samples; give 2 to the number of samples")]
    Folds {
        /// Folds asked for.
        folds: usize,
        /// Samples of *fit*.
        samples: usize,
    },
    /// A penalty that leaves the equations unsolvable.
    #[error("fitted policy: ridge {ridge}; give a finite number of at least 1e-9")]
    Ridge {
        /// Strength asked for.
        ridge: f64,
    },
}

/// What errors and relative cost count in the objective of a λ.
#[derive(Clone, Copy, Debug)]
struct Weights {
    error: f64,
    cost: f64,
}

impl Weights {
    /// `error + λ·cost`, and cost alone at λ = ∞.
    fn new(lambda: f64) -> Self {
        if lambda.is_infinite() { Self { error: 0.0, cost: 1.0 } } else { Self { error: 1.0, cost: lambda } }
    }
}

/// A policy by fitted backward induction, ready to be solved for any λ.
#[derive(Debug)]
pub struct Fitted<'a> {
    table: FitTable<'a>,
    /// `[node]`: relative cost under [`Charge::Learned`].
    cost: Vec<f64>,
    /// `[sample]`: which view decides over it on *fit*: the one without its fold, or the one of all samples.
    decider: Vec<usize>,
    /// Gate `s` at `s - 1`.
    gates: Vec<GateFit>,
    /// `[node at the last gate]`, each `[sample][action]`: predicted errors. Going on from there is about nothing else,
    /// so that gate, which has most rows, is regressed once for all λ.
    last: Vec<Vec<f64>>,
}

impl<'a> Fitted<'a> {
    /// Collects from the table of *fit* and its features all that no λ touches.
    ///
    /// # Errors
    /// If the parts do not fit each other, or an option is out of its range.
    pub fn prepare(
        tree: &'a PathTree,
        ledger: &Ledger,
        fit: &'a Outcomes,
        features: &'a GateFeatures,
        options: &FittedOptions,
    ) -> Result<Self, FittedError> {
        let samples = fit.samples();
        fit.check_tree(tree)?;
        features.check_like(tree, features.dims())?;
        check_shape("features of fit", features.samples(), 1, samples)?;
        if !(2..=samples).contains(&options.folds) {
            return Err(FittedError::Folds { folds: options.folds, samples });
        }
        match options.ridge {
            Ridge::Given(ridge) if !(ridge >= 1e-9 && ridge.is_finite()) => return Err(FittedError::Ridge { ridge }),
            _ => {}
        }
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        // Samples may lie in the order of their classes, so folds are not blocks.
        let mut folds: Vec<usize> = (0..samples).map(|sample| sample % options.folds).collect();
        folds.shuffle(&mut rng);
        let members = |fold| (0..samples).filter(|sample| folds[*sample] == fold).collect();
        let members = (0..options.folds).map(members).collect();
        let table = FitTable::new(tree, fit, features, members);
        let gate = |depth: usize| {
            let basis = Basis::new(features.dims()[depth - 1], options.units, &mut rng);
            GateFit::new(&table, depth, basis, options.ridge)
        };
        let gates: Vec<GateFit> = (1..tree.segments()).map(gate).collect();
        let decider = if options.cross_fit { folds } else { vec![options.folds; samples] };
        let predict = |node: NodeId| match gates.last() {
            Some(gate) => predict_errors(&table, gate, &decider, node),
            None => Vec::new(),
        };
        let last = tree.level(tree.segments() - 1).into_par_iter().map(predict).collect();
        let cost = ledger.prices(tree, Charge::Learned).iter().map(|price| price.cost).collect();
        Ok(Self { table, cost, decider, gates, last })
    }

    /// Whether features of another split can be given to [`FittedPlan::run`].
    ///
    /// # Errors
    /// If they belong to another tree or a gate has another number of features.
    pub fn check(&self, features: &GateFeatures) -> Result<(), TableError> {
        features.check_like(self.table.tree, self.table.features.dims())
    }

    /// Strength of the penalty in force at every gate, gate `s` at `s - 1`.
    pub fn ridges(&self) -> Vec<f64> {
        self.gates.iter().map(|gate| gate.ridge).collect()
    }

    /// Backward induction for one λ. Ties go to exiting, then to the lower width; at λ = ∞ cost alone counts.
    pub fn solve(&self, lambda: f64) -> FittedPlan<'_> {
        let (table, tree, weights, samples) = (&self.table, self.table.tree, Weights::new(lambda), self.decider.len());
        let mut actions = Vec::with_capacity(self.gates.len());
        // Where every sample ends under the policy of later gates, `[node of the level below][sample]`.
        let mut below = tree.level(tree.segments());
        let mut ends: Vec<Vec<NodeId>> = below.clone().map(|node| vec![node; samples]).collect();
        for (depth, gate) in (1..tree.segments()).zip(&self.gates).rev() {
            let scaled = |values: &Vec<f64>| values.iter().map(|value| weights.error * value).collect::<Vec<f64>>();
            let last = depth + 1 == tree.segments();
            let views: Vec<Vec<Vec<f64>>> = if last {
                gate.errors.iter().map(|view| view.iter().map(scaled).collect()).collect()
            } else {
                let value = |child: NodeId, sample: usize| {
                    let end = ends[child - below.start][sample];
                    weights.error * table.error(end, sample) + weights.cost * (self.cost[end] - self.cost[child])
                };
                let step = gate.solve(&table.products(depth, &gate.basis, value));
                let join = |(step, errors): (Vec<Vec<f64>>, &Vec<Vec<f64>>)| {
                    std::iter::once(scaled(&errors[0])).chain(step).collect()
                };
                step.into_iter().zip(&gate.errors).map(join).collect()
            };
            let level = tree.level(depth);
            let follow = |node: NodeId| {
                let width_count = tree.widths();
                let mut row = Vec::new();
                let end = |sample: usize| {
                    let next = if last {
                        let errors = &self.last[node - level.start][sample * (1 + width_count)..];
                        self.next(node, weights, |action| weights.error * errors[action])
                    } else {
                        gate.basis.expand(table.features.get(tree, node, sample), &mut row);
                        let view = &views[self.decider[sample]];
                        self.next(node, weights, |action| dot(&view[action], &row))
                    };
                    next.map_or(node, |child| ends[child - below.start][sample])
                };
                (0..samples).map(end).collect()
            };
            ends = level.clone().into_par_iter().map(follow).collect();
            below = level;
            actions.extend(views.into_iter().next_back());
        }
        actions.reverse();
        let outlook = |child: NodeId| {
            let ends = &ends[child - below.start];
            let error: f64 = ends.iter().enumerate().map(|(sample, end)| table.error(*end, sample)).sum();
            let cost: f64 = ends.iter().map(|end| self.cost[*end] - self.cost[ROOT]).sum();
            Outlook { error: error / samples as f64, cost: cost / samples as f64 }
        };
        let starts = below.clone().map(|child| (child, outlook(child)));
        let best = starts.min_by(|a, b| a.1.compare(&b.1, lambda));
        let (start, value) = best.unwrap_or((ROOT, Outlook { error: 1.0, cost: 0.0 }));
        FittedPlan { fitted: self, weights, start, value, actions }
    }

    /// Best action at a gate: the child to go on to, or `None` to answer here. `value` of an action leaves the step's
    /// own cost out.
    fn next(&self, node: NodeId, weights: Weights, value: impl Fn(usize) -> f64) -> Option<NodeId> {
        let (mut best, mut next) = (value(0), None);
        for (width, child) in self.table.tree.steps(node) {
            let objective = value(1 + width) + weights.cost * (self.cost[child] - self.cost[node]);
            if objective < best {
                (best, next) = (objective, Some(child));
            }
        }
        next
    }
}

/// Errors `[sample][action]` at a node of the last gate, each predicted by the view that decides over the sample.
fn predict_errors(table: &FitTable<'_>, gate: &GateFit, decider: &[usize], node: NodeId) -> Vec<f64> {
    let mut row = Vec::new();
    let mut errors = Vec::with_capacity(decider.len() * (1 + table.tree.widths()));
    for (sample, view) in decider.iter().enumerate() {
        gate.basis.expand(table.features.get(table.tree, node, sample), &mut row);
        errors.extend(gate.errors[*view].iter().map(|weights| dot(weights, &row)));
    }
    errors
}

/// A policy solved for one λ.
#[derive(Debug)]
pub struct FittedPlan<'a> {
    fitted: &'a Fitted<'a>,
    weights: Weights,
    start: NodeId,
    value: Outlook,
    /// Gate `s` at `s - 1`; `[action][basis]`: weights of the objective, the step's own cost left out.
    actions: Vec<Vec<Vec<f64>>>,
}

impl FittedPlan<'_> {
    /// Mean errors and relative cost (without the stem) of the policy on *fit*. With cross-fitting, gates decide over a
    /// sample by regressions on the other folds; gate 0 has seen all.
    pub fn value(&self) -> Outlook {
        self.value
    }

    /// Runs the policy on a split; returns the node at which every sample is answered.
    ///
    /// # Panics
    /// If the features do not pass [`Fitted::check`].
    pub fn run(&self, features: &GateFeatures) -> Vec<NodeId> {
        let (fitted, tree) = (self.fitted, self.fitted.table.tree);
        assert_eq!(fitted.check(features), Ok(()), "features of the same tree");
        let answer = |row: &mut Vec<f64>, sample: usize| {
            let mut node = self.start;
            // The last exit has no gate.
            while let Some((gate, actions)) =
                tree.node(node).depth.checked_sub(1).and_then(|at| fitted.gates.get(at).zip(self.actions.get(at)))
            {
                gate.basis.expand(features.get(tree, node, sample), row);
                match fitted.next(node, self.weights, |action| dot(&actions[action], row)) {
                    Some(next) => node = next,
                    None => break,
                }
            }
            node
        };
        (0..features.samples()).into_par_iter().map_init(Vec::new, answer).collect()
    }
}

#[cfg(test)]
#[path = "fitted_tests.rs"]
mod tests;
