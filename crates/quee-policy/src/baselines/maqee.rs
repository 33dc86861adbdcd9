//! MAQEE-like combination: a static path with one threshold per exit, searched on *fit*.
//!
//! After MAQEE (arXiv 2605.07317), which fixes a width per layer and thresholds per exit; the search is a choice of this
//! project. For each λ it takes the pair of a full-depth path and thresholds on the largest probability with the least
//! `error + λ·cost` on *fit*, where every exit passed is paid. Along a path thresholds are found by coordinate descent:
//! one exit after the other, from the last to the first, gets the best threshold given the others. It starts from never
//! leaving early, and from the best among one threshold for all exits and one exit for all samples, so it is at least as
//! good on *fit* as any of those.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::threshold::{NEVER, thresholds};
use crate::cost::{Charge, Ledger, Price};
use crate::cross_fit::Folds;
use crate::curve::pareto;
use crate::lambda::{Outlook, Step, Sweep, label, sweep};
use crate::outcome::{Choices, Setting};
use crate::table::Outcomes;
use crate::tree::{NodeId, PathTree};

/// Trees with more full-depth paths are searched along the front of those in cost and error rate on *fit*.
pub const MOST_PATHS: usize = 512;

/// Coordinate descent gives up after this many rounds; it usually stands still after three.
const ROUNDS: usize = 10;

/// A path and its thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Full-depth node.
    pub path: NodeId,
    /// Threshold of every exit but the last.
    pub thresholds: Vec<f32>,
    /// Error rate and mean relative cost on *fit*.
    pub fit: Outlook,
}

impl Plan {
    /// Runs the plan on a split; returns the node at which every sample is answered: the first along the path whose
    /// confidence reaches its threshold.
    ///
    /// # Panics
    /// If the outcomes belong to another tree.
    pub fn run(&self, tree: &PathTree, outcomes: &Outcomes) -> Vec<NodeId> {
        let nodes = along(tree, self.path);
        let answer = |sample: usize| {
            let sure =
                nodes.iter().zip(&self.thresholds).find(|(node, least)| outcomes.confidence(**node)[sample] >= **least);
            sure.map_or(self.path, |(node, _)| *node)
        };
        (0..outcomes.samples()).map(answer).collect()
    }

    /// Path and thresholds as people read them.
    fn label(&self, tree: &PathTree, names: &[String]) -> String {
        let show = |least: &f32| if *least == NEVER { "never".to_owned() } else { format!("{least:.4}") };
        let all: Vec<String> = self.thresholds.iter().map(show).collect();
        format!("{} thresholds {}", tree.label(self.path, names), all.join(" "))
    }
}

/// Nodes of a path from depth 1 to its end.
fn along(tree: &PathTree, end: NodeId) -> Vec<NodeId> {
    let before = |node: &NodeId| tree.node(*node).parent.filter(|parent| tree.node(*parent).depth > 0);
    let mut nodes: Vec<NodeId> = std::iter::successors(Some(end), before).collect();
    nodes.reverse();
    nodes
}

/// A node with an exit, as the search sees it on *fit*.
struct Exit {
    /// Ascending, from 0 to [`NEVER`]: quantiles of the node's own confidences and the shared thresholds.
    thresholds: Vec<f32>,
    /// `[sample]`: number of thresholds that its confidence reaches. It leaves at threshold `k` if this is more than `k`.
    reached: Vec<u16>,
    /// Place of every shared threshold in `thresholds`.
    shared: Vec<u16>,
    /// `[sample]`: 1 if the answer is wrong.
    wrong: Vec<i8>,
    /// Relative cost, all exits up to this one included.
    cost: f64,
}

/// A full-depth path with what does not depend on λ.
struct Candidate {
    /// Nodes from depth 1 to the end.
    nodes: Vec<NodeId>,
    /// Rules that descent may start from, each as the places of the thresholds of all exits but the last: one threshold for
    /// all exits; all samples leave at one exit, the last exit last.
    starts: Vec<(Vec<u16>, Outlook)>,
}

/// The search on *fit*, prepared for any λ.
pub struct Search {
    /// `[node - 1]`.
    exits: Vec<Exit>,
    candidates: Vec<Candidate>,
    samples: usize,
}

impl Search {
    /// Prepares the search; `quantiles` of the confidences on *fit* become thresholds: those of each node for its own exit,
    /// and those of all nodes together for all exits.
    ///
    /// # Panics
    /// If the ledger or the outcomes belong to another tree, or for more than 32,000 quantiles.
    pub fn new(tree: &PathTree, ledger: &Ledger, fit: &Outcomes, quantiles: usize) -> Self {
        assert!(quantiles <= 32_000, "places of thresholds have 16 bits");
        let prices = ledger.prices(tree, Charge::Threshold);
        let pooled: Vec<f32> = tree.gate_nodes().flat_map(|node| fit.confidence(node)).copied().collect();
        let shared = thresholds(&pooled, quantiles);
        let exit = |node: NodeId| {
            let confidence = fit.confidence(node);
            let mut all = thresholds(confidence, quantiles);
            all.extend(&shared);
            all.sort_by(f32::total_cmp);
            all.dedup();
            let count = |value: f32| all.partition_point(|least| *least <= value) as u16;
            Exit {
                reached: confidence.iter().map(|confidence| count(*confidence)).collect(),
                shared: shared.iter().map(|least| count(*least) - 1).collect(),
                wrong: (0..fit.samples()).map(|sample| i8::from(!fit.correct(node, sample))).collect(),
                cost: prices[node].cost,
                thresholds: all,
            }
        };
        let exits: Vec<Exit> = tree.paths().into_par_iter().map(exit).collect();
        let mut search = Self { exits, candidates: Vec::new(), samples: fit.samples() };
        let full: Vec<NodeId> = tree.level(tree.segments()).collect();
        let kept = match full.len() > MOST_PATHS {
            false => full,
            true => {
                let point = |node: &NodeId| (prices[*node].cost, 1.0 - fit.error_rate(*node));
                pareto(&full.iter().map(point).collect::<Vec<_>>()).into_iter().map(|at| full[at]).collect()
            }
        };
        search.candidates = kept.into_par_iter().map(|end| search.candidate(along(tree, end))).collect();
        search
    }

    fn exit(&self, node: NodeId) -> &Exit {
        &self.exits[node - 1]
    }

    /// The starts of a path.
    fn candidate(&self, nodes: Vec<NodeId>) -> Candidate {
        let gates = &nodes[..nodes.len() - 1];
        let shared = gates.first().map_or(0, |node| self.exit(*node).shared.len());
        let one_threshold = |at: usize| gates.iter().map(|node| self.exit(*node).shared[at]).collect();
        let never = |node: &NodeId| (self.exit(*node).thresholds.len() - 1) as u16;
        let all_at = |exit: usize| -> Vec<u16> {
            gates.iter().enumerate().map(|(at, node)| if at == exit { 0 } else { never(node) }).collect()
        };
        let rules = (0..shared).map(one_threshold).chain((0..nodes.len()).map(all_at));
        let mut leaves = vec![0; self.samples];
        let start = |rule: Vec<u16>| {
            let outlook = self.outlook(&nodes, &rule, &mut leaves);
            (rule, outlook)
        };
        let starts = rules.map(start).collect();
        Candidate { nodes, starts }
    }

    /// Place along the path, from 0, at which every sample leaves under a rule.
    fn leave(&self, nodes: &[NodeId], rule: &[u16], leaves: &mut [u16]) {
        leaves.fill(rule.len() as u16);
        for (at, place) in rule.iter().enumerate().rev() {
            for (leaves, reached) in leaves.iter_mut().zip(&self.exit(nodes[at]).reached) {
                *leaves = if place < reached { at as u16 } else { *leaves };
            }
        }
    }

    /// Error rate and mean cost of a rule.
    fn outlook(&self, nodes: &[NodeId], rule: &[u16], leaves: &mut [u16]) -> Outlook {
        self.leave(nodes, rule, leaves);
        let (mut wrong, mut cost) = (0, 0.0);
        for (at, node) in nodes.iter().enumerate() {
            let exit = self.exit(*node);
            let mut count = 0;
            for (leaves, error) in leaves.iter().zip(&exit.wrong) {
                let here = i32::from(usize::from(*leaves) == at);
                count += here;
                wrong += here * i32::from(*error);
            }
            cost += exit.cost * f64::from(count);
        }
        Outlook { error: f64::from(wrong) / self.samples as f64, cost: cost / self.samples as f64 }
    }

    /// Coordinate descent along a path.
    fn descend(&self, nodes: &[NodeId], start: &[u16], lambda: f64) -> Vec<u16> {
        let (mut rule, last) = (start.to_vec(), self.exit(nodes[nodes.len() - 1]));
        let mut leaves = vec![0; self.samples];
        let mut gains: Vec<(i32, f64)> = Vec::new();
        for _ in 0..ROUNDS {
            let before = rule.clone();
            self.leave(nodes, &rule, &mut leaves);
            // Error and cost of a sample that passes the exit at hand.
            let mut later: Vec<(i32, f64)> = last.wrong.iter().map(|wrong| (i32::from(*wrong), last.cost)).collect();
            for at in (0..rule.len()).rev() {
                let exit = self.exit(nodes[at]);
                // What it adds to errors and cost to leave here instead of later, by number of thresholds reached.
                gains.clear();
                gains.resize(exit.thresholds.len() + 1, (0, 0.0));
                let rows = leaves.iter().zip(&exit.reached).zip(&exit.wrong).zip(&later);
                for (((_, reached), wrong), later) in rows.filter(|(((leaves, _), _), _)| usize::from(**leaves) >= at) {
                    let gain = &mut gains[usize::from(*reached)];
                    gain.0 += i32::from(*wrong) - later.0;
                    gain.1 += exit.cost - later.1;
                }
                rule[at] = best_place(&gains, self.samples, rule[at], lambda);
                for ((later, reached), wrong) in later.iter_mut().zip(&exit.reached).zip(&exit.wrong) {
                    if rule[at] < *reached {
                        *later = (i32::from(*wrong), exit.cost);
                    }
                }
            }
            if rule == before {
                break;
            }
        }
        rule
    }

    /// The best plan along one path: descent from its best start and from never leaving early.
    fn along(&self, candidate: &Candidate, lambda: f64) -> Plan {
        let Candidate { nodes, starts } = candidate;
        let less = |a: &Outlook, b: &Outlook| a.compare(b, lambda) == Ordering::Less;
        let never = starts.len() - 1;
        let start = (0..never).fold(never, |best, at| if less(&starts[at].1, &starts[best].1) { at } else { best });
        let (mut rule, mut fit) = starts[start].clone();
        for from in if start == never { vec![never] } else { vec![start, never] } {
            let found = self.descend(nodes, &starts[from].0, lambda);
            let outlook = self.outlook(nodes, &found, &mut vec![0; self.samples]);
            if less(&outlook, &fit) {
                (rule, fit) = (found, outlook);
            }
        }
        let least = rule.iter().zip(nodes).map(|(place, node)| self.exit(*node).thresholds[usize::from(*place)]);
        Plan { path: nodes[nodes.len() - 1], thresholds: least.collect(), fit }
    }

    /// The pair of path and thresholds with the least `error + λ·cost` on *fit*; ties to the cheaper, then to the lower
    /// node.
    pub fn best(&self, lambda: f64) -> Plan {
        let mut plans: Vec<Plan> = self.candidates.par_iter().map(|candidate| self.along(candidate, lambda)).collect();
        let less = |a: usize, b: usize| plans[a].fit.compare(&plans[b].fit, lambda) == Ordering::Less;
        let best = (1..plans.len()).fold(0, |best, at| if less(at, best) { at } else { best });
        plans.swap_remove(best)
    }
}

/// The best threshold of one exit: `gains` `[thresholds reached]` are what leaving adds to errors and cost, relative to
/// going on. Stays at `current` unless another is better.
fn best_place(gains: &[(i32, f64)], samples: usize, current: u16, lambda: f64) -> u16 {
    let (mut errors, mut cost) = (0i64, 0.0);
    let mut outlooks = vec![Outlook { error: 0.0, cost: 0.0 }; gains.len() - 1];
    for place in (0..outlooks.len()).rev() {
        errors += i64::from(gains[place + 1].0);
        cost += gains[place + 1].1;
        outlooks[place] = Outlook { error: errors as f64 / samples as f64, cost: cost / samples as f64 };
    }
    let better = |best: u16, place: usize| match outlooks[place].compare(&outlooks[usize::from(best)], lambda) {
        Ordering::Less => place as u16,
        _ => best,
    };
    (0..outlooks.len()).fold(current, better)
}

/// The method over λ, laid out on *cal-a* as for the learned policies; the parameter of a setting is λ. With `folds`, *fit* stands behind *cal-a*.
///
/// # Panics
/// If the ledger, the names or a table belong to another tree.
pub fn maqee_like(
    tree: &PathTree,
    ledger: &Ledger,
    names: &[String],
    [fit, cal, test]: [&Outcomes; 3],
    folds: Option<&Folds>,
    options: &Sweep,
    quantiles: usize,
) -> Vec<Setting> {
    let prices: Arc<[Price]> = ledger.prices(tree, Charge::Threshold).into();
    let search = Search::new(tree, ledger, fit, quantiles);
    let without_fold = |fold, folds: &Folds| Search::new(tree, ledger, &fit.subset(&folds.others(fold)), quantiles);
    let searches: Vec<Search> =
        folds.map_or_else(Vec::new, |folds| (0..folds.count()).map(|fold| without_fold(fold, folds)).collect());
    let run = |plan: &Plan, split: &Outcomes| Choices::at_nodes(&prices, split, &plan.run(tree, split));
    let mut plans = BTreeMap::new();
    let steps = sweep(options, |lambda| {
        let plan = search.best(lambda);
        let mut nodes = plan.run(tree, cal);
        if let Some(folds) = folds {
            nodes = folds.put_together(nodes, |fold| searches[fold].best(lambda).run(tree, cal));
        }
        let choices = Choices::at_nodes(&prices, cal, &nodes);
        plans.insert(lambda.to_bits(), plan);
        choices
    });
    let setting = |step: Step| {
        let plan = &plans[&step.lambda.to_bits()];
        let name = format!("lambda {}: {}", label(step.lambda), plan.label(tree, names));
        Setting { name, parameter: step.lambda, test: run(plan, test), cal: step.cal }
    };
    steps.into_iter().map(setting).collect()
}

#[cfg(test)]
#[path = "maqee_tests.rs"]
mod tests;
