//! Attention: every head of every sample is a product of its own.

use quee_backbone::params::AttentionOperand;
use quee_backbone::{Attention, ExecError};

use super::linear::{Before, RowLayout};
use super::products::{After, CodeOperands, FloatOperands};
use super::{ELEMENTS, GpuExecutor, mismatch};
use crate::engine::columns;
use crate::kernels;
use crate::memory::{Block, Tensor};
use crate::params::{Codes, Floats, PackFloat, ValuesCodes};
use std::sync::Arc;

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    samples: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
}

impl Sizes {
    pub(super) fn of(qkv: &Tensor, attention: &Attention) -> Result<Self, ExecError> {
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
    fn strides(self) -> [usize; 3] {
        [self.tokens * self.stride(), self.dim, self.stride()]
    }

    /// Where a third (0 query, 1 key, 2 value) of the first token begins.
    fn third(self, third: usize) -> usize {
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

impl GpuExecutor {
    /// Scores `[B, H, T, T]`.
    pub(super) fn run_scores(&mut self, qkv: &Tensor, attention: &Attention) -> Result<Tensor, ExecError> {
        let sizes = Sizes::of(qkv, attention)?;
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        let out = self.tensor(&[samples, heads, t, t])?;
        if self.is_float() {
            let keys = self.pack_third(qkv, sizes, 1)?;
            let chunks = dim.div_ceil(4);
            let bytes = [4 * t * sizes.stride(), 16 * heads * chunks * columns(t), 4 * heads * t * t];
            self.check_rows(&attention.site, t)?;
            for run in self.recorder().runs(&attention.site, samples, &bytes, self.most_products() / heads.max(1))? {
                let params = Floats {
                    m: t as u32,
                    n: t as u32,
                    k: dim as u32,
                    width: columns(t) as u32,
                    batch: (run.len() * heads) as u32,
                    heads: heads as u32,
                    factor: attention.scale,
                    a_sample: (t * sizes.stride()) as u32,
                    a_head: dim as u32,
                    a_row: sizes.stride() as u32,
                    b_matrix: (chunks * columns(t)) as u32,
                    out_sample: (heads * t * t) as u32,
                    out_head: (t * t) as u32,
                    out_row: t as u32,
                    ..Floats::default()
                };
                let [a_bytes, b_bytes, out_bytes] = bytes;
                let recorder = self.recorder();
                let operands = FloatOperands {
                    a: recorder.span(qkv.data.buffer(), run.start * a_bytes, run.len() * a_bytes),
                    b: recorder.span(keys.buffer(), run.start * b_bytes, run.len() * b_bytes),
                    bias: recorder.nothing(),
                    residual: recorder.nothing(),
                    out: recorder.span(out.data.buffer(), run.start * out_bytes, run.len() * out_bytes),
                };
                self.product_floats(params, operands, After::Nothing)?;
            }
            return Ok(out);
        }
        let site = |operand| attention.operand_site(operand);
        let queries = self.quantize(qkv, samples, sizes.layout(0), Before::Nothing, &site(AttentionOperand::Query))?;
        let keys = self.quantize(qkv, samples, sizes.layout(1), Before::Nothing, &site(AttentionOperand::Key))?;
        let (chunks, width) = (dim.div_ceil(16), columns(t));
        let bytes = [
            16 * heads * t * chunks,
            16 * heads * t,
            16 * heads * width * chunks,
            16 * heads * width,
            4 * heads * t * t,
        ];
        self.check_rows(&attention.site, t)?;
        for run in self.recorder().runs(&attention.site, samples, &bytes, self.most_products() / heads.max(1))? {
            let params = Codes {
                m: t as u32,
                n: t as u32,
                k: dim as u32,
                chunks: chunks as u32,
                width: width as u32,
                batch: (run.len() * heads) as u32,
                heads: heads as u32,
                factor: attention.scale,
                a_matrix: (t * chunks) as u32,
                a_info_matrix: t as u32,
                b_matrix: (width * chunks) as u32,
                b_info_matrix: width as u32,
                out_sample: (heads * t * t) as u32,
                out_head: (t * t) as u32,
                out_row: t as u32,
                ..Codes::default()
            };
            let recorder = self.recorder();
            let part =
                |block: &Block, bytes: usize| recorder.span(block.buffer(), run.start * bytes, run.len() * bytes);
            let operands = CodeOperands {
                a: part(&queries.codes, bytes[0]),
                a_infos: part(&queries.infos, bytes[1]),
                b: part(&keys.codes, bytes[2]),
                b_infos: part(&keys.infos, bytes[3]),
                residual: recorder.nothing(),
                out: part(&out.data, bytes[4]),
            };
            self.product_codes(params, operands, After::Nothing)?;
        }
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
        let out = self.tensor(&[samples, t, heads * dim])?;
        self.check_rows(&attention.site, t)?;
        if self.is_float() {
            let values = self.pack_third(qkv, sizes, 2)?;
            let chunks = t.div_ceil(4);
            let bytes = [4 * heads * t * t, 16 * heads * chunks * columns(dim), 4 * t * heads * dim];
            for run in self.recorder().runs(&attention.site, samples, &bytes, self.most_products() / heads.max(1))? {
                let params = Floats {
                    m: t as u32,
                    n: dim as u32,
                    k: t as u32,
                    width: columns(dim) as u32,
                    batch: (run.len() * heads) as u32,
                    heads: heads as u32,
                    factor: 1.0,
                    a_sample: (heads * t * t) as u32,
                    a_head: (t * t) as u32,
                    a_row: t as u32,
                    b_matrix: (chunks * columns(dim)) as u32,
                    out_sample: (t * heads * dim) as u32,
                    out_head: dim as u32,
                    out_row: (heads * dim) as u32,
                    ..Floats::default()
                };
                let recorder = self.recorder();
                let part =
                    |block: &Block, bytes: usize| recorder.span(block.buffer(), run.start * bytes, run.len() * bytes);
                let operands = FloatOperands {
                    a: part(&probabilities.data, bytes[0]),
                    b: part(&values, bytes[1]),
                    bias: recorder.nothing(),
                    residual: recorder.nothing(),
                    out: part(&out.data, bytes[2]),
                };
                self.product_floats(params, operands, After::Nothing)?;
            }
            return Ok(out);
        }
        let rows = RowLayout { heads, strides: [heads * t * t, t * t, t], ..RowLayout::plain(t, t) };
        let before = if scores { Before::Softmax } else { Before::Nothing };
        let site = attention.operand_site(AttentionOperand::Probabilities);
        let coded = self.quantize(probabilities, samples, rows, before, &site)?;
        let (values, infos) = self.quantize_values(qkv, sizes, &attention.operand_site(AttentionOperand::Value))?;
        let (chunks, width) = (t.div_ceil(16), columns(dim));
        let bytes = [
            16 * heads * t * chunks,
            16 * heads * t,
            16 * heads * width * chunks,
            16 * heads * width,
            4 * t * heads * dim,
        ];
        for run in self.recorder().runs(&attention.site, samples, &bytes, self.most_products() / heads.max(1))? {
            let params = Codes {
                m: t as u32,
                n: dim as u32,
                k: t as u32,
                chunks: chunks as u32,
                width: width as u32,
                batch: (run.len() * heads) as u32,
                heads: heads as u32,
                factor: 1.0,
                a_matrix: (t * chunks) as u32,
                a_info_matrix: t as u32,
                b_matrix: (width * chunks) as u32,
                b_info_matrix: width as u32,
                out_sample: (t * heads * dim) as u32,
                out_head: dim as u32,
                out_row: (heads * dim) as u32,
                ..Codes::default()
            };
            let recorder = self.recorder();
            let part =
                |block: &Block, bytes: usize| recorder.span(block.buffer(), run.start * bytes, run.len() * bytes);
            let operands = CodeOperands {
                a: part(&coded.codes, bytes[0]),
                a_infos: part(&coded.infos, bytes[1]),
                b: part(&values, bytes[2]),
                b_infos: part(&infos, bytes[3]),
                residual: recorder.nothing(),
                out: part(&out.data, bytes[4]),
            };
            self.product_codes(params, operands, After::Nothing)?;
        }
        Ok(out)
    }

    /// The rows of a head go into one dispatch.
    fn check_rows(&self, site: &str, tokens: usize) -> Result<(), ExecError> {
        if tokens <= self.most_rows() {
            return Ok(());
        }
        Err(self.gpu().refused(&format!("{site}: {tokens} tokens, and a dispatch has at most {}", self.most_rows())))
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
        let bytes = [4 * t * sizes.stride(), 16 * heads * matrix];
        let most = self.most(ELEMENTS) / (heads * matrix).max(1);
        for run in self.recorder().runs("attention", samples, &bytes, most)? {
            let recorder = self.recorder();
            let x = recorder.span(qkv.data.buffer(), run.start * bytes[0], run.len() * bytes[0]);
            let y = recorder.span(packed.buffer(), run.start * bytes[1], run.len() * bytes[1]);
            let count = run.len() * heads * matrix;
            let params = PackFloat {
                count: count as u32,
                k: k as u32,
                n: n as u32,
                width: columns(n) as u32,
                heads: heads as u32,
                x_at: x.at() + sizes.third(third) as u32,
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
    pub(super) fn quantize_values(
        &mut self,
        qkv: &Tensor,
        sizes: Sizes,
        site: &str,
    ) -> Result<(Arc<Block>, Arc<Block>), ExecError> {
        let Sizes { samples, tokens: t, heads, dim } = sizes;
        let (chunks, width) = (t.div_ceil(16), columns(dim));
        let codes = self.block(16 * samples * heads * chunks * width)?;
        let infos = self.block(16 * samples * heads * width)?;
        let (groups, rules) = self.rules(site, 1)?;
        let slot = self.recorder_mut().slot(site);
        let bytes = [4 * t * sizes.stride(), 16 * heads * chunks * width, 16 * heads * width];
        for run in self.recorder().runs(site, samples, &bytes, self.most(1) / heads.max(1))? {
            let recorder = self.recorder();
            let x = recorder.span(qkv.data.buffer(), run.start * bytes[0], run.len() * bytes[0]);
            let code_span = recorder.span(codes.buffer(), run.start * bytes[1], run.len() * bytes[1]);
            let info_span = recorder.span(infos.buffer(), run.start * bytes[2], run.len() * bytes[2]);
            let flags = recorder.flags();
            let matrices = run.len() * heads;
            let params = ValuesCodes {
                matrices: matrices as u32,
                tokens: t as u32,
                d: dim as u32,
                heads: heads as u32,
                x_at: x.at() + sizes.third(2) as u32,
                x_sample: (t * sizes.stride()) as u32,
                x_head: dim as u32,
                x_token: sizes.stride() as u32,
                code_at: code_span.at4(),
                width: width as u32,
                info_at: info_span.at4(),
                slot,
                first_sample: run.start as u32,
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
        Ok((codes, infos))
    }
}
