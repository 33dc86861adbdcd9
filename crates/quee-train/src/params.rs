//! A backbone's parameters as trainable tensors.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use quee_backbone::{Backbone, ExecError};

use crate::tensor::device_error;

/// One trainable tensor per parameter of a backbone, at the position of its id, flattened row-major.
///
/// Given to [`BurnExecutor::with_params`](crate::BurnExecutor::with_params), these take the place of the values that the
/// backbone's program carries, so that the program that is trained is the program that is run.
#[derive(Module, Debug)]
pub struct ParamStore {
    params: Vec<Param<Tensor<1>>>,
}

impl ParamStore {
    /// The present parameters of `backbone`, on `device`; they get gradients if that device records them.
    pub fn new(backbone: &dyn Backbone, device: &Device) -> Self {
        let tensor = |data: &[f32]| Tensor::from_data(TensorData::new(data.to_vec(), [data.len()]), device);
        let params = backbone.params().iter().map(|p| Param::from_tensor(tensor(&p.data))).collect();
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
        self.params.get(id).map(Param::val)
    }

    /// burn's own identity of each parameter, by id.
    pub fn ids(&self) -> Vec<ParamId> {
        self.params.iter().map(|p| p.id).collect()
    }

    /// Values of every parameter, row-major, by id.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(&self) -> Result<Vec<Vec<f32>>, ExecError> {
        self.params.iter().map(|p| p.val().try_into_vec_as::<f32>().map_err(device_error)).collect()
    }
}
