//! Products of matrices: which kernel, how many workgroups.

use quee_backbone::ExecError;

use super::GpuExecutor;
use crate::kernels::{self, Source};
use crate::params::{Codes, Floats};
use crate::recorder::Span;

/// What happens to the outputs of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    Gelu,
    Add,
}

impl After {
    fn constant(self) -> (&'static str, f64) {
        ("AFTER", f64::from(self as u8))
    }
}

/// A kernel for products, with how much of the result a workgroup computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProductKernel {
    pub source: &'static Source,
    /// Override constants besides `AFTER`.
    pub constants: &'static [(&'static str, f64)],
    /// Rows and columns of a workgroup.
    pub tile: [usize; 2],
}

/// Rows and columns that a workgroup of the direct kernels computes.
const DIRECT: [usize; 2] = [8, 64];

/// Kernels for products of codes. All give the same bits.
pub(crate) const CODE_KERNELS: &[ProductKernel] =
    &[ProductKernel { source: &kernels::MATMUL_CODES, constants: &[], tile: DIRECT }];

/// Kernels for products of floats. All sum in the same order.
pub(crate) const FLOAT_KERNELS: &[ProductKernel] =
    &[ProductKernel { source: &kernels::MATMUL_FLOAT, constants: &[], tile: DIRECT }];

impl ProductKernel {
    fn with(&self, after: After) -> Vec<(&'static str, f64)> {
        std::iter::once(after.constant()).chain(self.constants.iter().copied()).collect()
    }
}

/// Operands of a product of codes.
pub(crate) struct CodeOperands {
    pub a: Span,
    pub a_infos: Span,
    pub b: Span,
    pub b_infos: Span,
    pub residual: Span,
    pub out: Span,
}

/// Operands of a product of floats.
pub(crate) struct FloatOperands {
    pub a: Span,
    pub b: Span,
    pub bias: Span,
    pub residual: Span,
    pub out: Span,
}

impl GpuExecutor {
    /// Most rows of one product: one axis of the dispatch.
    pub(super) fn most_rows(&self) -> usize {
        self.recorder().workgroups() * DIRECT[0]
    }

    /// Most independent products of one dispatch.
    pub(super) fn most_products(&self) -> usize {
        self.recorder().workgroups()
    }

    /// `params.batch` products of codes.
    pub(super) fn product_codes(
        &mut self,
        params: Codes,
        operands: CodeOperands,
        after: After,
    ) -> Result<(), ExecError> {
        self.product_codes_by(&CODE_KERNELS[0], params, operands, after)
    }

    /// Products of codes by a kernel of the caller's choice.
    pub(crate) fn product_codes_by(
        &mut self,
        kernel: &ProductKernel,
        params: Codes,
        operands: CodeOperands,
        after: After,
    ) -> Result<(), ExecError> {
        let CodeOperands { a, a_infos, b, b_infos, residual, out } = operands;
        let params = Codes {
            a_at: params.a_at + a.at4(),
            a_info_at: params.a_info_at + a_infos.at4(),
            b_at: params.b_at + b.at4(),
            b_info_at: params.b_info_at + b_infos.at4(),
            residual_at: params.residual_at + residual.at(),
            out_at: params.out_at + out.at(),
            ..params
        };
        let size = grid(&kernel.tile, params.m, params.n, params.batch);
        let operands = [a, a_infos, b, b_infos, residual, out];
        self.recorder_mut().dispatch(kernel.source, &kernel.with(after), &params, &operands, size)
    }

    /// `params.batch` products of floats.
    pub(super) fn product_floats(
        &mut self,
        params: Floats,
        operands: FloatOperands,
        after: After,
    ) -> Result<(), ExecError> {
        self.product_floats_by(&FLOAT_KERNELS[0], params, operands, after)
    }

    /// Products of floats by a kernel of the caller's choice.
    pub(crate) fn product_floats_by(
        &mut self,
        kernel: &ProductKernel,
        params: Floats,
        operands: FloatOperands,
        after: After,
    ) -> Result<(), ExecError> {
        let FloatOperands { a, b, bias, residual, out } = operands;
        let params = Floats {
            a_at: params.a_at + a.at(),
            b_at: params.b_at + b.at4(),
            bias_at: params.bias_at + bias.at(),
            residual_at: params.residual_at + residual.at(),
            out_at: params.out_at + out.at(),
            ..params
        };
        let size = grid(&kernel.tile, params.m, params.n, params.batch);
        let operands = [a, b, bias, residual, out];
        self.recorder_mut().dispatch(kernel.source, &kernel.with(after), &params, &operands, size)
    }
}

fn grid([rows, columns]: &[usize; 2], m: u32, n: u32, batch: u32) -> [usize; 3] {
    [(n as usize).div_ceil(*columns), (m as usize).div_ceil(*rows), batch as usize]
}
