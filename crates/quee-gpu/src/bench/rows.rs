//! Kernels that work row by row or value by value, and attention in one dispatch.

use quee_backbone::{Attention, ExecError, Executor, Norm, Param, Value, Window};

use super::{Bound, Case, Noise};
use crate::debug::Before;
use crate::executor::GpuExecutor;
use crate::executor::attention::Sizes as AttentionSizes;
use crate::executor::fused::Fused;
use crate::executor::linear::RowLayout;
use crate::memory::Tensor;
use crate::tiles::{RowOperation, row_kernel};

/// Sizes of a vision transformer and its batch.
#[derive(Clone, Copy)]
struct Sizes {
    samples: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    hidden: usize,
    image: usize,
}

/// 64 pictures of 32×32 pixels in patches of 4×4, 192 features.
const SIZES: Sizes = Sizes { samples: 64, tokens: 65, heads: 3, dim: 192, hidden: 384, image: 32 };
const SMALL: Sizes = Sizes { samples: 3, tokens: 17, heads: 2, dim: 32, hidden: 64, image: 16 };

/// Samples, tokens, heads and features of a head of attention in one dispatch: a small shape, then the model above with few, many and very
/// many samples, and one of 224×224 pixels in patches of 16×16.
const ATTENTION: [[usize; 4]; 5] =
    [[3, 17, 2, 16], [1, 65, 3, 64], [64, 65, 3, 64], [1024, 65, 3, 64], [64, 197, 3, 64]];

const PATCH: usize = 4;

fn param(id: usize, data: Vec<f32>) -> Param {
    Param { id: usize::MAX - id, name: format!("bench.{id}"), shape: vec![data.len()], data: data.into(), frozen: true }
}

/// Floats of a shape, times four bytes.
fn bytes(shape: &[usize]) -> f64 {
    4.0 * shape.iter().product::<usize>() as f64
}

fn text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Every such kernel, at the shapes of one model.
pub(super) fn cases(executor: &mut GpuExecutor, small: bool) -> Result<Vec<Case>, ExecError> {
    let Sizes { samples, tokens, heads, dim, hidden, image } = if small { SMALL } else { SIZES };
    let mut noise = Noise(3);
    let mut input = |shape: &[usize]| {
        let data = noise.floats(shape.iter().product());
        Ok::<_, ExecError>((executor.input(shape, &data)?, shape.to_vec()))
    };
    let stream = input(&[samples, tokens, dim])?;
    let other = input(&[samples, tokens, dim])?.0;
    let wide = input(&[samples, tokens, hidden])?;
    let qkv = input(&[samples, tokens, 3 * dim])?;
    let scores = input(&[samples * heads, tokens, tokens])?;
    let pictures = input(&[samples, 3, image, image])?;
    let norm = Norm {
        site: "bench.norm".into(),
        weight: param(0, noise.floats(dim)),
        bias: param(1, noise.floats(dim)),
        eps: 1e-6,
    };
    let attention = Attention { site: "bench.attention".into(), heads, head_dim: dim / heads, scale: 0.125 };
    let (window, side) = (Window::patch(PATCH), image / PATCH);

    // Bytes written: codes in whole chunks of 16, and 16 bytes about each row.
    let coded = |shape: &[usize]| {
        let rows = shape[0] * shape[1];
        (16 * rows * (shape[2].div_ceil(16) + 1)) as f64
    };
    let mut cases = Vec::new();
    let is_tiled = executor.gpu().is_tiled();
    let kernel = |operation| row_kernel(operation, is_tiled).0.name;
    for (variant, (x, shape)) in [("plain", &stream), ("norm", &stream), ("plain", &wide), ("softmax", &scores)] {
        let (x, layout, norm) = (x.clone(), RowLayout::plain(shape[1], shape[2]), norm.clone());
        let samples = shape[0];
        let record = move |executor: &mut GpuExecutor| {
            let before = match variant {
                "norm" => Before::Norm(&norm),
                "softmax" => Before::Softmax,
                _ => Before::Nothing,
            };
            executor.quantize(x.get::<Tensor>()?, samples, layout, before, "bench.rows", 0).map(drop)
        };
        let moved = bytes(shape) + coded(shape);
        cases.push(case(kernel(RowOperation::Quantize), variant, text(shape), moved, record));
    }
    if is_tiled {
        for &shape in if small { &ATTENTION[..1] } else { &ATTENTION[1..] } {
            cases.extend(fused(executor, &mut noise, shape)?);
        }
    }
    {
        let (x, attention) = (qkv.0.clone(), attention);
        let values = [samples * heads, dim / heads, tokens];
        let record = move |executor: &mut GpuExecutor| {
            let qkv: &Tensor = x.get()?;
            executor.quantize_values(qkv, AttentionSizes::of(qkv, &attention)?, "bench.values").map(drop)
        };
        cases.push(case("values_codes", "main", text(&values), bytes(&values) + coded(&values), record));
    }
    {
        let x = stream.0.clone();
        let record = move |executor: &mut GpuExecutor| executor.layer_norm(&x, &norm).map(drop);
        cases.push(case(kernel(RowOperation::Normalise), "norm", text(&stream.1), 2.0 * bytes(&stream.1), record));
    }
    cases.push(of_one(kernel(RowOperation::Normalise), "softmax", &scores, 2.0 * bytes(&scores.1), Executor::softmax));
    {
        let x = pictures.0.clone();
        let cut = bytes(&[samples, side * side, 3 * PATCH * PATCH]);
        let record = move |executor: &mut GpuExecutor| executor.unfold(&x, &window).map(drop);
        cases.push(case("unfold", "main", text(&pictures.1), bytes(&pictures.1) + cut, record));
    }
    cases.push(of_one("rearrange", "transpose", &stream, 2.0 * bytes(&stream.1), Executor::transpose));
    cases.push(of_one("gelu", "main", &wide, 2.0 * bytes(&wide.1), Executor::gelu));
    {
        let x = stream.0.clone();
        let record = move |executor: &mut GpuExecutor| executor.add(&x, &other).map(drop);
        cases.push(case("add", "main", text(&stream.1), 3.0 * bytes(&stream.1), record));
    }
    let moved = bytes(&stream.1) + bytes(&[samples, dim]);
    cases.push(of_one("mean_tokens", "main", &stream, moved, |executor, x| executor.mean_tokens(x, 1)));
    Ok(cases)
}

/// Attention by every variant of its kernel that has room for a head.
fn fused(executor: &mut GpuExecutor, noise: &mut Noise, shape: [usize; 4]) -> Result<Vec<Case>, ExecError> {
    let [samples, tokens, heads, dim] = shape;
    let qkv = [samples, tokens, 3 * heads * dim];
    let qkv = executor.input(&qkv, &noise.floats(qkv.iter().product()))?;
    let attention = Attention { site: "bench.attention".into(), heads, head_dim: dim, scale: 0.125 };
    let operations = 4.0 * (samples * heads * tokens * tokens * dim) as f64;
    // Queries, keys and values, and what is written.
    let moved = 4.0 * bytes(&[samples, tokens, heads, dim]);
    let limit = executor.gpu().limits().max_compute_workgroup_storage_size;
    let of = |variant: Fused| {
        let (x, attention) = (qkv.clone(), attention.clone());
        let record =
            move |executor: &mut GpuExecutor| executor.fused_by(variant, x.get::<Tensor>()?, &attention).map(drop);
        let name = variant.variant.name;
        Case { operations, ..case("attention_codes", name, text(&shape), moved, record) }
    };
    Ok(Fused::fitting(tokens, dim, limit).map(of).collect())
}

fn of_one(
    kernel: &'static str,
    variant: &str,
    (x, shape): &(Value, Vec<usize>),
    bytes: f64,
    operation: fn(&mut GpuExecutor, &Value) -> Result<Value, ExecError>,
) -> Case {
    let x = x.clone();
    case(kernel, variant, text(shape), bytes, move |executor| operation(executor, &x).map(drop))
}

fn case(
    kernel: &'static str,
    variant: &str,
    shape: String,
    bytes: f64,
    record: impl Fn(&mut GpuExecutor) -> Result<(), ExecError> + 'static,
) -> Case {
    let (variant, record) = (variant.to_owned(), Box::new(record));
    Case { kernel, variant, shape, operations: 0.0, bytes, bound: Bound::Memory, record }
}
