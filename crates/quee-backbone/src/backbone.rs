//! The program of a backbone.

use crate::executor::{ExecError, Executor, Value};
use crate::params::{Linear, Param};

/// Name, shape and row-major values of a tensor.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// What every backbone has; made by [`Weights::core`](crate::weights::Weights::core).
#[derive(Clone, Debug)]
pub struct Core {
    /// Preset name, or a description of the architecture.
    pub name: String,
    /// Channels, height and width of a picture.
    pub image_shape: [usize; 3],
    /// Every learned tensor, at the position of its [`Param::id`].
    pub params: Vec<Param>,
    /// The classifier after the last block.
    pub head: Linear,
}

impl Core {
    /// The parameters with `values` in their place, one tensor each.
    ///
    /// # Panics
    /// When there are not as many values as parameters.
    pub fn export(&self, values: &[Vec<f32>]) -> Vec<NamedTensor> {
        assert_eq!(values.len(), self.params.len(), "values of every parameter");
        let named = |(param, data): (&Param, &Vec<f32>)| (param.name.clone(), param.shape.clone(), data.clone());
        self.params.iter().zip(values).map(named).collect()
    }
}

/// A pretrained, frozen classifier, as a program over the operations of [`Executor`].
///
/// The program runs in this order: [`stem`](Self::stem) once, [`block`](Self::block) 0, 1, …; at any point
/// [`features`](Self::features) gives what an exit sees, and after the last block [`head`](Self::head) turns those features
/// into the backbone's own logits. The caller sets the executor's width before each step.
pub trait Backbone: Send + Sync {
    /// What every backbone has.
    fn core(&self) -> &Core;

    /// Number of blocks L.
    fn depth(&self) -> usize;

    /// Pictures `[B, C, H, W]` to what enters block 0, `[B, T, D]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn stem(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError>;

    /// Block `index` on `[B, T, D]`.
    ///
    /// # Errors
    /// What the executor reports.
    ///
    /// # Panics
    /// When `index` is not below [`depth`](Self::depth).
    fn block(&self, index: usize, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError>;

    /// The last block, computed only for the tokens that [`features`](Self::features) reads: what `features` makes of it is the same,
    /// bit for bit, as after [`block`](Self::block). By default everything is computed.
    ///
    /// # Errors
    /// What the executor reports.
    fn last_block(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError> {
        self.block(self.depth() - 1, executor, tokens)
    }

    /// What an exit sees: final normalisation and pooling, `[B, T, D] → [B, feature_dim]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError>;

    /// Name, shape and values of every tensor as published checkpoints have them, where the parameters hold `values`, by id.
    ///
    /// A backbone whose parameters are not the checkpoint's tensors one by one undoes here what it did when they were taken.
    ///
    /// # Panics
    /// When there are not as many values as parameters.
    fn export(&self, values: &[Vec<f32>]) -> Vec<NamedTensor> {
        self.core().export(values)
    }

    /// Preset name, or a description of the architecture.
    fn name(&self) -> &str {
        &self.core().name
    }

    /// Channels, height and width of a picture.
    fn image_shape(&self) -> [usize; 3] {
        self.core().image_shape
    }

    /// Number of features of an exit's input.
    fn feature_dim(&self) -> usize {
        self.head().inputs
    }

    /// Number of classes.
    fn classes(&self) -> usize {
        self.head().outputs
    }

    /// Every learned tensor, at the position of its [`Param::id`].
    fn params(&self) -> &[Param] {
        &self.core().params
    }

    /// The classifier after the last block, `[B, feature_dim] → [B, classes]`.
    fn head(&self) -> &Linear {
        &self.core().head
    }

    /// Stem and all blocks at the executor's present width: pictures to tokens `[B, T, D]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn body(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let mut tokens = self.stem(executor, images)?;
        for index in 0..self.depth() {
            tokens = self.block(index, executor, &tokens)?;
        }
        Ok(tokens)
    }

    /// The whole backbone at the executor's present width: pictures to logits `[B, classes]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn forward(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let tokens = self.body(executor, images)?;
        let features = self.features(executor, &tokens)?;
        executor.linear(&features, self.head())
    }

    /// The same logits as [`forward`](Self::forward), without what nothing depends on: see [`last_block`](Self::last_block).
    /// Costs are counted on `forward`.
    ///
    /// # Errors
    /// What the executor reports.
    fn logits(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let mut tokens = self.stem(executor, images)?;
        let depth = self.depth();
        for index in 0..depth {
            tokens = match index + 1 == depth {
                true => self.last_block(executor, &tokens)?,
                false => self.block(index, executor, &tokens)?,
            };
        }
        let features = self.features(executor, &tokens)?;
        executor.linear(&features, self.head())
    }
}
