//! Products of matrices.

use std::fmt;
use std::sync::Arc;

use quee_backbone::ExecError;

use super::{Bench, Bound, Case, Noise};
use crate::device::{Gpu, Memory};
use crate::engine::{columns, pack_codes, pack_floats};
use crate::executor::GpuExecutor;
use crate::executor::products::{After, CodeOperands, FloatOperands, record_codes, record_floats};
use crate::params::{Codes, Floats};
use crate::recorder::Span;
use crate::tiles::{Operands, Shape, Tile, candidates};

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.batch > 1 {
            write!(f, "{} of ", self.batch)?;
        }
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

impl Shape {
    /// Operations of the products, multiply and add counted as two.
    pub fn arithmetic(self) -> f64 {
        2.0 * (self.batch * self.m * self.n * self.k) as f64
    }
}

const fn product(m: usize, n: usize, k: usize) -> Shape {
    products(1, m, n, k)
}

const fn products(batch: usize, m: usize, n: usize, k: usize) -> Shape {
    Shape { operands: Operands::Codes, m, n, k, batch }
}

/// What is timed, single products first: 64 pictures of 65 tokens at 192 features, 8 of 197 at 192, 4 of 197 at 768; scores and values of the first.
const SHAPES: [Shape; 7] = [
    product(4160, 576, 192),
    product(4160, 384, 192),
    product(4160, 192, 384),
    product(1576, 576, 192),
    product(788, 768, 768),
    products(192, 65, 65, 64),
    products(192, 65, 64, 65),
];

/// Small ones of the same kinds.
const SMALL: [Shape; 2] = [product(130, 96, 64), products(6, 17, 17, 16)];

/// Products that keep a GPU busy: 1,024 pictures of 65 tokens at 192 features, 64 of 197.
const LARGE: [Shape; 3] = [product(66_560, 576, 192), product(66_560, 192, 384), product(12_608, 192, 768)];

/// More products of codes; none where they would take too long.
pub(super) fn large(none: bool) -> &'static [Shape] {
    if none { &[] } else { &LARGE }
}

/// Products of codes.
pub(super) fn shapes(small: bool) -> &'static [Shape] {
    if small { &SMALL } else { &SHAPES }
}

impl Bench {
    /// A product by every tile that can compute it.
    ///
    /// # Errors
    /// When the device has too little memory for the operands.
    pub fn tiles(&mut self, shape: Shape) -> Result<Vec<Case>, ExecError> {
        let gpu = self.executor.gpu();
        let operands = Arc::new(match shape.operands {
            Operands::Codes => Buffers::codes(gpu, shape)?,
            Operands::Floats => Buffers::floats(gpu, shape)?,
        });
        Ok(candidates(shape, gpu.abilities()).map(|tile| case(&operands, shape, tile)).collect())
    }
}

fn case(operands: &Arc<Buffers>, shape: Shape, tile: &'static Tile) -> Case {
    let out_bytes = 4 * shape.batch * shape.m * shape.n;
    let operands = Arc::clone(operands);
    let bytes = operands.bytes + out_bytes as f64;
    let record = move |executor: &mut GpuExecutor| {
        let out = executor.memory(out_bytes)?;
        let (out, nothing) = (executor.whole(out.buffer(), out_bytes), executor.nothing());
        let after = After::Nothing.constant();
        match shape.operands {
            Operands::Codes => {
                let [a, a_infos, b, b_infos] = operands.spans(executor);
                let given = CodeOperands { a, a_infos, b, b_infos, residual: nothing, out };
                record_codes(executor.recorder_mut(), tile, after, code_params(shape), given)
            }
            Operands::Floats => {
                let [a, b] = operands.spans(executor);
                let given = FloatOperands { a, b, bias: nothing.clone(), residual: nothing, out };
                record_floats(executor.recorder_mut(), tile, after, float_params(shape), given)
            }
        }
    };
    Case {
        kernel: tile.kernel(),
        variant: tile.name.to_owned(),
        shape: shape.to_string(),
        operations: shape.arithmetic(),
        bytes,
        bound: match shape.operands {
            Operands::Codes => Bound::Codes,
            Operands::Floats => Bound::Floats,
        },
        record: Box::new(record),
    }
}

/// Buffers of the operands, in the order of the kernel's bindings.
struct Buffers {
    buffers: Vec<(Memory, usize)>,
    bytes: f64,
}

impl Buffers {
    fn new(gpu: &Arc<Gpu>, contents: &[&[u8]]) -> Result<Self, ExecError> {
        let upload = |content: &&[u8]| {
            if content.len() > gpu.binding() {
                let most = gpu.binding();
                return Err(gpu.refused(&format!("an operand of {} bytes, where a binding has {most}", content.len())));
            }
            Ok((gpu.upload(content)?, content.len()))
        };
        let buffers = contents.iter().map(upload).collect::<Result<Vec<_>, ExecError>>()?;
        let bytes = contents.iter().map(|content| content.len() as f64).sum();
        Ok(Self { buffers, bytes })
    }

    fn codes(gpu: &Arc<Gpu>, shape: Shape) -> Result<Self, ExecError> {
        let Shape { m, n, k, batch, .. } = shape;
        let mut noise = Noise(1);
        let chunks = k.div_ceil(16);
        let mut rows = vec![0i8; batch * m * chunks * 16];
        for row in rows.chunks_exact_mut(chunks * 16) {
            row[..k].copy_from_slice(&noise.codes(k));
        }
        let columns_of_all: Vec<i8> = (0..batch).flat_map(|_| pack_codes(n, k, &noise.codes(n * k))).collect();
        // Scale, zero point, sum of codes, bias. Times do not depend on whether the sum is right.
        let info = [1e-3f32.to_bits(), 3, 1000, 0.5f32.to_bits()];
        let (row_infos, column_infos) = (vec![info; batch * m], vec![info; batch * columns(n)]);
        Self::new(
            gpu,
            &[
                bytemuck::cast_slice(&rows),
                bytemuck::cast_slice(&row_infos),
                bytemuck::cast_slice(&columns_of_all),
                bytemuck::cast_slice(&column_infos),
            ],
        )
    }

    fn floats(gpu: &Arc<Gpu>, shape: Shape) -> Result<Self, ExecError> {
        let Shape { m, n, k, batch, .. } = shape;
        let mut noise = Noise(2);
        let rows = noise.floats(batch * m * k);
        let columns: Vec<f32> = (0..batch).flat_map(|_| pack_floats(n, k, &noise.floats(n * k))).collect();
        Self::new(gpu, &[bytemuck::cast_slice(&rows), bytemuck::cast_slice(&columns)])
    }

    fn spans<const N: usize>(&self, executor: &GpuExecutor) -> [Span; N] {
        std::array::from_fn(|at| {
            let (memory, bytes) = &self.buffers[at];
            executor.whole(&memory.buffer, *bytes)
        })
    }
}

fn code_params(shape: Shape) -> Codes {
    let Shape { m, n, k, batch, .. } = shape;
    let (chunks, width) = (k.div_ceil(16), columns(n));
    Codes {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        chunks: chunks as u32,
        width: width as u32,
        batch: batch as u32,
        heads: 1,
        factor: 1.0,
        a_matrix: (m * chunks) as u32,
        a_info_matrix: m as u32,
        b_matrix: (width * chunks) as u32,
        b_info_matrix: width as u32,
        out_sample: (m * n) as u32,
        out_row: n as u32,
        ..Codes::default()
    }
}

fn float_params(shape: Shape) -> Floats {
    let Shape { m, n, k, batch, .. } = shape;
    Floats {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        width: columns(n) as u32,
        batch: batch as u32,
        heads: 1,
        factor: 1.0,
        a_sample: (m * k) as u32,
        a_row: k as u32,
        b_matrix: (k.div_ceil(4) * columns(n)) as u32,
        out_sample: (m * n) as u32,
        out_row: n as u32,
        ..Floats::default()
    }
}
