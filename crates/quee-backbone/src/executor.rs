//! The operations a backbone program is made of, and the opaque values they pass around.

use std::any::Any;
use std::sync::Arc;

use quee_quant::Width;

use crate::encoder::EncoderBlock;
use crate::params::{Attention, Linear, Norm, Param, Performer, Window};

/// A tensor that belongs to the executor which made it.
///
/// Cloning is cheap (the tensor is shared), so that the activations behind a gate can feed every continuation.
/// Memory is released when the last clone is dropped.
#[derive(Clone)]
pub struct Value(Arc<dyn Any + Send + Sync>);

impl Value {
    /// Wraps an executor's own tensor type.
    pub fn new<T: Any + Send + Sync>(tensor: T) -> Self {
        Self(Arc::new(tensor))
    }

    /// Wraps a tensor that its executor keeps a hand on, to use its memory again once nobody else does.
    pub fn shared<T: Any + Send + Sync>(tensor: Arc<T>) -> Self {
        Self(tensor)
    }

    /// Whether both are the same tensor, not only equal ones.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The tensor inside.
    ///
    /// # Errors
    /// When the value was made by another executor.
    pub fn get<T: Any>(&self) -> Result<&T, ExecError> {
        self.0.downcast_ref().ok_or(ExecError::ForeignValue)
    }
}

/// Why an operation could not be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExecError {
    /// Operands whose shapes do not fit together.
    #[error("{op}: expected {expected}, got {got:?}")]
    Shape {
        /// Operation or site.
        op: String,
        /// What fits.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A value that another executor made.
    #[error("a tensor of another executor was used")]
    ForeignValue,
    /// NaN or infinity where numbers are quantized.
    #[error(
        "{site}: NaN or infinity in the activations; hint: check the checkpoint and the normalisation of the pictures"
    )]
    NotFinite {
        /// Operation whose input is not finite.
        site: String,
    },
    /// A static quantizer without a calibrated range.
    #[error("{site}: no calibrated range for {bits}-bit activations; hint: calibrate at this width before running")]
    NotCalibrated {
        /// Operation that lacks a range.
        site: String,
        /// Bits asked for.
        bits: u8,
    },
    /// The device is gone; another one may be opened.
    #[error("{device} was lost: {reason}")]
    DeviceLost {
        /// Name of the device.
        device: String,
        /// What the driver says.
        reason: String,
    },
    /// The device has too little memory; a smaller batch may fit.
    #[error("{device} is out of memory: {reason}; hint: a smaller paths.batch, or --backend cpu")]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// What was asked for.
        reason: String,
    },
    /// The device or library underneath failed.
    #[error("{0}")]
    Device(String),
}

/// Gives a meaning to the operations of a backbone program.
///
/// Shapes: B samples, C channels, T tokens, D features, H heads. Tensors are row-major.
///
/// Integer executors quantize what enters [`linear`](Self::linear), [`attention_scores`](Self::attention_scores) and
/// [`attention_values`](Self::attention_values) at the width of the last [`set_width`](Self::set_width); every other
/// operation is in 32-bit floats. The fused forms are default methods made of the small ones; an executor may override them for
/// speed, never for another meaning.
pub trait Executor {
    /// Short name for reports: `cpu`, `burn`, `cost`.
    fn name(&self) -> String;

    /// Sets the width at which quantizable operations run from now on. A new executor starts at [`Width::FLOAT`].
    ///
    /// # Errors
    /// When the executor cannot run at this width.
    fn set_width(&mut self, width: Width) -> Result<(), ExecError>;

    /// Sets the widths of a batch whose samples part ways: each group is so many consecutive samples at one integer width, and the last
    /// one reaches to the end of the batch. As [`set_width`](Self::set_width), for all operations from now on; every sample gets the result that
    /// it would get alone.
    ///
    /// # Errors
    /// When the executor runs whole batches at one width only.
    fn set_groups(&mut self, groups: &[(usize, Width)]) -> Result<(), ExecError> {
        match groups {
            [(_, first), rest @ ..] if rest.iter().all(|(_, width)| width == first) => self.set_width(*first),
            [] => Ok(()),
            _ => Err(ExecError::Device(format!("{} runs a batch at one width only", self.name()))),
        }
    }

    /// Finishes everything that was asked for. Executors that work at once need not do anything.
    ///
    /// # Errors
    /// When the device fails.
    fn wait(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    /// Brings data in. `data.len()` must be the product of `shape`.
    ///
    /// # Errors
    /// When it is not, or the device refuses.
    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError>;

    /// Copies a tensor out, row-major. Executors that only count return zeros.
    ///
    /// # Errors
    /// When the device fails or the value is foreign.
    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError>;

    /// The shape of a tensor.
    ///
    /// # Errors
    /// When the value is foreign.
    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError>;

    /// Keeps the samples at `indices` (first axis), in that order.
    ///
    /// # Errors
    /// When an index is out of range or the device fails.
    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError>;

    /// Cuts square windows out of pictures: `[B, C, H, W] → [B, T, C·k·k]`, windows in reading order, inside a window channel by
    /// channel in reading order (the layout of a convolution's weight).
    ///
    /// # Errors
    /// When no window fits, or the device fails.
    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError>;

    /// Gives every sample another shape (the axes after B) without moving a value.
    ///
    /// # Errors
    /// When a sample has another number of values, or the device fails.
    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError>;

    /// Swaps tokens and features: `[B, M, N] → [B, N, M]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError>;

    /// The features from `start` on, `length` of them: `[B, T, D] → [B, T, length]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError>;

    /// `[.., in] → [.., out]`: `x · Wᵀ + b`.
    ///
    /// # Errors
    /// On a shape mismatch, values that are not finite, a missing range, or a failing device.
    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError>;

    /// Layer normalisation over the last axis.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError>;

    /// The Gaussian error linear unit with the error function (not its tanh approximation).
    ///
    /// # Errors
    /// When the device fails.
    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError>;

    /// Elementwise sum of two tensors of one shape.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError>;

    /// Puts learned tokens `[1, P, D]` before the tokens of every sample: `[B, T, D] → [B, P + T, D]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError>;

    /// Adds a position embedding `[1, T, D]` to every sample.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError>;

    /// `softmax` input of attention: `[B, T, 3·H·d] → [B, H, T, T]`, queries times keys times the scale.
    /// The last axis holds query, key and value, each head by head.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError>;

    /// Softmax over the last axis.
    ///
    /// # Errors
    /// When the device fails.
    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError>;

    /// Probabilities `[B, H, T, T]` times the values inside `qkv`: `[B, T, H·d]`.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError>;

    /// Performer attention, always in 32-bit floats: keys, queries and values `[B, T, 3·E]`, in this order, to `[B, T, E]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError>;

    /// The first `count` tokens of every sample, side by side: `[B, T, D] → [B, count·D]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError>;

    /// The mean over the tokens from `skip` on: `[B, T, D] → [B, D]`.
    ///
    /// # Errors
    /// On a shape mismatch or a failing device.
    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError>;

    /// Layer normalisation, then a linear layer.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let normed = self.layer_norm(x, norm)?;
        self.linear(&normed, linear)
    }

    /// Layer normalisation, a linear layer, then GELU.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn norm_linear_gelu(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let hidden = self.norm_linear(x, norm, linear)?;
        self.gelu(&hidden)
    }

    /// A linear layer added to a residual stream.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn linear_add(&mut self, x: &Value, linear: &Linear, residual: &Value) -> Result<Value, ExecError> {
        let update = self.linear(x, linear)?;
        self.add(residual, &update)
    }

    /// Multi-head self-attention after the projection to queries, keys and values: `[B, T, 3·H·d] → [B, T, H·d]`.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn attention(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let scores = self.attention_scores(qkv, attention)?;
        let probabilities = self.softmax(&scores)?;
        self.attention_values(&probabilities, qkv, attention)
    }

    /// A transformer encoder block: attention and MLP, each with normalisation before and a residual around.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn encoder_block(&mut self, tokens: &Value, block: &EncoderBlock) -> Result<Value, ExecError> {
        block.run_by_operation(self, tokens)
    }

    /// The first `count` tokens of what an encoder block makes of each sample: `[B, T, D] → [B, count, D]`.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn encoder_block_first(&mut self, tokens: &Value, block: &EncoderBlock, count: usize) -> Result<Value, ExecError> {
        let all = self.encoder_block(tokens, block)?;
        block.keep_first(self, &all, count)
    }
}
