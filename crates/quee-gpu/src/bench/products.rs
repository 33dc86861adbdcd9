//! Products of matrices.

use std::fmt;

use quee_backbone::ExecError;

use super::{Bench, Bound, Case, Noise, Record};
use crate::device::{Gpu, Memory};
use crate::engine::{columns, pack_codes, pack_floats};
use crate::executor::products::{After, CODE_KERNELS, CodeOperands, FLOAT_KERNELS, FloatOperands, ProductKernel};
use crate::params::{Codes, Floats};

/// `batch` products of `[m, k]` and `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Length of a row of the first operand.
    pub k: usize,
    /// Independent products.
    pub batch: usize,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.batch > 1 {
            write!(f, "{} of ", self.batch)?;
        }
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

impl Product {
    /// One product.
    pub const fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, batch: 1 }
    }

    /// Multiply and add counted as two.
    pub fn operations(self) -> f64 {
        2.0 * (self.batch * self.m * self.n * self.k) as f64
    }
}

/// What is timed, single products first: 64 pictures of 65 tokens at 192 features, 8 of 197 at 192, 4 of 197 at 768; scores and values of the first.
const SHAPES: [Product; 7] = [
    Product::new(4160, 576, 192),
    Product::new(4160, 384, 192),
    Product::new(4160, 192, 384),
    Product::new(1576, 576, 192),
    Product::new(788, 768, 768),
    Product { m: 65, n: 65, k: 64, batch: 192 },
    Product { m: 65, n: 64, k: 65, batch: 192 },
];

/// Small ones of the same kinds.
const SMALL: [Product; 2] = [Product::new(130, 96, 64), Product { m: 17, n: 17, k: 16, batch: 6 }];

pub(super) fn shapes(small: bool) -> &'static [Product] {
    if small { &SMALL } else { &SHAPES }
}

/// Name of a kernel's variant: its tile and its constants.
fn variant(kernel: &ProductKernel) -> String {
    let [rows, columns] = kernel.tile;
    let constants: String = kernel.constants.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{rows}x{columns}{constants}")
}

impl Bench {
    /// A product of codes by every kernel that can compute it.
    pub(super) fn code_products(&mut self, product: &Product) -> Result<Vec<Case>, ExecError> {
        let gpu = self.executor.gpu().clone();
        let operands = std::sync::Arc::new(Operands::codes(&gpu, product)?);
        let case = |kernel: &'static ProductKernel| {
            let (operands, product) = (operands.clone(), *product);
            let bytes = operands.bytes + 4.0 * (product.batch * product.m * product.n) as f64;
            let record: Record = Box::new(move |executor| {
                let out = executor.memory(4 * product.batch * product.m * product.n)?;
                let [a, a_infos, b, b_infos] = operands.spans(executor);
                let out = executor.whole(out.buffer(), 4 * product.batch * product.m * product.n);
                let given = CodeOperands { a, a_infos, b, b_infos, residual: executor.nothing(), out };
                executor.product_codes_by(kernel, code_params(&product), given, After::Nothing)
            });
            Case {
                kernel: kernel.source.name,
                variant: variant(kernel),
                shape: product.to_string(),
                operations: product.operations(),
                bytes,
                bound: Bound::Codes,
                record,
            }
        };
        Ok(CODE_KERNELS.iter().map(case).collect())
    }

    /// A product of floats by every kernel that can compute it.
    pub(super) fn float_products(&mut self, product: &Product) -> Result<Vec<Case>, ExecError> {
        let gpu = self.executor.gpu().clone();
        let operands = std::sync::Arc::new(Operands::floats(&gpu, product)?);
        let case = |kernel: &'static ProductKernel| {
            let (operands, product) = (operands.clone(), *product);
            let bytes = operands.bytes + 4.0 * (product.batch * product.m * product.n) as f64;
            let record: Record = Box::new(move |executor| {
                let out = executor.memory(4 * product.batch * product.m * product.n)?;
                let [a, b] = operands.spans(executor);
                let out = executor.whole(out.buffer(), 4 * product.batch * product.m * product.n);
                let (bias, residual) = (executor.nothing(), executor.nothing());
                let given = FloatOperands { a, b, bias, residual, out };
                executor.product_floats_by(kernel, float_params(&product), given, After::Nothing)
            });
            Case {
                kernel: kernel.source.name,
                variant: variant(kernel),
                shape: product.to_string(),
                operations: product.operations(),
                bytes,
                bound: Bound::Floats,
                record,
            }
        };
        Ok(FLOAT_KERNELS.iter().map(case).collect())
    }
}

/// Buffers of the operands, in the order of the kernel's bindings.
struct Operands {
    buffers: Vec<(Memory, usize)>,
    bytes: f64,
}

impl Operands {
    fn new(gpu: &Gpu, contents: &[&[u8]]) -> Result<Self, ExecError> {
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

    fn codes(gpu: &Gpu, product: &Product) -> Result<Self, ExecError> {
        let &Product { m, n, k, batch } = product;
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

    fn floats(gpu: &Gpu, product: &Product) -> Result<Self, ExecError> {
        let &Product { m, n, k, batch } = product;
        let mut noise = Noise(2);
        let rows = noise.floats(batch * m * k);
        let columns: Vec<f32> = (0..batch).flat_map(|_| pack_floats(n, k, &noise.floats(n * k))).collect();
        Self::new(gpu, &[bytemuck::cast_slice(&rows), bytemuck::cast_slice(&columns)])
    }

    fn spans<const N: usize>(&self, executor: &crate::GpuExecutor) -> [crate::recorder::Span; N] {
        std::array::from_fn(|at| {
            let (memory, bytes) = &self.buffers[at];
            executor.whole(&memory.buffer, *bytes)
        })
    }
}

fn code_params(product: &Product) -> Codes {
    let &Product { m, n, k, batch } = product;
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

fn float_params(product: &Product) -> Floats {
    let &Product { m, n, k, batch } = product;
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
