//! Linear layers and the row kernels.

use std::ops::Range;
use std::sync::Arc;

use quee_backbone::{ExecError, Linear, Norm, Param};
use quee_quant::{Width, packing};

use super::products::{After, CodeOperands, FloatOperands};
use super::{ELEMENTS, GpuExecutor, buffer, mismatch};
use crate::engine::{Packed, PackedCodes, PackedFloats, Panel, columns};
use crate::heads::Strides;
use crate::kernels;
use crate::memory::{Block, Tensor};
use crate::params::{Codes, ExpandCodes, Floats, RowsCodes, RowsFloat, Rule};
use crate::recorder::Span;
use crate::tiles::{RowOperation, row_kernel};

/// What follows a linear layer.
#[derive(Clone, Copy)]
pub(super) enum Afterwards<'a> {
    Nothing,
    Gelu,
    Add(&'a Tensor),
}

/// What happens to rows before they are quantized.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// Nothing.
    Nothing,
    /// Layer normalisation.
    Norm(&'a Norm),
    /// Layer normalisation with the values that a plan has put in the place of its own.
    Replaced(&'a Norm),
    /// Softmax.
    Softmax,
}

impl Before<'_> {
    fn constant(self) -> (&'static str, f64) {
        let number = match self {
            Self::Nothing => 0.0,
            Self::Norm(_) | Self::Replaced(_) => 1.0,
            Self::Softmax => 2.0,
        };
        ("BEFORE", number)
    }
}

/// Rows of codes with scale, zero point and sum of each.
pub(crate) struct Coded {
    pub codes: Arc<Block>,
    pub infos: Arc<Block>,
}

/// Rows of a tensor, and where their codes go.
#[derive(Clone, Copy)]
pub(crate) struct RowLayout {
    /// Rows of a head.
    pub tokens: usize,
    /// Heads of a sample; 1 where a sample's rows follow one another.
    pub heads: usize,
    /// Values of a row.
    pub d: usize,
    /// Where the first row begins in its sample.
    pub start: usize,
    /// Values between two samples, heads, rows.
    pub strides: [usize; 3],
    /// Whether the codes are columns of a product instead of rows.
    pub columns: bool,
}

impl RowLayout {
    /// Rows of `d` values one after the other, `tokens` to a sample.
    pub fn plain(tokens: usize, d: usize) -> Self {
        Self { tokens, heads: 1, d, start: 0, strides: [tokens * d, 0, d], columns: false }
    }

    /// Whether the rows of all heads and samples follow one another, as do their codes.
    fn is_plain(&self) -> bool {
        let Self { tokens, heads, d, start, strides, columns } = *self;
        let inside = heads == 1 || strides[1] == tokens * d;
        !columns && start == 0 && strides[2] == d && inside && strides[0] == heads * tokens * d
    }

    fn chunks(&self) -> usize {
        self.d.div_ceil(16)
    }

    /// Rows or columns of a head, padded.
    fn places(&self) -> usize {
        if self.columns { columns(self.tokens) } else { self.tokens }
    }
}

impl GpuExecutor {
    /// Quantizes the rows of `samples` samples: the numbers of plane `p`.
    pub(crate) fn quantize(
        &mut self,
        x: &Tensor,
        samples: usize,
        layout: RowLayout,
        before: Before<'_>,
        site: &str,
        p: usize,
    ) -> Result<Coded, ExecError> {
        let RowLayout { tokens, heads, d, start, strides, columns } = layout;
        let (chunks, places) = (layout.chunks(), layout.places());
        let matrix = places * chunks;
        let codes = self.block(16 * samples * heads * matrix)?;
        let infos = self.block(16 * samples * heads * places)?;
        let (groups, rules) = self.rules(site, heads * tokens, p)?;
        let uneven = rules.rules.iter().any(Rule::is_uneven);
        let slot = self.recorder_mut().slot(site);
        self.recorder_mut().at(site);
        let (gain, offset, eps) = self.norm_operands(before)?;
        let (kernel, each) = row_kernel(RowOperation::Quantize, self.gpu().is_tiled());
        let recorder = self.recorder();
        // Rows that follow one another can be cut anywhere, others only between heads. Rows of heads are counted as heads of one token.
        let loose = layout.is_plain();
        let (count, tokens) = if loose { ([samples * heads * tokens, 1], 1) } else { ([samples, heads], tokens) };
        let strides = if loose { [d; 3] } else { strides };
        let (matrix, places) = if loose { (chunks, 1) } else { (matrix, places) };
        let head = [16 * matrix, 16 * places];
        let x_strides = Strides { sample: strides[0], head: strides[1] };
        for run in recorder.head_runs(site, count, &head, &[x_strides], self.most(each) / tokens.max(1))? {
            let recorder = self.recorder();
            let (x_span, first) = run.part(recorder, x.data.buffer(), x_strides);
            let code_span = recorder.part(codes.buffer(), &run.heads, head[0]);
            let info_span = recorder.part(infos.buffer(), &run.heads, head[1]);
            let flags = recorder.flags();
            let rows = run.heads.len() * tokens;
            let params = RowsCodes {
                rows: rows as u32,
                d: d as u32,
                tokens: tokens as u32,
                heads: count[1] as u32,
                x_at: x_span.at() + first + start as u32,
                x_sample: strides[0] as u32,
                x_head: strides[1] as u32,
                x_token: strides[2] as u32,
                gain_at: gain.at(),
                offset_at: offset.at(),
                eps,
                code_at: code_span.at(),
                code_matrix: (4 * matrix) as u32,
                code_row: if columns { 4 } else { (4 * chunks) as u32 },
                code_chunk: if columns { (4 * places) as u32 } else { 4 },
                info_at: info_span.at4(),
                info_matrix: places as u32,
                slot,
                first_row: (run.heads.start * tokens) as u32,
                groups,
                rules,
            };
            let operands = [x_span, gain.clone(), offset.clone(), code_span, info_span, flags];
            let size = self.grid(rows, each);
            let constants = [before.constant(), ("UNEVEN", 1.0)];
            let constants = if uneven { &constants[..] } else { &constants[..1] };
            self.recorder_mut().dispatch(kernel, constants, &params, &operands, size)?;
        }
        Ok(Coded { codes, infos })
    }

    /// A linear layer with what stands before and after it.
    pub(super) fn run_linear(
        &mut self,
        x: &Tensor,
        norm: Option<&Norm>,
        linear: &Linear,
        after: Afterwards<'_>,
    ) -> Result<Tensor, ExecError> {
        let (k, n) = (linear.inputs, linear.outputs);
        if x.shape.len() < 2 || x.shape.last() != Some(&k) {
            return Err(mismatch(&linear.site, &format!("[.., {k}]"), &x.shape));
        }
        if let Some(norm) = norm {
            check_norm(x, norm)?;
        }
        let mut shape = x.shape.clone();
        shape.pop();
        shape.push(n);
        let (after, residual) = match after {
            Afterwards::Nothing => (After::Nothing, None),
            Afterwards::Gelu => (After::Gelu, None),
            Afterwards::Add(residual) if residual.shape == shape => (After::Add, Some(residual)),
            Afterwards::Add(residual) => {
                return Err(mismatch(&linear.site, &format!("a residual of shape {shape:?}"), &residual.shape));
            }
        };
        let rows = x.shape[..x.shape.len() - 1].iter().product();
        if self.is_float() {
            let out = self.tensor(&shape)?;
            let normed = norm.map(|norm| self.run_norm(x, norm)).transpose()?;
            self.linear_floats(normed.as_ref().unwrap_or(x), rows, linear, after, residual, &out)?;
            return Ok(out);
        }
        let (samples, tokens) = (x.shape[0], rows / x.shape[0].max(1));
        let plan = self.engine.plan();
        let replaced = match norm {
            Some(norm) => plan.norm(&linear.site, norm),
            None => plan.without_norm(&linear.site).map(|()| None)?,
        };
        let before = match (&replaced, norm) {
            (Some(norm), _) => Before::Replaced(norm),
            (None, Some(norm)) => Before::Norm(norm),
            (None, None) => Before::Nothing,
        };
        // One product for each weight width, whatever the activation widths.
        let mut runs: Vec<(Range<usize>, Width)> = Vec::new();
        for (samples, width) in self.groups.ranges(samples) {
            let width = plan.width_at(&linear.site, width);
            let rows = samples.start * tokens..samples.end * tokens;
            match runs.last_mut() {
                Some((last, other)) if other.weight_bits() == width.weight_bits() => last.end = rows.end,
                _ => runs.push((rows, width)),
            }
        }
        let planes = self.planes(&linear.site)?;
        let layout = RowLayout::plain(tokens, k);
        // What comes after a product happens in it; after several, on its own.
        let (within, residual_within) = if planes == 1 { (after, residual) } else { (After::Nothing, None) };
        let mut out = None;
        for p in 0..planes {
            let coded = self.quantize(x, samples, layout, before, &linear.site, p)?;
            let sum = self.tensor(&shape)?;
            let (after, residual) = out.as_ref().map_or((within, residual_within), |out| (After::Add, Some(out)));
            for (rows, width) in runs.clone() {
                self.linear_codes(&coded, p, rows, linear, width, after, residual, &sum)?;
            }
            out = Some(sum);
        }
        let out = out.expect("one plane at least");
        match after {
            After::Gelu if planes > 1 => self.run_gelu(&out),
            After::Add if planes > 1 => self.run_add(residual.expect("checked above"), &out),
            _ => Ok(out),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn linear_codes(
        &mut self,
        coded: &Coded,
        p: usize,
        rows: Range<usize>,
        linear: &Linear,
        width: Width,
        after: After,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), ExecError> {
        let (k, n) = (linear.inputs, linear.outputs);
        self.recorder_mut().at(&linear.site);
        let packed = self.weights.linear(linear, width, self.engine.plan())?;
        let Packed::Codes(PackedCodes { panels, planes, infos }) = &*packed else {
            unreachable!("packed at an integer width")
        };
        let chunks = k.div_ceil(16);
        for panel in panels {
            let (j, part) = (panel.columns.start, panel.columns.len());
            let expanded = planes.map(|bits| self.expand(panel, k, bits)).transpose()?;
            let codes = expanded.as_ref().map_or(&panel.content.buffer, |block| block.buffer());
            for run in self.recorder().runs(&linear.site, rows.len(), &[16 * chunks, 4 * n], usize::MAX)? {
                let (first, m) = (rows.start + run.start, run.len());
                let recorder = self.recorder();
                let params = Codes {
                    m: m as u32,
                    n: part as u32,
                    k: k as u32,
                    chunks: chunks as u32,
                    width: columns(part) as u32,
                    batch: 1,
                    heads: 1,
                    factor: 1.0,
                    out_at: j as u32,
                    residual_at: j as u32,
                    out_row: n as u32,
                    has_bias: u32::from(p == 0),
                    ..Codes::default()
                };
                let operands = CodeOperands {
                    a: recorder.span(coded.codes.buffer(), 16 * first * chunks, 16 * m * chunks),
                    a_infos: recorder.span(coded.infos.buffer(), 16 * first, 16 * m),
                    b: recorder.span(codes, 0, 16 * chunks * columns(part)),
                    b_infos: recorder.span(&infos.buffer, 16 * j, 16 * part),
                    residual: residual.map_or_else(|| recorder.nothing(), |r| self.floats(r, first * n, m * n)),
                    out: self.floats(out, first * n, m * n),
                };
                self.product_codes(params, operands, after)?;
            }
        }
        Ok(())
    }

    /// The codes `[chunks, width]` of a panel that is kept in planes.
    fn expand(&mut self, panel: &Panel, k: usize, bits: u8) -> Result<Arc<Block>, ExecError> {
        let (width, blocks) = (columns(panel.columns.len()), k.div_ceil(packing::BLOCK));
        let count = k.div_ceil(16) * width;
        let codes = self.block(16 * count)?;
        let most = self.most(ELEMENTS);
        for first in (0..count).step_by(most) {
            let recorder = self.recorder();
            let source = recorder.span(&panel.content.buffer, 0, 4 * packing::words(width, k, bits));
            let target = recorder.span(codes.buffer(), 0, 16 * count);
            let here = most.min(count - first);
            let params = ExpandCodes {
                first: first as u32,
                count: here as u32,
                blocks: blocks as u32,
                width: width as u32,
                codes_at: target.at4(),
                unused: [0; 3],
            };
            let constants = [("BITS", f64::from(bits))];
            let size = self.grid(here, ELEMENTS);
            self.recorder_mut().dispatch(&kernels::EXPAND_CODES, &constants, &params, &[source, target], size)?;
        }
        Ok(codes)
    }

    fn linear_floats(
        &mut self,
        x: &Tensor,
        rows: usize,
        linear: &Linear,
        after: After,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), ExecError> {
        let (k, n) = (linear.inputs, linear.outputs);
        self.recorder_mut().at(&linear.site);
        let packed = self.weights.linear(linear, Width::FLOAT, self.engine.plan())?;
        let Packed::Floats(PackedFloats { panels, bias }) = &*packed else { unreachable!("packed as floats") };
        for run in self.recorder().runs(&linear.site, rows, &[4 * k, 4 * n], usize::MAX)? {
            let (first, m) = (run.start, run.len());
            for panel in panels {
                let recorder = self.recorder();
                let (j, part) = (panel.columns.start, panel.columns.len());
                let params = Floats {
                    m: m as u32,
                    n: part as u32,
                    k: k as u32,
                    width: columns(part) as u32,
                    batch: 1,
                    heads: 1,
                    factor: 1.0,
                    has_bias: u32::from(bias.is_some()),
                    a_row: k as u32,
                    out_at: j as u32,
                    residual_at: j as u32,
                    out_row: n as u32,
                    ..Floats::default()
                };
                let operands = FloatOperands {
                    a: self.floats(x, first * k, m * k),
                    b: recorder.span(&panel.content.buffer, 0, 16 * k.div_ceil(4) * columns(part)),
                    bias: match bias {
                        Some(bias) => recorder.span(&bias.buffer, 4 * j, 4 * part),
                        None => recorder.nothing(),
                    },
                    residual: residual.map_or_else(|| recorder.nothing(), |r| self.floats(r, first * n, m * n)),
                    out: self.floats(out, first * n, m * n),
                };
                self.product_floats(params, operands, after)?;
            }
        }
        Ok(())
    }

    pub(super) fn run_norm(&mut self, x: &Tensor, norm: &Norm) -> Result<Tensor, ExecError> {
        check_norm(x, norm)?;
        self.rows_float(x, &norm.site, Before::Norm(norm))
    }

    pub(super) fn run_softmax(&mut self, x: &Tensor) -> Result<Tensor, ExecError> {
        if x.shape.is_empty() {
            return Err(mismatch("softmax", "[.., T]", &x.shape));
        }
        self.rows_float(x, "softmax", Before::Softmax)
    }

    /// Gain, offset and epsilon of a normalisation; stand-ins where there is none.
    fn norm_operands(&self, before: Before<'_>) -> Result<(Span, Span, f32), ExecError> {
        let recorder = self.recorder();
        let (norm, replaced) = match before {
            Before::Norm(norm) => (norm, false),
            Before::Replaced(norm) => (norm, true),
            Before::Nothing | Before::Softmax => return Ok((recorder.nothing(), recorder.nothing(), 0.0)),
        };
        let vector = |param: &Param| {
            let packed = self.weights.plain(param, replaced)?;
            Ok::<_, ExecError>(recorder.span(buffer(&packed), 0, 4 * param.data.len()))
        };
        Ok((vector(&norm.weight)?, vector(&norm.bias)?, norm.eps))
    }

    fn rows_float(&mut self, x: &Tensor, site: &str, before: Before<'_>) -> Result<Tensor, ExecError> {
        self.recorder_mut().at(site);
        let d = *x.shape.last().expect("checked by the callers");
        let rows = x.len() / d.max(1);
        let out = self.tensor(&x.shape)?;
        let (gain, offset, eps) = self.norm_operands(before)?;
        let (kernel, each) = row_kernel(RowOperation::Normalise, self.gpu().is_tiled());
        for run in self.recorder().runs(site, rows, &[4 * d], self.most(each))? {
            let x_span = self.floats(x, run.start * d, run.len() * d);
            let y_span = self.floats(&out, run.start * d, run.len() * d);
            let params = RowsFloat {
                rows: run.len() as u32,
                d: d as u32,
                tokens: run.len() as u32,
                heads: 1,
                x_at: x_span.at(),
                x_sample: 0,
                x_head: 0,
                x_token: d as u32,
                gain_at: gain.at(),
                offset_at: offset.at(),
                eps,
                y_at: y_span.at(),
            };
            let size = self.grid(run.len(), each);
            self.recorder_mut().dispatch(
                kernel,
                &[before.constant()],
                &params,
                &[x_span, gain.clone(), offset.clone(), y_span],
                size,
            )?;
        }
        Ok(out)
    }
}

fn check_norm(x: &Tensor, norm: &Norm) -> Result<(), ExecError> {
    let d = norm.weight.data.len();
    if x.shape.last() == Some(&d) && norm.bias.data.len() == d {
        Ok(())
    } else {
        Err(mismatch(&norm.site, &format!("[.., {d}]"), &x.shape))
    }
}
