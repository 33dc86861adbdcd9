//! Baselines on the same exits, quantizers, tables and costs: static paths, threshold rules, the random policy.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cost::{Charge, Ledger, Price};
use crate::curve::pareto;
use crate::outcome::{Choices, Setting};
use crate::table::{Outcomes, RunOutcomes, StaticRun};
use crate::tree::{NodeId, PathTree, ROOT};

/// Number of quantiles of the confidences on *cal-a* that become thresholds.
pub const QUANTILES: usize = 100;

/// Above every probability: never leaves before the last exit.
pub const NEVER: f32 = 1.5;

/// Choices of a run by a rule that names the exit of every sample.
fn by_exit(prices: &Arc<[Price]>, run: &RunOutcomes, labels: &[u16], mut exit: impl FnMut(usize) -> usize) -> Choices {
    let samples = labels.len();
    let exits: Vec<usize> = (0..samples).map(&mut exit).collect();
    let correct = exits.iter().enumerate().map(|(at, exit)| run.answers[(exit - 1) * samples + at] == labels[at]);
    let correct = correct.collect();
    Choices::new(Arc::clone(prices), exits.iter().map(|exit| (exit - 1) as u32).collect(), correct)
}

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

/// Thresholds for a run: 0, the quantiles of its confidences on *cal-a* over all exits but the last, and [`NEVER`].
pub fn thresholds(run: &RunOutcomes, samples: usize, quantiles: usize) -> Vec<f32> {
    let mut sorted = run.confidence[..run.confidence.len() - samples].to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut thresholds = vec![0.0];
    if let Some(last) = sorted.len().checked_sub(1) {
        thresholds.extend((0..quantiles).map(|at| sorted[last * at / quantiles.saturating_sub(1).max(1)]));
        thresholds.push(NEVER);
    }
    thresholds.dedup();
    thresholds
}

/// Patience as a score for [`early_exit`], `[exit][sample]`: the share of exits in a row, this one included, that gave
/// the same answer. A threshold of `p / S` leaves once `p` exits in a row agree.
pub fn patience(run: &RunOutcomes, samples: usize) -> Vec<f32> {
    let exits = (run.answers.len() / samples.max(1)) as f32;
    let mut streak = vec![0.0f32; run.answers.len()];
    for at in 0..streak.len() {
        let before = at.checked_sub(samples).filter(|before| run.answers[*before] == run.answers[at]);
        streak[at] = 1.0 + before.map_or(0.0, |before| streak[before]);
    }
    streak.iter().map(|agreeing| agreeing / exits).collect()
}

/// Early exit of a run: leaves at the first exit whose largest probability reaches the threshold, one threshold for
/// all exits. Pays every exit passed. Any score between 0 and 1 may stand in the run's place of confidence: the margin,
/// one minus the normalised entropy, [`patience`].
pub fn early_exit(ledger: &Ledger, run: &StaticRun, cal: &[u16], test: &[u16], quantiles: usize) -> Vec<Setting> {
    let prices: Arc<[Price]> = ledger.run_prices(run, Charge::Threshold).into();
    let exits = prices.len();
    let leave = |outcomes: &RunOutcomes, labels: &[u16], threshold: f32| {
        let samples = labels.len();
        by_exit(&prices, outcomes, labels, |sample| {
            let sure = |exit: &usize| outcomes.confidence[(exit - 1) * samples + sample] >= threshold;
            (1..exits).find(sure).unwrap_or(exits)
        })
    };
    let setting = |threshold: f32| Setting {
        name: if threshold == NEVER {
            format!("{}, never early", run.name)
        } else {
            format!("{} threshold {threshold:.4}", run.name)
        },
        parameter: f64::from(threshold),
        cal: leave(&run.cal, cal, threshold),
        test: leave(&run.test, test, threshold),
    };
    thresholds(&run.cal, cal.len(), quantiles).into_iter().map(setting).collect()
}

/// Naive combination: each static width with the threshold rule; the setting is the pair.
pub fn naive(ledger: &Ledger, runs: &[StaticRun], cal: &[u16], test: &[u16], quantiles: usize) -> Vec<Setting> {
    runs.iter().flat_map(|run| early_exit(ledger, run, cal, test, quantiles)).collect()
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
    use super::*;
    use crate::cost::{BitTable, CostTable};
    use crate::tree::Monotone;

    fn setup() -> (PathTree, Ledger, Outcomes) {
        let tree = PathTree::new(2, 2, Monotone::Free, 100).unwrap();
        let cost = CostTable {
            stem: 0.0,
            segment: vec![vec![10.0, 20.0]; 2],
            exit: vec![1.0; 2],
            gate: vec![1.0],
            float_total: 100.0,
        };
        let bits = BitTable { stem_macs: 0.0, stem_bits: 8.0, segment_macs: vec![1.0; 2], width_bits: vec![4.0, 8.0] };
        let ledger = Ledger::new(&tree, cost, bits, None).unwrap();
        // Paths [0] [1] [00] [01] [10] [11], two samples of class 0.
        let answers = vec![0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0];
        let confidence = vec![0.9, 0.4, 0.8, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9];
        let table = Outcomes::new(&tree, answers, confidence, vec![0, 0]).unwrap();
        (tree, ledger, table)
    }

    fn runs(tree: &PathTree, ledger: &Ledger, table: &Outcomes) -> Vec<StaticRun> {
        let run = |width: usize| StaticRun::along_tree(tree, ledger, width, ["low", "high"][width], table, table);
        vec![run(0), run(1)]
    }

    #[test]
    fn threshold_rule_leaves_when_sure_and_pays_exits_passed() {
        let (tree, ledger, table) = setup();
        let settings = early_exit(&ledger, &runs(&tree, &ledger, &table)[0], &[0, 0], &[0, 0], 3);
        let thresholds: Vec<f64> = settings.iter().map(|setting| setting.parameter).collect();
        assert_eq!(thresholds, [0.0, f64::from(0.4f32), f64::from(0.9f32), f64::from(NEVER)]);
        assert_eq!(settings[0].test.options(), [0, 0]);
        assert_eq!((settings[0].test.accuracy(), settings[0].test.mean_cost()), (0.5, 0.11));
        assert_eq!(settings[2].test.options(), [0, 1], "0.9 reaches 0.9, 0.4 does not");
        assert!((settings[3].test.mean_cost() - 0.22).abs() < 1e-12, "both exits are paid");
        assert_eq!(settings[3].test.accuracy(), 1.0);
    }

    #[test]
    fn static_runs_pay_one_exit_and_match_the_tree() {
        let (tree, ledger, table) = setup();
        let settings = static_widths(&ledger, &runs(&tree, &ledger, &table), &[0, 0], &[0, 0]);
        assert!((settings[1].cal.mean_cost() - 0.41).abs() < 1e-12);
        assert_eq!(settings[1].cal.mean_weight_bits(), 8.0);
        let names = ["low".to_owned(), "high".to_owned()];
        let paths = static_paths(&tree, &ledger, &names, &table, &table);
        let kept: Vec<&str> = paths.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(kept, ["low | exit 1", "low > low | exit 2"]);
    }

    #[test]
    fn patience_counts_agreeing_exits() {
        let run = RunOutcomes { answers: vec![1, 2, 1, 3, 1, 3, 0, 3], confidence: vec![0.0; 8] };
        assert_eq!(patience(&run, 2), [0.25, 0.25, 0.5, 0.25, 0.75, 0.5, 0.25, 0.75]);
    }

    #[test]
    fn a_single_exit_has_a_single_threshold() {
        let run = RunOutcomes { answers: vec![0, 1], confidence: vec![0.3, 0.6] };
        assert_eq!(thresholds(&run, 2, 10), [0.0]);
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
