//! The work on some samples of a batch.

use burn::tensor::{Tensor, TensorData};
use quee_backbone::{Backbone, ExecError};
use rayon::prelude::*;

use crate::device::TrainDevice;
use crate::executor::BurnExecutor;
use crate::optimizer::{argmax_rows, cross_entropy};
use crate::params::ParamStore;
use crate::tensor::device_error;

/// What is found out about some samples of a batch.
pub(super) struct Piece {
    /// Sum of the losses of the samples.
    pub loss: f64,
    /// Samples answered right.
    pub right: usize,
    /// Share of the gradient of the batch's mean loss, in the order of the trained parameters.
    pub gradients: Vec<Tensor<1>>,
}

/// What all pieces of a batch share.
pub(super) struct Batch<'a> {
    pub backbone: &'a dyn Backbone,
    pub device: &'a TrainDevice,
    /// Values by parameter id, without gradients.
    pub values: &'a [Tensor<1>],
    /// Ids of the parameters that are trained.
    pub trained: &'a [usize],
    /// `[C·H·W]` per sample.
    pub images: &'a [Vec<f32>],
    /// Probabilities `[classes]` per sample.
    pub targets: &'a [Vec<f32>],
}

impl Batch<'_> {
    /// The whole batch, its pieces side by side where the device allows it, added in their order.
    pub fn run(&self) -> Result<Piece, ExecError> {
        let size = self.device.piece();
        let starts: Vec<usize> = (0..self.images.len()).step_by(size).collect();
        // As many at a time as there are threads: every finished piece holds a gradient as large as the backbone.
        let at_a_time = if self.device.side_by_side() { rayon::current_num_threads() } else { 1 };
        let mut sum = Piece { loss: 0.0, right: 0, gradients: Vec::new() };
        for wave in starts.chunks(at_a_time) {
            let piece = |&start: &usize| self.piece(start, (start + size).min(self.images.len()));
            let done: Vec<Piece> = if at_a_time > 1 {
                wave.par_iter().map(piece).collect::<Result<_, _>>()?
            } else {
                wave.iter().map(piece).collect::<Result<_, _>>()?
            };
            for piece in done {
                sum.loss += piece.loss;
                sum.right += piece.right;
                sum.gradients = if sum.gradients.is_empty() {
                    piece.gradients
                } else {
                    sum.gradients.into_iter().zip(piece.gradients).map(|(a, b)| a + b).collect()
                };
            }
        }
        Ok(sum)
    }

    /// Samples `start..end`.
    fn piece(&self, start: usize, end: usize) -> Result<Piece, ExecError> {
        let (count, classes) = (end - start, self.backbone.classes());
        let device = self.device.device().clone().autodiff();
        // Leaves of its own: graphs that share a leaf would be merged and could not be worked on side by side.
        let mut leaves: Vec<Tensor<1>> = self.values.iter().map(|value| value.clone().autodiff()).collect();
        for &id in self.trained {
            leaves[id] = leaves[id].clone().require_grad();
        }
        let mut executor = BurnExecutor::with_params(device.clone(), ParamStore::from_tensors(leaves.clone()));
        let logits = logits(self.backbone, &mut executor, &self.images[start..end])?;
        let targets = self.targets[start..end].concat();
        let answers = argmax_rows(&read(logits.clone())?, classes).collect::<Vec<_>>();
        let right = answers.into_iter().zip(argmax_rows(&targets, classes)).filter(|(a, t)| a == t).count();
        let targets = Tensor::from_data(TensorData::new(targets, [count, classes]), &device);
        let loss = cross_entropy(logits, targets);
        let mut gradients = loss.clone().div_scalar(self.images.len() as f32).backward();
        let gradient = |&id: &usize| {
            let leaf = &leaves[id];
            // A parameter that the program does not use has no gradient.
            leaf.grad_remove(&mut gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like())
        };
        let gradients = self.trained.iter().map(gradient).collect();
        Ok(Piece { loss: f64::from(read(loss.inner())?[0]), right, gradients })
    }
}

/// Samples of `images` that the backbone with these `values` answers as `labels` say.
pub(super) fn right_answers(
    backbone: &dyn Backbone,
    device: &TrainDevice,
    values: &[Tensor<1>],
    images: &[Vec<f32>],
    labels: &[u16],
) -> Result<usize, ExecError> {
    let count = |(images, labels): (&[Vec<f32>], &[u16])| -> Result<usize, ExecError> {
        let mut executor =
            BurnExecutor::with_params(device.device().clone(), ParamStore::from_tensors(values.to_vec()));
        let logits = read(logits(backbone, &mut executor, images)?)?;
        Ok(argmax_rows(&logits, backbone.classes()).zip(labels).filter(|&(a, &l)| a == usize::from(l)).count())
    };
    let size = device.piece();
    if device.side_by_side() {
        images.par_chunks(size).zip(labels.par_chunks(size)).map(count).sum()
    } else {
        images.chunks(size).zip(labels.chunks(size)).map(count).sum()
    }
}

fn logits(backbone: &dyn Backbone, executor: &mut BurnExecutor, images: &[Vec<f32>]) -> Result<Tensor<2>, ExecError> {
    use quee_backbone::Executor;
    let [c, h, w] = backbone.image_shape();
    let input = executor.input(&[images.len(), c, h, w], &images.concat())?;
    let logits = backbone.forward(executor, &input)?;
    BurnExecutor::matrix(&logits)
}

fn read<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>, ExecError> {
    x.try_into_vec_as::<f32>().map_err(device_error)
}
