//! The small networks of exits and gates, in training.

use burn::module::{Module, Param, ParamGroup, ParamId};
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData, activation};
use quee_heads::Mlp;
use rand_chacha::ChaCha8Rng;

use crate::TrainError;
use crate::data::normal;

/// The network in training; weights are `[outputs, inputs]`, as in [`Mlp`].
#[derive(Module, Debug)]
pub(crate) struct Network {
    /// Weight and bias of the hidden layer, if there is one.
    pub hidden: Option<Layer>,
    pub output: Layer,
}

#[derive(Module, Debug)]
pub(crate) struct Layer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Layer {
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, device: &Device) -> Self {
        let outputs = bias.len();
        let weight = matrix(weight, outputs, device);
        let bias = Tensor::from_data(TensorData::new(bias, [outputs]), device);
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }

    fn read(&self) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
        let weight = self.weight.val().try_into_vec_as().map_err(TrainError::device)?;
        let bias = self.bias.val().try_into_vec_as().map_err(TrainError::device)?;
        Ok((weight, bias))
    }
}

impl Network {
    /// Hidden weights of deviation √(2 / inputs) (arXiv 1502.01852), output weights a tenth of that, so that the first
    /// answers are close to those of the output biases `mean_logits`.
    pub fn new(inputs: usize, hidden: usize, mean_logits: Vec<f32>, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let mut draw = |count: usize, inputs: usize, size: f32| {
            let deviation = size * (2.0 / inputs as f32).sqrt();
            (0..count).map(|_| deviation * normal(rng)).collect::<Vec<f32>>()
        };
        let outputs = mean_logits.len();
        let first = (hidden > 0).then(|| Layer::new(draw(hidden * inputs, inputs, 1.0), vec![0.0; hidden], device));
        let last = if hidden > 0 { hidden } else { inputs };
        Self { hidden: first, output: Layer::new(draw(outputs * last, last, 0.1), mean_logits, device) }
    }

    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.hidden {
            Some(hidden) => self.output.forward(activation::relu(hidden.forward(x))),
            None => self.output.forward(x),
        }
    }

    pub fn weights(&self) -> Vec<ParamId> {
        self.hidden.iter().chain([&self.output]).map(|layer| layer.weight.id).collect()
    }

    pub fn read(&self, inputs: usize) -> Result<Mlp, TrainError> {
        let (w1, b1) = self.hidden.as_ref().map_or(Ok(Default::default()), Layer::read)?;
        let (w2, b2) = self.output.read()?;
        Ok(Mlp { inputs, hidden: b1.len(), outputs: b2.len(), w1, b1, w2, b2 })
    }
}

/// AdamW with weight decay on weights alone.
pub(crate) fn adamw(network: &Network, weight_decay: f64) -> ModuleOptimizer {
    let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
    let decayed = plain.clone().with_weight_decay(weight_decay as f32).build();
    plain.init().with_group(ParamGroup::from_ids(network.weights()), decayed, None)
}

/// Row-major values as a matrix of `rows` rows.
pub(crate) fn matrix(data: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
    let columns = data.len() / rows;
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}
