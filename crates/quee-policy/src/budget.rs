//! A setting of λ for a budget, chosen on *cal-a*.
//!
//! Three kinds of budget. On the *mean* cost: [`within_budget`]. On a *quantile* of the
//! cost (a deadline that 95% of samples should meet): here, a choice of this project. On *each sample's own* cost: no λ
//! can promise that, the policy itself obeys the caps
//! ([`OpenLoop::run_capped`](crate::open_loop::OpenLoop::run_capped)).

use crate::lambda::within_budget;
use crate::outcome::Choices;

/// The cost that a share of the samples does not exceed: the least relative cost such that at least `share` of the
/// samples pay no more. Always a cost that some sample pays, never one interpolated between two; the largest at a share
/// of 1.
///
/// # Panics
/// If `share` is outside 0..1 (ends included) or there are no samples.
pub fn cost_quantile(choices: &Choices, share: f64) -> f64 {
    assert!((0.0..=1.0).contains(&share) && choices.samples() > 0, "share {share} of {} samples", choices.samples());
    let mut costs: Vec<f64> = (0..choices.samples()).map(|sample| choices.price(sample).cost).collect();
    // 0.95 · 20 is 19.000000000000004 for some products of this kind: a rank is rounded up only by what counts.
    let rank = (share * costs.len() as f64 - 1e-9).ceil() as usize;
    let at = rank.clamp(1, costs.len()) - 1;
    *costs.select_nth_unstable_by(at, f64::total_cmp).1
}

/// Index of the setting for a budget on a quantile: the smallest λ for which at least `share` of the samples of *cal-a*
/// pay no more than `budget` (relative cost); ties to the lower quantile. `None` if no setting is within the budget.
/// `settings` are pairs of λ and choices on *cal-a*, in any order ([`Step`](crate::lambda::Step)s of a sweep, or the
/// settings of a method).
///
/// The share holds on *cal-a*; on new samples it varies about that by chance.
///
/// # Panics
/// If `share` is outside 0..1 (ends included) or a setting has no samples.
pub fn within_quantile<'a>(
    settings: impl IntoIterator<Item = (f64, &'a Choices)>,
    share: f64,
    budget: f64,
) -> Option<usize> {
    let quantile = |(lambda, choices): (f64, &Choices)| (lambda, cost_quantile(choices, share));
    within_budget(&settings.into_iter().map(quantile).collect::<Vec<_>>(), budget)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{BitTable, CostTable, Ledger, Price};
    use crate::open_loop::{OpenLoop, PredictionTable, candidates, one_step_candidates};
    use crate::table::Outcomes;
    use crate::tree::{Monotone, PathTree, ROOT};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn choices(costs: &[f64]) -> Choices {
        let price = |cost: &f64| Price { exit: 1, cost: *cost, weight_bits: 8.0, ms: None };
        let prices: Arc<[Price]> = costs.iter().map(price).collect();
        Choices::new(prices, (0..costs.len() as u32).collect(), vec![true; costs.len()])
    }

    #[test]
    fn quantiles_are_costs_that_somebody_pays() {
        let five = choices(&[0.5, 0.1, 0.4, 0.2, 0.3]);
        let at = |share| cost_quantile(&five, share);
        assert_eq!(
            [at(0.0), at(0.2), at(0.21), at(0.6), at(0.8), at(0.81), at(1.0)],
            [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
        );
        let costs: Vec<f64> = (1..=100).map(f64::from).collect();
        for rank in 1..=100 {
            assert_eq!(
                cost_quantile(&choices(&costs), f64::from(rank) / 100.0),
                f64::from(rank),
                "rounding of the share"
            );
        }
    }

    #[test]
    fn the_smallest_lambda_whose_quantile_is_within() {
        // Means fall with λ, the tail falls later.
        let settings =
            [(2.0, choices(&[0.1, 0.1, 0.1, 0.3])), (0.0, choices(&[0.9; 4])), (1.0, choices(&[0.1, 0.1, 0.1, 0.9]))];
        let pick = |share, budget| within_quantile(settings.iter().map(|(lambda, c)| (*lambda, c)), share, budget);
        assert_eq!(pick(0.75, 0.2), Some(2));
        assert_eq!(pick(0.76, 0.5), Some(0));
        assert_eq!(pick(1.0, 0.9), Some(1));
        assert_eq!(pick(1.0, 0.2), None);
    }

    fn setup(segments: usize, widths: usize, rule: Monotone) -> (PathTree, Ledger) {
        let tree = PathTree::new(segments, widths, rule, 500).unwrap();
        let cost = CostTable {
            stem: 0.07,
            segment: (0..segments).map(|s| (0..widths).map(|w| 0.05 + 0.03 * (w * w + s) as f64).collect()).collect(),
            exit: vec![0.01; segments],
            gate: vec![0.003; segments - 1],
            gate_zero: 0.0,
            float_total: 1.0,
            cascade: false,
        };
        let (segment_macs, width_bits) = (vec![1.0; segments], vec![8.0; widths]);
        let bits = BitTable { stem_macs: 1.0, stem_bits: 8.0, segment_macs, width_bits };
        (tree.clone(), Ledger::new(&tree, cost, bits, None).unwrap())
    }

    proptest! {
        #[test]
        fn caps_are_never_exceeded(
            shape in 0usize..4, seed in any::<u32>(), kind in 0usize..3,
            lambda in prop_oneof![Just(0.0), 0.0f64..5.0, Just(f64::INFINITY)],
            caps in proptest::collection::vec(0.0f64..1.2, 25),
        ) {
            let (segments, widths, rule) = [
                (2, 3, Monotone::Free), (3, 2, Monotone::NonIncreasing), (4, 2, Monotone::Free), (1, 2, Monotone::Free),
            ][shape];
            let (tree, ledger) = setup(segments, widths, rule);
            let noise = |a: usize, b: usize, c: usize| {
                let mixed = (u64::from(seed) + 1).wrapping_mul((a * 7_919 + b * 104_729 + c * 1_299_709 + 1) as u64);
                (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32
            };
            let table = PredictionTable::from_fn(&tree, caps.len(), noise);
            let rates = (0..tree.places(ROOT)).map(|place| noise(0, 0, place)).collect();
            let policy = OpenLoop::new(&tree, &ledger, rates).unwrap();
            let pairs = tree.paths().flat_map(|node| (0..9).map(move |sample| (node, sample)));
            let answers: Vec<u16> = pairs.map(|(node, sample)| u16::from(noise(node, sample, 1) < 0.5)).collect();
            let confidence = vec![0.5; answers.len()];
            let policy = match kind {
                0 => policy,
                1 => policy.with_candidates(&one_step_candidates(&tree)).unwrap(),
                _ => {
                    let fit = Outcomes::new(&tree, answers, confidence, vec![0; 9]).unwrap();
                    policy.with_candidates(&candidates(&tree, &ledger, &fit)).unwrap()
                }
            };
            let prices = ledger.prices(&tree, crate::cost::Charge::Learned);
            let least = policy.ways(ROOT).iter().map(|(way, _)| prices[way.end].cost).fold(f64::INFINITY, f64::min);
            let free = policy.run(&table, lambda);
            let ends = policy.run_capped(&table, lambda, &caps).unwrap();
            for (sample, (end, cap)) in ends.iter().zip(&caps).enumerate() {
                prop_assert_eq!(end.is_some(), least <= *cap);
                if let Some(end) = *end {
                    prop_assert!(end != ROOT && prices[end].cost <= *cap);
                    if tree.paths().all(|node| prices[node].cost <= *cap) {
                        prop_assert_eq!(end, free[sample], "a cap above everything changes nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cap_equal_to_a_price_allows_it_and_one_below_does_not() {
        let (tree, ledger) = setup(2, 2, Monotone::Free);
        // Errors fall with every unit of cost.
        let table = PredictionTable::from_fn(&tree, 4, |_, _, suffix| 1.0 - 0.1 * suffix as f32);
        let policy = OpenLoop::new(&tree, &ledger, vec![1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.0]).unwrap();
        let prices = ledger.prices(&tree, crate::cost::Charge::Learned);
        let dearest = tree.find(&[1, 1]).unwrap();
        let caps = [prices[dearest].cost, prices[dearest].cost - 1e-9, prices[1].cost, f64::NAN];
        let ends = policy.run_capped(&table, 0.0, &caps).unwrap();
        assert_eq!(ends[0], Some(dearest));
        assert!(ends[1].is_some_and(|end| end != dearest));
        assert_eq!(ends[2..], [Some(1), None]);
        assert!(policy.run_capped(&table, 0.0, &caps[..3]).is_err());
    }
}
