//! Why a training run could not be carried out.

use quee_backbone::ExecError;

use crate::training::AnyError;

/// What is wrong with the data, the settings or the run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// An array whose length does not fit.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The array.
        what: &'static str,
        /// Values it should hold.
        expected: usize,
        /// Values it holds.
        found: usize,
    },
    /// Nothing to train on.
    #[error("{what}: there is nothing to work on")]
    Empty {
        /// The array.
        what: &'static str,
    },
    /// A class that does not exist.
    #[error("label {label} at position {index}, but there are only {classes} classes")]
    Label {
        /// Position in the array.
        index: usize,
        /// The label.
        label: u16,
        /// Number of classes.
        classes: usize,
    },
    /// A value that is NaN, infinite or outside its range.
    #[error("{what}: value {value} at position {index} is not possible; hint: {hint}")]
    Value {
        /// The array.
        what: &'static str,
        /// Position in the array.
        index: usize,
        /// The value.
        value: f32,
        /// What would be possible.
        hint: &'static str,
    },
    /// A setting outside its range.
    #[error("{what} = {value} is not possible: {hint}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What would be possible.
        hint: &'static str,
    },
    /// The loss became NaN or infinite.
    #[error("the loss is not finite in epoch {epoch}; hint: lower the learning rate")]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
    },
    /// The caller asked to stop.
    #[error("stopped on request after epoch {epoch}")]
    Stopped {
        /// Last finished epoch, from 1; 0 in the first.
        epoch: usize,
    },
    /// A picture that cannot be had.
    #[error("picture {place} of the part: {source}")]
    Picture {
        /// Position in the part.
        place: usize,
        /// Why.
        source: AnyError,
    },
    /// The state cannot be stored.
    #[error("the state of the training cannot be saved: {source}")]
    Save {
        /// Why.
        source: AnyError,
    },
    /// No adapter to train on.
    #[error("no GPU to train on: {reason}; hint: install a driver, or train on the processor with `--device cpu`")]
    Gpu {
        /// What the graphics interface says.
        reason: String,
    },
    /// Built for the processor alone.
    #[error(
        "this program was built without training on the GPU; hint: build it with the feature `train-gpu`: \
         `cargo build --release --package quee --features train-gpu`"
    )]
    NoGpu,
    /// The executor failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl TrainError {
    /// A failure of the tensor library.
    pub(crate) fn device(error: impl std::fmt::Display) -> Self {
        Self::Exec(ExecError::Device(error.to_string()))
    }
}
