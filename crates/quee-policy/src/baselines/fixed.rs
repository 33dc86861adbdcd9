//! Paths that do not depend on the input: static widths, static paths, and the random policy.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::by_exit;
use crate::cost::{Charge, Ledger, Price};
use crate::curve::pareto;
use crate::outcome::{Choices, Setting};
use crate::table::{Outcomes, StaticRun};
use crate::tree::{NodeId, PathTree, ROOT};

/// Static widths: every run at full depth, one setting each.
pub fn static_widths(ledger: &Ledger, runs: &[StaticRun], cal: &[u16], test: &[u16]) -> Vec<Setting> {
    let setting = |(at, run): (usize, &StaticRun)| {
        let prices: Arc<[Price]> = ledger.run_prices(run, Charge::Static).into();
        Setting {
            name: run.name.clone(),
            parameter: at as f64,
            cal: by_exit(&prices, &run.cal, cal, |_| prices.len()),
            test: by_exit(&prices, &run.test, test, |_| prices.len()),
        }
    };
    runs.iter().enumerate().map(setting).collect()
}

/// Best static path (mixed precision): all paths of every depth. Only those on the front of *cal-a* are kept, the
/// others are never drawn.
pub fn static_paths(
    tree: &PathTree,
    ledger: &Ledger,
    names: &[String],
    cal: &Outcomes,
    test: &Outcomes,
) -> Vec<Setting> {
    let prices: Arc<[Price]> = ledger.prices(tree, Charge::Static).into();
    let points: Vec<(f64, f64)> = tree.paths().map(|node| (prices[node].cost, 1.0 - cal.error_rate(node))).collect();
    let setting = |at: usize| {
        let node = at + 1;
        Setting {
            name: tree.label(node, names),
            parameter: node as f64,
            cal: Choices::at_nodes(&prices, cal, &vec![node; cal.samples()]),
            test: Choices::at_nodes(&prices, test, &vec![node; test.samples()]),
        }
    };
    pareto(&points).into_iter().map(setting).collect()
}

/// Random policy: a width drawn evenly from those allowed for every segment, and at every gate an exit with
/// probability `exit`. It looks at nothing, so it pays the answering exit alone.
///
/// Draws depend on `seed` and the sample's place in the split only, so that settings share them.
pub fn random_paths(tree: &PathTree, samples: usize, exit: f64, seed: u64) -> Vec<NodeId> {
    let path = |sample: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(sample as u64);
        let mut node = ROOT;
        loop {
            let leaves: f64 = rng.random();
            let children = &tree.node(node).children;
            if children.is_empty() || (node != ROOT && leaves < exit) {
                return node;
            }
            node = rng.random_range(children.clone());
        }
    };
    (0..samples).map(path).collect()
}

/// The random policy at exit probabilities 0, 0.05, …, 1.
pub fn random_policy(tree: &PathTree, ledger: &Ledger, cal: &Outcomes, test: &Outcomes, seed: u64) -> Vec<Setting> {
    let prices: Arc<[Price]> = ledger.prices(tree, Charge::Static).into();
    let setting = |step: u32| {
        let exit = f64::from(step) / 20.0;
        Setting {
            name: format!("exit probability {exit:.2}"),
            parameter: exit,
            cal: Choices::at_nodes(&prices, cal, &random_paths(tree, cal.samples(), exit, seed)),
            test: Choices::at_nodes(&prices, test, &random_paths(tree, test.samples(), exit, !seed)),
        }
    };
    (0..=20).map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{runs, small};
    use super::*;
    use crate::tree::Monotone;

    #[test]
    fn static_runs_pay_one_exit_and_match_the_tree() {
        let (tree, ledger, table) = small();
        let settings = static_widths(&ledger, &runs(&tree, &ledger, &table), &[0, 0], &[0, 0]);
        assert!((settings[1].cal.mean_cost() - 0.41).abs() < 1e-12);
        assert_eq!(settings[1].cal.mean_weight_bits(), 8.0);
        let names = ["low".to_owned(), "high".to_owned()];
        let paths = static_paths(&tree, &ledger, &names, &table, &table);
        let kept: Vec<&str> = paths.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(kept, ["low | exit 1", "low > low | exit 2"]);
    }

    #[test]
    fn random_policy_respects_its_setting_and_its_seed() {
        let tree = PathTree::new(3, 2, Monotone::NonIncreasing, 100).unwrap();
        assert!(random_paths(&tree, 50, 1.0, 7).iter().all(|node| tree.node(*node).depth == 1));
        let deep = random_paths(&tree, 400, 0.0, 7);
        assert!(deep.iter().all(|node| tree.node(*node).depth == 3));
        assert_eq!(deep, random_paths(&tree, 400, 0.0, 7));
        assert_ne!(deep, random_paths(&tree, 400, 0.0, 8));
        let high_first = deep.iter().filter(|node| tree.widths_of(**node)[0] == 1).count();
        assert!((140..260).contains(&high_first), "{high_first} of 400 should be about half");
    }
}
