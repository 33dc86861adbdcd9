//! The executor: shapes, checks, and the kernels in the order that the operations ask for.
//!
//! - `products`: products of matrices, of codes and of floats
//! - `linear`: linear layers, with what stands before and after them
//! - `attention`: attention and its parts
//! - `fused`: attention in one dispatch
//! - `moves`: operations that change places only, and elementwise ones
//! - `single`: what measuring needs

pub(crate) mod attention;
pub(crate) mod fused;
pub(crate) mod linear;
mod moves;
mod performer;
pub(crate) mod products;
mod single;

use std::sync::Arc;

use quee_backbone::{Attention, ExecError, Executor, Groups, Linear, Norm, Param, Performer, Value, Window};
use quee_quant::{SiteQuant, Width};

use crate::device::Gpu;
use crate::engine::{GpuEngine, Packed, Weights};
use crate::memory::Tensor;
use crate::params::Rules;
use crate::profile::KernelTime;
use crate::recorder::{Counts, Recorder, Span};
use linear::Afterwards;

/// Most groups of samples with widths of their own.
const GROUPS: usize = 8;
/// Invocations of a workgroup of the elementwise kernels.
const ELEMENTS: usize = 64;

/// Runs a backbone's program on a GPU: integer kernels at integer widths, 32-bit floats at [`Width::FLOAT`].
///
/// Operations are recorded; [`read`](Executor::read) and [`wait`](Executor::wait) submit them. Values that are not finite are therefore reported by
/// the next [`read`](Executor::read), under the name of the operation that was to quantize them.
pub struct GpuExecutor {
    engine: Arc<GpuEngine>,
    weights: Arc<Weights>,
    /// Returned to the engine when the executor is dropped.
    recorder: Option<Recorder>,
    groups: Groups,
}

impl GpuExecutor {
    pub(crate) fn new(engine: Arc<GpuEngine>, recorder: Recorder, weights: Arc<Weights>) -> Self {
        let groups = Groups::uniform(Width::FLOAT);
        Self { engine, weights, recorder: Some(recorder), groups }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.recorder().gpu
    }

    /// Work of all executors of this engine so far; what is recorded only does not count yet.
    pub fn counts(&self) -> Counts {
        self.engine.counts()
    }

    /// Times every kernel from now on, or no longer; times taken before are forgotten. Each dispatch is then a pass of its own, so
    /// everything takes longer. Without timestamps nothing is timed.
    ///
    /// # Errors
    /// When the device has no memory for timestamps.
    pub fn profile(&mut self, on: bool) -> Result<(), ExecError> {
        self.recorder_mut().set_profile(on)
    }

    /// Times so far of what was submitted, by kernel and place.
    pub fn profiled(&self) -> &[KernelTime] {
        self.recorder().profiled()
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        self.recorder.as_ref().expect("there until the executor is dropped")
    }

    pub(crate) fn recorder_mut(&mut self) -> &mut Recorder {
        self.recorder.as_mut().expect("there until the executor is dropped")
    }

    /// Whether everything runs in floats; groups are never mixed with floats.
    fn is_float(&self) -> bool {
        self.groups.is_float()
    }

    fn tensor(&self, shape: &[usize]) -> Result<Tensor, ExecError> {
        let bytes = 4 * shape.iter().product::<usize>() as u64;
        Ok(Tensor { shape: shape.to_vec(), data: Arc::new(self.recorder().pool.take(bytes, false)?) })
    }

    /// Memory for what is no tensor: codes and what belongs to them.
    fn block(&self, bytes: usize) -> Result<Arc<crate::memory::Block>, ExecError> {
        Ok(Arc::new(self.recorder().pool.take(bytes as u64, false)?))
    }

    /// `from..from + count` of a tensor's numbers.
    fn floats(&self, x: &Tensor, from: usize, count: usize) -> Span {
        self.recorder().span(x.data.buffer(), 4 * from, 4 * count)
    }

    /// Workgroups for `count` invocations or rows, `each` to a workgroup, in as few lines as the adapter allows.
    fn grid(&self, count: usize, each: usize) -> [usize; 3] {
        let groups = count.div_ceil(each);
        let across = groups.min(self.recorder().workgroups());
        [across, if across == 0 { 0 } else { groups.div_ceil(across) }, 1]
    }

    /// Most invocations or rows of one dispatch.
    fn most(&self, each: usize) -> usize {
        // All numbers of a dispatch fit 32 bits.
        (self.recorder().workgroups().pow(2) * each).min(1 << 30)
    }

    /// The rules of a site for the groups of samples, where each sample has `rows` rows: the numbers of plane `p`.
    fn rules(&self, site: &str, rows: usize, p: usize) -> Result<(u32, Rules), ExecError> {
        let mut rules = Rules::default();
        for (at, group) in self.groups.list().iter().enumerate() {
            rules.ends[at] = u32::try_from(group.end.saturating_mul(rows)).unwrap_or(u32::MAX);
            rules.rules[at] = self.engine.rule(site, group.width, p)?;
        }
        Ok((self.groups.list().len() as u32, rules))
    }

    /// Most planes that a group of samples has at a site.
    fn planes(&self, site: &str) -> Result<usize, ExecError> {
        let of = |width| Ok(self.engine.site(site, width)?.map_or(1, |quant| quant.planes()));
        self.groups.list().iter().try_fold(1, |most, group| Ok(of(group.width)?.max(most)))
    }

    /// Refuses a site that takes codes in steps of one size only and has others.
    fn expect_uniform(&self, site: &str) -> Result<(), ExecError> {
        for group in self.groups.list() {
            if !matches!(self.engine.site(site, group.width)?, None | Some(SiteQuant::Uniform(_))) {
                return Err(ExecError::Device(format!("{site}: takes uniform codes only")));
            }
        }
        Ok(())
    }

    /// A parameter as it is, on the device.
    fn plain(&self, param: &Param) -> Result<Arc<Packed>, ExecError> {
        self.weights.plain(param, false)
    }
}

impl Drop for GpuExecutor {
    fn drop(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            self.engine.recycle(recorder);
        }
    }
}

fn mismatch(op: &str, expected: &str, got: &[usize]) -> ExecError {
    ExecError::Shape { op: op.to_owned(), expected: expected.to_owned(), got: got.to_vec() }
}

/// B, T and D of `[B, T, D]`.
pub(crate) fn three(op: &str, x: &Tensor) -> Result<[usize; 3], ExecError> {
    <[usize; 3]>::try_from(&*x.shape).map_err(|_| mismatch(op, "[B, T, D]", &x.shape))
}

/// The buffer of a parameter as it is.
fn buffer(packed: &Packed) -> &wgpu::Buffer {
    match packed {
        Packed::Plain(memory) => &memory.buffer,
        _ => unreachable!("asked for as it is"),
    }
}

impl Executor for GpuExecutor {
    /// `gpu` and the adapter.
    fn name(&self) -> String {
        format!("gpu ({})", self.gpu().info())
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.groups = Groups::uniform(width);
        Ok(())
    }

    fn set_groups(&mut self, groups: &[(usize, Width)]) -> Result<(), ExecError> {
        let Some(groups) = Groups::new(groups) else { return Ok(()) };
        let (count, floats) = (groups.list().len(), groups.list().iter().any(|group| group.width.is_float()));
        if count > GROUPS || (count > 1 && floats) {
            return Err(ExecError::Device(format!(
                "a batch runs in floats, or in up to {GROUPS} groups of integer widths, not in {count} groups"
            )));
        }
        self.groups = groups;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        self.recorder_mut().wait()
    }

    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError> {
        let count: usize = shape.iter().product();
        if count != data.len() {
            return Err(mismatch("input", &format!("data of shape {shape:?}"), &[data.len()]));
        }
        let block = self.recorder().pool.take(4 * count as u64, true)?;
        self.recorder().write(block.buffer(), bytemuck::cast_slice(data));
        Ok(Value::new(Tensor { shape: shape.to_vec(), data: Arc::new(block) }))
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        let x: &Tensor = x.get()?;
        self.recorder_mut().read(x.data.buffer(), x.len())
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        Ok(x.get::<Tensor>()?.shape.clone())
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        self.run_select(x.get()?, indices).map(Value::new)
    }

    fn unfold(&mut self, x: &Value, window: &Window) -> Result<Value, ExecError> {
        self.recorder_mut().at("");
        self.run_unfold(x.get()?, window).map(Value::new)
    }

    fn reshape(&mut self, x: &Value, sample: &[usize]) -> Result<Value, ExecError> {
        let x: &Tensor = x.get()?;
        if x.shape.is_empty() || x.shape[1..].iter().product::<usize>() != sample.iter().product::<usize>() {
            return Err(mismatch("reshape", &format!("samples that fill {sample:?}"), &x.shape));
        }
        let shape = std::iter::once(x.shape[0]).chain(sample.iter().copied()).collect();
        Ok(Value::new(Tensor { shape, data: Arc::clone(&x.data) }))
    }

    fn transpose(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.run_transpose(x.get()?).map(Value::new)
    }

    fn slice_features(&mut self, x: &Value, start: usize, length: usize) -> Result<Value, ExecError> {
        self.run_slice(x.get()?, start, length).map(Value::new)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.run_linear(x.get()?, None, linear, Afterwards::Nothing).map(Value::new)
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        self.run_norm(x.get()?, norm).map(Value::new)
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.run_gelu(x.get()?).map(Value::new)
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        self.run_add(a.get()?, b.get()?).map(Value::new)
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        self.run_prepend(x.get()?, tokens).map(Value::new)
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        self.run_add_position(x.get()?, position).map(Value::new)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.run_scores(qkv.get()?, attention).map(Value::new)
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.run_softmax(x.get()?).map(Value::new)
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        self.run_values(probabilities.get()?, false, qkv.get()?, attention).map(Value::new)
    }

    fn performer(&mut self, kqv: &Value, performer: &Performer) -> Result<Value, ExecError> {
        self.run_performer(kqv.get()?, performer).map(Value::new)
    }

    fn first_tokens(&mut self, x: &Value, count: usize) -> Result<Value, ExecError> {
        self.run_first_tokens(x.get()?, count).map(Value::new)
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        self.run_mean_tokens(x.get()?, skip).map(Value::new)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.run_linear(x.get()?, Some(norm), linear, Afterwards::Nothing).map(Value::new)
    }

    fn norm_linear_gelu(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.run_linear(x.get()?, Some(norm), linear, Afterwards::Gelu).map(Value::new)
    }

    fn linear_add(&mut self, x: &Value, linear: &Linear, residual: &Value) -> Result<Value, ExecError> {
        self.run_linear(x.get()?, None, linear, Afterwards::Add(residual.get()?)).map(Value::new)
    }

    fn attention(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let qkv: &Tensor = qkv.get()?;
        if let Some(out) = self.run_fused(qkv, attention)? {
            return Ok(Value::new(out));
        }
        let scores = self.run_scores(qkv, attention)?;
        if self.is_float() {
            let probabilities = self.run_softmax(&scores)?;
            return self.run_values(&probabilities, false, qkv, attention).map(Value::new);
        }
        self.run_values(&scores, true, qkv, attention).map(Value::new)
    }
}
