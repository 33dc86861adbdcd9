//! Networks that predict the probability of error of every continuation at a gate.
//!
//! An ensemble of small networks (method, section 7.2): features to a hidden layer to one logit per continuation, trained
//! by binary cross-entropy against soft targets, and stopped by the log loss against outcomes of samples held out.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData, activation};
use quee_heads::{Mlp, PROBABILITY_FLOOR};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::TrainDevice;
use crate::TrainError;
use crate::data::{expect_finite, expect_len, expect_setting, rng_for, shuffled};
use crate::network::{Network, adamw, matrix};

/// How the networks of a gate are trained, with AdamW (arXiv 1711.05101) at a constant learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Hidden units; 0 for logistic regression; default 32.
    pub hidden: usize,
    /// Networks of the ensemble; default 3.
    pub members: usize,
    /// Learning rate; default 0.01.
    pub learning_rate: f64,
    /// Decoupled weight decay on the weights, not the biases; default 0.1.
    pub weight_decay: f64,
    /// Rows per step; default 512.
    pub batch: usize,
    /// Most passes over the rows; default 100.
    pub max_epochs: usize,
    /// Epochs without a lower held-out log loss after which training ends; default 8.
    pub patience: usize,
    /// Seed of initial weights and order; default 0. Each member draws its own from it.
    pub seed: u64,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            hidden: 32,
            members: 3,
            learning_rate: 0.01,
            weight_decay: 0.1,
            batch: 512,
            max_epochs: 100,
            patience: 8,
            seed: 0,
        }
    }
}

/// Features and what is known about the continuations.
#[derive(Clone, Copy, Debug)]
pub struct GateRows<'a> {
    /// Number of features.
    pub inputs: usize,
    /// Number of continuations.
    pub outputs: usize,
    /// Standardised features `[rows, inputs]`.
    pub features: &'a [f32],
    /// Probabilities of error, or outcomes (0 right, 1 wrong), `[rows, outputs]`; NaN where there is none.
    pub targets: &'a [f32],
}

/// A trained network and how it came out.
#[derive(Clone, Debug, PartialEq)]
pub struct GateMember {
    /// The network after its best epoch.
    pub network: Mlp,
    /// That epoch, from 1; 0 when no epoch was better than the rates it started from.
    pub epoch: usize,
    /// Its log loss on the held-out rows, in nats per known outcome.
    pub log_loss: f64,
}

/// Trains the ensemble of one gate on `train`; each member stops by its own log loss on `held_out`.
///
/// Before the first step, the output biases are the logits of the mean targets.
///
/// # Errors
/// On data or settings that do not fit, a loss that is not finite, or a failing device.
pub fn train_gate(
    on: &TrainDevice,
    train: GateRows<'_>,
    held_out: GateRows<'_>,
    config: &GateConfig,
) -> Result<Vec<GateMember>, TrainError> {
    check(train, held_out, config)?;
    // Members share nothing but the rows, so neither their number nor the threads' changes a member.
    (0..config.members).into_par_iter().map(|member| train_member(on, train, held_out, config, member)).collect()
}

/// Mean log loss of probabilities `[rows, outputs]` against `targets` of the same shape, in nats per known target.
/// Probabilities are kept [`PROBABILITY_FLOOR`] from 0 and 1.
///
/// # Panics
/// When the arrays differ in length.
pub fn log_loss(probabilities: &[f32], targets: &[f32]) -> f64 {
    assert_eq!(probabilities.len(), targets.len());
    let (mut sum, mut count) = (0.0, 0usize);
    for (&p, &t) in probabilities.iter().zip(targets).filter(|(_, t)| !t.is_nan()) {
        let p = f64::from(p).clamp(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR);
        let t = f64::from(t);
        // Outcomes are 0 or 1: one logarithm is enough for them.
        sum -= if t == 0.0 {
            (1.0 - p).ln()
        } else if t == 1.0 {
            p.ln()
        } else {
            t * p.ln() + (1.0 - t) * (1.0 - p).ln()
        };
        count += 1;
    }
    sum / count as f64
}

fn train_member(
    on: &TrainDevice,
    train: GateRows<'_>,
    held_out: GateRows<'_>,
    config: &GateConfig,
    member: usize,
) -> Result<GateMember, TrainError> {
    let _turn = on.turn();
    let (device, plain) = (on.device().clone().autodiff(), on.device().clone());
    let n = train.features.len() / train.inputs;
    let features = matrix(train.features.to_vec(), n, &device);
    // Absent targets become 0, and the mask takes their gradient away.
    let known = |t: &f32| if t.is_nan() { 0.0 } else { 1.0 };
    let targets = matrix(train.targets.iter().map(|&t| if t.is_nan() { 0.0 } else { t }).collect(), n, &device);
    let mask: Vec<f32> = train.targets.iter().map(known).collect();
    let masked = mask.contains(&0.0).then(|| matrix(mask, n, &device));
    let held_out_rows = held_out.features.len() / held_out.inputs;
    let held_out_features = matrix(held_out.features.to_vec(), held_out_rows, &plain);

    let mut rng = rng_for(config.seed, &[0, member as u64]);
    let mut network = Network::new(train.inputs, config.hidden, mean_logits(train), &mut rng, &device);
    let mut optimizer = adamw(&network, config.weight_decay);
    let evaluate = |network: &Network| -> Result<f64, TrainError> {
        let probabilities = activation::sigmoid(network.valid().logits(held_out_features.clone()));
        let probabilities: Vec<f32> = probabilities.try_into_vec_as().map_err(TrainError::device)?;
        Ok(log_loss(&probabilities, held_out.targets))
    };
    let mut best = GateMember { network: network.read(train.inputs)?, epoch: 0, log_loss: evaluate(&network)? };
    for epoch in 1..=config.max_epochs {
        let order = shuffled(n, &mut rng_for(config.seed, &[1, member as u64, epoch as u64]));
        for rows in order.chunks(config.batch) {
            let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &device);
            let logits = network.logits(features.clone().select(0, indices.clone()));
            let mask = masked.as_ref().map(|mask| mask.clone().select(0, indices.clone()));
            let loss = binary_cross_entropy_slope(logits, targets.clone().select(0, indices), mask);
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            network = optimizer.step(config.learning_rate, network, gradients);
        }
        let loss = evaluate(&network)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch });
        }
        if loss < best.log_loss {
            best = GateMember { network: network.read(train.inputs)?, epoch, log_loss: loss };
        }
        if epoch - best.epoch >= config.patience {
            break;
        }
    }
    Ok(best)
}

/// A scalar whose gradient with respect to `logits` is that of the mean binary cross-entropy over known targets,
/// `(σ(z) − t) / n`. Its value is not the loss, which training does not need, and no logarithm is taken.
fn binary_cross_entropy_slope(logits: Tensor<2>, targets: Tensor<2>, mask: Option<Tensor<2>>) -> Tensor<1> {
    let slope = activation::sigmoid(logits.clone().detach()) - targets;
    let (slope, known) = match mask {
        None => {
            let [rows, outputs] = slope.dims();
            (slope, Tensor::full([1], (rows * outputs) as f32, &logits.device()))
        }
        Some(mask) => {
            let known = mask.clone().sum().clamp_min(1.0);
            (slope * mask, known)
        }
    };
    (logits * slope).sum() / known
}

/// Logit of the mean target of each output; outputs without a target get 0.
fn mean_logits(rows: GateRows<'_>) -> Vec<f32> {
    let mut sums = vec![(0.0f64, 0.0f64); rows.outputs];
    for row in rows.targets.chunks_exact(rows.outputs) {
        for ((sum, count), &t) in sums.iter_mut().zip(row).filter(|(_, t)| !t.is_nan()) {
            *sum += f64::from(t);
            *count += 1.0;
        }
    }
    let logit = |(sum, count): (f64, f64)| {
        // One imagined error and one imagined success keep the logit finite.
        let rate = (sum + 1.0) / (count + 2.0);
        (rate / (1.0 - rate)).ln() as f32
    };
    sums.into_iter().map(logit).collect()
}

fn check(train: GateRows<'_>, held_out: GateRows<'_>, config: &GateConfig) -> Result<(), TrainError> {
    expect_setting("inputs", train.inputs as f64, 1.0, "at least 1")?;
    expect_setting("outputs", train.outputs as f64, 1.0, "at least 1")?;
    expect_len("inputs of the held-out rows", train.inputs, held_out.inputs)?;
    expect_len("outputs of the held-out rows", train.outputs, held_out.outputs)?;
    for (what, rows) in [("rows of the gate", train), ("held-out rows of the gate", held_out)] {
        let n = rows.features.len() / rows.inputs;
        if n == 0 || rows.targets.iter().all(|t| t.is_nan()) {
            return Err(TrainError::Empty { what });
        }
        expect_len(what, n * rows.inputs, rows.features.len())?;
        expect_len(what, n * rows.outputs, rows.targets.len())?;
        expect_finite(what, rows.features)?;
        if let Some(index) = rows.targets.iter().position(|t| !t.is_nan() && !(0.0..=1.0).contains(t)) {
            let hint = "targets lie between 0 and 1, or are NaN where there is none";
            return Err(TrainError::Value { what, index, value: rows.targets[index], hint });
        }
    }
    for (what, value) in [
        ("members", config.members),
        ("batch", config.batch),
        ("max epochs", config.max_epochs),
        ("patience", config.patience),
    ] {
        expect_setting(what, value as f64, 1.0, "at least 1")?;
    }
    expect_setting("learning rate", config.learning_rate, 0.0, "0 or more")?;
    expect_setting("weight decay", config.weight_decay, 0.0, "0 or more")
}
