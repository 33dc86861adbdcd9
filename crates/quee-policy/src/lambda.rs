//! The price of cost, λ: the settings of a policy, and the choice of one for a budget.

use std::cmp::Ordering;

use crate::outcome::Choices;

/// Expected errors and expected relative cost of going on in some way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Probability of a wrong answer.
    pub error: f64,
    /// Relative cost still to be paid.
    pub cost: f64,
}

impl Outlook {
    /// Orders by `error + λ·cost`, ties to the cheaper; at λ = ∞ by cost, then error.
    pub fn compare(&self, other: &Self, lambda: f64) -> Ordering {
        if lambda.is_infinite() {
            return self.cost.total_cmp(&other.cost).then(self.error.total_cmp(&other.error));
        }
        let objective = |outlook: &Self| outlook.error + lambda * outlook.cost;
        objective(self).total_cmp(&objective(other)).then(self.cost.total_cmp(&other.cost))
    }
}

/// How finely [`sweep`] lays out λ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// Most settings, the starting grid included.
    pub settings: usize,
    /// Neighbouring settings should differ by less than this share in mean cost.
    pub tolerance: f64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { settings: 200, tolerance: 0.02 }
    }
}

/// A λ, and what the policy does with it on *cal-a*.
#[derive(Clone, Debug)]
pub struct Step {
    /// λ in errors per relative cost; may be infinite.
    pub lambda: f64,
    /// Choices on *cal-a*.
    pub cal: Choices,
}

/// Neighbours closer than this ratio are not bisected further: what is left is a jump of the policy itself.
const FINEST_RATIO: f64 = 1.001;

/// The starting grid: 0, ten per decade from 1e-2 to 1e4, ∞.
pub fn grid() -> Vec<f64> {
    let decades = (-20..=40).map(|tenth| 10f64.powf(f64::from(tenth) / 10.0));
    std::iter::once(0.0).chain(decades).chain(std::iter::once(f64::INFINITY)).collect()
}

/// A λ as the names of settings show it.
pub(crate) fn label(lambda: f64) -> String {
    if lambda.is_infinite() { "inf".to_owned() } else { format!("{lambda:.4}") }
}

/// A λ between two neighbours, or `None` if they are as close as it makes sense.
fn between(low: f64, high: f64) -> Option<f64> {
    if low == 0.0 {
        return (high > 1e-6).then_some(high / 2.0);
    }
    if high.is_infinite() {
        return (low < 1e8).then_some(low * 10.0);
    }
    (high / low > FINEST_RATIO).then(|| (low * high).sqrt())
}

/// Evaluates a policy over the grid, then bisects the widest gap in mean cost until no gap is wider than the
/// tolerance, no gap can be split, or the number of settings is reached. The result is in ascending order of λ.
pub fn sweep(options: &Sweep, mut evaluate: impl FnMut(f64) -> Choices) -> Vec<Step> {
    let mut run = |lambda| {
        let cal = evaluate(lambda);
        (cal.mean_cost(), Step { lambda, cal })
    };
    let mut steps: Vec<(f64, Step)> = grid().into_iter().map(&mut run).collect();
    while steps.len() < options.settings {
        let mut widest: Option<(f64, usize, f64)> = None;
        for (at, pair) in steps.windows(2).enumerate() {
            let (low, high) = (pair[0].0.min(pair[1].0), pair[0].0.max(pair[1].0));
            let gap = if low > 0.0 { high / low - 1.0 } else { high };
            let wider = widest.is_none_or(|(width, ..)| gap > width);
            if gap >= options.tolerance && wider {
                widest = between(pair[0].1.lambda, pair[1].1.lambda).map(|mid| (gap, at, mid)).or(widest);
            }
        }
        let Some((_, at, lambda)) = widest else { break };
        steps.insert(at + 1, run(lambda));
    }
    steps.into_iter().map(|(_, step)| step).collect()
}

/// Index of the setting for a budget: the smallest λ whose mean cost on *cal-a* is within it, ties to the cheaper.
/// `None` if no setting is within the budget. `settings` are pairs of λ and mean relative cost, in any order.
pub fn within_budget(settings: &[(f64, f64)], budget: f64) -> Option<usize> {
    (0..settings.len())
        .filter(|at| settings[*at].1 <= budget)
        .min_by(|a, b| settings[*a].0.total_cmp(&settings[*b].0).then(settings[*a].1.total_cmp(&settings[*b].1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Price;
    use std::sync::Arc;

    /// A policy whose mean cost is `cost(λ)`: one sample, one price.
    fn policy(cost: impl Fn(f64) -> f64) -> impl FnMut(f64) -> Choices {
        move |lambda| {
            let prices: Arc<[Price]> = vec![Price { exit: 1, cost: cost(lambda), weight_bits: 8.0, ms: None }].into();
            Choices::new(prices, vec![0], vec![true])
        }
    }

    #[test]
    fn grid_has_ten_per_decade_and_both_ends() {
        let grid = grid();
        assert_eq!(grid.len(), 63);
        assert_eq!((grid[0], grid[1], grid[62]), (0.0, 0.01, f64::INFINITY));
        assert!((grid[61] - 1e4).abs() < 1e-6);
    }

    #[test]
    fn sweep_refines_smooth_costs_to_the_tolerance() {
        let steps = sweep(&Sweep::default(), policy(|lambda| 0.3 + 0.7 / (1.0 + lambda)));
        assert!(steps.len() < 200);
        for pair in steps.windows(2) {
            assert!(pair[0].lambda < pair[1].lambda);
            assert!(pair[0].cal.mean_cost() / pair[1].cal.mean_cost() < 1.02);
        }
    }

    #[test]
    fn sweep_gives_up_on_jumps_and_obeys_the_limit() {
        let steps = sweep(&Sweep::default(), policy(|lambda| if lambda < 0.5 { 1.0 } else { 0.1 }));
        assert!(steps.len() < 100, "{}", steps.len());
        let steep = sweep(&Sweep::default(), policy(|lambda| 1.0 / (1e-4 + lambda.min(1e6))));
        assert_eq!(steep.len(), 200);
    }

    #[test]
    fn comparison_prefers_the_cheaper_and_knows_infinity() {
        let cheap = Outlook { error: 0.5, cost: 0.1 };
        let dear = Outlook { error: 0.3, cost: 0.3 };
        assert_eq!(dear.compare(&cheap, 0.0), Ordering::Less);
        assert_eq!(cheap.compare(&dear, f64::INFINITY), Ordering::Less);
        let same = Outlook { error: 0.25, cost: 0.5 };
        let cheaper = Outlook { error: 0.5, cost: 0.25 };
        assert_eq!(cheaper.compare(&same, 1.0), Ordering::Less, "ties to the cheaper");
    }

    #[test]
    fn budget_takes_the_smallest_lambda() {
        let settings = [(0.0, 0.9), (1.0, 0.5), (2.0, 0.52), (3.0, 0.2)];
        assert_eq!(within_budget(&settings, 0.55), Some(1));
        assert_eq!(within_budget(&settings, 0.3), Some(3));
        assert_eq!(within_budget(&settings, 0.1), None);
        assert_eq!(within_budget(&[(1.0, 0.5), (1.0, 0.4)], 0.6), Some(1));
    }
}
