//! Products of matrices: cut into dispatches, each run by the kernel that the table of tiles names.

use std::ops::Range;

use quee_backbone::ExecError;

use super::GpuExecutor;
use crate::params::{Codes, Floats};
use crate::recorder::{Recorder, Span};
use crate::tiles::{Operands, Shape, Tile};

/// What happens to the outputs of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    Gelu,
    Add,
}

impl After {
    pub fn constant(self) -> (&'static str, f64) {
        ("AFTER", f64::from(self as u8))
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
        let shape = shape(Operands::Codes, [params.m, params.n, params.k, params.batch]);
        let tile = self.gpu().tile(shape);
        record_codes(self.recorder_mut(), tile, after.constant(), params, operands)
    }

    /// `params.batch` products of floats.
    pub(super) fn product_floats(
        &mut self,
        params: Floats,
        operands: FloatOperands,
        after: After,
    ) -> Result<(), ExecError> {
        let shape = shape(Operands::Floats, [params.m, params.n, params.k, params.batch]);
        let tile = self.gpu().tile(shape);
        record_floats(self.recorder_mut(), tile, after.constant(), params, operands)
    }
}

fn shape(operands: Operands, sizes: [u32; 4]) -> Shape {
    let [m, n, k, batch] = sizes.map(|size| size as usize);
    Shape { operands, m, n, k, batch }
}

/// Records the dispatches of `params.batch` products of codes; `constant` is `AFTER` or `RAW`.
pub(crate) fn record_codes(
    recorder: &mut Recorder,
    tile: &Tile,
    constant: (&'static str, f64),
    params: Codes,
    operands: CodeOperands,
) -> Result<(), ExecError> {
    let constants: Vec<_> = tile.constants.iter().copied().chain([constant]).collect();
    let CodeOperands { a, a_infos, b, b_infos, residual, out } = operands;
    let starts = [&a, &a_infos, &b, &b_infos].map(Span::at4);
    let (residual_at, out_at) = (residual.at(), out.at());
    let operands = [a, a_infos, b, b_infos, residual, out];
    for part in parts(tile, params.m, params.n, recorder.workgroups()) {
        let (i, j) = (part.rows.start, part.columns.start);
        let params = Codes {
            m: part.rows.len() as u32,
            n: part.columns.len() as u32,
            a_at: params.a_at + starts[0] + i * params.chunks,
            a_info_at: params.a_info_at + starts[1] + i,
            b_at: params.b_at + starts[2] + j,
            b_info_at: params.b_info_at + starts[3] + j,
            residual_at: params.residual_at + residual_at + i * params.out_row + j,
            out_at: params.out_at + out_at + i * params.out_row + j,
            ..params
        };
        recorder.dispatch(tile.source, &constants, &params, &operands, part.grid(tile, params.batch))?;
    }
    Ok(())
}

/// Records the dispatches of `params.batch` products of floats.
pub(crate) fn record_floats(
    recorder: &mut Recorder,
    tile: &Tile,
    constant: (&'static str, f64),
    params: Floats,
    operands: FloatOperands,
) -> Result<(), ExecError> {
    let strides = [params.a_at + operands.a.at(), params.a_sample, params.a_head, params.a_row];
    // Only the kernel without shared memory loads rows as they are.
    let aligned = tile.is_direct() && strides.iter().all(|stride| stride % 4 == 0);
    let constants = tile.constants.iter().copied().chain([constant]).chain(aligned.then_some(("ALIGNED", 1.0)));
    let constants: Vec<_> = constants.collect();
    let FloatOperands { a, b, bias, residual, out } = operands;
    let (a_at, b_at) = (a.at(), b.at4());
    let (bias_at, residual_at, out_at) = (bias.at(), residual.at(), out.at());
    let operands = [a.clone(), b, bias, residual, out, a];
    for part in parts(tile, params.m, params.n, recorder.workgroups()) {
        let (i, j) = (part.rows.start, part.columns.start);
        let params = Floats {
            m: part.rows.len() as u32,
            n: part.columns.len() as u32,
            a_at: params.a_at + a_at + i * params.a_row,
            b_at: params.b_at + b_at + j,
            bias_at: params.bias_at + bias_at + j,
            residual_at: params.residual_at + residual_at + i * params.out_row + j,
            out_at: params.out_at + out_at + i * params.out_row + j,
            ..params
        };
        recorder.dispatch(tile.source, &constants, &params, &operands, part.grid(tile, params.batch))?;
    }
    Ok(())
}

/// Rows and columns of one dispatch.
struct Part {
    rows: Range<u32>,
    columns: Range<u32>,
}

impl Part {
    fn grid(&self, tile: &Tile, batch: u32) -> [usize; 3] {
        [self.columns.len().div_ceil(tile.columns), self.rows.len().div_ceil(tile.rows), batch as usize]
    }
}

/// Cuts a product into parts with at most `workgroups` workgroups along an axis.
fn parts(tile: &Tile, m: u32, n: u32, workgroups: usize) -> impl Iterator<Item = Part> {
    let ranges = move |end: u32, each: usize| {
        let step = u32::try_from(workgroups * each).unwrap_or(u32::MAX);
        (0..end).step_by(step as usize).map(move |first| first..end.min(first.saturating_add(step)))
    };
    let (rows, columns) = (tile.rows, tile.columns);
    ranges(m, rows).flat_map(move |rows| ranges(n, columns).map(move |columns| Part { rows: rows.clone(), columns }))
}
