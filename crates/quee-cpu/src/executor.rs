//! The executor: shapes, checks, and the kernels in the order that the operations ask for.

use std::sync::Arc;

use quee_backbone::encoder::EncoderBlock;
use quee_backbone::groups::Group;
use quee_backbone::{Attention, ExecError, Executor, Groups, Linear, Norm, Param, Performer, QuantPlan, Value, Window};
use quee_quant::Width;

use crate::attention::{AttentionRules, HeadScratch, OperandNotFinite, Sample};
#[cfg(target_arch = "x86_64")]
use crate::avx512::block::{BadNorm, BlockScratch, Timer};
use crate::checks::{attention_shape, check_norm, mismatch, not_finite, three};
use crate::engine::{CpuEngine, PackedLinear};
use crate::gelu::gelu;
use crate::isa::{Cpu, Isa};
use crate::linear::{After, BLOCK, LinearCall, LinearScratch, add};
use crate::norm::layer_norm;
use crate::performer::PerformerScratch;
use crate::profile::{Profile, ProfileRow};
use crate::quantize::{NotFinite, RowRule, SiteRule};
use crate::softmax::softmax;
use crate::tensor::{Pool, Tensor};
use crate::unfold::unfold;

/// Runs a backbone's program on one thread: integer kernels at integer widths, 32-bit floats at [`Width::FLOAT`].
///
/// A sample's result does not depend on the samples beside it, bit for bit. To use several threads, give each an
/// executor of one [`CpuEngine`] and samples of its own.
pub struct CpuExecutor {
    engine: Arc<CpuEngine>,
    groups: Groups,
    pool: Arc<Pool>,
    linear: LinearScratch,
    head: HeadScratch,
    performer: PerformerScratch,
    scores: Vec<f32>,
    profile: Profile,
    #[cfg(target_arch = "x86_64")]
    block: BlockScratch,
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
            pool: Arc::default(),
            linear: LinearScratch::default(),
            head: HeadScratch::new(engine.cpu()),
            performer: PerformerScratch::new(engine.cpu()),
            scores: Vec::new(),
            profile: Profile::default(),
            #[cfg(target_arch = "x86_64")]
            block: BlockScratch::default(),
            engine,
        }
    }

    /// The weights that this executor shares.
    pub fn engine(&self) -> &Arc<CpuEngine> {
        &self.engine
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

    fn tensor(&self, shape: &[usize]) -> Tensor {
        Tensor { shape: shape.to_vec(), data: self.pool.take(shape.iter().product()) }
    }

    /// A new tensor with the content of `x`.
    fn copy(&self, x: &Tensor) -> Tensor {
        let mut out = self.tensor(&x.shape);
        out.data.as_mut().copy_from_slice(&x.data);
        out
    }

    /// An encoder block sample by sample, for the first `count` tokens of each; `None` where it has to run operation by operation.
    #[cfg(target_arch = "x86_64")]
    fn whole_block(
        &mut self,
        tokens: &Value,
        block: &EncoderBlock,
        count: Option<usize>,
    ) -> Result<Option<Value>, ExecError> {
        let x: &Tensor = tokens.get()?;
        let &[b, t, d] = &*x.shape else { return Ok(None) };
        let count = count.unwrap_or(t);
        let most = 1 << 16;
        if d != block.qkv.inputs || !(1..=most).contains(&t) || !(1..=t).contains(&count) {
            return Ok(None);
        }
        if self.groups.list().iter().any(|group| self.engine.block(block, group.width).is_none()) {
            return Ok(None);
        }
        let mut out = self.tensor(&[b, count, d]);
        let mut data = out.data.as_mut();
        for (range, width) in self.groups.ranges(b) {
            let Some(plan) = self.engine.block(block, width) else { return Ok(None) };
            let (part, rest) = data.split_at_mut(range.len() * count * d);
            data = rest;
            let mut timer = Timer::new(&mut self.profile, block, width);
            let samples = x.data[range.start * t * d..range.end * t * d].chunks_exact(t * d);
            for (x, out) in samples.zip(part.chunks_exact_mut(count * d)) {
                plan.run(x, out, &mut self.block, &mut timer).map_err(|bad| match bad {
                    BadNorm::First => not_finite(&block.qkv.site),
                    BadNorm::Second => not_finite(&block.fc1.site),
                })?;
            }
        }
        Ok(Some(Value::new(out)))
    }

    /// A linear layer with what stands before and after it.
    fn run_linear(
        &mut self,
        x: &Value,
        norm: Option<&Norm>,
        linear: &Linear,
        after: Afterwards,
    ) -> Result<Value, ExecError> {
        let x: &Tensor = x.get()?;
        let (k, n) = (linear.inputs, linear.outputs);
        let features = *x.shape.last().unwrap_or(&0);
        if x.shape.len() < 2 || features != k {
            return Err(mismatch(&linear.site, &format!("[.., {k}]"), &x.shape));
        }
        if let Some(norm) = norm {
            check_norm(x, norm)?;
        }
        let mut shape = x.shape.clone();
        shape.pop();
        shape.push(n);
        let mut out = self.tensor(&shape);
        let after = match after {
            Afterwards::Nothing => After::Nothing,
            Afterwards::Gelu => After::Gelu,
            Afterwards::Add(residual) => {
                let residual: &Tensor = residual.get()?;
                if residual.shape != shape {
                    return Err(mismatch(&linear.site, &format!("a residual of shape {shape:?}"), &residual.shape));
                }
                After::Add(&residual.data)
            }
        };
        let samples = x.shape[0];
        let rows_each = x.shape[1..x.shape.len() - 1].iter().product::<usize>();
        let (cpu, scratch, mut data) = (self.engine.cpu(), &mut self.linear, out.data.as_mut());
        for (range, width) in self.groups.ranges(samples) {
            let rows = range.start * rows_each..range.end * rows_each;
            // Not asked for in float: the plan need not know the site.
            let rule = match width.is_float() {
                true => SiteRule::Uniform(RowRule::Dynamic(8)),
                false => self.engine.rule(&linear.site, width)?,
            };
            let changed = match norm {
                _ if width.is_float() => None,
                Some(norm) => self.engine.plan().norm(&linear.site, norm),
                None => self.engine.plan().without_norm(&linear.site).map(|()| None)?,
            };
            let norm = changed.as_ref().or(norm);
            let (part, rest) = data.split_at_mut(rows.len() * n);
            data = rest;
            let after = match after {
                After::Add(residual) => After::Add(&residual[rows.start * n..rows.end * n]),
                other => other,
            };
            self.engine.with_weight(linear, self.engine.plan().width_at(&linear.site, width), |weight| {
                let bias = linear.bias.as_ref().map(|bias| &*bias.data);
                let call = LinearCall { k, n, weight, bias, norm, after, rule };
                let x = &x.data[rows.start * k..rows.end * k];
                call.run(cpu, x, part, scratch).map_err(|NotFinite| not_finite(&linear.site))
            })?;
        }
        Ok(Value::new(out))
    }

    /// Every block of query rows of every head: `block(self, rows of the head, rules)`, after `load(self, sample, head, rules)`.
    fn each_block(
        &mut self,
        qkv: &Tensor,
        attention: &Attention,
        load: impl Fn(&mut Self, Sample, usize, Option<&AttentionRules>) -> Result<(), OperandNotFinite>,
        mut block: impl FnMut(&mut Self, Rows, Option<&AttentionRules>) -> Result<(), OperandNotFinite>,
    ) -> Result<(), ExecError> {
        let &[_, t, features] = &*qkv.shape else { unreachable!("checked by attention_shape") };
        let groups = self.groups.clone();
        let of_group = |group: &Group| self.engine.attention_rules(attention, group.width);
        let rules: Vec<_> = groups.list().iter().map(of_group).collect::<Result<_, _>>()?;
        if t * features == 0 {
            return Ok(());
        }
        for (index, qkv) in qkv.data.chunks_exact(t * features).enumerate() {
            let sample = Sample::new(qkv, t, attention);
            let rules = rules[groups.of(index)].as_ref();
            for head in 0..attention.heads {
                let mut run = || {
                    load(self, sample, head, rules)?;
                    (0..t).step_by(BLOCK).try_for_each(|first| {
                        block(self, Rows { index, sample, head, first, count: BLOCK.min(t - first) }, rules)
                    })
                };
                run().map_err(|OperandNotFinite(operand)| not_finite(&attention.operand_site(operand)))?;
            }
        }
        Ok(())
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

/// Query rows of a head: which sample of the batch it is, and which rows.
struct Rows<'a> {
    index: usize,
    sample: Sample<'a>,
    head: usize,
    first: usize,
    count: usize,
}

/// What follows a linear layer.
enum Afterwards<'a> {
    Nothing,
    Gelu,
    Add(&'a Value),
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
            let mut out = this.tensor(shape);
            out.data.as_mut().copy_from_slice(data);
            Ok(Value::new(out))
        })
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        Ok(x.get::<Tensor>()?.data.to_vec())
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(x.get::<Tensor>()?.shape.clone())
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        self.timed("select samples", "", |this| {
            let x: &Tensor = x.get()?;
            let samples = *x.shape.first().ok_or_else(|| mismatch("select_samples", "[B, ..]", &x.shape))?;
            if let Some(index) = indices.iter().find(|&&index| index >= samples) {
                return Err(mismatch("select_samples", &format!("more than {index} samples"), &x.shape));
            }
            let mut shape = x.shape.clone();
            shape[0] = indices.len();
            let size: usize = shape[1..].iter().product();
            let mut out = this.tensor(&shape);
            for (&index, to) in indices.iter().zip(out.data.as_mut().chunks_exact_mut(size.max(1))) {
                to.copy_from_slice(&x.data[index * size..(index + 1) * size]);
            }
            Ok(Value::new(out))
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
            unfold(&x.data, [b, c, h, w], window, out.data.as_mut());
            Ok(Value::new(out))
        })
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        self.timed("reshape", "", |this| {
            let x: &Tensor = x.get()?;
            if x.shape.is_empty() || x.shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
                return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), &x.shape));
            }
            let mut out = this.copy(x);
            out.shape.truncate(1);
            out.shape.extend(sample);
            Ok(Value::new(out))
        })
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("transpose", "", |this| {
            let x: &Tensor = x.get()?;
            let [b, m, n] = three("transpose", x)?;
            let mut out = this.tensor(&[b, n, m]);
            if m * n > 0 {
                for (from, to) in x.data.chunks_exact(m * n).zip(out.data.as_mut().chunks_exact_mut(m * n)) {
                    transpose(from, m, n, to);
                }
            }
            Ok(Value::new(out))
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
            for (from, to) in x.data.chunks_exact(d.max(1)).zip(out.data.as_mut().chunks_exact_mut(length.max(1))) {
                to.copy_from_slice(&from[start..start + length]);
            }
            Ok(Value::new(out))
        })
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.timed("linear", &linear.site, |this| this.run_linear(x, None, linear, Afterwards::Nothing))
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        self.timed("layer norm", &norm.site, |this| {
            let x: &Tensor = x.get()?;
            check_norm(x, norm)?;
            let d = norm.weight.data.len().max(1);
            let mut out = this.tensor(&x.shape);
            for (row, out) in x.data.chunks_exact(d).zip(out.data.as_mut().chunks_exact_mut(d)) {
                layer_norm(this.cpu(), row, &norm.weight.data, &norm.bias.data, norm.eps, out);
            }
            Ok(Value::new(out))
        })
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("gelu", "", |this| {
            let mut out = this.copy(x.get()?);
            gelu(this.cpu(), out.data.as_mut());
            Ok(Value::new(out))
        })
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        self.timed("add", "", |this| {
            let (a, b): (&Tensor, &Tensor) = (a.get()?, b.get()?);
            if a.shape != b.shape {
                return Err(mismatch("add", &format!("{:?}", a.shape), &b.shape));
            }
            let mut out = this.copy(b);
            add(this.cpu(), &a.data, out.data.as_mut());
            Ok(Value::new(out))
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
            let samples = out.data.as_mut().chunks_exact_mut(((p + t) * d).max(1));
            for (i, to) in samples.enumerate() {
                to[..p * d].copy_from_slice(&tokens.data);
                to[p * d..].copy_from_slice(&x.data[i * t * d..(i + 1) * t * d]);
            }
            Ok(Value::new(out))
        })
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        self.timed("add position", "", |this| {
            let x: &Tensor = x.get()?;
            let [_, t, d] = three("add_position", x)?;
            if position.shape != [1, t, d] {
                return Err(mismatch(&position.name, &format!("[1, {t}, {d}]"), &position.shape));
            }
            let mut out = this.copy(x);
            for sample in out.data.as_mut().chunks_exact_mut((t * d).max(1)) {
                add(this.cpu(), &position.data, sample);
            }
            Ok(Value::new(out))
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
            Ok(Value::new(out))
        })
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.timed("softmax", "", |this| {
            let mut out = this.copy(x.get()?);
            let columns = *out.shape.last().ok_or_else(|| mismatch("softmax", "[.., T]", &out.shape))?;
            for row in out.data.as_mut().chunks_exact_mut(columns.max(1)) {
                softmax(this.cpu(), row);
            }
            Ok(Value::new(out))
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
            if probabilities.shape != [b, attention.heads, t, t] {
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
            Ok(Value::new(out))
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
                let samples =
                    kqv.data.chunks_exact((t * width).max(1)).zip(out.data.as_mut().chunks_exact_mut((t * e).max(1)));
                for (kqv, out) in samples {
                    scratch.run(engine.cpu(), kqv, directions, Performer::EPS, out, e);
                }
                Ok(())
            })?;
            Ok(Value::new(out))
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
            for (i, to) in out.data.as_mut().chunks_exact_mut((count * d).max(1)).enumerate() {
                to.copy_from_slice(&x.data[i * t * d..][..count * d]);
            }
            Ok(Value::new(out))
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
            for (i, to) in out.data.as_mut().chunks_exact_mut(d.max(1)).enumerate() {
                to.fill(0.0);
                for token in skip..t {
                    add(this.cpu(), &x.data[(i * t + token) * d..][..d], to);
                }
                to.iter_mut().for_each(|x| *x /= (t - skip) as f32);
            }
            Ok(Value::new(out))
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
            Ok(Value::new(out))
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
