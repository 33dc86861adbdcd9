//! Parts of operations on their own, for measuring: each call records one dispatch.

use std::sync::Arc;

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError, Norm, Value};

use super::GpuExecutor;
use super::attention::Sizes;
use super::linear::{Before, RowLayout};
use crate::clock::Clock;
use crate::kernels::Source;
use crate::memory::{Block, Tensor};
use crate::recorder::Span;

/// What stands before the quantization of rows.
#[derive(Clone, Debug)]
pub(crate) enum RowsBefore {
    Nothing,
    Norm(Norm),
    Softmax,
}

impl GpuExecutor {
    /// Quantizes the rows of `[B, T, D]`.
    pub(crate) fn single_rows_codes(&mut self, x: &Value, before: &RowsBefore, site: &str) -> Result<(), ExecError> {
        let x: &Tensor = x.get()?;
        let [samples, tokens, d] = super::three(site, x)?;
        let before = match before {
            RowsBefore::Nothing => Before::Nothing,
            RowsBefore::Norm(norm) => Before::Norm(norm),
            RowsBefore::Softmax => Before::Softmax,
        };
        self.quantize(x, samples, RowLayout::plain(tokens, d), before, site).map(drop)
    }

    /// Quantizes the values inside `[B, T, 3·H·d]`.
    pub(crate) fn single_values_codes(&mut self, qkv: &Value, attention: &Attention) -> Result<(), ExecError> {
        let qkv: &Tensor = qkv.get()?;
        let site = attention.operand_site(AttentionOperand::Value);
        self.quantize_values(qkv, Sizes::of(qkv, attention)?, &site).map(drop)
    }

    /// Records a kernel as it is.
    pub(crate) fn single<P: bytemuck::Pod>(
        &mut self,
        source: &'static Source,
        params: &P,
        operands: &[Span],
        size: [usize; 3],
    ) -> Result<(), ExecError> {
        self.recorder_mut().dispatch(source, &[], params, operands, size)
    }

    /// Workgroups for `count` invocations of the elementwise kernels.
    pub(crate) fn elements(&self, count: usize) -> [usize; 3] {
        self.grid(count, super::ELEMENTS)
    }

    /// The first `bytes` bytes of a buffer.
    pub(crate) fn whole(&self, buffer: &wgpu::Buffer, bytes: usize) -> Span {
        self.recorder().span(buffer, 0, bytes)
    }

    /// Stands in for an operand that is not used.
    pub(crate) fn nothing(&self) -> Span {
        self.recorder().nothing()
    }

    /// Memory of the pool.
    pub(crate) fn memory(&self, bytes: usize) -> Result<Arc<Block>, ExecError> {
        self.block(bytes)
    }

    /// Runs everything recorded; the seconds that it took.
    pub(crate) fn time(&mut self, clock: &Clock) -> Result<f64, ExecError> {
        self.recorder_mut().time(clock)
    }

    /// The first `count` floats of a buffer.
    #[cfg(test)]
    pub(crate) fn read_buffer(&mut self, buffer: &wgpu::Buffer, count: usize) -> Result<Vec<f32>, ExecError> {
        self.recorder_mut().read(buffer, count)
    }
}
