//! Where an architecture's `build` gets its tensors from.

use std::sync::Arc;

use crate::architecture::{Init, TensorSpec};
use crate::backbone::Core;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::params::{Linear, Norm, Param};
use crate::positions;

/// Hands tensors out by name and numbers the parameters made of them.
///
/// Behind it is a checkpoint, or nothing: then tensors have shapes but no values.
pub struct Weights<'a> {
    name: String,
    source: Source<'a>,
    resample: bool,
    params: Vec<Param>,
    specs: Vec<TensorSpec>,
}

enum Source<'a> {
    /// Tensors are taken out of it.
    Checkpoint(&'a mut Checkpoint),
    /// Its names and shapes are looked at; there are no values.
    Names(&'a Checkpoint),
    /// No values, and so many classes.
    Nothing { classes: usize },
}

impl<'a> Weights<'a> {
    pub(crate) fn from_checkpoint(name: &str, checkpoint: &'a mut Checkpoint, resample: bool) -> Self {
        let (params, specs) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), source: Source::Checkpoint(checkpoint), resample, params, specs }
    }

    pub(crate) fn shapes_only(name: &str, classes: usize) -> Self {
        Self::without_values(name, Source::Nothing { classes })
    }

    /// No values, but the form of the architecture and the number of classes that `checkpoint` has.
    pub(crate) fn shaped_as(name: &str, checkpoint: &'a Checkpoint) -> Self {
        Self::without_values(name, Source::Names(checkpoint))
    }

    fn without_values(name: &str, source: Source<'a>) -> Self {
        Self { name: name.to_owned(), source, resample: false, params: Vec::new(), specs: Vec::new() }
    }

    /// Shape of a tensor of the checkpoint, if there is one.
    fn stored(&self, name: &str) -> Option<&[usize]> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.shape(name),
            Source::Names(checkpoint) => checkpoint.shape(name),
            Source::Nothing { .. } => None,
        }
    }

    pub(crate) fn into_specs(self) -> Vec<TensorSpec> {
        self.specs
    }

    /// Whether there is a checkpoint that holds `name`: for parts that exist in some checkpoints of an architecture only.
    pub fn has(&self, name: &str) -> bool {
        self.stored(name).is_some()
    }

    /// A parameter that is one tensor of the checkpoint.
    ///
    /// # Errors
    /// When the tensor is missing, misshapen, or holds NaN or infinity.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Param, CheckpointError> {
        let data = self.take(name, shape, init, false)?;
        Ok(self.register(name, shape, data, false))
    }

    /// A parameter that training leaves alone.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn frozen(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Param, CheckpointError> {
        let data = self.take(name, shape, init, false)?;
        Ok(self.register(name, shape, data, true))
    }

    /// The values of a tensor that becomes a part of a parameter; see [`register`](Self::register). Empty without a
    /// checkpoint. `head` says whether it belongs to the classifier.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn take(&mut self, name: &str, shape: &[usize], init: Init, head: bool) -> Result<Arc<[f32]>, CheckpointError> {
        self.specs.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec(), init, head });
        match &mut self.source {
            Source::Checkpoint(checkpoint) => checkpoint.take(name, shape),
            Source::Names(_) | Source::Nothing { .. } => Ok(Arc::new([])),
        }
    }

    /// Numbers a parameter; its values come from [`take`](Self::take).
    pub fn register(&mut self, name: &str, shape: &[usize], data: Arc<[f32]>, frozen: bool) -> Param {
        let param = Param { id: self.params.len(), name: name.to_owned(), shape: shape.to_vec(), data, frozen };
        self.params.push(param.clone());
        param
    }

    /// A linear layer `site.weight` `[outputs, inputs]` and, if it has one, `site.bias`.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn linear(&mut self, site: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear, CheckpointError> {
        self.linear_of(site, &[outputs, inputs], bias)
    }

    /// A convolution of square patches as a linear layer: `site.weight` `[outputs, channels, patch, patch]` and `site.bias`.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn patch_embed(
        &mut self,
        site: &str,
        channels: usize,
        patch: usize,
        outputs: usize,
    ) -> Result<Linear, CheckpointError> {
        self.linear_of(site, &[outputs, channels, patch, patch], true)
    }

    fn linear_of(&mut self, site: &str, shape: &[usize], bias: bool) -> Result<Linear, CheckpointError> {
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let weight = self.param(&format!("{site}.weight"), shape, Init::Normal)?;
        let bias = if bias { Some(self.param(&format!("{site}.bias"), &[outputs], Init::Zeros)?) } else { None };
        Ok(Linear { site: site.to_owned(), inputs, outputs, weight, bias })
    }

    /// A layer normalisation `site.weight`, `site.bias`, both `[dim]`.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn norm(&mut self, site: &str, dim: usize, eps: f32) -> Result<Norm, CheckpointError> {
        let weight = self.param(&format!("{site}.weight"), &[dim], Init::Ones)?;
        let bias = self.param(&format!("{site}.bias"), &[dim], Init::Zeros)?;
        Ok(Norm { site: site.to_owned(), weight, bias, eps })
    }

    /// Learned positions `[1, prefix + side², dim]`: `prefix` tokens, then a square of patches.
    ///
    /// # Errors
    /// As [`param`](Self::param); another number of patches is an error unless resampling was asked for.
    pub fn positions(&mut self, name: &str, prefix: usize, side: usize, dim: usize) -> Result<Param, CheckpointError> {
        let shape = [1, prefix + side * side, dim];
        let stored = self.stored(name).map(<[usize]>::to_vec);
        let Some((stored, old)) =
            stored.and_then(|stored| Some((stored.clone(), resampled_side(&stored, prefix, dim)?)))
        else {
            return self.param(name, &shape, Init::Normal);
        };
        if !self.resample || old == side {
            return self.param(name, &shape, Init::Normal);
        }
        let data = self.take(name, &stored, Init::Normal, false)?;
        let data = positions::resample(&data, prefix, old, side, dim);
        Ok(self.register(name, &shape, data.into(), false))
    }

    /// Fixed sines and cosines as positions `[1, tokens, dim]`. A checkpoint's are taken as they are, but computed anew for
    /// another number of tokens where resampling was asked for.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn sinusoid(&mut self, name: &str, tokens: usize, dim: usize) -> Result<Param, CheckpointError> {
        let shape = [1, tokens, dim];
        let stored = self.stored(name).map(<[usize]>::to_vec);
        match stored {
            Some(stored) if self.resample && stored != shape && stored.len() == 3 && stored[2] == dim => {
                self.take(name, &stored, Init::Sinusoid, false)?;
                Ok(self.register(name, &shape, positions::sinusoid(tokens, dim).into(), true))
            }
            _ => self.frozen(name, &shape, Init::Sinusoid),
        }
    }

    /// Number of classes: the rows of the classifier's weight `name` in the checkpoint.
    pub fn classes(&self, name: &str) -> usize {
        match self.source {
            Source::Nothing { classes } => classes,
            _ => self.stored(name).and_then(|shape| shape.first()).copied().unwrap_or(1),
        }
    }

    /// The classifier `site`, with as many outputs as the checkpoint has classes.
    ///
    /// # Errors
    /// As [`param`](Self::param).
    pub fn classifier(&mut self, site: &str, inputs: usize) -> Result<Linear, CheckpointError> {
        let (weight, bias) = (format!("{site}.weight"), format!("{site}.bias"));
        let outputs = self.classes(&weight);
        let data = self.take(&weight, &[outputs, inputs], Init::Normal, true)?;
        let weight = self.register(&weight, &[outputs, inputs], data, false);
        let data = self.take(&bias, &[outputs], Init::Zeros, true)?;
        let bias = Some(self.register(&bias, &[outputs], data, false));
        Ok(Linear { site: site.to_owned(), inputs, outputs, weight, bias })
    }

    /// What every backbone has, to be called when all tensors are taken.
    pub fn core(&mut self, image_shape: [usize; 3], head: Linear) -> Core {
        Core { name: self.name.clone(), image_shape, params: std::mem::take(&mut self.params), head }
    }
}

/// Side of the square of patches in a stored position embedding, if it is one with `prefix` tokens and `dim` features.
fn resampled_side(shape: &[usize], prefix: usize, dim: usize) -> Option<usize> {
    match *shape {
        [1, tokens, features] if features == dim && tokens > prefix => {
            let side = (tokens - prefix).isqrt();
            (side * side == tokens - prefix).then_some(side)
        }
        _ => None,
    }
}
