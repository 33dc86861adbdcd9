//! Kernels run alone: what tests and benchmarks need to see, and the executor does not show.

use std::sync::Arc;

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError, Value};

use crate::device::Gpu;
use crate::engine::{columns, pack_codes};
use crate::executor::GpuExecutor;
use crate::executor::attention::Sizes;
use crate::executor::fused::Fused;
pub use crate::executor::linear::Before;
use crate::executor::linear::RowLayout;
use crate::executor::products::{CodeOperands, record_codes};
use crate::memory::{Block, Tensor};
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
    assert!(operands == Operands::Codes && crate::tiles::all(operands).contains(tile), "{}", tile.name);
    assert!(tile.can(shape, gpu.abilities()), "{} for {shape:?}", tile.name);
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

/// Codes of rows or columns, with what belongs to each.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Codes, `[rows, length]`.
    pub codes: Vec<i8>,
    /// Scales, `[rows]`.
    pub scales: Vec<f32>,
    /// Zero points, `[rows]`.
    pub zeros: Vec<i32>,
    /// Sums of the codes, `[rows]`.
    pub sums: Vec<i32>,
}

/// Quantizes the rows of `x`, `[B, T, D]`, as the input of a linear layer at `site`: the numbers of plane `p`.
///
/// # Errors
/// When values are not finite, a range is missing, or the device fails.
pub fn quantized_rows(
    executor: &mut GpuExecutor,
    x: &Value,
    before: Before<'_>,
    site: &str,
    p: usize,
) -> Result<Quantized, ExecError> {
    let x: &Tensor = x.get()?;
    let [samples, tokens, d] = crate::executor::three(site, x)?;
    let coded = executor.quantize(x, samples, RowLayout::plain(tokens, d), before, site, p)?;
    let (rows, chunks) = (samples * tokens, d.div_ceil(16));
    let codes = read_bytes(executor, &coded.codes, 16 * rows * chunks)?;
    let infos = read_bytes(executor, &coded.infos, 16 * rows)?;
    let codes = codes.chunks_exact(16 * chunks.max(1)).flat_map(|row| row[..d].iter().map(|&code| code as i8));
    Ok(quantized(codes.collect(), infos.chunks_exact(16)))
}

/// Quantizes the values of an attention: a row for each feature of a head of a sample, `[B·H·d, T]`.
///
/// # Errors
/// As [`quantized_rows`], and on a shape mismatch.
pub fn quantized_values(
    executor: &mut GpuExecutor,
    qkv: &Value,
    attention: &Attention,
) -> Result<Quantized, ExecError> {
    let qkv: &Tensor = qkv.get()?;
    let sizes = Sizes::of(qkv, attention)?;
    let coded = executor.quantize_values(qkv, sizes, &attention.operand_site(AttentionOperand::Value))?;
    let (matrices, chunks, width) = (sizes.samples * sizes.heads, sizes.tokens.div_ceil(16), columns(sizes.dim));
    let packed = read_bytes(executor, &coded.codes, 16 * matrices * chunks * width)?;
    let infos = read_bytes(executor, &coded.infos, 16 * matrices * width)?;
    let places = (0..matrices).flat_map(|matrix| (0..sizes.dim).map(move |feature| (matrix, feature)));
    let code = |matrix: usize, feature: usize, token: usize| {
        packed[((matrix * chunks + token / 16) * width + feature) * 16 + token % 16] as i8
    };
    let codes = places.clone().flat_map(|(matrix, feature)| (0..sizes.tokens).map(move |t| code(matrix, feature, t)));
    let infos = places.map(|(matrix, feature)| &infos[16 * (matrix * width + feature)..][..16]);
    Ok(quantized(codes.collect(), infos))
}

fn read_bytes(executor: &mut GpuExecutor, block: &Block, bytes: usize) -> Result<Vec<u8>, ExecError> {
    let words = executor.recorder_mut().read(block.buffer(), bytes / 4)?;
    Ok(bytemuck::cast_slice(&words).to_vec())
}

/// `infos` holds scale, zero point and sum of each row.
fn quantized<'a>(codes: Vec<i8>, infos: impl Iterator<Item = &'a [u8]>) -> Quantized {
    let mut all = Quantized { codes, scales: Vec::new(), zeros: Vec::new(), sums: Vec::new() };
    for info in infos {
        let [scale, zero, sum, _] = bytemuck::pod_read_unaligned::<[u32; 4]>(info);
        all.scales.push(f32::from_bits(scale));
        all.zeros.push(zero as i32);
        all.sums.push(sum as i32);
    }
    all
}

/// The codes of a row and zeros behind them.
fn padded(row: &[i8], length: usize) -> impl Iterator<Item = i8> {
    row.iter().copied().chain(std::iter::repeat_n(0, length - row.len()))
}

/// Attention in one dispatch at integer widths, `[B, T, H·d]`, by every variant of its kernel that has room for a head on the device, with the
/// variant's name.
///
/// # Errors
/// On a shape mismatch, when a range is missing, or the device fails.
pub fn fused_attentions(
    executor: &mut GpuExecutor,
    qkv: &Value,
    attention: &Attention,
) -> Result<Vec<(&'static str, Value)>, ExecError> {
    let qkv: &Tensor = qkv.get()?;
    let Sizes { tokens, dim, .. } = Sizes::of(qkv, attention)?;
    let limit = executor.gpu().limits().max_compute_workgroup_storage_size;
    let mut all = Vec::new();
    for fused in Fused::fitting(tokens, dim, limit) {
        all.extend(executor.fused_by(fused, qkv, attention)?.map(|out| (fused.variant.name, Value::new(out))));
    }
    Ok(all)
}

/// Whether attention over heads of `tokens` tokens and `dim` features is one dispatch on a device for which such kernels are made.
pub fn fuses_attention(gpu: &Gpu, tokens: usize, dim: usize) -> bool {
    Fused::choose(tokens, dim, gpu.limits().max_compute_workgroup_storage_size).is_some()
}
