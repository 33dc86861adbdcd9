//! Training of a whole backbone, from random weights or from those of another task.
//!
//! - [`train`]: the loop; [`TrainConfig`]: its settings
//! - [`Part`]: where pictures come from
//! - [`Observer`]: who is told what happens, and may save or stop
//! - [`TrainState`]: where it stands, on disk

mod mixup;
mod piece;
mod settings;
mod state;
mod update;

use quee_backbone::{Backbone, NamedTensor};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::piece::{Batch, right_answers};
pub use self::settings::{Rule, TrainConfig};
pub use self::state::{StateError, TrainState};
use self::update::{Parameters, clip, download, upload};
use crate::TrainError;
use crate::data::{expect_labels, rng_for, shuffled};
use crate::device::TrainDevice;
use crate::optimizer::{learning_rate, soft_labels};

/// Pictures that are held at a time while answers are counted.
const COUNTED_AT_A_TIME: usize = 1024;

/// Any error.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Picture `[C, H, W]` at a position of a part, as the network is to see it: augmented with the random numbers given, where that
/// is wanted, and normalised. Called on several threads.
pub type Picture<'a> = &'a (dyn Fn(usize, &mut ChaCha8Rng) -> Result<Vec<f32>, AnyError> + Sync);

/// Labelled pictures, fetched when they are needed.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// Classes `[n]`.
    pub labels: &'a [u16],
    /// Pictures by position in `labels`.
    pub picture: Picture<'a>,
}

/// What an epoch has brought.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Epoch that just ended, from 1.
    pub epoch: usize,
    /// Mean loss over the training pictures, as they were seen during the epoch.
    pub loss: f64,
    /// Share of training pictures that were answered right when they were seen, augmented; of a blend, the class with the
    /// larger share is the right one.
    pub train_accuracy: f64,
    /// Share of validation pictures answered right after the epoch; none without such pictures.
    pub validation_accuracy: Option<f64>,
}

/// Place of a step in a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Epoch under way, from 1.
    pub epoch: usize,
    /// Steps of it that are done.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Pictures of the step just done.
    pub pictures: usize,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Go,
    /// Save the state and go on.
    Save,
    /// Save the state and end with [`TrainError::Stopped`].
    Stop,
}

/// Watches a training.
pub trait Observer {
    /// After every step.
    fn step(&mut self, progress: &Progress) -> Next;

    /// After every epoch.
    fn epoch(&mut self, report: &EpochReport) -> Next;

    /// Stores the state where a later run finds it.
    ///
    /// # Errors
    /// When it cannot be stored, which ends the training.
    fn save(&mut self, state: &TrainState) -> Result<(), AnyError>;
}

/// What a training has led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Name, shape and values of every parameter after the chosen epoch.
    pub tensors: Vec<NamedTensor>,
    /// The chosen epoch, from 1: that of the best accuracy on validation pictures, the first of equal ones; the last epoch
    /// without such pictures.
    pub epoch: usize,
    /// All epochs.
    pub history: Vec<EpochReport>,
}

/// Trains the parameters of `backbone`, starting from its present ones or in the middle, at `start`.
///
/// Parameters are chosen on the `validation` part; without one, those of the last epoch are returned. A training that is
/// saved, ended and started again gives the same bits as one that runs through.
///
/// # Errors
/// On data or settings that do not fit, a picture that cannot be had, a loss that is not finite, a failing device, or when
/// the observer stops it or cannot save.
///
/// # Panics
/// When a picture is of another length than the backbone takes.
pub fn train(
    backbone: &dyn Backbone,
    training: Part<'_>,
    validation: Option<Part<'_>>,
    config: &TrainConfig,
    device: &TrainDevice,
    start: Option<TrainState>,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    config.check()?;
    check_part("training pictures", backbone, &training)?;
    validation.iter().try_for_each(|part| check_part("validation pictures", backbone, part))?;
    let n = training.labels.len();
    let steps = n.div_ceil(config.batch);
    let (warmup, all_steps) = (config.warmup_epochs.min(config.epochs) * steps, config.epochs * steps);

    let mut state = start.unwrap_or_else(|| TrainState::at_start(backbone));
    let moments = (!state.moments.is_empty())
        .then(|| state.moments.iter().map(|moment| upload(moment, device.device())).collect());
    let mut parameters = Parameters::new(backbone, config, upload(&state.params, device.device()), moments);
    let trained = parameters.trained();

    while state.history.len() < config.epochs {
        let epoch = state.history.len();
        let order = shuffled(n, &mut rng_for(config.seed, &[0, epoch as u64]));
        for (step, indices) in order.chunks(config.batch).enumerate().skip(state.step) {
            let [images, targets] = seen(backbone, training, indices, config, [epoch, step])?;
            let values = &parameters.values;
            let done =
                Batch { backbone, device, values, trained: &trained, images: &images, targets: &targets }.run()?;
            state.loss += done.loss;
            state.right += done.right;
            if !state.loss.is_finite() {
                return Err(TrainError::Diverged { epoch: epoch + 1 });
            }
            let updates = epoch * steps + step;
            let rate = learning_rate(config.learning_rate, updates, warmup, all_steps);
            parameters.step(rate, updates, clip(done.gradients, config.clip_norm)?);
            state.step = step + 1;
            let progress = Progress { epoch: epoch + 1, step: step + 1, steps, pictures: indices.len() };
            obey(observer.step(&progress), observer, &mut state, &parameters)?;
        }
        let accuracy = |part| share_right(backbone, part, device, &parameters.values);
        let report = EpochReport {
            epoch: epoch + 1,
            loss: state.loss / n as f64,
            train_accuracy: state.right as f64 / n as f64,
            validation_accuracy: validation.map(accuracy).transpose()?,
        };
        state.history.push(report);
        (state.step, state.loss, state.right) = (0, 0.0, 0);
        if state.chosen_epoch() == Some(epoch + 1) {
            state.best = Some(download(&parameters.values)?);
        }
        obey(observer.epoch(&report), observer, &mut state, &parameters)?;
    }
    let epoch = state.chosen_epoch().unwrap_or(config.epochs);
    let values = match state.best {
        Some(best) => best,
        None => download(&parameters.values)?,
    };
    Ok(Trained { tensors: backbone.export(&values), epoch, history: state.history })
}

/// Share of `part` that `backbone` answers right.
///
/// # Errors
/// On labels that do not fit, a picture that cannot be had, or a failing device.
///
/// # Panics
/// When a picture is of another length than the backbone takes.
pub fn accuracy(backbone: &dyn Backbone, part: Part<'_>, device: &TrainDevice) -> Result<f64, TrainError> {
    check_part("pictures", backbone, &part)?;
    let values: Vec<&[f32]> = backbone.params().iter().map(|p| &*p.data).collect();
    share_right(backbone, part, device, &upload(&values, device.device()))
}

fn share_right(
    backbone: &dyn Backbone,
    part: Part<'_>,
    device: &TrainDevice,
    values: &[burn::tensor::Tensor<1>],
) -> Result<f64, TrainError> {
    let places: Vec<usize> = (0..part.labels.len()).collect();
    let mut right = 0;
    for places in places.chunks(COUNTED_AT_A_TIME) {
        let images = fetch(backbone, part, places, &|place| rng_for(0, &[place as u64]))?;
        right += right_answers(backbone, device, values, &images, &part.labels[places[0]..=places[places.len() - 1]])?;
    }
    Ok(right as f64 / part.labels.len() as f64)
}

/// Pictures and target probabilities of a batch, a row per sample, as the network sees them at step `step` of epoch `epoch`.
fn seen(
    backbone: &dyn Backbone,
    part: Part<'_>,
    indices: &[usize],
    config: &TrainConfig,
    [epoch, step]: [usize; 2],
) -> Result<[Vec<Vec<f32>>; 2], TrainError> {
    let images = fetch(backbone, part, indices, &|i| rng_for(config.seed, &[1, epoch as u64, i as u64]))?;
    let classes = backbone.classes();
    let targets = soft_labels(indices.iter().map(|&i| part.labels[i]), classes, config.label_smoothing);
    let targets: Vec<Vec<f32>> = targets.chunks_exact(classes).map(<[f32]>::to_vec).collect();
    let share = mixup::share(config.mixup, &mut rng_for(config.seed, &[2, epoch as u64, step as u64]));
    if share == 1.0 {
        return Ok([images, targets]);
    }
    Ok([mixup::blend(&images, share), mixup::blend(&targets, share)])
}

fn fetch(
    backbone: &dyn Backbone,
    part: Part<'_>,
    places: &[usize],
    rng: &(dyn Fn(usize) -> ChaCha8Rng + Sync),
) -> Result<Vec<Vec<f32>>, TrainError> {
    let pixels: usize = backbone.image_shape().iter().product();
    let picture = |&place: &usize| {
        let picture = (part.picture)(place, &mut rng(place)).map_err(|source| TrainError::Picture { place, source })?;
        assert_eq!(picture.len(), pixels, "values of a picture");
        match picture.iter().position(|v| !v.is_finite()) {
            None => Ok(picture),
            Some(index) => Err(TrainError::Value {
                what: "a picture",
                index,
                value: picture[index],
                hint: "every value must be a finite number",
            }),
        }
    };
    places.par_iter().map(picture).collect()
}

fn check_part(what: &'static str, backbone: &dyn Backbone, part: &Part<'_>) -> Result<(), TrainError> {
    if part.labels.is_empty() {
        return Err(TrainError::Empty { what });
    }
    expect_labels(part.labels, backbone.classes())
}

/// Does what the observer wants.
fn obey(
    next: Next,
    observer: &mut dyn Observer,
    state: &mut TrainState,
    parameters: &Parameters,
) -> Result<(), TrainError> {
    if next == Next::Go {
        return Ok(());
    }
    state.params = download(&parameters.values)?;
    state.moments = parameters.moments.iter().map(|moment| download(moment)).collect::<Result<_, _>>()?;
    observer.save(state).map_err(|source| TrainError::Save { source })?;
    if next == Next::Stop { Err(TrainError::Stopped { epoch: state.history.len() }) } else { Ok(()) }
}
