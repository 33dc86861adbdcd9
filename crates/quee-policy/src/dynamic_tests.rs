//! Dynamic programming against enumeration, and counting against hand-made tables.

use super::*;
use crate::cost::{BitTable, CostTable};
use crate::tree::Monotone;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn ledger(tree: &PathTree) -> Ledger {
    let cost = CostTable {
        stem: 1.0,
        segment: (0..tree.segments()).map(|_| (0..tree.widths()).map(|w| 10.0 + 5.0 * w as f64).collect()).collect(),
        exit: vec![0.5; tree.segments()],
        gate: vec![0.25; tree.segments() - 1],
        gate_zero: 0.0,
        float_total: 100.0,
        cascade: false,
    };
    let bits = BitTable {
        stem_macs: 1.0,
        stem_bits: 8.0,
        segment_macs: vec![1.0; tree.segments()],
        width_bits: (0..tree.widths()).map(|w| 2.0 + w as f64).collect(),
    };
    Ledger::new(tree, cost, bits, None).unwrap()
}

fn random_tables(tree: &PathTree, samples: usize, counts: &[usize], seed: u64) -> (Outcomes, Cells) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let paths = tree.paths().len() * samples;
    let answers = (0..paths).map(|_| rng.random_range(0..2u16)).collect();
    let outcomes = Outcomes::new(tree, answers, vec![0.5; paths], vec![0; samples]).unwrap();
    let cells = tree
        .gate_nodes()
        .flat_map(|node| (0..samples).map(move |_| node))
        .map(|node| rng.random_range(0..counts[tree.node(node).depth - 1]) as u16)
        .collect();
    (outcomes, Cells::new(tree, samples, counts.to_vec(), cells).unwrap())
}

/// Value of one deterministic policy, by walking forward from a state.
fn walk(
    chain: &Chain,
    tree: &PathTree,
    policy: &dyn Fn(NodeId, usize) -> usize,
    node: NodeId,
    cell: usize,
) -> (f64, f64) {
    let action = policy(node, cell);
    let children = tree.node(node).children.clone();
    let child = match (node, action) {
        (ROOT, action) => children.start + action,
        (_, 0) => return (chain.exit_error[node][cell], 0.0),
        (_, action) => children.start + action - 1,
    };
    let (mut error, mut cost) = (0.0, chain.step_cost[child]);
    if tree.node(child).children.is_empty() {
        return (chain.arrival[child][cell], cost);
    }
    let next = chain.cells[tree.node(child).depth];
    for to in 0..next {
        let probability = chain.arrival[child][cell * next + to];
        let (e, c) = walk(chain, tree, policy, child, to);
        error += probability * e;
        cost += probability * c;
    }
    (error, cost)
}

/// Least `error + λ·cost` over all deterministic policies, each an action for every state.
fn enumerate(chain: &Chain, tree: &PathTree, lambda: f64) -> f64 {
    let mut first_state = vec![0; tree.node_count()];
    let mut choices = Vec::new();
    for node in tree.nodes().filter(|node| !tree.node(*node).children.is_empty()) {
        first_state[node] = choices.len();
        let actions = tree.node(node).children.len() + usize::from(node != ROOT);
        choices.extend(std::iter::repeat_n(actions, chain.cells[tree.node(node).depth]));
    }
    let total: usize = choices.iter().product();
    let mut least = f64::INFINITY;
    for number in 0..total {
        let mut rest = number;
        let policy: Vec<usize> = choices
            .iter()
            .map(|actions| {
                let action = rest % actions;
                rest /= actions;
                action
            })
            .collect();
        let (error, cost) = walk(chain, tree, &|node, cell| policy[first_state[node] + cell], ROOT, 0);
        least = least.min(error + lambda * cost);
    }
    least
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equals_enumeration_of_all_policies(
        shape in 0usize..8, rule in 0usize..3, seed in any::<u64>(), lambda in 0.0f64..8.0, alpha in 0.0f64..10.0,
    ) {
        let (segments, widths, cells): (usize, usize, &[usize]) = [
            (2, 2, &[2][..]), (3, 1, &[3, 2]), (3, 2, &[1, 1]), (2, 3, &[1]), (4, 1, &[2, 2, 2]), (2, 3, &[2]),
            (3, 2, &[2, 1]), (3, 2, &[1, 2]),
        ][shape];
        let rule = [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing][rule];
        let tree = PathTree::new(segments, widths, rule, 100).unwrap();
        let (fit, cells) = random_tables(&tree, 12, cells, seed);
        let chain = Chain::count(&tree, &ledger(&tree), &fit, &cells, alpha).unwrap();
        let plan = chain.solve(&tree, lambda);
        let best = enumerate(&chain, &tree, lambda);
        let value = plan.value();
        prop_assert!((value.error + lambda * value.cost - best).abs() < 1e-12, "{value:?} {best}");
        // What the plan does in every state is what its value was found for.
        let action = |node: NodeId, cell: usize| match plan.actions[node][cell] {
            Some(next) => next - tree.node(node).children.start + usize::from(node != ROOT),
            None => 0,
        };
        let (error, cost) = walk(&chain, &tree, &action, ROOT, 0);
        prop_assert!((error - value.error).abs() < 1e-12 && (cost - value.cost).abs() < 1e-12);
    }

    #[test]
    fn rows_of_the_chain_are_distributions(seed in any::<u64>(), alpha in 0.0f64..10.0, rule in 0usize..2) {
        let rule = [Monotone::Free, Monotone::NonIncreasing][rule];
        let tree = PathTree::new(3, 2, rule, 100).unwrap();
        let (fit, cells) = random_tables(&tree, 9, &[4, 3], seed);
        let chain = Chain::count(&tree, &ledger(&tree), &fit, &cells, alpha).unwrap();
        for node in tree.paths() {
            let depth = tree.node(node).depth;
            if depth < 3 {
                for row in chain.arrival[node].chunks(chain.cells[depth]) {
                    prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                }
            }
            let rates = if depth < 3 { &chain.exit_error[node] } else { &chain.arrival[node] };
            prop_assert!(rates.iter().all(|rate| (0.0..=1.0).contains(rate)));
        }
    }

    /// Without smoothing and with a chain that forgets nothing, the promised value is what the plan does on *fit*.
    #[test]
    fn promise_is_kept_on_fit_with_one_gate(seed in any::<u64>(), lambda in 0.0f64..8.0) {
        let tree = PathTree::new(2, 2, Monotone::Free, 100).unwrap();
        let (fit, cells) = random_tables(&tree, 30, &[3], seed);
        let ledger = ledger(&tree);
        let chain = Chain::count(&tree, &ledger, &fit, &cells, 0.0).unwrap();
        let plan = chain.solve(&tree, lambda);
        let ends = plan.run(&cells);
        let errors = ends.iter().enumerate().filter(|(sample, node)| !fit.correct(**node, *sample)).count();
        let prices = ledger.prices(&tree, Charge::Learned);
        let cost: f64 = ends.iter().map(|node| prices[*node].cost - prices[ROOT].cost).sum();
        prop_assert!((plan.value().error - errors as f64 / 30.0).abs() < 1e-9);
        prop_assert!((plan.value().cost - cost / 30.0).abs() < 1e-9);
    }
}

#[test]
fn infinite_lambda_takes_the_cheapest_path() {
    let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
    let (fit, cells) = random_tables(&tree, 20, &[2, 2], 1);
    let chain = Chain::count(&tree, &ledger(&tree), &fit, &cells, 8.0).unwrap();
    let ends = chain.solve(&tree, f64::INFINITY).run(&cells);
    assert!(ends.iter().all(|node| *node == 1));
}

#[test]
fn smoothing_follows_the_formula() {
    let tree = PathTree::new(2, 2, Monotone::Free, 100).unwrap();
    // Two samples, both wrong after width 0, both right after width 1, all in cell 0 of two.
    let answers = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fit = Outcomes::new(&tree, answers, vec![0.5; 12], vec![0, 0]).unwrap();
    let cells = Cells::new(&tree, 2, vec![2], vec![0; 4]).unwrap();
    let chain = Chain::count(&tree, &ledger(&tree), &fit, &cells, 8.0).unwrap();
    // Gate rate 1/2, pooled rate of cell 0 also 1/2: (2 + 8/2) / (2 + 8).
    assert!((chain.exit_error[1][0] - 0.6).abs() < 1e-12);
    assert!((chain.exit_error[2][0] - 0.4).abs() < 1e-12);
    assert!((chain.exit_error[1][1] - 0.5).abs() < 1e-12, "an empty cell has the gate's rate");
}

#[test]
fn refuses_cells_outside_their_gate() {
    let tree = PathTree::new(2, 2, Monotone::Free, 100).unwrap();
    assert!(Cells::new(&tree, 1, vec![2], vec![0, 2]).is_err());
    assert!(Cells::new(&tree, 1, vec![2], vec![0]).is_err());
    assert!(Cells::new(&tree, 1, vec![2, 2], vec![0, 1]).is_err());
}
