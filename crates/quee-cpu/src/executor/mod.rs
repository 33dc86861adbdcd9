//! The executor: shapes, checks, and the kernels in the order that the operations ask for.

mod attention;
#[cfg(target_arch = "x86_64")]
mod block;
mod linear;
mod pieces;
mod rules;

use std::sync::Arc;

use quee_backbone::encoder::EncoderBlock;
use quee_backbone::{Attention, ExecError, Executor, Groups, Linear, Norm, Param, Performer, QuantPlan, Value, Window};
use quee_quant::Width;

use crate::attention::HeadScratch;
#[cfg(target_arch = "x86_64")]
use crate::avx512::run::BlockScratch;
use crate::checks::{attention_shape, check_norm, mismatch, three};
use crate::engine::{CpuEngine, PackedLinear};
use crate::gelu::gelu;
use crate::isa::{Cpu, Isa};
use crate::linear::{LinearScratch, add};
use crate::norm::layer_norm;
use crate::performer::PerformerScratch;
use crate::profile::{Profile, ProfileRow};
use crate::softmax::softmax;
use crate::tensor::{MOST_AXES, New, Pool, Shape, Tensor};
use crate::unfold::unfold;

use attention::Rows;
use linear::Afterwards;
use pieces::each_piece;
use rules::Rules;

/// Runs a backbone's program, on one thread unless [told otherwise](Self::set_threads): integer kernels at integer widths, 32-bit floats at [`Width::FLOAT`].
///
/// A sample's result does not depend on the samples beside it, bit for bit. To use several threads, give each an
/// executor of one [`CpuEngine`] and samples of its own.
pub struct CpuExecutor {
    engine: Arc<CpuEngine>,
    groups: Groups,
    pool: Pool,
    rules: Rules,
    linear: Vec<LinearScratch>,
    head: HeadScratch,
    performer: Vec<PerformerScratch>,
    scores: Vec<f32>,
    profile: Profile,
    #[cfg(target_arch = "x86_64")]
    block: Vec<BlockScratch>,
}

impl CpuExecutor {
    /// An executor with packed weights of its own.
    ///
    /// # Panics
    /// When this machine does not have `isa`.
    pub fn new(plan: Arc<QuantPlan>, isa: Isa) -> Self {
        Self::over(CpuEngine::new(plan, isa))
    }

    pub(crate) fn over(engine: Arc<CpuEngine>) -> Self {
        Self {
            groups: Groups::uniform(Width::FLOAT),
            pool: Pool::default(),
            rules: Rules::default(),
            linear: vec![LinearScratch::default()],
            head: HeadScratch::new(engine.cpu()),
            performer: vec![PerformerScratch::new(engine.cpu())],
            scores: Vec::new(),
            profile: Profile::default(),
            #[cfg(target_arch = "x86_64")]
            block: vec![BlockScratch::default()],
            engine,
        }
    }

    /// The weights that this executor shares.
    pub fn engine(&self) -> &Arc<CpuEngine> {
        &self.engine
    }

    /// Divides single operations among `threads` threads of the rayon pool that the executor is called in, or else of the global one. A new executor has one.
    ///
    /// Results are the same, bit for bit. Encoder blocks are divided by samples, and those that are left over by rows; all else by samples or rows but attention where blocks run
    /// operation by operation. Several executors with samples of their own, one on each thread, do more in the same time; this is for when there are too few samples for that.
    ///
    /// # Panics
    /// When `threads` is 0.
    pub fn set_threads(&mut self, threads: usize) {
        assert!(threads > 0, "an executor runs on one thread at least");
        let cpu = self.cpu();
        self.linear.resize_with(threads, LinearScratch::default);
        self.performer.resize_with(threads, || PerformerScratch::new(cpu));
        #[cfg(target_arch = "x86_64")]
        self.block.resize_with(threads, BlockScratch::default);
    }

    /// Measures from now on what each operation takes, or stops to.
    pub fn profile(&mut self, on: bool) {
        self.profile.switch(on);
    }

    /// What was measured since [`profile`](Self::profile) was switched on.
    pub fn profiled(&self) -> &[ProfileRow] {
        self.profile.rows()
    }

    fn cpu(&self) -> Cpu {
        self.engine.cpu()
    }

    /// Runs an operation and measures it; in a batch of several widths it counts for the first.
    fn timed<R>(&mut self, operation: &'static str, site: &str, run: impl FnOnce(&mut Self) -> R) -> R {
        let start = self.profile.start();
        let result = run(self);
        self.profile.stop(start, operation, site, self.groups.list()[0].width);
        result
    }

    fn tensor(&mut self, shape: &[usize]) -> New {
        self.pool.take(Shape::new(shape))
    }

    /// A new tensor with the content of `x`.
    fn copy(&mut self, x: &Tensor) -> New {
        let mut out = self.tensor(&x.shape);
        let size = x.data.len() / x.shape.first().copied().unwrap_or(1).max(1);
        self.fill(out.data.as_mut(), size, |i, to| to.copy_from_slice(&x.data[i * size..][..size]));
        out
    }
}

fn check_axes(op: &str, axes: usize) -> Result<(), ExecError> {
    match axes {
        0..=MOST_AXES => Ok(()),
        _ => Err(mismatch(op, &format!("at most {MOST_AXES} axes"), &[axes])),
    }
}

/// `[m, n]` to `[n, m]`, in squares that stay in cache.
fn transpose(from: &[f32], m: usize, n: usize, to: &mut [f32]) {
    const SIDE: usize = 16;
    for (i0, j0) in (0..m).step_by(SIDE).flat_map(|i| (0..n).step_by(SIDE).map(move |j| (i, j))) {
        for j in j0..n.min(j0 + SIDE) {
            for i in i0..m.min(i0 + SIDE) {
                to[j * m + i] = from[i * n + j];
            }
        }
    }
}

impl Executor for CpuExecutor {
    /// `cpu` and the instruction set, e.g. `cpu-avx2`.
    fn name(&self) -> String {
        format!("cpu-{}", self.engine.isa())
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.groups = Groups::uniform(width);
        Ok(())
    }

    fn set_groups(&mut self, groups: &[(usize, Width)]) -> Result<(), ExecError> {
        if let Some(groups) = Groups::new(groups) {
            self.groups = groups;
        }
        Ok(())
    }

    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError> {
        self.timed("input", "", |this| {
            if shape.iter().product::<usize>() != data.len() {
                return Err(mismatch("input", &format!("data of shape {shape:?}"), &[data.len()]));
            }
            check_axes("input", shape.len())?;
            let mut out = this.tensor(shape);
            let size = data.len() / shape.first().copied().unwrap_or(1).max(1);
            this.fill(out.data.as_mut(), size, |i, to| to.copy_from_slice(&data[i * size..][..size]));
            Ok(this.pool.share(out))
        })
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        Ok(x.get::<Tensor>()?.data.to_vec())
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(x.get::<Tensor>()?.shape.to_vec())
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        self.timed("select samples", "", |this| {
            let x: &Tensor = x.get()?;
            let samples = *x.shape.first().ok_or_else(|| mismatch("select_samples", "[B, ..]", &x.shape))?;
            if let Some(index) = indices.iter().find(|&&index| index >= samples) {
                return Err(mismatch("select_samples", &format!("more than {index} samples"), &x.shape));
            }
            let mut shape = x.shape;
            shape[0] = indices.len();
            let size: usize = shape[1..].iter().product();
            let mut out = this.tensor(&shape);
            this.fill(out.data.as_mut(), size, |i, to| to.copy_from_slice(&x.data[indices[i] * size..][..size]));
            Ok(this.pool.share(out))
        })
    }

    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError> {
        self.timed("unfold", "", |this| {
            let x: &Tensor = x.get()?;
            let expected = || format!("[B, C, H, W] with room for {window:?}");
            let &[b, c, h, w] = &*x.shape else { return Err(mismatch("unfold", &expected(), &x.shape)) };
            let places = window.places(h) * window.places(w);
            if places == 0 {
                return Err(mismatch("unfold", &expected(), &x.shape));
            }
            let mut out = this.tensor(&[b, places, c * window.kernel * window.kernel]);
            let (size, each) = (c * h * w, places * c * window.kernel * window.kernel);
            this.fill(out.data.as_mut(), each, |i, to| unfold(&x.data[i * size..][..size], [1, c, h, w], window, to));
            Ok(this.pool.share(out))
        })
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        self.timed("reshape", "", |this| {
            let x: &Tensor = x.get()?;
            if x.shape.is_empty() || x.shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
                return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), &x.shape));
            }
            check_axes("reshape", 1 + sample.len())?;
            let mut out = this.copy(x);
            let mut axes = [x.shape[0]; MOST_AXES];
            axes[1..=sample.len()].copy_from_slice(sample);
            out.shape = Shape::new(&axes[..=sample.len()]);
            Ok(this.pool.share(out))
        })
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("transpose", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, m, n] = three("transpose", x)?;
            let mut out = this.tensor(&[b, n, m]);
            this.fill(out.data.as_mut(), m * n, |i, to| transpose(&x.data[i * m * n..][..m * n], m, n, to));
            Ok(this.pool.share(out))
        })
    }

    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        self.timed("slice features", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, t, d] = three("slice_features", x)?;
            if start.checked_add(length).is_none_or(|end| end > d) {
                return Err(mismatch("slice_features", &format!("{length} features from {start} on"), &x.shape));
            }
            let mut out = this.tensor(&[b, t, length]);
            this.fill(out.data.as_mut(), length, |i, to| to.copy_from_slice(&x.data[i * d + start..][..length]));
            Ok(this.pool.share(out))
        })
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.timed("linear", &linear.site, |this| this.run_linear(x, None, linear, Afterwards::Nothing))
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        self.timed("layer norm", &norm.site, |this| {
            let x: &Tensor = x.get()?;
            check_norm(x, norm)?;
            let (cpu, d) = (this.cpu(), norm.weight.data.len());
            let mut out = this.tensor(&x.shape);
            this.fill(out.data.as_mut(), d, |i, out| {
                layer_norm(cpu, &x.data[i * d..][..d], &norm.weight.data, &norm.bias.data, norm.eps, out);
            });
            Ok(this.pool.share(out))
        })
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("gelu", "", |this| {
            let (cpu, mut out) = (this.cpu(), this.copy(x.get()?));
            let row = out.shape.last().copied().unwrap_or(1);
            this.fill(out.data.as_mut(), row, |_, row| gelu(cpu, row));
            Ok(this.pool.share(out))
        })
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        self.timed("add", "", |this| {
            let (a, b): (&Tensor, &Tensor) = (a.get()?, b.get()?);
            if a.shape != b.shape {
                return Err(mismatch("add", &format!("{:?}", &a.shape[..]), &b.shape));
            }
            let (cpu, mut out) = (this.cpu(), this.tensor(&b.shape));
            let row = out.shape.last().copied().unwrap_or(1);
            this.fill(out.data.as_mut(), row, |i, to| {
                to.copy_from_slice(&b.data[i * row..][..row]);
                add(cpu, &a.data[i * row..][..row], to);
            });
            Ok(this.pool.share(out))
        })
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        self.timed("prepend", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, t, d] = three("prepend", x)?;
            let &[1, p, features] = &*tokens.shape else {
                return Err(mismatch(&tokens.name, "[1, P, D]", &tokens.shape));
            };
            if features != d {
                return Err(mismatch("prepend", &format!("[B, T, {features}]"), &x.shape));
            }
            let mut out = this.tensor(&[b, p + t, d]);
            this.fill(out.data.as_mut(), (p + t) * d, |i, to| {
                to[..p * d].copy_from_slice(&tokens.data);
                to[p * d..].copy_from_slice(&x.data[i * t * d..(i + 1) * t * d]);
            });
            Ok(this.pool.share(out))
        })
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        self.timed("add position", "", |this| {
            let x: &Tensor = x.get()?;
            let [_, t, d] = three("add_position", x)?;
            if position.shape[..] != [1, t, d] {
                return Err(mismatch(&position.name, &format!("[1, {t}, {d}]"), &position.shape));
            }
            let (cpu, mut out) = (this.cpu(), this.tensor(&x.shape));
            this.fill(out.data.as_mut(), t * d, |i, to| {
                to.copy_from_slice(&x.data[i * t * d..][..t * d]);
                add(cpu, &position.data, to);
            });
            Ok(this.pool.share(out))
        })
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.timed("attention scores", &attention.site, |this| {
            let qkv: &Tensor = qkv.get()?;
            let [b, t] = attention_shape(qkv, attention)?;
            let cpu = this.cpu();
            let mut out = this.tensor(&[b, attention.heads, t, t]);
            let scores = out.data.as_mut();
            this.each_block(
                qkv,
                attention,
                |own, sample, head, rules| own.head.load_keys(cpu, sample, head, rules),
                |own, rows, rules| {
                    let at = ((rows.index * rows.sample.heads + rows.head) * t + rows.first) * t;
                    let scores = &mut scores[at..at + rows.count * t];
                    own.head.scores(cpu, rows.sample, rows.head, rows.first, rules, scores)
                },
            )?;
            Ok(this.pool.share(out))
        })
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("softmax", "", |this| {
            let mut out = this.copy(x.get()?);
            let columns = *out.shape.last().ok_or_else(|| mismatch("softmax", "[.., T]", &out.shape))?;
            let cpu = this.cpu();
            this.fill(out.data.as_mut(), columns, |_, row| softmax(cpu, row));
            Ok(this.pool.share(out))
        })
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        self.timed("attention values", &attention.site, |this| {
            let (probabilities, qkv): (&Tensor, &Tensor) = (probabilities.get()?, qkv.get()?);
            let [b, t] = attention_shape(qkv, attention)?;
            if probabilities.shape[..] != [b, attention.heads, t, t] {
                let expected = format!("probabilities of shape {:?}", [b, attention.heads, t, t]);
                return Err(mismatch(&attention.site, &expected, &probabilities.shape));
            }
            let (cpu, width) = (this.cpu(), attention.heads * attention.head_dim);
            let mut out = this.tensor(&[b, t, width]);
            let mixed = out.data.as_mut();
            this.each_block(
                qkv,
                attention,
                |own, sample, head, rules| own.head.load_values(cpu, sample, head, rules),
                |own, Rows { index, sample, head, first, count }, rules| {
                    let from = ((index * sample.heads + head) * t + first) * t;
                    let to = (index * t + first) * width + head * sample.dim;
                    let probabilities = &probabilities.data[from..from + count * t];
                    own.head.mix(cpu, sample, probabilities, rules, &mut mixed[to..], width)
                },
            )?;
            Ok(this.pool.share(out))
        })
    }

    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        self.timed("performer", &performer.site, |this| {
            let kqv: &Tensor = kqv.get()?;
            let (e, m) = (performer.projection.inputs, performer.projection.outputs);
            let [b, t, width] = three(&performer.site, kqv)?;
            if width != 3 * e || m * e == 0 {
                return Err(mismatch(&performer.site, &format!("[B, T, {}]", 3 * e), &kqv.shape));
            }
            let mut out = this.tensor(&[b, t, e]);
            let (engine, scratch) = (&this.engine, &mut this.performer);
            engine.with_weight(&performer.projection, Width::FLOAT, |directions| {
                let PackedLinear::Float(directions) = directions else { unreachable!("packed at float width") };
                let (cpu, size) = (engine.cpu(), t * width);
                each_piece(out.data.as_mut(), t * e, kqv.data.len(), scratch, |i, out, own| {
                    own.run(cpu, &kqv.data[i * size..][..size], directions, Performer::EPS, out, e);
                });
                Ok(())
            })?;
            Ok(this.pool.share(out))
        })
    }

    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        self.timed("first tokens", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, t, d] = three("first_tokens", x)?;
            if t < count {
                return Err(mismatch("first_tokens", &format!("at least {count} tokens"), &x.shape));
            }
            let mut out = this.tensor(&[b, count * d]);
            this.fill(out.data.as_mut(), count * d, |i, to| to.copy_from_slice(&x.data[i * t * d..][..count * d]));
            Ok(this.pool.share(out))
        })
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        self.timed("mean tokens", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, t, d] = three("mean_tokens", x)?;
            if t <= skip {
                return Err(mismatch("mean_tokens", &format!("more than {skip} tokens"), &x.shape));
            }
            let mut out = this.tensor(&[b, d]);
            let cpu = this.cpu();
            each_piece(out.data.as_mut(), d, x.data.len(), &mut this.linear, |i, to, _| {
                to.fill(0.0);
                for token in skip..t {
                    add(cpu, &x.data[(i * t + token) * d..][..d], to);
                }
                to.iter_mut().for_each(|x| *x /= (t - skip) as f32);
            });
            Ok(this.pool.share(out))
        })
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.timed("norm, linear", &linear.site, |this| this.run_linear(x, Some(norm), linear, Afterwards::Nothing))
    }

    fn norm_linear_gelu(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.timed("norm, linear, gelu", &linear.site, |this| this.run_linear(x, Some(norm), linear, Afterwards::Gelu))
    }

    fn linear_add(&mut self, x: &Value, linear: &Linear, residual: &Value) -> Result<Value, ExecError> {
        self.timed("linear, add", &linear.site, |this| this.run_linear(x, None, linear, Afterwards::Add(residual)))
    }

    fn attention(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.timed("attention", &attention.site, |this| {
            let qkv: &Tensor = qkv.get()?;
            let [b, t] = attention_shape(qkv, attention)?;
            let (cpu, width) = (this.cpu(), attention.heads * attention.head_dim);
            let mut out = this.tensor(&[b, t, width]);
            let mixed = out.data.as_mut();
            this.each_block(
                qkv,
                attention,
                |own, sample, head, rules| {
                    own.head.load_keys(cpu, sample, head, rules)?;
                    own.head.load_values(cpu, sample, head, rules)
                },
                |own, Rows { index, sample, head, first, count }, rules| {
                    let Self { head: scratch, scores, .. } = own;
                    scores.resize(count * t, 0.0);
                    scratch.scores(cpu, sample, head, first, rules, scores)?;
                    scores.chunks_exact_mut(t).for_each(|row| softmax(cpu, row));
                    let to = (index * t + first) * width + head * sample.dim;
                    scratch.mix(cpu, sample, scores, rules, &mut mixed[to..], width)
                },
            )?;
            Ok(this.pool.share(out))
        })
    }

    fn encoder_block(&mut self, tokens: &Value, block: &EncoderBlock) -> Result<Value, ExecError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(out) = self.whole_block(tokens, block, None)? {
            return Ok(out);
        }
        block.run_by_operation(self, tokens)
    }

    fn encoder_block_first(&mut self, tokens: &Value, block: &EncoderBlock, count: usize) -> Result<Value, ExecError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(out) = self.whole_block(tokens, block, Some(count))? {
            return Ok(out);
        }
        let all = block.run_by_operation(self, tokens)?;
        block.keep_first(self, &all, count)
    }
}
