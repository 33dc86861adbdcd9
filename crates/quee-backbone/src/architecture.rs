//! What a family of backbones provides, and how backbones are made of it.

use std::fmt::Debug;
use std::sync::Arc;

use crate::backbone::Backbone;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::weights::Weights;

/// An architecture with its dimensions.
///
/// The number of classes is no part of it: a checkpoint's classifier says how many there are.
pub trait Architecture: Debug + Send + Sync {
    /// Channels, height and width of a picture.
    fn image_shape(&self) -> [usize; 3];

    /// The same architecture with what `variant` asks for.
    ///
    /// # Errors
    /// Why that is not possible, as half a sentence.
    fn varied(&self, variant: &Variant) -> Result<Arc<dyn Architecture>, String>;

    /// Takes the tensors out of `weights`, one after the other, and makes the program.
    ///
    /// These calls are the only list of the architecture's tensors: loading, random initialisation and inspection all run
    /// them.
    ///
    /// # Errors
    /// When a tensor is missing, misshapen, or holds NaN or infinity.
    fn build(&self, weights: &mut Weights) -> Result<Box<dyn Backbone>, CheckpointError>;
}

/// How the tokens of the last block become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The class token, or whatever tokens the architecture has for that purpose.
    ClassToken,
    /// The mean of the patch tokens.
    Mean,
}

/// How a backbone may differ from its preset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Side of a square picture in pixels; the preset's if `None`. Learned position embeddings for another size are resampled.
    pub image: Option<usize>,
    /// Pooling; the preset's if `None`.
    pub pool: Option<Pool>,
}

/// What a tensor holds before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A normal distribution of deviation 0.02, cut at two deviations.
    Normal,
    /// Ones.
    Ones,
    /// Zeros.
    Zeros,
    /// Random orthogonal rows of length √rows.
    OrthogonalRows,
    /// Sines and cosines, see [`sinusoid`](crate::positions::sinusoid).
    Sinusoid,
}

/// A tensor of an architecture, as checkpoints name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in checkpoints.
    pub name: String,
    /// Shape in checkpoints.
    pub shape: Vec<usize>,
    /// What it holds before training.
    pub init: Init,
    /// Whether it belongs to the classifier, whose shape depends on the number of classes.
    pub head: bool,
}

/// Makes a backbone of `architecture` from a checkpoint; `name` is how it calls itself.
///
/// With `resample`, learned position embeddings of another number of patches are resampled instead of refused.
///
/// # Errors
/// When a tensor is missing, left over, misshapen, or holds NaN or infinity.
pub fn load(
    architecture: &dyn Architecture,
    name: &str,
    mut checkpoint: Checkpoint,
    resample: bool,
) -> Result<Box<dyn Backbone>, CheckpointError> {
    let mut weights = Weights::from_checkpoint(name, &mut checkpoint, resample);
    let backbone = architecture.build(&mut weights)?;
    checkpoint.finish()?;
    Ok(backbone)
}

/// A backbone whose parameters have shapes but no values, for executors that only look at shapes.
pub fn skeleton(architecture: &dyn Architecture, name: &str, classes: usize) -> Box<dyn Backbone> {
    build_shapes(architecture, name, classes).0
}

/// Every tensor that a checkpoint of `architecture` with `classes` classes holds, in program order.
pub fn tensors(architecture: &dyn Architecture, classes: usize) -> Vec<TensorSpec> {
    build_shapes(architecture, "", classes).1
}

/// The backbone without values and its tensors, in the form and with the number of classes that `checkpoint` has.
pub(crate) fn shaped_as(
    architecture: &dyn Architecture,
    name: &str,
    checkpoint: &Checkpoint,
) -> (Box<dyn Backbone>, Vec<TensorSpec>) {
    without_values(architecture, Weights::shaped_as(name, checkpoint))
}

fn build_shapes(architecture: &dyn Architecture, name: &str, classes: usize) -> (Box<dyn Backbone>, Vec<TensorSpec>) {
    without_values(architecture, Weights::shapes_only(name, classes))
}

fn without_values(architecture: &dyn Architecture, mut weights: Weights) -> (Box<dyn Backbone>, Vec<TensorSpec>) {
    let backbone = architecture.build(&mut weights).expect("without values, nothing can be wrong with them");
    (backbone, weights.into_specs())
}
