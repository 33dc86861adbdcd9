//! Does risk control keep its promise? Resampling of *cal-b* from a population whose loss rates are known.
//!
//! The population is *cal-b* and *test* together. Every resampling draws a calibration set from it with replacement, so
//! draws are independent and the population's loss rates are the true ones: a certificate is wrong exactly if the
//! certified setting's rate in the population is above ε, and the share of wrong certificates has the expectation that
//! [`crate::risk::control`] bounds by δ. Nothing is chosen here: the result describes the procedure, and the setting that a
//! run uses is still the one certified on *cal-b* alone.
//!
//! Fixed-sequence testing needs an order of the settings that doesn't look at the calibration set. It is that of λ,
//! laid out on *cal-a* beforehand. Loss rates need not rise with λ for δ to hold; where they fall again, the test stops
//! too early and only saves less.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;

use crate::risk::{RiskError, RiskTarget, binomial_at_most, most_losses};

/// Why there is nothing to validate.
#[derive(Debug, Error, PartialEq)]
pub enum RiskValidationError {
    /// ε or δ means nothing.
    #[error(transparent)]
    Target(#[from] RiskError),
    /// There are no settings or samples, or settings differ in samples.
    #[error("{what}: {got} entries, expected {want}")]
    Shape {
        /// Which list.
        what: &'static str,
        /// Its entries.
        got: usize,
        /// What it should have.
        want: String,
    },
    /// No resamplings, or calibration sets without samples.
    #[error("the plan needs at least one resampling and one sample in every calibration set")]
    Plan,
}

/// Samples with a known loss at every setting.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskPopulation {
    /// `[sample]`: the settings at which its loss comes (+1) or goes (-1), ascending. Losses change seldom along λ, so
    /// the counts of a draw take a few additions per sample instead of one per setting.
    changes: Vec<Vec<(u32, i32)>>,
    /// `[setting]`: losses.
    losses: Vec<usize>,
    /// `[setting]`: mean relative cost.
    cost: Vec<f64>,
}

impl RiskPopulation {
    /// Joins `loss` `[setting][sample]` (float right and policy wrong) with the mean relative `cost` `[setting]` on the
    /// population; settings in ascending order of λ.
    ///
    /// # Errors
    /// Without settings or samples, or if the lists don't fit together.
    pub fn new(loss: &[Vec<bool>], cost: Vec<f64>) -> Result<Self, RiskValidationError> {
        let refuse = |what, got, want| Err(RiskValidationError::Shape { what, got, want });
        let samples = loss.first().map_or(0, Vec::len);
        if samples == 0 {
            return refuse("losses", samples, "at least one setting and one sample".to_owned());
        }
        if let Some(row) = loss.iter().find(|row| row.len() != samples) {
            return refuse("losses of a setting", row.len(), samples.to_string());
        }
        if cost.len() != loss.len() {
            return refuse("costs", cost.len(), loss.len().to_string());
        }
        let of_sample = |sample: usize| {
            let mut before = false;
            let change = |(at, row): (usize, &Vec<bool>)| {
                let now = row[sample];
                (std::mem::replace(&mut before, now) != now).then_some((at as u32, if now { 1 } else { -1 }))
            };
            loss.iter().enumerate().filter_map(change).collect()
        };
        let losses = loss.iter().map(|row| row.iter().filter(|lost| **lost).count()).collect();
        Ok(Self { changes: (0..samples).map(of_sample).collect(), losses, cost })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.changes.len()
    }

    /// True loss rate of a setting.
    ///
    /// # Panics
    /// If there is no such setting.
    pub fn rate(&self, setting: usize) -> f64 {
        self.losses[setting] as f64 / self.samples() as f64
    }

    /// Losses `[setting]` of a calibration set: the first `samples` draws of the stream of a resampling.
    fn draw(&self, samples: usize, seed: u64, resampling: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(resampling as u64);
        let mut steps = vec![0i32; self.losses.len()];
        for _ in 0..samples {
            for (at, change) in &self.changes[rng.random_range(0..self.samples())] {
                steps[*at as usize] += change;
            }
        }
        let sum = |lost: &mut i32, step: i32| {
            *lost += step;
            Some(*lost as usize)
        };
        steps.into_iter().scan(0, sum).collect()
    }

    /// The last setting before the first whose losses exceed `most`, as fixed-sequence testing goes.
    fn last_before(losses: &[usize], most: Option<usize>) -> Option<usize> {
        let most = most?;
        losses.iter().position(|lost| *lost > most).unwrap_or(losses.len()).checked_sub(1)
    }
}

/// What to resample, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskPlan {
    /// Allowed loss rates ε.
    pub epsilons: Vec<f64>,
    /// Levels δ.
    pub deltas: Vec<f64>,
    /// Sizes of the calibration set; may exceed the population, since draws are with replacement.
    pub sizes: Vec<usize>,
    /// Resamplings for each.
    pub resamplings: usize,
    /// Seed; each resampling has its own stream, and a smaller calibration set is the beginning of a larger one.
    pub seed: u64,
}

impl Default for RiskPlan {
    fn default() -> Self {
        Self {
            epsilons: vec![0.01, 0.02, 0.05, 0.1],
            deltas: vec![0.05, 0.1, 0.2],
            sizes: vec![250, 500, 1_000, 2_000, 4_000],
            resamplings: 500,
            seed: 0,
        }
    }
}

/// What a rule for choosing λ did over all resamplings. Where it chose none, the float reference is used: relative
/// cost 1.0, no loss, no violation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RuleOutcome {
    /// Share of *all* resamplings whose setting has a true loss rate above ε: the share that δ bounds. (Among those with
    /// a setting it may be larger; no guarantee speaks of them alone.)
    pub violations: f64,
    /// Its binomial standard error; 0 where the share is 0 or 1, which doesn't make either of them certain.
    pub violations_se: f64,
    /// Share of resamplings with a setting.
    pub chosen: f64,
    /// Mean relative cost of what is used, float where there is no setting.
    pub mean_cost: f64,
    /// Mean relative cost where there is a setting.
    pub chosen_cost: Option<f64>,
    /// Mean true loss rate where there is a setting.
    pub chosen_loss: Option<f64>,
}

impl RuleOutcome {
    fn new(population: &RiskPopulation, epsilon: f64, settings: &[Option<usize>]) -> Self {
        let chosen: Vec<usize> = settings.iter().flatten().copied().collect();
        let (all, some) = (settings.len() as f64, chosen.len() as f64);
        let sum = |figure: &dyn Fn(usize) -> f64| chosen.iter().map(|at| figure(*at)).sum::<f64>();
        let violations = sum(&|at| f64::from(u8::from(population.rate(at) > epsilon))) / all;
        let cost = sum(&|at| population.cost[at]);
        let mean = |sum: f64| (some > 0.0).then_some(sum / some);
        Self {
            violations,
            violations_se: (violations * (1.0 - violations) / all).sqrt(),
            chosen: some / all,
            mean_cost: (cost + all - some) / all,
            chosen_cost: mean(cost),
            chosen_loss: mean(sum(&|at| population.rate(at))),
        }
    }
}

/// Risk control at one target and size of the calibration set, over all resamplings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RiskCheck {
    /// ε and δ.
    pub target: RiskTarget,
    /// Samples of a calibration set.
    pub samples: usize,
    /// Resamplings.
    pub resamplings: usize,
    /// Risk control.
    pub certified: RuleOutcome,
    /// Without a guarantee, for comparison: the largest λ whose loss rate *in the calibration set* is at most ε.
    pub naive: RuleOutcome,
    /// Probability of at least as many violations of risk control if their rate were δ. A small value speaks against the
    /// guarantee; among many checks, some are small by chance.
    pub p_value: f64,
    /// Relative cost that risk control would approach with calibration sets without end: that of the last setting before
    /// the first whose true loss rate is above ε, or 1.0.
    pub ideal_cost: f64,
}

/// Runs risk control on resampled calibration sets, for every size, ε and δ of the plan, in this order of nesting.
///
/// What it does in a resampling is exactly [`crate::risk::control`]: both certify settings up to [`most_losses`] losses.
/// The result depends on the plan's seed alone, not on the number of threads.
///
/// # Errors
/// If an ε or δ is not strictly between 0 and 1, or the plan has no resamplings or an empty calibration set.
pub fn validate(population: &RiskPopulation, plan: &RiskPlan) -> Result<Vec<RiskCheck>, RiskValidationError> {
    if plan.resamplings == 0 || plan.sizes.contains(&0) {
        return Err(RiskValidationError::Plan);
    }
    let mut checks = Vec::new();
    for samples in plan.sizes.iter().copied() {
        let draw = |resampling| population.draw(samples, plan.seed, resampling);
        let draws: Vec<Vec<usize>> = (0..plan.resamplings).into_par_iter().map(draw).collect();
        for epsilon in plan.epsilons.iter().copied() {
            let outcome = |rule: &dyn Fn(&Vec<usize>) -> Option<usize>| {
                RuleOutcome::new(population, epsilon, &draws.iter().map(rule).collect::<Vec<_>>())
            };
            let naive = outcome(&|lost| lost.iter().rposition(|lost| *lost as f64 / samples as f64 <= epsilon));
            let within = (0..population.losses.len()).take_while(|at| population.rate(*at) <= epsilon);
            let ideal_cost = within.last().map_or(1.0, |at| population.cost[at]);
            for delta in plan.deltas.iter().copied() {
                let target = RiskTarget { epsilon, delta };
                target.check()?;
                let most = most_losses(target, samples);
                let certified = outcome(&|losses| RiskPopulation::last_before(losses, most));
                let violations = (certified.violations * plan.resamplings as f64).round() as usize;
                let fewer = violations.checked_sub(1).map_or(0.0, |v| binomial_at_most(v, plan.resamplings, delta));
                checks.push(RiskCheck {
                    target,
                    samples,
                    resamplings: plan.resamplings,
                    certified,
                    naive,
                    p_value: 1.0 - fewer,
                    ideal_cost,
                });
            }
        }
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::{RiskOutcome, control};
    use proptest::prelude::*;

    /// Settings with given losses among `samples`: the same samples are lost first at all of them.
    fn population(samples: usize, losses: &[usize]) -> RiskPopulation {
        let loss: Vec<Vec<bool>> = losses.iter().map(|lost| (0..samples).map(|i| i < *lost).collect()).collect();
        RiskPopulation::new(&loss, (0..losses.len()).map(|at| 0.9 / (1.0 + at as f64)).collect()).unwrap()
    }

    fn plan(epsilon: f64, delta: f64, samples: usize) -> RiskPlan {
        RiskPlan { epsilons: vec![epsilon], deltas: vec![delta], sizes: vec![samples], ..RiskPlan::default() }
    }

    fn check(population: &RiskPopulation, plan: &RiskPlan) -> RiskCheck {
        validate(population, plan).unwrap()[0]
    }

    /// The first setting is safe beyond doubt, the second just unsafe: the share of violations comes near δ and must
    /// not pass it, while the naive rule is wrong in about half of the resamplings.
    #[test]
    fn violations_come_near_delta_and_do_not_pass_it() {
        let population = population(2_000, &[2, 101]);
        let check = check(&population, &RiskPlan { resamplings: 4_000, ..plan(0.05, 0.1, 1_000) });
        let RuleOutcome { violations, violations_se, chosen, .. } = check.certified;
        assert!(violations > 0.05 && violations < 0.1 + 3.0 * violations_se, "{check:?}");
        assert!(check.p_value > 1e-3 && chosen == 1.0);
        assert!((check.naive.violations - 0.48).abs() < 0.05, "{check:?}");
        assert_eq!(check.ideal_cost, 0.9);
        let cost = 0.9 * (1.0 - violations) + 0.45 * violations;
        let loss = 0.001 * (1.0 - violations) + 0.0505 * violations;
        assert!((check.certified.mean_cost - cost).abs() < 1e-9);
        assert!((check.certified.chosen_loss.unwrap() - loss).abs() < 1e-9);
    }

    #[test]
    fn too_few_samples_fall_back_to_float() {
        let population = population(1_000, &[0, 500]);
        let check = check(&population, &plan(0.01, 0.05, 298));
        let want = RuleOutcome {
            violations: 0.0,
            violations_se: 0.0,
            chosen: 0.0,
            mean_cost: 1.0,
            chosen_cost: None,
            chosen_loss: None,
        };
        assert_eq!((check.certified, check.p_value), (want, 1.0));
        assert_eq!(check.naive.chosen, 1.0);
        assert!((check.naive.mean_cost - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_rate_of_epsilon_is_no_violation_and_cannot_be_passed() {
        let population = population(1_000, &[50, 900, 0]);
        let check = check(&population, &plan(0.05, 0.2, 500));
        assert!(check.certified.violations == 0.0 && check.certified.chosen > 0.1, "{check:?}");
        // The naive rule jumps over the bad setting: it takes the last, which is lucky here and no guarantee.
        assert_eq!((check.naive.chosen_loss, check.naive.violations, check.ideal_cost), (Some(0.0), 0.0, 0.9));
    }

    #[test]
    fn rows_depend_neither_on_the_rest_of_the_plan_nor_on_threads() {
        let population = population(700, &[1, 5, 9, 20, 40, 90]);
        let plan = RiskPlan { sizes: vec![400, 150], resamplings: 60, ..RiskPlan::default() };
        let all = validate(&population, &plan).unwrap();
        assert_eq!(all.len(), 2 * 4 * 3);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| validate(&population, &plan)).unwrap(), all);
        let alone = RiskPlan { epsilons: vec![0.05], deltas: vec![0.1], sizes: vec![150], ..plan.clone() };
        assert!(all.contains(&validate(&population, &alone).unwrap()[0]));
        assert_ne!(validate(&population, &RiskPlan { seed: 1, ..plan }).unwrap(), all);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let shape = |loss: &[Vec<bool>], cost| RiskPopulation::new(loss, cost).unwrap_err().to_string();
        assert!(shape(&[], vec![]).contains("at least one setting"));
        assert!(shape(&[vec![true], vec![true, false]], vec![0.1, 0.2]).contains("2 entries, expected 1"));
        assert!(shape(&[vec![true]], vec![]).contains("costs"));
        let population = population(10, &[1]);
        let error = |plan| validate(&population, &plan).unwrap_err();
        assert_eq!(error(plan(0.05, 0.1, 0)), RiskValidationError::Plan);
        assert_eq!(error(plan(0.0, 0.1, 9)), RiskError { epsilon: 0.0, delta: 0.1 }.into());
    }

    proptest! {
        /// Losses that come and go along λ: counts by changes are counts, and the choice is that of `control`.
        #[test]
        fn a_resampling_is_risk_control(
            loss in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.1), 40), 1..12),
            seed in 0u64..1000, epsilon in 0.05f64..0.5, delta in 0.05f64..0.4,
        ) {
            let samples = 60;
            let population = RiskPopulation::new(&loss, vec![0.5; loss.len()]).unwrap();
            let losses = population.draw(samples, seed, 3);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(3);
            let drawn: Vec<usize> = (0..samples).map(|_| rng.random_range(0..40)).collect();
            let counted = loss.iter().map(|row| drawn.iter().filter(|sample| row[**sample]).count());
            prop_assert_eq!(&losses, &counted.collect::<Vec<_>>());
            let target = RiskTarget { epsilon, delta };
            let settings: Vec<(f64, usize)> = losses.iter().map(|lost| (0.0, *lost)).collect();
            let index = match control(target, samples, &settings).unwrap().outcome {
                RiskOutcome::Certified { index, .. } => Some(index),
                _ => None,
            };
            prop_assert_eq!(RiskPopulation::last_before(&losses, most_losses(target, samples)), index);
        }
    }
}
