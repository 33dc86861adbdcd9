//! The search by hand, against all rules of small trees, and at a realistic size.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::fixture::{ledger, small};
use super::*;
use crate::tree::Monotone;

/// Confidences on a coarse scale that say something about who is right.
fn random(tree: &PathTree, samples: usize, seed: u64) -> Outcomes {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels = vec![0; samples];
    let (mut answers, mut confidence) = (Vec::new(), Vec::new());
    for node in tree.paths() {
        let skill = 0.1 * (tree.node(node).depth + tree.node(node).width.unwrap_or(0)) as f32;
        for _ in 0..samples {
            let sure = (rng.random::<f32>() * 8.0).round() / 8.0;
            answers.push(u16::from(rng.random::<f32>() > 0.3 + skill + 0.4 * sure));
            confidence.push(sure);
        }
    }
    Outcomes::new(tree, answers, confidence, labels).unwrap()
}

fn objective(outlook: Outlook, lambda: f64) -> f64 {
    outlook.error + lambda * outlook.cost
}

/// Error and cost of a plan, from what it does on *fit*.
fn figures(tree: &PathTree, ledger: &Ledger, fit: &Outcomes, plan: &Plan) -> Outlook {
    let prices: Arc<[Price]> = ledger.prices(tree, Charge::Threshold).into();
    let choices = Choices::at_nodes(&prices, fit, &plan.run(tree, fit));
    Outlook { error: 1.0 - choices.accuracy(), cost: choices.mean_cost() }
}

#[test]
fn one_threshold_where_it_helps() {
    let (tree, ledger, table) = small();
    let search = Search::new(&tree, &ledger, &table, 10);
    // Along [0]: sample 0 is right and sure (0.9) at exit 1, sample 1 wrong and unsure (0.4); exit 2 is right for both.
    let plan = search.best(1.0);
    assert_eq!((tree.widths_of(plan.path), plan.run(&tree, &table)), (vec![0, 0], vec![1, 3]));
    assert!((0.4..=0.9).contains(&plan.thresholds[0]) && plan.thresholds[0] > 0.4);
    assert!((plan.fit.cost - (0.11 + 0.22) / 2.0).abs() < 1e-12, "both exits are paid by one of two");
    assert_eq!(plan.fit.error, 0.0);
    let cheapest = search.best(f64::INFINITY);
    assert_eq!(cheapest.run(&tree, &table), [1, 1]);
    assert!((cheapest.fit.cost - 0.11).abs() < 1e-12);
}

#[test]
fn every_exit_gets_its_own_threshold() {
    // Exit 1 is right where its confidence is 0.9 and above, exit 2 where it is 0.3 and above, exit 3 always: no single
    // threshold serves both.
    let tree = PathTree::new(3, 1, Monotone::Free, 10).unwrap();
    let confidence = vec![0.95, 0.6, 0.6, 0.6, 0.95, 0.4, 0.4, 0.2, 1.0, 1.0, 1.0, 1.0];
    let answers = vec![0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    let fit = Outcomes::new(&tree, answers, confidence, vec![0; 4]).unwrap();
    let plan = Search::new(&tree, &ledger(&tree), &fit, 20).best(0.1);
    assert_eq!(plan.run(&tree, &fit), [1, 2, 2, 3]);
    assert!(plan.thresholds[0] > 0.6 && plan.thresholds[1] <= 0.4, "{:?}", plan.thresholds);
    assert_eq!(plan.fit.error, 0.0);
}

#[test]
fn a_single_segment_has_no_threshold() {
    let tree = PathTree::new(1, 2, Monotone::Free, 10).unwrap();
    let fit = Outcomes::new(&tree, vec![0, 1, 0, 0], vec![0.5; 4], vec![0, 0]).unwrap();
    let search = Search::new(&tree, &ledger(&tree), &fit, 20);
    assert_eq!(search.best(0.0), Plan { path: 2, thresholds: vec![], fit: Outlook { error: 0.0, cost: 0.21 } });
    assert_eq!(search.best(100.0).path, 1);
}

#[test]
fn a_large_tree_is_searched_along_its_front() {
    let tree = PathTree::new(5, 4, Monotone::Free, 2_000).unwrap();
    let fit = random(&tree, 40, 1);
    let search = Search::new(&tree, &ledger(&tree), &fit, 5);
    let full: Vec<NodeId> = tree.level(5).collect();
    assert!(full.len() > MOST_PATHS && search.candidates.len() < 20, "{}", search.candidates.len());
    let least = full.iter().map(|node| fit.error_rate(*node)).fold(1.0, f64::min);
    let kept = |candidate: &Candidate| fit.error_rate(candidate.nodes[4]);
    assert_eq!(search.candidates.iter().map(kept).fold(1.0, f64::min), least, "the most accurate path is on the front");
}

#[test]
fn settings_are_those_of_the_search_on_fit() {
    let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
    let [fit, cal, test] = [1, 2, 3].map(|seed| random(&tree, 60, seed));
    let ledger = ledger(&tree);
    let names = ["low".to_owned(), "high".to_owned()];
    let sweep = Sweep { settings: 80, ..Sweep::default() };
    let settings = maqee_like(&tree, &ledger, &names, [&fit, &cal, &test], None, &sweep, 20);
    assert!(settings.len() <= 80 && settings.is_sorted_by_key(|setting| setting.parameter));
    let search = Search::new(&tree, &ledger, &fit, 20);
    for setting in settings.iter().step_by(7) {
        let plan = search.best(setting.parameter);
        let nodes: Vec<u32> = plan.run(&tree, &test).into_iter().map(|node| node as u32).collect();
        assert_eq!(setting.test.options(), nodes, "{}", setting.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// On *fit* the plan's figures are what it does, and no static path with one threshold for all exits is better.
    #[test]
    fn never_worse_than_one_threshold_along_any_path(
        segments in 1usize..4, widths in 1usize..4, rule in 0usize..3, samples in 1usize..40, seed in 0u64..1_000_000,
        lambda in prop_oneof![Just(0.0), 0.01f64..20.0],
    ) {
        let rule = [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing][rule];
        let tree = PathTree::new(segments, widths, rule, 2_000).unwrap();
        let (fit, ledger) = (random(&tree, samples, seed), ledger(&tree));
        let plan = Search::new(&tree, &ledger, &fit, 100).best(lambda);
        let done = figures(&tree, &ledger, &fit, &plan);
        prop_assert!((done.error - plan.fit.error).abs() < 1e-12 && (done.cost - plan.fit.cost).abs() < 1e-12);
        let least = objective(plan.fit, lambda);
        for path in tree.level(segments) {
            for threshold in (0..=9).map(|eighth| eighth as f32 / 8.0) {
                let one = Plan { path, thresholds: vec![threshold; segments - 1], fit: plan.fit };
                let other = objective(figures(&tree, &ledger, &fit, &one), lambda);
                prop_assert!(least <= other + 1e-9, "{least} > {other} at {threshold} along {path}");
            }
        }
        // A round of descent has tried every threshold of every exit by itself.
        for at in 0..segments - 1 {
            for threshold in (0..=9).map(|eighth| eighth as f32 / 8.0) {
                let mut other = plan.clone();
                other.thresholds[at] = threshold;
                let other = objective(figures(&tree, &ledger, &fit, &other), lambda);
                prop_assert!(least <= other + 1e-9, "{least} > {other} with {threshold} at exit {}", at + 1);
            }
        }
    }
}
