//! The trait that an architecture implements.

use crate::executor::{ExecError, Executor, Value};
use crate::params::{Linear, Param};

/// A pretrained, frozen classifier, as a program over the operations of [`Executor`].
///
/// The program runs in this order: [`stem`](Self::stem) once, [`block`](Self::block) 0, 1, …; at any point
/// [`features`](Self::features) gives what an exit sees, and after the last block [`head`](Self::head) turns those features
/// into the backbone's own logits. The caller sets the executor's width before each step.
pub trait Backbone: Send + Sync {
    /// Preset name, or a description of the architecture.
    fn name(&self) -> &str;

    /// Channels, height and width of a picture.
    fn image_shape(&self) -> [usize; 3];

    /// Number of blocks L.
    fn depth(&self) -> usize;

    /// Number of features of an exit's input.
    fn feature_dim(&self) -> usize;

    /// Number of classes.
    fn classes(&self) -> usize;

    /// Every learned tensor, at the position of its [`Param::id`].
    fn params(&self) -> Vec<&Param>;

    /// The classifier after the last block, `[B, feature_dim] → [B, classes]`.
    fn head(&self) -> &Linear;

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

    /// What an exit sees: final normalisation and pooling, `[B, T, D] → [B, feature_dim]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn features(&self, executor: &mut dyn Executor, tokens: &Value) -> Result<Value, ExecError>;

    /// The whole backbone at the executor's present width: pictures to logits `[B, classes]`.
    ///
    /// # Errors
    /// What the executor reports.
    fn forward(&self, executor: &mut dyn Executor, images: &Value) -> Result<Value, ExecError> {
        let mut tokens = self.stem(executor, images)?;
        for index in 0..self.depth() {
            tokens = self.block(index, executor, &tokens)?;
        }
        let features = self.features(executor, &tokens)?;
        executor.linear(&features, self.head())
    }
}
