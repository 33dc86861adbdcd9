//! The linear classifiers of early exits: multinomial logistic regression on features of a frozen backbone.

use burn::module::{Module, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use quee_heads::ExitHead;
use serde::{Deserialize, Serialize};

use crate::TrainDevice;
use crate::TrainError;
use crate::data::{expect_finite, expect_labels, expect_len, expect_setting, rng_for, shuffled};
use crate::optimizer::{cross_entropy, learning_rate, soft_labels};

/// How an exit is trained: AdamW on the cross-entropy, with half a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitConfig {
    /// Passes over the rows; default 30.
    pub epochs: usize,
    /// Rows per step; default 256.
    pub batch: usize,
    /// Highest learning rate; default 0.01.
    pub learning_rate: f64,
    /// Decoupled weight decay on the weights, not the biases; default 0.01.
    pub weight_decay: f64,
    /// Seed of the order; default 0.
    pub seed: u64,
}

impl Default for ExitConfig {
    fn default() -> Self {
        Self { epochs: 30, batch: 256, learning_rate: 0.01, weight_decay: 0.01, seed: 0 }
    }
}

/// One linear layer.
#[derive(Module, Debug)]
struct Classifier {
    /// `[classes, dim]`.
    weight: Param<Tensor<2>>,
    /// `[classes]`.
    bias: Param<Tensor<1>>,
}

/// Trains the exit on precomputed `features` `[rows, dim]`, row-major, and `labels` `[rows]`.
///
/// It starts from `init` (weight `[classes, dim]` and bias `[classes]`, e.g. the backbone's own head), or from zeros.
///
/// # Errors
/// On data or settings that do not fit, a loss that is not finite, or a failing device.
pub fn train_exit(
    on: &TrainDevice,
    features: &[f32],
    labels: &[u16],
    dim: usize,
    classes: usize,
    config: &ExitConfig,
    init: Option<(&[f32], &[f32])>,
) -> Result<ExitHead, TrainError> {
    let n = labels.len();
    check(features, labels, dim, classes, config)?;
    let zeros = (vec![0.0; classes * dim], vec![0.0; classes]);
    let (weight, bias) = init.unwrap_or((&zeros.0, &zeros.1));
    expect_len("initial weights of the exit", classes * dim, weight.len())?;
    expect_len("initial biases of the exit", classes, bias.len())?;

    let _turn = on.turn();
    let device = on.device().clone().autodiff();
    let mut model = Classifier {
        weight: Param::from_tensor(matrix(weight.to_vec(), classes, dim, &device)),
        bias: Param::from_tensor(Tensor::from_data(TensorData::new(bias.to_vec(), [classes]), &device)),
    };
    let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
    let decayed = plain.clone().with_weight_decay(config.weight_decay as f32).build();
    let mut optimizer = plain.init().with_group(ParamGroup::from_ids(vec![model.weight.id]), decayed, None);

    let features = matrix(features.to_vec(), n, dim, &device);
    let targets = matrix(soft_labels(labels.iter().copied(), classes, 0.0), n, classes, &device);
    let steps = config.epochs * n.div_ceil(config.batch);
    let mut step = 0;
    for epoch in 0..config.epochs {
        for rows in shuffled(n, &mut rng_for(config.seed, &[epoch as u64])).chunks(config.batch) {
            let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &device);
            let x = features.clone().select(0, indices.clone());
            let logits = x.matmul(model.weight.val().transpose()) + model.bias.val().unsqueeze();
            let loss = cross_entropy(logits, targets.clone().select(0, indices)).div_scalar(rows.len() as f32);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(learning_rate(config.learning_rate, step, 0, steps), model, gradients);
            step += 1;
        }
        let bias: Vec<f32> = model.bias.val().try_into_vec_as().map_err(TrainError::device)?;
        if bias.iter().any(|b| !b.is_finite()) {
            return Err(TrainError::Diverged { epoch: epoch + 1 });
        }
    }
    let weight = model.weight.val().try_into_vec_as().map_err(TrainError::device)?;
    let bias = model.bias.val().try_into_vec_as().map_err(TrainError::device)?;
    Ok(ExitHead { dim, classes, weight, bias })
}

fn matrix(data: Vec<f32>, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}

fn check(features: &[f32], labels: &[u16], dim: usize, classes: usize, config: &ExitConfig) -> Result<(), TrainError> {
    if labels.is_empty() {
        return Err(TrainError::Empty { what: "rows of the exit" });
    }
    expect_len("features of the exit", labels.len() * dim, features.len())?;
    expect_finite("features of the exit", features)?;
    expect_labels(labels, classes)?;
    expect_setting("features of the exit", dim as f64, 1.0, "at least 1")?;
    expect_setting("classes", classes as f64, 2.0, "at least 2")?;
    expect_setting("batch", config.batch as f64, 1.0, "at least 1")?;
    expect_setting("learning rate", config.learning_rate, 0.0, "0 or more")?;
    expect_setting("weight decay", config.weight_decay, 0.0, "0 or more")
}
