//! Training of a whole backbone from random weights.

use std::ops::ControlFlow;

use burn::module::{Module, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use quee_backbone::{Backbone, ExecError, Executor, NamedTensor, Param};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::TrainError;
use crate::data::{expect_finite, expect_labels, expect_len, expect_setting, rng_for, shuffled};
use crate::executor::{BurnExecutor, flex_device};
use crate::optimizer::{argmax_rows, cross_entropy, learning_rate, soft_labels};
use crate::params::ParamStore;

/// Samples of a batch that one thread works on at a time. Fixed, so that the sum of their gradients is always taken in
/// the same order; small, so that activations stay in the cache.
const PIECE: usize = 16;

/// Labelled pictures.
#[derive(Clone, Copy, Debug)]
pub struct Pictures<'a> {
    /// `[n, C, H, W]`, row-major.
    pub images: &'a [f32],
    /// Classes `[n]`.
    pub labels: &'a [u16],
}

/// How a backbone is trained: AdamW (arXiv 1711.05101) on the cross-entropy, with a linear warm-up and half a cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainConfig {
    /// Passes over the training pictures; default 200.
    pub epochs: usize,
    /// Pictures per step; default 64.
    pub batch: usize,
    /// Highest learning rate; default 1e-3.
    pub learning_rate: f64,
    /// Decoupled weight decay on matrices; default 0.05. Biases, gains and learned tokens have none.
    pub weight_decay: f64,
    /// Epochs of linear warm-up; default 10.
    pub warmup_epochs: usize,
    /// Probability mass that is spread evenly over all classes; default 0.1.
    pub label_smoothing: f32,
    /// Largest Euclidean norm of all gradients together; default 1.
    pub clip_norm: f64,
    /// Seed of order and augmentation; default 0.
    pub seed: u64,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            epochs: 200,
            batch: 64,
            learning_rate: 1e-3,
            weight_decay: 0.05,
            warmup_epochs: 10,
            label_smoothing: 0.1,
            clip_norm: 1.0,
            seed: 0,
        }
    }
}

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochReport {
    /// Epoch that just ended, from 1.
    pub epoch: usize,
    /// Mean loss over the training pictures, as they were seen during the epoch.
    pub loss: f64,
    /// Share of training pictures that were answered right when they were seen, augmented.
    pub train_accuracy: f64,
    /// Share of validation pictures answered right after the epoch.
    pub validation_accuracy: f64,
}

/// Turns a training picture into what the network sees, with random numbers of its own.
pub type Augment<'a> = &'a (dyn Fn(&[f32], &mut ChaCha8Rng) -> Vec<f32> + Sync);

/// Trains the parameters of `backbone`, starting from its present ones, and returns the tensors of a
/// checkpoint after the last epoch.
///
/// Training pictures go through `augment`, which also normalises them where that is wanted; validation pictures are used
/// as they are. They are only reported on: nothing is chosen by them. `on_epoch` is called after every epoch and may
/// stop the run.
///
/// # Errors
/// On data or settings that do not fit, a loss that is not finite, a failing device, or when `on_epoch` breaks.
///
/// # Panics
/// When `augment` returns a picture of another length.
pub fn pretrain(
    backbone: &dyn Backbone,
    train: Pictures<'_>,
    validation: Pictures<'_>,
    config: &PretrainConfig,
    augment: Augment<'_>,
    on_epoch: &mut dyn FnMut(&EpochReport) -> ControlFlow<()>,
) -> Result<Vec<NamedTensor>, TrainError> {
    check(backbone, train, validation, config)?;
    let pixels: usize = backbone.image_shape().iter().product();
    let device = flex_device().autodiff();
    let mut params = ParamStore::new(backbone, &device);
    let mut optimizer = adamw(backbone, &params, config.weight_decay);

    let n = train.labels.len();
    let per_epoch = n.div_ceil(config.batch);
    let (warmup, steps) = (config.warmup_epochs.min(config.epochs) * per_epoch, config.epochs * per_epoch);
    for epoch in 0..config.epochs {
        let order = shuffled(n, &mut rng_for(config.seed, &[0, epoch as u64]));
        let (mut loss, mut right) = (0.0, 0);
        for (batch, indices) in order.chunks(config.batch).enumerate() {
            let pieces: Vec<&[usize]> = indices.chunks(PIECE).collect();
            let work = |piece: &&[usize]| -> Result<Piece, ExecError> {
                let picture = |&i: &usize| {
                    let mut rng = rng_for(config.seed, &[1, epoch as u64, i as u64]);
                    let seen = augment(&train.images[i * pixels..(i + 1) * pixels], &mut rng);
                    assert_eq!(seen.len(), pixels, "values of an augmented picture");
                    seen
                };
                let images: Vec<f32> = piece.iter().flat_map(picture).collect();
                let labels: Vec<u16> = piece.iter().map(|&i| train.labels[i]).collect();
                Piece::run(backbone, &params, &device, &images, &labels, config.label_smoothing, indices.len())
            };
            let done: Vec<Piece> = pieces.par_iter().map(work).collect::<Result<_, _>>()?;

            let mut gradients: Option<Vec<Tensor<1>>> = None;
            for piece in done {
                loss += f64::from(piece.loss) * indices.len() as f64;
                right += piece.right;
                gradients = Some(match gradients {
                    None => piece.gradients,
                    Some(sum) => sum.into_iter().zip(piece.gradients).map(|(a, b)| a + b).collect(),
                });
            }
            if !loss.is_finite() {
                return Err(TrainError::Diverged { epoch: epoch + 1 });
            }
            let mut clipped = GradientsParams::new();
            let gradients = clip(gradients.unwrap_or_default(), config.clip_norm)?;
            for ((id, gradient), param) in params.ids().into_iter().zip(gradients).zip(backbone.params()) {
                // Without a gradient, the optimizer leaves a parameter alone.
                if !param.frozen {
                    clipped.register(id, gradient);
                }
            }
            let rate = learning_rate(config.learning_rate, epoch * per_epoch + batch, warmup, steps);
            params = optimizer.step(rate, params, clipped);
        }
        let report = EpochReport {
            epoch: epoch + 1,
            loss: loss / n as f64,
            train_accuracy: right as f64 / n as f64,
            validation_accuracy: accuracy(backbone, &params.valid(), validation)?,
        };
        if on_epoch(&report).is_break() {
            return Err(TrainError::Stopped { epoch: epoch + 1 });
        }
    }
    Ok(backbone.export(&params.read()?))
}

fn check(
    backbone: &dyn Backbone,
    train: Pictures<'_>,
    validation: Pictures<'_>,
    config: &PretrainConfig,
) -> Result<(), TrainError> {
    let pixels: usize = backbone.image_shape().iter().product();
    for (what, pictures) in [("training pictures", train), ("validation pictures", validation)] {
        if pictures.labels.is_empty() {
            return Err(TrainError::Empty { what });
        }
        expect_len(what, pictures.labels.len() * pixels, pictures.images.len())?;
        expect_finite(what, pictures.images)?;
        expect_labels(pictures.labels, backbone.classes())?;
    }
    expect_setting("epochs", config.epochs as f64, 1.0, "at least 1")?;
    expect_setting("batch", config.batch as f64, 1.0, "at least 1")?;
    expect_setting("learning rate", config.learning_rate, 0.0, "0 or more")?;
    expect_setting("weight decay", config.weight_decay, 0.0, "0 or more")?;
    expect_setting("clip norm", config.clip_norm, f64::MIN_POSITIVE, "above 0")?;
    let smoothing = f64::from(config.label_smoothing);
    expect_setting("label smoothing", smoothing, 0.0, "from 0 to 1")?;
    expect_setting("label smoothing", 1.0 - smoothing, 0.0, "from 0 to 1")
}

/// AdamW with weight decay on matrices alone.
fn adamw(backbone: &dyn Backbone, params: &ParamStore, weight_decay: f64) -> ModuleOptimizer {
    let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
    // Learned tokens and positions, [1, T, D], are no matrices: nothing is multiplied by them.
    let is_matrix = |shape: &[usize]| shape.len() >= 2 && shape[0] > 1;
    let decayed = backbone.params().iter().zip(params.ids()).filter(|(p, _)| is_matrix(&p.shape));
    let decayed = ParamGroup::from_ids(decayed.map(|(_, id)| id).collect());
    plain.init().with_group(decayed, plain.clone().with_weight_decay(weight_decay as f32).build(), None)
}

/// What one thread finds out about some samples of a batch.
struct Piece {
    /// Share of the batch's mean loss.
    loss: f32,
    /// Samples answered right.
    right: usize,
    /// Share of the batch's gradient, by parameter id.
    gradients: Vec<Tensor<1>>,
}

impl Piece {
    fn run(
        backbone: &dyn Backbone,
        params: &ParamStore,
        device: &Device,
        images: &[f32],
        labels: &[u16],
        smoothing: f32,
        batch: usize,
    ) -> Result<Self, ExecError> {
        // Leaves of its own: graphs that share a leaf would be merged and could not be worked on side by side.
        let params = params.clone().fork(device);
        let mut executor = BurnExecutor::with_params(device.clone(), params.clone());
        let logits = forward(backbone, &mut executor, images, labels.len())?;
        let classes = backbone.classes();
        let answers = read(logits.clone())?;
        let right = argmax_rows(&answers, classes).zip(labels).filter(|&(a, &l)| a == usize::from(l)).count();
        let targets = soft_labels(labels.iter().copied(), classes, smoothing);
        let targets = Tensor::from_data(TensorData::new(targets, [labels.len(), classes]), device);
        let loss = cross_entropy(logits, targets).div_scalar(batch as f32);
        let mut gradients = loss.backward();
        let gradient = |param: &Param| {
            let leaf = params.get(param.id).expect("ids are positions");
            // A parameter that the program does not use has no gradient; a frozen one must not count in their norm.
            let found = leaf.grad_remove(&mut gradients).filter(|_| !param.frozen);
            found.unwrap_or_else(|| leaf.inner().zeros_like())
        };
        let gradients = backbone.params().iter().map(gradient).collect();
        Ok(Self { loss: read(loss.inner())?[0], right, gradients })
    }
}

fn forward(
    backbone: &dyn Backbone,
    executor: &mut BurnExecutor,
    images: &[f32],
    count: usize,
) -> Result<Tensor<2>, ExecError> {
    let [c, h, w] = backbone.image_shape();
    let images = executor.input(&[count, c, h, w], images)?;
    let logits = backbone.forward(executor, &images)?;
    BurnExecutor::matrix(&logits)
}

fn read<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>, ExecError> {
    x.try_into_vec_as::<f32>().map_err(crate::tensor::device_error)
}

/// Scales all gradients by one factor so that their common norm is at most `most`.
fn clip(gradients: Vec<Tensor<1>>, most: f64) -> Result<Vec<Tensor<1>>, ExecError> {
    let mut squares = 0.0;
    for gradient in &gradients {
        squares += f64::from(read(gradient.clone().square().sum())?[0]);
    }
    let norm = squares.sqrt();
    if norm <= most {
        return Ok(gradients);
    }
    Ok(gradients.into_iter().map(|g| g.mul_scalar(most / norm)).collect())
}

/// Share of `pictures` that the backbone with `params` (without gradients) answers right.
fn accuracy(backbone: &dyn Backbone, params: &ParamStore, pictures: Pictures<'_>) -> Result<f64, ExecError> {
    let pixels: usize = backbone.image_shape().iter().product();
    let count = |(images, labels): (&[f32], &[u16])| -> Result<usize, ExecError> {
        let mut executor = BurnExecutor::with_params(flex_device(), params.clone());
        let logits = read(forward(backbone, &mut executor, images, labels.len())?)?;
        Ok(argmax_rows(&logits, backbone.classes()).zip(labels).filter(|&(a, &l)| a == usize::from(l)).count())
    };
    let pieces = pictures.images.par_chunks(PIECE * pixels).zip(pictures.labels.par_chunks(PIECE));
    let right: Vec<usize> = pieces.map(count).collect::<Result<_, _>>()?;
    Ok(right.iter().sum::<usize>() as f64 / pictures.labels.len() as f64)
}
