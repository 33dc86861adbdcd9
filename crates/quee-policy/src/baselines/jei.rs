//! JEI-DNN's gates on the float backbone: Regol, Chataoui, Coates, *Jointly-Learned Exit and Inference for a Dynamic
//! Neural Network*, ICLR 2024. The gates only: exits are ours and stay as they are, and there is one training per λ.
//!
//! A gate is a linear map of four scores of its exit. Its label on a sample of *fit*: at the exit with the least
//! `cross-entropy + λ·cost` and at all later gates "leave", before it "go on". As in the authors' code: binary
//! cross-entropy with a positive weight of at most 5, SGD with momentum, a cosine over the learning rate. Choices of this
//! project: the cost is relative to float and holds exits and gates (there: the share of blocks), entropies are
//! normalised, the positive weight is negatives over positives among a gate's own labels, and batches and steps below.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::by_exit;
use crate::cost::{Charge, Ledger, Price};
use crate::cross_fit::Folds;
use crate::outcome::Setting;
use crate::scores::{FitScores, FloatRun, Scores};

/// Scores that a gate reads.
const INPUTS: usize = 4;
/// Largest weight of a positive label.
const LARGEST_POSITIVE_WEIGHT: f64 = 5.0;
const LEARNING_RATE: f64 = 0.01;
const LAST_LEARNING_RATE: f64 = 2e-4;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
const BATCH: usize = 64;
const STEPS: usize = 5_000;

/// The settings: 0, then six λ per decade from 0.01 to 100, in nats per relative cost.
pub fn lambdas() -> Vec<f64> {
    std::iter::once(0.0).chain((0..=24).map(|sixth| 10f64.powf(f64::from(sixth) / 6.0 - 2.0))).collect()
}

/// Prices by exit, index `s - 1` for exit `s`: every exit and every gate passed, the gate at the answering exit included.
/// Five multiply-accumulates have no measured time.
pub fn prices(ledger: &Ledger, float: &FloatRun) -> Vec<Price> {
    let mut prices = ledger.run_prices(&float.run, Charge::Threshold);
    let gates = prices.len() - 1;
    for price in &mut prices {
        price.cost += ledger.cost().relative(float.gate_cost * price.exit.min(gates) as f64);
    }
    prices
}

/// The exit with the least `cross-entropy + λ·cost`, from 1, for every sample; ties to the earlier. `true_class`
/// `[exit][sample]` are probabilities of the true class, `costs` `[exit]` relative to float.
///
/// # Panics
/// Without exits.
pub fn targets(true_class: &[f32], costs: &[f64], lambda: f64) -> Vec<usize> {
    let samples = true_class.len() / costs.len();
    let loss = |exit: usize, sample: usize| {
        let probability = true_class[exit * samples + sample].max(f32::MIN_POSITIVE);
        lambda * costs[exit] - f64::from(probability).ln()
    };
    let best = |sample: usize| (0..costs.len()).min_by(|a, b| loss(*a, sample).total_cmp(&loss(*b, sample)));
    (0..samples).map(|sample| best(sample).map_or(costs.len(), |exit| exit + 1)).collect()
}

/// What a gate reads at place `at` of the lists: largest probability, entropy, margin, entropy of squares.
fn inputs(confidence: &[f32], scores: &Scores, at: usize) -> [f64; INPUTS] {
    [confidence[at], scores.entropy[at], scores.margin[at], scores.entropy_of_squares[at]].map(f64::from)
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// One gate.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gate {
    weights: [f64; INPUTS],
    bias: f64,
}

impl Gate {
    /// Probability of leaving.
    fn leave(&self, inputs: &[f64; INPUTS]) -> f64 {
        sigmoid(self.bias + self.weights.iter().zip(inputs).map(|(weight, input)| weight * input).sum::<f64>())
    }

    /// Trains from zero weights: the loss is convex, so where it starts does not matter.
    fn train(inputs: &[[f64; INPUTS]], leave: &[bool], seed: u64) -> Self {
        let positives = leave.iter().filter(|leave| **leave).count();
        let positive_weight = match leave.len() - positives {
            // One label only: nothing to balance.
            0 => 1.0,
            negatives => (negatives as f64 / positives as f64).min(LARGEST_POSITIVE_WEIGHT),
        };
        let (mut gate, mut weight_speed, mut bias_speed) = (Self::default(), [0.0; INPUTS], 0.0);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        let batch = BATCH.min(inputs.len());
        let mut at = inputs.len();
        for step in 0..STEPS {
            if at + batch > inputs.len() {
                order.shuffle(&mut rng);
                at = 0;
            }
            let (mut slope, mut bias_slope) = ([0.0; INPUTS], 0.0);
            for &sample in &order[at..at + batch] {
                let probability = gate.leave(&inputs[sample]);
                let error = if leave[sample] { positive_weight * (probability - 1.0) } else { probability };
                let error = error / batch as f64;
                for (slope, input) in slope.iter_mut().zip(&inputs[sample]) {
                    *slope += error * input;
                }
                bias_slope += error;
            }
            at += batch;
            let turn = (std::f64::consts::PI * step as f64 / STEPS as f64).cos();
            let rate = LAST_LEARNING_RATE + (LEARNING_RATE - LAST_LEARNING_RATE) * (1.0 + turn) / 2.0;
            let parameters = gate.weights.iter_mut().chain([&mut gate.bias]);
            let speeds = weight_speed.iter_mut().chain([&mut bias_speed]);
            for ((parameter, speed), slope) in parameters.zip(speeds).zip(slope.into_iter().chain([bias_slope])) {
                *speed = MOMENTUM * *speed + slope + WEIGHT_DECAY * *parameter;
                *parameter -= rate * *speed;
            }
        }
        gate
    }
}

/// The gates behind all exits but the last, trained for one λ.
#[derive(Clone, Debug, PartialEq)]
pub struct Gates(Vec<Gate>);

impl Gates {
    /// Trains on *fit*; `targets` `[sample]` name the exit at which a sample should leave ([`targets`]). `seed` orders the
    /// samples.
    ///
    /// # Panics
    /// If the scores do not have whole rows of as many samples as targets, or there is none.
    pub fn train(fit: &FitScores, targets: &[usize], seed: u64) -> Self {
        let samples = targets.len();
        let gate = |exit: usize| {
            let row = (exit - 1) * samples..exit * samples;
            let inputs: Vec<_> = row.map(|at| inputs(&fit.confidence, &fit.scores, at)).collect();
            let leave: Vec<bool> = targets.iter().map(|target| *target <= exit).collect();
            Gate::train(&inputs, &leave, seed.wrapping_add(exit as u64))
        };
        Self((1..fit.confidence.len() / samples).map(gate).collect())
    }

    /// The exit of every sample, from 1. The probability of leaving at an exit is the gate's own, but at most what the gates
    /// before have left over; given that a sample came so far, it leaves where that is at least a half.
    ///
    /// # Panics
    /// If the scores have fewer exits than there are gates.
    pub fn exits(&self, confidence: &[f32], scores: &Scores, samples: usize) -> Vec<usize> {
        let exit = |sample: usize| {
            let mut rest = 1.0;
            for (at, gate) in self.0.iter().enumerate() {
                let leave = gate.leave(&inputs(confidence, scores, at * samples + sample));
                if leave >= 0.5 * rest {
                    return at + 1;
                }
                rest -= leave;
            }
            self.0.len() + 1
        };
        (0..samples).map(exit).collect()
    }
}

/// JEI-DNN's gates on float, one training on *fit* per λ of [`lambdas`]; `cal` and `test` are labels. With `folds`, *fit* stands behind *cal-a*.
pub fn jei_gates(
    ledger: &Ledger,
    float: &FloatRun,
    folds: Option<&Folds>,
    cal: &[u16],
    test: &[u16],
    seed: u64,
) -> Vec<Setting> {
    let prices: Arc<[Price]> = prices(ledger, float).into();
    let costs: Vec<f64> = prices.iter().map(|price| price.cost).collect();
    let setting = |lambda: f64| {
        let train = |fit: &FitScores| Gates::train(fit, &targets(&fit.true_class, &costs, lambda), seed);
        let on_cal = |gates: &Gates| gates.exits(&float.run.cal.confidence, &float.cal, cal.len());
        let gates = train(&float.fit);
        let mut on_cal_a = on_cal(&gates);
        if let Some(folds) = folds {
            let without = |fold| on_cal(&train(&float.fit.subset(folds.samples(), &folds.others(fold))));
            on_cal_a = folds.put_together(on_cal_a, without);
        }
        let on_test = gates.exits(&float.run.test.confidence, &float.test, test.len());
        Setting {
            name: format!("lambda {lambda:.4}"),
            parameter: lambda,
            cal: by_exit(&prices, &float.run.cal, cal, |sample| on_cal_a[sample]),
            test: by_exit(&prices, &float.run.test, test, |sample| on_test[sample]),
        }
    };
    lambdas().into_par_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::ledger;
    use super::*;
    use crate::table::{RunOutcomes, StaticRun};
    use crate::tree::{Monotone, PathTree};
    use proptest::prelude::*;

    /// Three exits; samples are easy (sure and right at exit 1), middling (at exit 2) or hard (at exit 3), in turns.
    fn float(samples: usize) -> (FloatRun, Vec<u16>) {
        let sure = |exit: usize, sample: usize| exit >= sample % 3;
        let list = |yes: f32, no: f32| -> Vec<f32> {
            let at = |at: usize| if sure(at / samples, at % samples) { yes } else { no };
            (0..3 * samples).map(at).collect()
        };
        let scores = Scores { margin: list(0.9, 0.1), entropy: list(0.1, 0.9), entropy_of_squares: list(0.0, 0.8) };
        let confidence = list(0.95, 0.4);
        let answers = list(1.0, 0.0).into_iter().map(|answer| answer as u16).collect();
        let outcomes = RunOutcomes { answers, confidence: confidence.clone() };
        let run = StaticRun {
            name: "float".to_owned(),
            stem: 0.0,
            segment: vec![30.0; 3],
            stem_bits: 32.0,
            segment_bits: vec![32.0; 3],
            time: None,
            cal: outcomes.clone(),
            test: outcomes,
        };
        let fit = FitScores { confidence, scores: scores.clone(), true_class: list(0.95, 0.05) };
        (FloatRun { run, cal: scores.clone(), test: scores, fit, gate_cost: 0.5 }, vec![1; samples])
    }

    #[test]
    fn targets_weigh_cross_entropy_against_cost() {
        let (costs, all) = ([0.3, 0.6, 0.9], [0.5, 0.1, 0.6, 0.1, 0.7, 0.9]);
        assert_eq!(targets(&all, &costs, 0.0), [3, 3]);
        // ln(0.7 / 0.5) = 0.34 for 0.6 more of cost, ln(0.9 / 0.1) = 2.2 for 0.3 more.
        assert_eq!(targets(&all, &costs, 1.0), [1, 3]);
        assert_eq!(targets(&all, &costs, 10.0), [1, 1]);
        assert_eq!(targets(&[0.5, 0.5], &[0.3, 0.3], 1.0), [1], "ties to the earlier");
        assert_eq!(targets(&[0.0, 1e-9], &[0.3, 0.9], 1.0), [2], "a vanished probability is no infinite loss");
    }

    #[test]
    fn gates_learn_who_is_sure_and_everything_passed_is_paid() {
        let (float, labels) = float(300);
        let tree = PathTree::new(3, 1, Monotone::Free, 10).unwrap();
        let ledger = ledger(&tree);
        let settings = jei_gates(&ledger, &float, None, &labels, &labels, 7);
        let near_one = settings.iter().find(|setting| (setting.parameter - 1.0).abs() < 1e-9).unwrap();
        let want: Vec<u32> = (0..300).map(|sample| sample % 3).collect();
        assert_eq!(near_one.test.options(), want, "each leaves at its own exit");
        assert_eq!(near_one.test.accuracy(), 1.0);
        // Segments of 30, exits of 1, gates of 0.5; the last exit has no gate.
        let costs: Vec<f64> = near_one.test.prices().iter().map(|price| price.cost).collect();
        for (cost, want) in costs.iter().zip([0.315, 0.63, 0.94]) {
            assert!((cost - want).abs() < 1e-12, "{costs:?}");
        }
        let dear = settings.last().unwrap();
        assert!(dear.test.options().iter().all(|exit| *exit == 0), "a high price of cost leaves at once");
    }

    #[test]
    fn a_gate_that_is_unsure_leaves_less_over_for_the_next() {
        let constant = |logit: f64| Gate { weights: [0.0; INPUTS], bias: logit };
        let scores = Scores { margin: vec![0.0; 3], entropy: vec![0.0; 3], entropy_of_squares: vec![0.0; 3] };
        let exit = |first: f64, second: f64| {
            let logit = |probability: f64| (probability / (1.0 - probability)).ln();
            Gates(vec![constant(logit(first)), constant(logit(second))]).exits(&[0.5; 3], &scores, 1)[0]
        };
        assert_eq!(exit(0.6, 0.1), 1);
        assert_eq!(exit(0.4, 0.35), 2, "0.35 of the 0.6 left over is more than a half");
        assert_eq!(exit(0.2, 0.35), 3, "0.35 of the 0.8 left over is less");
    }

    #[test]
    fn training_is_reproducible_and_one_label_is_learned_too() {
        let (float, _) = float(90);
        let train = |seed| Gates::train(&float.fit, &[1; 90], seed);
        assert_eq!(train(3), train(3));
        assert_ne!(train(3), train(4), "another order of the samples");
        assert_eq!(train(3).exits(&float.fit.confidence, &float.fit.scores, 90), [1; 90]);
        let never = Gates::train(&float.fit, &[3; 90], 3);
        assert_eq!(never.exits(&float.fit.confidence, &float.fit.scores, 90), [3; 90]);
    }

    proptest! {
        /// No exit has a lower objective than the target, and targets move forward as cost gets dearer.
        #[test]
        fn targets_minimise_and_come_earlier_with_lambda(
            true_class in prop::collection::vec(0.0f32..1.0, 12), steps in prop::collection::vec(0.01f64..0.5, 4),
            lambda in 0.0f64..10.0,
        ) {
            let costs: Vec<f64> = steps.iter().scan(0.0, |sum, step| { *sum += step; Some(*sum) }).collect();
            let chosen = targets(&true_class, &costs, lambda);
            let later = targets(&true_class, &costs, lambda + 1.0);
            for sample in 0..3 {
                let loss = |exit: usize| {
                    lambda * costs[exit - 1] - f64::from(true_class[(exit - 1) * 3 + sample].max(f32::MIN_POSITIVE)).ln()
                };
                prop_assert!((1..=4).all(|exit| loss(chosen[sample]) <= loss(exit)));
                prop_assert!(later[sample] <= chosen[sample]);
            }
        }
    }
}
