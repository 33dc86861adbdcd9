//! Kernels run alone: what tests and benchmarks need to see, and the executor does not show.

use std::sync::Arc;

use quee_backbone::ExecError;

use crate::device::Gpu;
use crate::engine::{columns, pack_codes};
use crate::executor::products::{CodeOperands, record_codes};
use crate::params::Codes;
use crate::recorder::{Counters, Recorder};
use crate::tiles::{Operands, Shape, Tile};

/// The integer sums of a product of codes, `[batch, m, n]`, before scales and zero points: `Σ_k a[b, i, k] · b[b, j, k]`.
///
/// `a` is `[batch, m, k]` and `b` is `[batch, n, k]`. The sums are exact: they are the kernel's 32-bit integers.
///
/// # Errors
/// When an operand does not fit a binding, or the device fails.
///
/// # Panics
/// When the lengths do not match the shape, or the shape or the tile is one of floats.
pub fn code_sums(gpu: &Arc<Gpu>, shape: Shape, a: &[i8], b: &[i8], tile: &Tile) -> Result<Vec<i32>, ExecError> {
    let Shape { operands, m, n, k, batch } = shape;
    assert!(operands == Operands::Codes && crate::tiles::candidates(operands).contains(tile), "{}", tile.name);
    assert_eq!((a.len(), b.len()), (batch * m * k, batch * n * k), "operands of {shape:?}");
    if batch * m * n == 0 || k == 0 {
        return Ok(vec![0; batch * m * n]);
    }
    let (chunks, width) = (k.div_ceil(16), columns(n));
    let rows: Vec<i8> = a.chunks_exact(k).flat_map(|row| padded(row, 16 * chunks)).collect();
    let packed: Vec<i8> = b.chunks_exact(n * k).flat_map(|matrix| pack_codes(n, k, matrix)).collect();
    let mut recorder = Recorder::new(Arc::clone(gpu), Arc::new(Counters::default()))?;
    let (a, b) = (gpu.upload(bytemuck::cast_slice(&rows))?, gpu.upload(bytemuck::cast_slice(&packed))?);
    let out = recorder.pool.take(4 * (batch * m * n) as u64, false)?;
    let bytes = [16 * m * chunks, 16 * width * chunks, 4 * m * n];
    let runs = recorder.runs("code_sums", batch, &bytes, recorder.workgroups())?;
    for run in runs {
        let part = |buffer: &wgpu::Buffer, bytes: usize| recorder.span(buffer, run.start * bytes, run.len() * bytes);
        let operands = CodeOperands {
            a: part(&a.buffer, bytes[0]),
            a_infos: recorder.nothing(),
            b: part(&b.buffer, bytes[1]),
            b_infos: recorder.nothing(),
            residual: recorder.nothing(),
            out: part(out.buffer(), bytes[2]),
        };
        let params = Codes {
            m: m as u32,
            n: n as u32,
            k: k as u32,
            chunks: chunks as u32,
            width: width as u32,
            batch: run.len() as u32,
            heads: 1,
            a_matrix: (m * chunks) as u32,
            b_matrix: (width * chunks) as u32,
            out_sample: (m * n) as u32,
            out_row: n as u32,
            ..Codes::default()
        };
        record_codes(&mut recorder, tile, ("RAW", 1.0), params, operands)?;
    }
    let sums = recorder.read(out.buffer(), batch * m * n)?;
    Ok(sums.into_iter().map(|bits| bits.to_bits() as i32).collect())
}

/// The codes of a row and zeros behind them.
fn padded(row: &[i8], length: usize) -> impl Iterator<Item = i8> {
    row.iter().copied().chain(std::iter::repeat_n(0, length - row.len()))
}
