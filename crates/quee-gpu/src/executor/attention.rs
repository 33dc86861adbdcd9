//! Attention: every head of every sample is a product of its own.

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError};

use super::linear::{Before, Coded, RowLayout};
use super::products::{After, CodeOperands, FloatOperands};
use super::{ELEMENTS, GpuExecutor, mismatch};
use crate::engine::columns;
use crate::heads::Strides;
use crate::kernels;
use crate::memory::{Block, Tensor};
use crate::params::{Codes, Floats, PackFloat, ValuesCodes};
use std::sync::Arc;

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub samples: usize,
    pub tokens: usize,
    pub heads: usize,
    pub dim: usize,
}

impl Sizes {
    pub fn of(qkv: &Tensor, attention: &Attention) -> Result<Self, ExecError> {
        let (heads, dim) = (attention.heads, attention.head_dim);
        match *qkv.shape {
            [samples, tokens, f] if f == 3 * heads * dim => Ok(Self { samples, tokens, heads, dim }),
            _ => Err(mismatch(&attention.site, &format!("[B, T, {}]", 3 * heads * dim), &qkv.shape)),
        }
    }

    /// Features of queries, keys and values together.
    fn stride(self) -> usize {
        3 * self.heads * self.dim
    }

    /// Values between two samples, heads and tokens of `qkv`.
    pub fn strides(self) -> [usize; 3] {
        [self.tokens * self.stride(), self.dim, self.stride()]
    }

    /// Where a third (0 query, 1 key, 2 value) of the first token begins.
    pub fn third(self, third: usize) -> usize {
        third * self.heads * self.dim
    }

    /// The rows of a third.
    fn layout(self, third: usize) -> RowLayout {
        RowLayout {
            tokens: self.tokens,
            heads: self.heads,
            d: self.dim,
            start: self.third(third),
            strides: self.strides(),
            columns: third == 1,
        }
    }
}

/// The product of each head, `[m, k] · [k, n] · factor`, and the strides of its output: values between two samples, heads, rows.
#[derive(Clone, Copy)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    factor: f32,
    out: [usize; 3],
}

/// Rows of floats: values between two samples, heads, rows.
#[derive(Clone, Copy)]
struct Strided<'a> {
    buffer: &'a wgpu::Buffer,
    strides: [usize; 3],
}

impl GpuExecutor {
    /// Scores `[B, H, T, T]`.
    pub(super) fn run_scores(&mut self, qkv: &Tensor, attention: &Attention) -> Result<Tensor, ExecError> {
        let sizes = Sizes::of(qkv, attention)?;
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        let out = self.tensor(&[samples, heads, t, t])?;
        let product = Product { m: t, n: t, k: dim, factor: attention.scale, out: [heads * t * t, t * t, t] };
        if self.is_float() {
            let keys = self.pack_third(qkv, sizes, 1)?;
            let a = Strided { buffer: qkv.data.buffer(), strides: sizes.strides() };
            self.float_heads(sizes, &attention.site, product, a, &keys, &out)?;
            return Ok(out);
        }
        let site = |operand| attention.operand_site(operand);
        let mut uniform = |operand, third| {
            self.expect_uniform(&site(operand))?;
            self.quantize(qkv, samples, sizes.layout(third), Before::Nothing, &site(operand), 0)
        };
        let queries = uniform(AttentionOperand::Query, 0)?;
        let keys = uniform(AttentionOperand::Key, 1)?;
        self.code_heads(sizes, &attention.site, product, &queries, &keys, None, &out)?;
        Ok(out)
    }

    /// Probabilities `[B, H, T, T]` times values. With `scores`, the softmax is still to be taken (at integer widths only).
    pub(super) fn run_values(
        &mut self,
        probabilities: &Tensor,
        scores: bool,
        qkv: &Tensor,
        attention: &Attention,
    ) -> Result<Tensor, ExecError> {
        let sizes = Sizes::of(qkv, attention)?;
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        if probabilities.shape != [samples, heads, t, t] {
            let expected = format!("probabilities of shape {:?}", [samples, heads, t, t]);
            return Err(mismatch(&attention.site, &expected, &probabilities.shape));
        }
        let shape = [samples, t, heads * dim];
        let product = Product { m: t, n: dim, k: t, factor: 1.0, out: [t * heads * dim, dim, heads * dim] };
        let strides = [heads * t * t, t * t, t];
        if self.is_float() {
            let out = self.tensor(&shape)?;
            let values = self.pack_third(qkv, sizes, 2)?;
            let a = Strided { buffer: probabilities.data.buffer(), strides };
            self.float_heads(sizes, &attention.site, product, a, &values, &out)?;
            return Ok(out);
        }
        let rows = RowLayout { heads, strides, ..RowLayout::plain(t, t) };
        let before = if scores { Before::Softmax } else { Before::Nothing };
        let site = attention.operand_site(AttentionOperand::Probabilities);
        let value_site = attention.operand_site(AttentionOperand::Value);
        self.expect_uniform(&value_site)?;
        let values = self.quantize_values(qkv, sizes, &value_site)?;
        let mut out = None;
        for p in 0..self.planes(&site)? {
            let rows = self.quantize(probabilities, samples, rows, before, &site, p)?;
            let sum = self.tensor(&shape)?;
            self.code_heads(sizes, &attention.site, product, &rows, &values, out.as_ref(), &sum)?;
            out = Some(sum);
        }
        Ok(out.expect("one plane at least"))
    }

    /// A product of codes for each head, added to `before` where there is one.
    #[allow(clippy::too_many_arguments)]
    fn code_heads(
        &mut self,
        sizes: Sizes,
        site: &str,
        product: Product,
        a: &Coded,
        b: &Coded,
        before: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), ExecError> {
        self.recorder_mut().at(site);
        let Product { m, n, k, factor, out: [out_sample, out_head, out_row] } = product;
        let (chunks, width) = (k.div_ceil(16), columns(n));
        let head = [16 * m * chunks, 16 * m, 16 * width * chunks, 16 * width];
        let out_strides = Strides { sample: out_sample, head: out_head };
        let count = [sizes.samples, sizes.heads];
        let recorder = self.recorder();
        for run in recorder.head_runs(site, count, &head, &[out_strides], self.most_products())? {
            let (out, out_at) = run.part(self.recorder(), out.data.buffer(), out_strides);
            let residual = before.map(|x| run.part(self.recorder(), x.data.buffer(), out_strides));
            let params = Codes {
                m: m as u32,
                n: n as u32,
                k: k as u32,
                chunks: chunks as u32,
                width: width as u32,
                batch: run.heads.len() as u32,
                heads: sizes.heads as u32,
                factor,
                a_matrix: (m * chunks) as u32,
                a_info_matrix: m as u32,
                b_matrix: (width * chunks) as u32,
                b_info_matrix: width as u32,
                out_at,
                out_sample: out_sample as u32,
                out_head: out_head as u32,
                out_row: out_row as u32,
                residual_at: residual.as_ref().map_or(0, |(_, at)| *at),
                ..Codes::default()
            };
            let recorder = self.recorder();
            let part = |block: &Block, bytes: usize| recorder.part(block.buffer(), &run.heads, bytes);
            let operands = CodeOperands {
                a: part(&a.codes, head[0]),
                a_infos: part(&a.infos, head[1]),
                b: part(&b.codes, head[2]),
                b_infos: part(&b.infos, head[3]),
                residual: residual.map_or_else(|| recorder.nothing(), |(span, _)| span),
                out,
            };
            let after = if before.is_some() { After::Add } else { After::Nothing };
            self.product_codes(params, operands, after)?;
        }
        Ok(())
    }

    /// A product of floats for each head.
    fn float_heads(
        &mut self,
        sizes: Sizes,
        site: &str,
        product: Product,
        a: Strided<'_>,
        b: &Block,
        out: &Tensor,
    ) -> Result<(), ExecError> {
        self.recorder_mut().at(site);
        let Product { m, n, k, factor, out: [out_sample, out_head, out_row] } = product;
        let [a_sample, a_head, a_row] = a.strides;
        let (chunks, width) = (k.div_ceil(4), columns(n));
        let head = 16 * chunks * width;
        let a_strides = Strides { sample: a_sample, head: a_head };
        let out_strides = Strides { sample: out_sample, head: out_head };
        let count = [sizes.samples, sizes.heads];
        let recorder = self.recorder();
        for run in recorder.head_runs(site, count, &[head], &[a_strides, out_strides], self.most_products())? {
            let (a, a_at) = run.part(self.recorder(), a.buffer, a_strides);
            let (out, out_at) = run.part(self.recorder(), out.data.buffer(), out_strides);
            let params = Floats {
                m: m as u32,
                n: n as u32,
                k: k as u32,
                width: width as u32,
                batch: run.heads.len() as u32,
                heads: sizes.heads as u32,
                factor,
                a_at,
                a_sample: a_sample as u32,
                a_head: a_head as u32,
                a_row: a_row as u32,
                b_matrix: (chunks * width) as u32,
                out_at,
                out_sample: out_sample as u32,
                out_head: out_head as u32,
                out_row: out_row as u32,
                ..Floats::default()
            };
            let recorder = self.recorder();
            let operands = FloatOperands {
                a,
                b: recorder.part(b.buffer(), &run.heads, head),
                bias: recorder.nothing(),
                residual: recorder.nothing(),
                out,
            };
            self.product_floats(params, operands, After::Nothing)?;
        }
        Ok(())
    }

    /// Keys or values as the columns of a float product.
    fn pack_third(&mut self, qkv: &Tensor, sizes: Sizes, third: usize) -> Result<Arc<Block>, ExecError> {
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        let (k, n, x_column, x_row) = match third {
            1 => (dim, t, sizes.stride(), 1),
            _ => (t, dim, 1, sizes.stride()),
        };
        let matrix = k.div_ceil(4) * columns(n);
        let packed = self.block(16 * samples * heads * matrix)?;
        let strides = Strides { sample: t * sizes.stride(), head: dim };
        let most = self.most(ELEMENTS) / matrix.max(1);
        let recorder = self.recorder();
        for run in recorder.head_runs("attention", [samples, heads], &[16 * matrix], &[strides], most)? {
            let recorder = self.recorder();
            let (x, first) = run.part(recorder, qkv.data.buffer(), strides);
            let y = recorder.part(packed.buffer(), &run.heads, 16 * matrix);
            let count = run.heads.len() * matrix;
            let params = PackFloat {
                count: count as u32,
                k: k as u32,
                n: n as u32,
                width: columns(n) as u32,
                heads: heads as u32,
                x_at: x.at() + first + sizes.third(third) as u32,
                x_sample: (t * sizes.stride()) as u32,
                x_head: dim as u32,
                x_column: x_column as u32,
                x_row: x_row as u32,
                y_at: y.at4(),
                unused: 0,
            };
            let size = self.grid(count, ELEMENTS);
            self.recorder_mut().dispatch(&kernels::PACK_FLOAT, &[], &params, &[x, y], size)?;
        }
        Ok(packed)
    }

    /// Codes of the values as columns, and what belongs to each column.
    pub(crate) fn quantize_values(&mut self, qkv: &Tensor, sizes: Sizes, site: &str) -> Result<Coded, ExecError> {
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        let (chunks, width) = (t.div_ceil(16), columns(dim));
        let codes = self.block(16 * samples * heads * chunks * width)?;
        let infos = self.block(16 * samples * heads * width)?;
        let (groups, rules) = self.rules(site, 1, 0)?;
        let slot = self.recorder_mut().slot(site);
        self.recorder_mut().at(site);
        let head = [16 * chunks * width, 16 * width];
        let strides = Strides { sample: t * sizes.stride(), head: dim };
        let recorder = self.recorder();
        for run in recorder.head_runs(site, [samples, heads], &head, &[strides], self.most(1))? {
            let recorder = self.recorder();
            let (x, first) = run.part(recorder, qkv.data.buffer(), strides);
            let code_span = recorder.part(codes.buffer(), &run.heads, head[0]);
            let info_span = recorder.part(infos.buffer(), &run.heads, head[1]);
            let flags = recorder.flags();
            let matrices = run.heads.len();
            let params = ValuesCodes {
                matrices: matrices as u32,
                tokens: t as u32,
                d: dim as u32,
                heads: heads as u32,
                x_at: x.at() + first + sizes.third(2) as u32,
                x_sample: (t * sizes.stride()) as u32,
                x_head: dim as u32,
                x_token: sizes.stride() as u32,
                code_at: code_span.at4(),
                width: width as u32,
                info_at: info_span.at4(),
                slot,
                first_sample: run.samples().start as u32,
                groups,
                unused: [0; 2],
                rules,
            };
            let size = self.grid(matrices, 1);
            self.recorder_mut().dispatch(
                &kernels::VALUES_CODES,
                &[],
                &params,
                &[x, code_span, info_span, flags],
                size,
            )?;
        }
        Ok(Coded { codes, infos })
    }
}
