//! What measuring needs of an executor: kernels without an operation around them, and the time that a recording takes.

use std::sync::Arc;

use quee_backbone::ExecError;

use super::GpuExecutor;
use crate::clock::Clock;
use crate::kernels::Source;
use crate::memory::Block;
use crate::recorder::Span;

impl GpuExecutor {
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
