//! Risk control: the largest saving that is certified, on *cal-b*, to cost at most ε accuracy against float.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is to be certified: "the rate of losses is at most ε", wrong with probability at most δ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskTarget {
    /// Allowed rate of losses, between 0 and 1. A loss is a sample that float gets right and the policy wrong, so ε
    /// bounds the fall in accuracy.
    pub epsilon: f64,
    /// Allowed probability of a wrong certificate, between 0 and 1.
    pub delta: f64,
}

impl RiskTarget {
    /// Refuses an ε or δ that is not strictly between 0 and 1.
    pub(crate) fn check(self) -> Result<(), RiskError> {
        let RiskTarget { epsilon, delta } = self;
        let between = |share: f64| share > 0.0 && share < 1.0;
        if between(epsilon) && between(delta) { Ok(()) } else { Err(RiskError { epsilon, delta }) }
    }
}

/// A target that means nothing.
#[derive(Debug, Error, PartialEq)]
#[error("risk control needs epsilon and delta strictly between 0 and 1, got {epsilon} and {delta}")]
pub struct RiskError {
    /// ε as given.
    pub epsilon: f64,
    /// δ as given.
    pub delta: f64,
}

/// Outcome of risk control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RiskOutcome {
    /// A setting is certified.
    Certified {
        /// Its index in the list tested.
        index: usize,
        /// Its λ.
        lambda: f64,
        /// Losses among the samples.
        losses: usize,
        /// Probability of so few losses if the rate were ε.
        p_value: f64,
    },
    /// Even the smallest λ could not be certified.
    Refused {
        /// Its losses among the samples.
        losses: usize,
        /// Probability of so few losses if the rate were ε.
        p_value: f64,
    },
    /// There are too few samples to certify ε even without a single loss.
    TooFewSamples {
        /// How many it takes.
        needed: usize,
    },
}

/// Everything a report has to state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskReport {
    /// The target.
    pub target: RiskTarget,
    /// Samples of *cal-b*.
    pub samples: usize,
    /// What came of it.
    pub outcome: RiskOutcome,
}

/// Probability of at most `k` successes in `n` independent trials of probability `p`, summed term by term.
///
/// `p` must lie strictly between 0 and 1.
pub fn binomial_at_most(k: usize, n: usize, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    let odds = (p / (1.0 - p)).ln();
    let mut term = n as f64 * (-p).ln_1p();
    let mut terms = Vec::with_capacity(k + 1);
    for j in 0..=k {
        terms.push(term);
        term += ((n - j) as f64 / (j + 1) as f64).ln() + odds;
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
    (largest + sum.ln()).exp().min(1.0)
}

/// Samples without which ε cannot be certified at level δ: `ln δ / ln(1 - ε)`, rounded up.
pub fn samples_needed(target: RiskTarget) -> usize {
    (target.delta.ln() / (-target.epsilon).ln_1p()).ceil() as usize
}

/// The most losses among `samples` with which [`control`] still certifies a setting; `None` where not even none at all
/// would do.
///
/// ε and δ must lie strictly between 0 and 1.
pub fn most_losses(target: RiskTarget, samples: usize) -> Option<usize> {
    let certifies = |losses| binomial_at_most(losses, samples, target.epsilon) <= target.delta;
    if samples < samples_needed(target) || !certifies(0) {
        return None;
    }
    // The probability rises with the number of losses and is 1 when all samples are lost.
    let (mut most, mut too_many) = (0, samples);
    while too_many - most > 1 {
        let middle = most.midpoint(too_many);
        *if certifies(middle) { &mut most } else { &mut too_many } = middle;
    }
    Some(most)
}

/// Number of losses: samples that float gets right and the policy wrong.
///
/// # Panics
/// If the lists differ in length.
pub fn losses(float_correct: &[bool], correct: &[bool]) -> usize {
    assert_eq!(float_correct.len(), correct.len(), "the same samples");
    float_correct.iter().zip(correct).filter(|(float, policy)| **float && !**policy).count()
}

/// Tests "loss rate > ε" by the exact binomial bound from the smallest λ upward, stops at the first that is not
/// rejected, and certifies the last rejected (fixed-sequence testing, so δ holds for the whole).
///
/// `settings` are pairs of λ and losses among `samples`, in ascending order of λ.
///
/// # Errors
/// If ε or δ is not strictly between 0 and 1.
pub fn control(target: RiskTarget, samples: usize, settings: &[(f64, usize)]) -> Result<RiskReport, RiskError> {
    target.check()?;
    let needed = samples_needed(target);
    let mut outcome = RiskOutcome::TooFewSamples { needed };
    if samples >= needed {
        outcome = RiskOutcome::Refused { losses: samples, p_value: 1.0 };
        for (index, (lambda, losses)) in settings.iter().copied().enumerate() {
            let p_value = binomial_at_most(losses, samples, target.epsilon);
            if p_value > target.delta {
                if index == 0 {
                    outcome = RiskOutcome::Refused { losses, p_value };
                }
                break;
            }
            outcome = RiskOutcome::Certified { index, lambda, losses, p_value };
        }
    }
    Ok(RiskReport { target, samples, outcome })
}

impl RiskReport {
    /// The outcome in one or two sentences.
    pub fn statement(&self) -> String {
        let RiskTarget { epsilon, delta } = self.target;
        let n = self.samples;
        match &self.outcome {
            RiskOutcome::Certified { lambda, losses, p_value, .. } => format!(
                "lambda = {lambda} is certified: at most {epsilon} of samples that float gets right are lost, at level \
                 delta = {delta} ({losses} losses among n = {n}, p = {p_value:.2e})."
            ),
            RiskOutcome::Refused { losses, p_value } => format!(
                "No lambda is certified for epsilon = {epsilon} at delta = {delta}: the smallest already has {losses} \
                 losses among n = {n} (p = {p_value:.2e})."
            ),
            RiskOutcome::TooFewSamples { needed } => format!(
                "n = {n} samples cannot certify epsilon = {epsilon} at delta = {delta}: even no loss at all needs n >= \
                 {needed}. Use more samples, or a larger epsilon or delta."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #[test]
        fn most_losses_is_where_control_turns(samples in 1usize..400, epsilon in 0.005f64..0.9, delta in 0.01f64..0.5) {
            let target = RiskTarget { epsilon, delta };
            let certifies = |losses| {
                let outcome = control(target, samples, &[(0.0, losses)]).unwrap().outcome;
                matches!(outcome, RiskOutcome::Certified { .. })
            };
            let certified = (0..=samples).filter(|losses| certifies(*losses)).collect::<Vec<_>>();
            prop_assert_eq!(&certified, &(0..certified.len()).collect::<Vec<_>>());
            prop_assert_eq!(most_losses(target, samples), certified.last().copied());
        }
    }

    #[test]
    fn binomial_agrees_with_the_sum_of_products() {
        let direct = |k: usize, n: usize, p: f64| -> f64 {
            (0..=k)
                .map(|j| {
                    let ways = (0..j).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64);
                    ways * p.powi(j as i32) * (1.0 - p).powi((n - j) as i32)
                })
                .sum()
        };
        for (k, n, p) in [(0, 10, 0.3), (3, 10, 0.3), (9, 10, 0.9), (20, 40, 0.4)] {
            assert!((binomial_at_most(k, n, p) - direct(k, n, p)).abs() < 1e-12, "{k} {n} {p}");
        }
        assert_eq!(binomial_at_most(10, 10, 0.3), 1.0);
        assert!(binomial_at_most(5, 100_000, 0.5) < 1e-300, "no overflow or NaN far in the tail");
    }

    #[test]
    fn needs_enough_samples() {
        let target = RiskTarget { epsilon: 0.01, delta: 0.05 };
        assert_eq!(samples_needed(target), 299);
        let few = control(target, 298, &[(0.0, 0)]).unwrap();
        assert_eq!(few.outcome, RiskOutcome::TooFewSamples { needed: 299 });
        assert!(few.statement().contains("299"));
        let enough = control(target, 299, &[(0.0, 0)]).unwrap();
        assert!(matches!(enough.outcome, RiskOutcome::Certified { index: 0, .. }));
    }

    #[test]
    fn stops_at_the_first_that_is_not_rejected() {
        let target = RiskTarget { epsilon: 0.05, delta: 0.1 };
        let report = control(target, 400, &[(0.0, 2), (0.1, 9), (0.2, 30), (0.3, 1)]).unwrap();
        assert!(matches!(report.outcome, RiskOutcome::Certified { index: 1, lambda, losses: 9, .. } if lambda == 0.1));
        let refused = control(target, 400, &[(0.0, 30), (0.1, 0)]).unwrap();
        assert!(matches!(refused.outcome, RiskOutcome::Refused { losses: 30, .. }));
        assert!(control(RiskTarget { epsilon: 0.0, delta: 0.1 }, 9, &[]).is_err());
    }

    /// Settings of known loss rates 0.02, 0.04, 0.0501 with ε = 0.05: the last may be certified in a share δ of the
    /// trials at most, and the first should be certified nearly always.
    #[test]
    fn wrong_certificates_are_as_rare_as_promised() {
        let target = RiskTarget { epsilon: 0.05, delta: 0.1 };
        let rates = [0.02, 0.04, 0.0501];
        let (trials, samples) = (2_000, 500);
        let (mut wrong, mut any) = (0, 0);
        for trial in 0..trials {
            let mut rng = ChaCha8Rng::seed_from_u64(trial);
            let draws: Vec<f64> = (0..samples).map(|_| rng.random()).collect();
            let lost = |rate: &f64| (*rate, draws.iter().filter(|draw| *draw < rate).count());
            let settings: Vec<(f64, usize)> = rates.iter().map(lost).collect();
            if let RiskOutcome::Certified { index, .. } = control(target, samples, &settings).unwrap().outcome {
                any += 1;
                wrong += usize::from(index == 2);
            }
        }
        // 0.12 is δ and three standard errors of a rate of 0.1 in 2,000 trials.
        assert!(wrong > 0 && (wrong as f64) < 0.12 * trials as f64, "{wrong} wrong of {trials}");
        assert!(any as f64 > 0.95 * trials as f64, "{any} of {trials} certified anything");
    }

    #[test]
    fn a_loss_is_float_right_and_policy_wrong() {
        assert_eq!(losses(&[true, true, false, false], &[true, false, true, false]), 1);
    }
}
