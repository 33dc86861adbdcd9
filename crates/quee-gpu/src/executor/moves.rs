//! Operations that move values, and elementwise ones.

use quee_backbone::{ExecError, Param, Window};

use super::{ELEMENTS, GpuExecutor, buffer, mismatch, three};
use crate::kernels;
use crate::memory::Tensor;
use crate::params::{Add, Gelu, MeanTokens, Rearrange, Unfold};
use crate::recorder::Span;

/// Copies of `rows × columns` values of each sample: where they come from and where they go, in numbers of values.
#[derive(Clone, Copy)]
struct Move {
    rows: usize,
    columns: usize,
    /// Values of a sample of the source; 0 where all samples have the same source.
    x_sample: usize,
    /// Where the first value of a sample lies.
    x_start: usize,
    x_row: usize,
    x_column: usize,
    /// Values of a sample of the target.
    y_sample: usize,
    y_start: usize,
    y_row: usize,
}

impl GpuExecutor {
    /// Copies values of `samples` samples from `x`; `gather` names the sample to take for each.
    fn rearrange(
        &mut self,
        op: &str,
        x: &wgpu::Buffer,
        y: &Tensor,
        samples: usize,
        plan: Move,
        gather: Option<&Tensor>,
    ) -> Result<(), ExecError> {
        let count = plan.rows * plan.columns;
        if count == 0 || samples == 0 {
            return Ok(());
        }
        // All of x is seen at once when samples are gathered.
        let x_bytes = if gather.is_some() { 0 } else { 4 * plan.x_sample };
        let bytes = [x_bytes, 4 * plan.y_sample];
        for run in self.recorder().runs(op, samples, &bytes, self.most(ELEMENTS) / count)? {
            let recorder = self.recorder();
            let source = match gather {
                Some(_) => recorder.span(x, 0, usize::try_from(x.size()).expect("64-bit addresses")),
                None if plan.x_sample == 0 => recorder.span(x, 0, 4 * (plan.x_start + plan.rows * plan.columns)),
                None => recorder.span(x, run.start * x_bytes, run.len() * x_bytes),
            };
            let target = self.floats(y, run.start * plan.y_sample, run.len() * plan.y_sample);
            let indices = match gather {
                Some(indices) => self.floats(indices, run.start, run.len()),
                None => recorder.nothing(),
            };
            let params = Rearrange {
                count: (run.len() * count) as u32,
                rows: plan.rows as u32,
                columns: plan.columns as u32,
                gather: u32::from(gather.is_some()),
                x_at: source.at() + plan.x_start as u32,
                x_sample: plan.x_sample as u32,
                x_row: plan.x_row as u32,
                x_column: plan.x_column as u32,
                samples_at: indices.at(),
                y_at: target.at() + plan.y_start as u32,
                y_sample: plan.y_sample as u32,
                y_row: plan.y_row as u32,
            };
            let size = self.grid(run.len() * count, ELEMENTS);
            self.recorder_mut().dispatch(&kernels::REARRANGE, &[], &params, &[source, indices, target], size)?;
        }
        Ok(())
    }

    pub(super) fn run_select(&mut self, x: &Tensor, indices: &[usize]) -> Result<Tensor, ExecError> {
        let samples = *x.shape.first().ok_or_else(|| mismatch("select_samples", "[B, ..]", &x.shape))?;
        if let Some(index) = indices.iter().find(|&&index| index >= samples) {
            return Err(mismatch("select_samples", &format!("more than {index} samples"), &x.shape));
        }
        let mut shape = x.shape.clone();
        shape[0] = indices.len();
        let size: usize = shape[1..].iter().product();
        let out = self.tensor(&shape)?;
        let plan = Move {
            rows: 1,
            columns: size,
            x_sample: size,
            x_start: 0,
            x_row: 0,
            x_column: 1,
            y_sample: size,
            y_start: 0,
            y_row: 0,
        };
        if x.len() * 4 <= self.gpu().binding() {
            let list: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
            let block = self.recorder().pool.take(4 * list.len() as u64, true)?;
            self.recorder().write(block.buffer(), bytemuck::cast_slice(&list));
            let list = Tensor { shape: vec![list.len()], data: std::sync::Arc::new(block) };
            self.rearrange("select_samples", x.data.buffer(), &out, indices.len(), plan, Some(&list))?;
            return Ok(out);
        }
        // More than a binding shows: sample by sample.
        for (at, &index) in indices.iter().enumerate() {
            for run in self.recorder().runs("select_samples", size, &[4], self.most(ELEMENTS))? {
                let source = self.floats(x, index * size + run.start, run.len());
                let target = self.floats(&out, at * size + run.start, run.len());
                let nothing = self.recorder().nothing();
                let params = Rearrange {
                    count: run.len() as u32,
                    rows: 1,
                    columns: run.len() as u32,
                    x_at: source.at(),
                    x_column: 1,
                    y_at: target.at(),
                    ..Rearrange::default()
                };
                let grid = self.grid(run.len(), ELEMENTS);
                self.recorder_mut().dispatch(&kernels::REARRANGE, &[], &params, &[source, nothing, target], grid)?;
            }
        }
        Ok(out)
    }

    pub(super) fn run_transpose(&mut self, x: &Tensor) -> Result<Tensor, ExecError> {
        let [b, m, n] = three("transpose", x)?;
        let out = self.tensor(&[b, n, m])?;
        let plan = Move {
            rows: n,
            columns: m,
            x_sample: m * n,
            x_start: 0,
            x_row: 1,
            x_column: n,
            y_sample: m * n,
            y_start: 0,
            y_row: m,
        };
        self.rearrange("transpose", x.data.buffer(), &out, b, plan, None)?;
        Ok(out)
    }

    pub(super) fn run_slice(&mut self, x: &Tensor, start: usize, length: usize) -> Result<Tensor, ExecError> {
        let [b, t, d] = three("slice_features", x)?;
        if start.checked_add(length).is_none_or(|end| end > d) {
            return Err(mismatch("slice_features", &format!("{length} features from {start} on"), &x.shape));
        }
        let out = self.tensor(&[b, t, length])?;
        // Every token is a sample of its own: tokens can then be cut anywhere.
        let plan = Move {
            rows: 1,
            columns: length,
            x_sample: d,
            x_start: start,
            x_row: 0,
            x_column: 1,
            y_sample: length,
            y_start: 0,
            y_row: 0,
        };
        self.rearrange("slice_features", x.data.buffer(), &out, b * t, plan, None)?;
        Ok(out)
    }

    pub(super) fn run_first_tokens(&mut self, x: &Tensor, count: usize) -> Result<Tensor, ExecError> {
        let [b, t, d] = three("first_tokens", x)?;
        if t < count {
            return Err(mismatch("first_tokens", &format!("at least {count} tokens"), &x.shape));
        }
        let out = self.tensor(&[b, count * d])?;
        let plan = Move {
            rows: 1,
            columns: count * d,
            x_sample: t * d,
            x_start: 0,
            x_row: 0,
            x_column: 1,
            y_sample: count * d,
            y_start: 0,
            y_row: 0,
        };
        self.rearrange("first_tokens", x.data.buffer(), &out, b, plan, None)?;
        Ok(out)
    }

    pub(super) fn run_prepend(&mut self, x: &Tensor, tokens: &Param) -> Result<Tensor, ExecError> {
        let [b, t, d] = three("prepend", x)?;
        let &[1, p, features] = &*tokens.shape else { return Err(mismatch(&tokens.name, "[1, P, D]", &tokens.shape)) };
        if features != d {
            return Err(mismatch("prepend", &format!("[B, T, {features}]"), &x.shape));
        }
        let out = self.tensor(&[b, p + t, d])?;
        let plan = Move {
            rows: 1,
            columns: p * d,
            x_sample: 0,
            x_start: 0,
            x_row: 0,
            x_column: 1,
            y_sample: (p + t) * d,
            y_start: 0,
            y_row: 0,
        };
        let learned = self.plain(tokens)?;
        self.rearrange("prepend", buffer(&learned), &out, b, plan, None)?;
        let plan = Move { columns: t * d, x_sample: t * d, y_start: p * d, ..plan };
        self.rearrange("prepend", x.data.buffer(), &out, b, plan, None)?;
        Ok(out)
    }

    pub(super) fn run_unfold(&mut self, x: &Tensor, window: &Window) -> Result<Tensor, ExecError> {
        let expected = || format!("[B, C, H, W] with room for {window:?}");
        let &[b, c, h, w] = &*x.shape else { return Err(mismatch("unfold", &expected(), &x.shape)) };
        let (down, across) = (window.places(h), window.places(w));
        if down * across == 0 {
            return Err(mismatch("unfold", &expected(), &x.shape));
        }
        let size = down * across * c * window.kernel * window.kernel;
        let out = self.tensor(&[b, down * across, c * window.kernel * window.kernel])?;
        for run in self.recorder().runs("unfold", b, &[4 * c * h * w, 4 * size], self.most(ELEMENTS) / size.max(1))? {
            let source = self.floats(x, run.start * c * h * w, run.len() * c * h * w);
            let target = self.floats(&out, run.start * size, run.len() * size);
            let params = Unfold {
                count: (run.len() * size) as u32,
                channels: c as u32,
                height: h as u32,
                width: w as u32,
                down: down as u32,
                across: across as u32,
                kernel: window.kernel as u32,
                stride: window.stride as u32,
                padding: window.padding as u32,
                x_at: source.at(),
                y_at: target.at(),
                unused: 0,
            };
            let grid = self.grid(run.len() * size, ELEMENTS);
            self.recorder_mut().dispatch(&kernels::UNFOLD, &[], &params, &[source, target], grid)?;
        }
        Ok(out)
    }

    pub(super) fn run_gelu(&mut self, x: &Tensor) -> Result<Tensor, ExecError> {
        let out = self.tensor(&x.shape)?;
        for run in self.recorder().runs("gelu", x.len(), &[4], self.most(ELEMENTS))? {
            let (source, target) = (self.floats(x, run.start, run.len()), self.floats(&out, run.start, run.len()));
            let params = Gelu { count: run.len() as u32, x_at: source.at(), y_at: target.at(), unused: 0 };
            let grid = self.grid(run.len(), ELEMENTS);
            self.recorder_mut().dispatch(&kernels::GELU, &[], &params, &[source, target], grid)?;
        }
        Ok(out)
    }

    pub(super) fn run_add(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor, ExecError> {
        if a.shape != b.shape {
            return Err(mismatch("add", &format!("{:?}", a.shape), &b.shape));
        }
        let out = self.tensor(&a.shape)?;
        for run in self.recorder().runs("add", a.len(), &[4], self.most(ELEMENTS))? {
            let other = self.floats(b, run.start, run.len());
            self.add_run(a, &run, other, run.len(), &out)?;
        }
        Ok(out)
    }

    pub(super) fn run_add_position(&mut self, x: &Tensor, position: &Param) -> Result<Tensor, ExecError> {
        let [b, t, d] = three("add_position", x)?;
        if position.shape != [1, t, d] {
            return Err(mismatch(&position.name, &format!("[1, {t}, {d}]"), &position.shape));
        }
        let out = self.tensor(&x.shape)?;
        let learned = self.plain(position)?;
        for run in self.recorder().runs("add_position", b, &[4 * t * d], self.most(ELEMENTS) / (t * d).max(1))? {
            let values = run.start * t * d..run.end * t * d;
            let other = self.recorder().span(buffer(&learned), 0, 4 * t * d);
            self.add_run(x, &values, other, t * d, &out)?;
        }
        Ok(out)
    }

    /// Adds to the values `run` of `x`; `other` starts again after `period` values.
    fn add_run(
        &mut self,
        x: &Tensor,
        run: &std::ops::Range<usize>,
        other: Span,
        period: usize,
        out: &Tensor,
    ) -> Result<(), ExecError> {
        let (source, target) = (self.floats(x, run.start, run.len()), self.floats(out, run.start, run.len()));
        let params = Add {
            count: run.len() as u32,
            period: period.max(1) as u32,
            x_at: source.at(),
            y_at: other.at(),
            z_at: target.at(),
            unused: [0; 3],
        };
        let grid = self.grid(run.len(), ELEMENTS);
        self.recorder_mut().dispatch(&kernels::ADD, &[], &params, &[source, other, target], grid)
    }

    pub(super) fn run_mean_tokens(&mut self, x: &Tensor, skip: usize) -> Result<Tensor, ExecError> {
        let [b, t, d] = three("mean_tokens", x)?;
        if t <= skip {
            return Err(mismatch("mean_tokens", &format!("more than {skip} tokens"), &x.shape));
        }
        let out = self.tensor(&[b, d])?;
        for run in self.recorder().runs("mean_tokens", b, &[4 * t * d, 4 * d], self.most(ELEMENTS) / d.max(1))? {
            let source = self.floats(x, run.start * t * d, run.len() * t * d);
            let target = self.floats(&out, run.start * d, run.len() * d);
            let params = MeanTokens {
                count: (run.len() * d) as u32,
                tokens: t as u32,
                d: d as u32,
                skip: skip as u32,
                x_at: source.at(),
                y_at: target.at(),
                unused: [0; 2],
            };
            let grid = self.grid(run.len() * d, ELEMENTS);
            self.recorder_mut().dispatch(&kernels::MEAN_TOKENS, &[], &params, &[source, target], grid)?;
        }
        Ok(out)
    }
}
