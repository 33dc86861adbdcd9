//! A backbone's parameters as trainable tensors.

use burn::tensor::{Device, Tensor, TensorData};
use quee_backbone::Backbone;

/// One tensor per parameter of a backbone, at the position of its id, flattened row-major.
///
/// Given to [`BurnExecutor::with_params`](crate::BurnExecutor::with_params), these take the place of the values that the
/// backbone's program carries, so that the program that is trained is the program that is run.
#[derive(Clone, Debug)]
pub struct ParamStore {
    params: Vec<Tensor<1>>,
}

impl ParamStore {
    /// The present parameters of `backbone`, on `device`; they get gradients if that device records them.
    pub fn new(backbone: &dyn Backbone, device: &Device) -> Self {
        let tensor = |data: &[f32]| Tensor::from_data(TensorData::new(data.to_vec(), [data.len()]), device);
        let leaf = |tensor: Tensor<1>| if device.is_autodiff() { tensor.require_grad() } else { tensor };
        Self { params: backbone.params().iter().map(|p| leaf(tensor(&p.data))).collect() }
    }

    /// These tensors, by id. Those with gradients are trained.
    pub(crate) fn from_tensors(params: Vec<Tensor<1>>) -> Self {
        Self { params }
    }

    /// Number of parameters (tensors, not values).
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether the backbone has no parameters.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The tensor of the parameter `id`, flat, if there is one.
    pub fn get(&self, id: usize) -> Option<Tensor<1>> {
        self.params.get(id).cloned()
    }
}
