//! The classifiers of early exits, trained on features of a frozen backbone.

use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use quee_heads::Mlp;
use serde::{Deserialize, Serialize};

use crate::TrainDevice;
use crate::TrainError;
use crate::data::{expect_finite, expect_len, expect_setting, rng_for, shuffled};
use crate::network::{Layer, Network, adamw, matrix};
use crate::optimizer::{cross_entropy, learning_rate};

/// How an exit is trained: AdamW on the cross-entropy, with half a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitConfig {
    /// Hidden units; 0, the default, for a linear layer.
    pub hidden: usize,
    /// Passes over the rows; default 30.
    pub epochs: usize,
    /// Rows per step; default 256.
    pub batch: usize,
    /// Highest learning rate; default 0.01.
    pub learning_rate: f64,
    /// Decoupled weight decay on the weights, not the biases; default 0.01.
    pub weight_decay: f64,
    /// Seed of the order and of a hidden layer's first weights; default 0.
    pub seed: u64,
}

impl Default for ExitConfig {
    fn default() -> Self {
        Self { hidden: 0, epochs: 30, batch: 256, learning_rate: 0.01, weight_decay: 0.01, seed: 0 }
    }
}

/// What an exit learns from.
#[derive(Clone, Copy, Debug)]
pub struct ExitRows<'a> {
    /// Number of features.
    pub inputs: usize,
    /// Number of classes.
    pub classes: usize,
    /// `[rows, inputs]`.
    pub features: &'a [f32],
    /// Class probabilities `[rows, classes]`: 1 for the true class, or something softer.
    pub targets: &'a [f32],
}

/// Trains an exit. A linear layer starts from `init` (weight `[classes, inputs]` and bias `[classes]`, e.g. the backbone's own head), or from
/// zeros.
///
/// # Errors
/// On data or settings that do not fit, a loss that is not finite, or a failing device.
pub fn train_exit(
    on: &TrainDevice,
    rows: ExitRows<'_>,
    config: &ExitConfig,
    init: Option<(&[f32], &[f32])>,
) -> Result<Mlp, TrainError> {
    check(rows, config)?;
    let ExitRows { inputs, classes, .. } = rows;
    let zeros = (vec![0.0; classes * inputs], vec![0.0; classes]);
    let (weight, bias) = init.unwrap_or((&zeros.0, &zeros.1));
    expect_len("initial weights of the exit", classes * inputs, weight.len())?;
    expect_len("initial biases of the exit", classes, bias.len())?;

    let _turn = on.turn();
    let device = on.device().clone().autodiff();
    let mut model = match config.hidden {
        0 => Network { hidden: None, output: Layer::new(weight.to_vec(), bias.to_vec(), &device) },
        hidden => Network::new(inputs, hidden, vec![0.0; classes], &mut rng_for(config.seed, &[u64::MAX]), &device),
    };
    let mut optimizer = adamw(&model, config.weight_decay);
    let n = rows.features.len() / inputs;
    let features = matrix(rows.features.to_vec(), n, &device);
    let targets = matrix(rows.targets.to_vec(), n, &device);
    let steps = config.epochs * n.div_ceil(config.batch);
    let mut step = 0;
    for epoch in 0..config.epochs {
        for chosen in shuffled(n, &mut rng_for(config.seed, &[epoch as u64])).chunks(config.batch) {
            let indices: Vec<i64> = chosen.iter().map(|&row| row as i64).collect();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [chosen.len()]), &device);
            let logits = model.logits(features.clone().select(0, indices.clone()));
            let loss = cross_entropy(logits, targets.clone().select(0, indices)).div_scalar(chosen.len() as f32);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(learning_rate(config.learning_rate, step, 0, steps), model, gradients);
            step += 1;
        }
        if model.read(inputs)?.b2.iter().any(|b| !b.is_finite()) {
            return Err(TrainError::Diverged { epoch: epoch + 1 });
        }
    }
    model.read(inputs)
}

fn check(rows: ExitRows<'_>, config: &ExitConfig) -> Result<(), TrainError> {
    let ExitRows { inputs, classes, features, targets } = rows;
    expect_setting("features of the exit", inputs as f64, 1.0, "at least 1")?;
    expect_setting("classes", classes as f64, 2.0, "at least 2")?;
    let n = features.len() / inputs;
    if n == 0 {
        return Err(TrainError::Empty { what: "rows of the exit" });
    }
    expect_len("features of the exit", n * inputs, features.len())?;
    expect_len("targets of the exit", n * classes, targets.len())?;
    expect_finite("features of the exit", features)?;
    if let Some(index) = targets.iter().position(|t| !(0.0..=1.0).contains(t)) {
        let hint = "targets are probabilities";
        return Err(TrainError::Value { what: "targets of the exit", index, value: targets[index], hint });
    }
    expect_setting("batch", config.batch as f64, 1.0, "at least 1")?;
    expect_setting("learning rate", config.learning_rate, 0.0, "0 or more")?;
    expect_setting("weight decay", config.weight_decay, 0.0, "0 or more")
}
