//! From gradients to new parameters.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Tensor, TensorData};
use quee_backbone::{Backbone, ExecError};

use super::settings::{Rule, TrainConfig};
use crate::tensor::device_error;

/// The parameters of a training and what its rule remembers of earlier gradients. Each tensor is flat and without
/// gradients; positions are parameter ids.
pub(super) struct Parameters {
    rule: Rule,
    /// AdamW with and without weight decay.
    adamw: [AdamW; 2],
    weight_decay: f64,
    trained: Vec<Trained>,
    /// Present values, by id.
    pub values: Vec<Tensor<1>>,
    /// By moment, then in the order of the trained parameters. AdamW: mean of the gradients and of their squares. Gradient
    /// descent: the step before it is scaled.
    pub moments: Vec<Vec<Tensor<1>>>,
}

/// A parameter that is trained.
struct Trained {
    id: usize,
    /// Factor on the learning rate.
    rate: f64,
    decayed: bool,
}

impl Parameters {
    /// The parameters of `backbone`, with `values` and, in the middle of a training, `moments`.
    pub fn new(
        backbone: &dyn Backbone,
        config: &TrainConfig,
        values: Vec<Tensor<1>>,
        moments: Option<Vec<Vec<Tensor<1>>>>,
    ) -> Self {
        let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
        let decaying = plain.clone().with_weight_decay(config.weight_decay as f32);
        // Learned tokens and positions, [1, T, D], are no matrices: nothing is multiplied by them.
        let is_matrix = |shape: &[usize]| shape.len() >= 2 && shape[0] > 1;
        let all = backbone.params().iter().zip(config.rates(backbone)).filter(|(_, rate)| *rate > 0.0);
        let trained: Vec<Trained> =
            all.map(|(p, rate)| Trained { id: p.id, rate, decayed: is_matrix(&p.shape) }).collect();
        let zeros = || trained.iter().map(|t| values[t.id].zeros_like()).collect::<Vec<_>>();
        Self {
            rule: config.rule,
            adamw: [plain.build(), decaying.build()],
            weight_decay: config.weight_decay,
            moments: moments.unwrap_or_else(|| (0..moments_of(config.rule)).map(|_| zeros()).collect()),
            trained,
            values,
        }
    }

    /// Ids of the parameters that are trained.
    pub fn trained(&self) -> Vec<usize> {
        self.trained.iter().map(|t| t.id).collect()
    }

    /// One step at learning rate `rate`, the `updates`-th from 0. `gradients` are in the order of the trained parameters.
    pub fn step(&mut self, rate: f64, updates: usize, gradients: Vec<Tensor<1>>) {
        for (at, (trained, gradient)) in self.trained.iter().zip(gradients).enumerate() {
            let (rate, value) = (rate * trained.rate, self.values[trained.id].clone());
            self.values[trained.id] = match self.rule {
                Rule::AdamW => {
                    let [mean, square] = &mut self.moments[..] else { unreachable!("AdamW has two moments") };
                    let state = AdaptiveMomentumState::new(updates, mean[at].clone(), square[at].clone());
                    let rule = &self.adamw[usize::from(trained.decayed)];
                    let (value, state) = rule.step(rate, value, gradient, Some(AdamWState::new(state)));
                    if let Some(AdamWState { momentum }) = state {
                        (mean[at], square[at]) = (momentum.moment_1, momentum.moment_2);
                    }
                    value
                }
                Rule::Sgd { momentum, nesterov } => {
                    let decay = if trained.decayed { self.weight_decay } else { 0.0 };
                    let gradient = gradient + value.clone().mul_scalar(decay);
                    let step = &mut self.moments[0][at];
                    *step = step.clone().mul_scalar(momentum) + gradient.clone();
                    let step = if nesterov { gradient + step.clone().mul_scalar(momentum) } else { step.clone() };
                    value - step.mul_scalar(rate)
                }
            };
        }
    }
}

/// Moments that a rule keeps.
pub(super) fn moments_of(rule: Rule) -> usize {
    match rule {
        Rule::AdamW => 2,
        Rule::Sgd { .. } => 1,
    }
}

/// Scales all gradients by one factor so that their common norm is at most `most`.
pub(super) fn clip(gradients: Vec<Tensor<1>>, most: f64) -> Result<Vec<Tensor<1>>, ExecError> {
    if gradients.is_empty() {
        return Ok(gradients);
    }
    // One transfer for all tensors: each would wait for the device.
    let squares = Tensor::cat(gradients.iter().map(|g| g.clone().square().sum()).collect(), 0);
    let squares = squares.try_into_vec_as::<f32>().map_err(device_error)?;
    let norm = squares.into_iter().map(f64::from).sum::<f64>().sqrt();
    if norm <= most {
        return Ok(gradients);
    }
    Ok(gradients.into_iter().map(|g| g.mul_scalar(most / norm)).collect())
}

/// Flat tensors from slices.
pub(super) fn upload(values: &[impl AsRef<[f32]>], device: &burn::tensor::Device) -> Vec<Tensor<1>> {
    let tensor = |v: &[f32]| Tensor::from_data(TensorData::new(v.to_vec(), [v.len()]), device);
    values.iter().map(|v| tensor(v.as_ref())).collect()
}

/// Slices from flat tensors.
pub(super) fn download(tensors: &[Tensor<1>]) -> Result<Vec<Vec<f32>>, ExecError> {
    tensors.iter().map(|t| t.clone().try_into_vec_as::<f32>().map_err(device_error)).collect()
}
