//! Fitted backward induction against the dynamic program, the best achievable, and open loop.

use super::*;
use crate::cost::{BitTable, CostTable};
use crate::dynamic::{Cells, Chain};
use crate::open_loop::{OpenLoop, PredictionTable, root_rates};
use crate::tree::Monotone;
use proptest::prelude::*;
use rand::RngExt;

/// Segment `s` at width `b` costs `segments[s] · (1 + 0.6·b)`; exits and gates cost next to nothing.
fn ledger(tree: &PathTree, segments: &[f64]) -> Ledger {
    let widths = |cost: &f64| (0..tree.widths()).map(|width| cost * (1.0 + 0.6 * width as f64)).collect();
    let cost = CostTable {
        stem: 0.05,
        segment: segments.iter().map(widths).collect(),
        exit: vec![1e-4; tree.segments()],
        gate: vec![1e-4; tree.segments() - 1],
        gate_zero: 0.0,
        float_total: 1.0,
        cascade: false,
    };
    let bits = BitTable {
        stem_macs: 1.0,
        stem_bits: 8.0,
        segment_macs: vec![1.0; tree.segments()],
        width_bits: (0..tree.widths()).map(|width| 2.0 + width as f64).collect(),
    };
    Ledger::new(tree, cost, bits, None).unwrap()
}

/// Outcomes from whether a path is wrong on a sample.
fn outcomes(tree: &PathTree, samples: usize, mut wrong: impl FnMut(NodeId, usize) -> bool) -> Outcomes {
    let paths = tree.paths();
    let answers = paths.flat_map(|node| (0..samples).map(move |sample| (node, sample)));
    let answers: Vec<u16> = answers.map(|(node, sample)| u16::from(wrong(node, sample))).collect();
    let confidence = vec![0.5; answers.len()];
    Outcomes::new(tree, answers, confidence, vec![0; samples]).unwrap()
}

fn features(tree: &PathTree, samples: usize, mut row: impl FnMut(NodeId, usize) -> Vec<f32>) -> GateFeatures {
    let rows = tree.gate_nodes().map(|node| (0..samples).flat_map(|sample| row(node, sample)).collect()).collect();
    GateFeatures::new(tree, samples, rows).unwrap()
}

/// Mean `error + λ·cost` of answers at `ends`, the stem left out.
fn objective(tree: &PathTree, ledger: &Ledger, table: &Outcomes, ends: &[NodeId], lambda: f64) -> f64 {
    let prices = ledger.prices(tree, Charge::Learned);
    let value = |(sample, node): (usize, &NodeId)| {
        f64::from(u8::from(!table.correct(*node, sample))) + lambda * (prices[*node].cost - prices[ROOT].cost)
    };
    ends.iter().enumerate().map(value).sum::<f64>() / ends.len() as f64
}

/// A sample `[x0, x1, noise…]` decides which paths are right: those whose power reaches its difficulty, but for a share
/// `luck` of coin tosses.
struct World {
    tree: PathTree,
    ledger: Ledger,
    noise: usize,
    luck: f64,
}

impl World {
    fn new(segments: usize, widths: usize, noise: usize, luck: f64) -> Self {
        let tree = PathTree::new(segments, widths, Monotone::Free, 2_000).unwrap();
        let ledger = ledger(&tree, &vec![0.1; segments]);
        Self { tree, ledger, noise, luck }
    }

    fn split(&self, samples: usize, seed: u64) -> (Outcomes, GateFeatures) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sample = |_| (0..2 + self.noise).map(|_| rng.random_range(-1.7f32..1.7)).collect();
        let rows: Vec<Vec<f32>> = (0..samples).map(sample).collect();
        let mut toss = ChaCha8Rng::seed_from_u64(seed + 1);
        let table = outcomes(&self.tree, samples, |node, sample| {
            let widths = self.tree.widths_of(node);
            let power: f32 = widths.iter().map(|width| 0.6 + 0.4 * *width as f32).sum();
            let difficulty = rows[sample][0].abs() + 0.6 * rows[sample][1] + 0.4;
            if toss.random_bool(self.luck) { toss.random() } else { power < difficulty }
        });
        let features = features(&self.tree, samples, |node, sample| {
            let widths = self.tree.widths_of(node);
            rows[sample].iter().copied().chain(widths.iter().map(|width| *width as f32 - 0.5)).collect()
        });
        (table, features)
    }

    /// Least objective with samples known at every gate but gate 0, which sends all the same way.
    fn best(&self, table: &Outcomes, lambda: f64) -> f64 {
        let prices = self.ledger.prices(&self.tree, Charge::Learned);
        let start = |first: NodeId| {
            let below = |node: NodeId| self.tree.widths_of(node)[0] == self.tree.widths_of(first)[0];
            let least = |sample: usize| {
                let value = |node: NodeId| {
                    f64::from(u8::from(!table.correct(node, sample))) + lambda * (prices[node].cost - prices[ROOT].cost)
                };
                self.tree.paths().filter(|node| below(*node)).map(value).fold(f64::INFINITY, f64::min)
            };
            (0..table.samples()).map(least).sum::<f64>() / table.samples() as f64
        };
        self.tree.node(ROOT).children.clone().map(start).fold(f64::INFINITY, f64::min)
    }
}

#[test]
fn approaches_the_best_where_features_tell_all() {
    let world = World::new(3, 2, 0, 0.0);
    let ((fit, fit_features), (test, test_features)) = (world.split(1_500, 1), world.split(4_000, 2));
    let gap = |units: usize, lambda: f64| {
        let options = FittedOptions { units, ..FittedOptions::default() };
        let fitted = Fitted::prepare(&world.tree, &world.ledger, &fit, &fit_features, &options).unwrap();
        let ends = fitted.solve(lambda).run(&test_features);
        objective(&world.tree, &world.ledger, &test, &ends, lambda) - world.best(&test, lambda)
    };
    for lambda in [0.3, 1.0, 2.0] {
        let (linear, few, many) = (gap(0, lambda), gap(64, lambda), gap(200, lambda));
        assert!(few < 0.55 * linear && many < 0.45 * linear && many < 0.06, "{lambda}: {linear} {few} {many}");
    }
}

/// What the second gate sees decides whether the last segment helps, and the way there costs little. Open loop weighs
/// whole continuations by what the first gate knows: going on and then stopping is never better than stopping now.
#[test]
fn pays_for_information_where_open_loop_stops() {
    let tree = PathTree::new(3, 1, Monotone::Free, 10).unwrap();
    let ledger = ledger(&tree, &[0.1, 0.05, 0.3]);
    let split = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let helps: Vec<bool> = (0..2_000).map(|_| rng.random()).collect();
        let table = outcomes(&tree, helps.len(), |node, sample| if node == 3 { !helps[sample] } else { rng.random() });
        let seen = |node: NodeId, sample: usize| if node == 2 && helps[sample] { 1.0 } else { -1.0 };
        let features = features(&tree, helps.len(), |node, sample| vec![seen(node, sample)]);
        (table, features, helps)
    };
    let ((fit, fit_features, _), (test, test_features, helps)) = (split(1), split(2));
    let fitted = Fitted::prepare(&tree, &ledger, &fit, &fit_features, &FittedOptions::default()).unwrap();
    let ends = fitted.solve(1.0).run(&test_features);
    assert!(ends.iter().zip(&helps).all(|(end, helps)| *end == if *helps { 3 } else { 2 }));
    // The true probabilities at each gate.
    let last = |sample: usize| if helps[sample] { 0.0 } else { 1.0 };
    let truth = PredictionTable::from_fn(&tree, helps.len(), |node, sample, suffix| match (node, suffix) {
        (2, 1) => last(sample),
        _ => 0.5,
    });
    let open = OpenLoop::new(&tree, &ledger, root_rates(&tree, &fit)).unwrap().run(&truth, 1.0);
    assert!(open.iter().all(|end| *end == 1));
    let value = |ends: &[NodeId]| objective(&tree, &ledger, &test, ends, 1.0);
    assert!(value(&ends) < value(&open) - 0.03, "{} {}", value(&ends), value(&open));
}

#[test]
fn cross_fitting_promises_what_new_samples_get_and_penalties_are_chosen_well() {
    let world = World::new(3, 2, 20, 0.3);
    let ((fit, fit_features), (test, test_features)) = (world.split(300, 1), world.split(4_000, 2));
    let outcome = |cross_fit, ridge| {
        let options = FittedOptions { cross_fit, ridge, ..FittedOptions::default() };
        let fitted = Fitted::prepare(&world.tree, &world.ledger, &fit, &fit_features, &options).unwrap();
        let plan = fitted.solve(1.0);
        let Outlook { error, cost } = plan.value();
        (error + cost, objective(&world.tree, &world.ledger, &test, &plan.run(&test_features), 1.0))
    };
    let (promise, real) = outcome(true, Ridge::CrossValidated);
    let (_, real_loose) = outcome(true, Ridge::Given(1e-3));
    let (own, real_own) = outcome(false, Ridge::CrossValidated);
    assert!((promise - real).abs() < 0.04, "{promise} {real}");
    assert!(own < real_own - 0.08, "{own} {real_own}");
    assert!(real < real_loose - 0.01, "{real} {real_loose}");
}

#[test]
fn the_cheapest_path_at_infinite_and_the_same_bits_whatever_the_threads() {
    let world = World::new(3, 2, 1, 0.3);
    let (fit, features) = world.split(90, 5);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let options = FittedOptions { cross_fit: true, ..FittedOptions::default() };
            let fitted = Fitted::prepare(&world.tree, &world.ledger, &fit, &features, &options).unwrap();
            let plan = fitted.solve(0.7);
            assert!(fitted.solve(f64::INFINITY).run(&features).iter().all(|end| *end == 1));
            (plan.actions.clone(), plan.value(), plan.run(&features), fitted.ridges())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn one_segment_needs_no_gate() {
    let tree = PathTree::new(1, 2, Monotone::Free, 10).unwrap();
    let fit = outcomes(&tree, 4, |node, sample| node == 1 && sample > 0);
    let (features, ledger) = (features(&tree, 4, |_, _| Vec::new()), ledger(&tree, &[0.1]));
    let fitted =
        Fitted::prepare(&tree, &ledger, &fit, &features, &FittedOptions { folds: 2, ..Default::default() }).unwrap();
    assert_eq!(fitted.solve(1.0).run(&features), [2; 4]);
    assert_eq!(fitted.solve(50.0).run(&features), [1; 4]);
}

#[test]
fn refuses_what_does_not_fit() {
    let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
    let rows = |dim: usize| vec![vec![0.5f32; 4 * dim]; 6];
    let good = GateFeatures::new(&tree, 4, rows(3)).unwrap();
    assert_eq!(good.dims(), [3, 3]);
    assert!(GateFeatures::new(&tree, 4, rows(3)[1..].to_vec()).is_err());
    assert!(GateFeatures::new(&tree, 0, vec![Vec::new(); 6]).is_err());
    let (mut short, mut odd) = (rows(3), rows(3));
    short[4].truncate(8);
    odd[5][7] = f32::NAN;
    assert!(GateFeatures::new(&tree, 4, short).is_err(), "two features where the gate has three");
    let error = GateFeatures::new(&tree, 4, odd).unwrap_err();
    assert!(matches!(error, TableError::Value { row: 5, sample: 2, .. }), "{error}");

    let (fit, ledger) = (outcomes(&tree, 4, |_, _| true), ledger(&tree, &[0.1; 3]));
    let prepare = |features: &GateFeatures, options: &FittedOptions| {
        Fitted::prepare(&tree, &ledger, &fit, features, options).map(|fitted| fitted.ridges())
    };
    let options = FittedOptions { folds: 2, ..FittedOptions::default() };
    assert!(prepare(&good, &options).is_ok());
    for folds in [0, 1, 5] {
        assert_eq!(prepare(&good, &FittedOptions { folds, ..options }), Err(FittedError::Folds { folds, samples: 4 }));
    }
    for ridge in [0.0, f64::NAN, f64::INFINITY] {
        assert!(prepare(&good, &FittedOptions { ridge: Ridge::Given(ridge), ..options }).is_err());
    }
    let other = GateFeatures::new(&tree, 2, rows(3)).unwrap();
    assert_eq!(other.dims(), [6, 6]);
    assert!(prepare(&other, &options).is_err());
    assert!(Fitted::prepare(&tree, &ledger, &fit, &good, &options).unwrap().check(&other).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Indicators of (prefix, cell) make every regression a mean by state. Cells at the second gate remember the first
    /// gate's, so the chain on cells is exact, and both recursions are the same.
    #[test]
    fn equals_the_dynamic_program_on_indicators_of_cells(
        widths in 1usize..4, rule in 0usize..3, samples in 20usize..60, seed in any::<u64>(), lambda in 0.01f64..6.0,
    ) {
        let rule = [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing][rule];
        let tree = PathTree::new(3, widths, rule, 100).unwrap();
        let ledger = ledger(&tree, &[0.1, 0.0731, 0.0617]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut cells = vec![Vec::new(); tree.node_count()];
        for node in tree.gate_nodes() {
            let parent = tree.node(node).parent.unwrap_or(ROOT);
            let before = |sample: usize| cells[parent].get(sample).copied().unwrap_or(0u16);
            let own: Vec<u16> = (0..samples).map(|sample| 2 * before(sample) + rng.random_range(0..2u16)).collect();
            cells[node] = own;
        }
        let fit = outcomes(&tree, samples, |node, sample| {
            let cell = cells[node].get(sample).copied().unwrap_or(1);
            rng.random_bool(if node % 3 == 0 { 0.5 } else { 0.2 + 0.15 * f64::from(cell) })
        });
        let indicators = features(&tree, samples, |node, sample| {
            let depth = tree.node(node).depth;
            let count = 1 << depth;
            let mut row = vec![0.0; widths.pow(depth as u32) * count];
            row[tree.prefix_index(node) * count + usize::from(cells[node][sample])] = 1.0;
            row
        });
        let options = FittedOptions { units: 0, ridge: Ridge::Given(1e-9), ..FittedOptions::default() };
        let prepared = Fitted::prepare(&tree, &ledger, &fit, &indicators, &options).unwrap();
        let fitted = prepared.solve(lambda);
        let cells = Cells::new(&tree, samples, vec![2, 4], cells.concat()).unwrap();
        let dynamic = Chain::count(&tree, &ledger, &fit, &cells, 0.0).unwrap().solve(&tree, lambda);
        prop_assert_eq!(fitted.run(&indicators), dynamic.run(&cells));
        let (a, b) = (fitted.value(), dynamic.value());
        prop_assert!((a.error - b.error).abs() < 1e-9 && (a.cost - b.cost).abs() < 1e-9, "{a:?} {b:?}");
    }
}
