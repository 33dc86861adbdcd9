//! Packed weights on a device, shared by the executors of several threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use quee_backbone::{ExecError, Linear, Param, QuantPlan};
use quee_quant::{QuantWeight, SiteQuant, Width, packing};

use crate::device::{Gpu, GpuOptions, Memory};
use crate::error::GpuError;
use crate::executor::GpuExecutor;
use crate::params::Rule;
use crate::recorder::{Counters, Counts, Recorder};

/// A device, the quantizers of one backbone, and its weights as the kernels want them.
///
/// Weights are quantized, packed and uploaded when they are first used at a width, and stay within a budget. The key is the parameter's id and
/// the weight's bits, so one engine serves one backbone: exits with parameters of their own need ids of their own.
pub struct GpuEngine {
    plan: Arc<QuantPlan>,
    options: GpuOptions,
    state: Mutex<State>,
    counters: Arc<Counters>,
}

struct State {
    gpu: Arc<Gpu>,
    /// Recorders whose executors have gone, with their buffers.
    idle: Vec<Recorder>,
    weights: Arc<Weights>,
}

impl GpuEngine {
    /// Opens a device.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn new(plan: Arc<QuantPlan>, options: &GpuOptions) -> Result<Arc<Self>, GpuError> {
        Ok(Self::on(plan, Gpu::open(options)?))
    }

    /// An engine on a device that is open.
    pub fn on(plan: Arc<QuantPlan>, gpu: Arc<Gpu>) -> Arc<Self> {
        let options = gpu.options().clone();
        let weights = Arc::new(Weights::new(Arc::clone(&gpu)));
        let state = Mutex::new(State { gpu, idle: Vec::new(), weights });
        Arc::new(Self { plan, options, state, counters: Arc::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device in use.
    pub fn gpu(&self) -> Arc<Gpu> {
        Arc::clone(&self.state().gpu)
    }

    /// Which quantizer runs where.
    pub fn plan(&self) -> &QuantPlan {
        &self.plan
    }

    /// Work of all executors so far.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Bytes of packed weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        let weights = Arc::clone(&self.state().weights);
        weights.bytes()
    }

    /// An executor over these weights. Each thread needs its own. When the device was lost, another one is opened first.
    ///
    /// # Errors
    /// When the device has too little memory or another one cannot be opened.
    pub fn executor(self: &Arc<Self>) -> Result<GpuExecutor, ExecError> {
        let mut state = self.state();
        if state.gpu.is_lost() {
            let gpu = Gpu::open(&self.options).map_err(|e| ExecError::Device(e.to_string()))?;
            let weights = Arc::new(Weights::new(Arc::clone(&gpu)));
            *state = State { gpu, idle: Vec::new(), weights };
        }
        let recorder = match state.idle.pop() {
            Some(recorder) => recorder,
            None => Recorder::new(Arc::clone(&state.gpu), Arc::clone(&self.counters))?,
        };
        Ok(GpuExecutor::new(Arc::clone(self), recorder, Arc::clone(&state.weights)))
    }

    /// Gives back the buffers that executors which have gone left for those to come.
    pub fn trim(&self) {
        self.state().idle.clear();
    }

    /// Takes the recorder of an executor that is done.
    pub(crate) fn recycle(&self, mut recorder: Recorder) {
        // What was recorded and never read is of no use to anybody.
        if recorder.wait().is_err() {
            return;
        }
        let mut state = self.state();
        if Arc::ptr_eq(&state.gpu, &recorder.gpu) {
            state.idle.push(recorder);
        }
    }

    /// The static quantizer of a site.
    pub(crate) fn site(&self, site: &str, width: Width) -> Result<Option<SiteQuant>, ExecError> {
        self.plan.site(site, self.plan.width_at(site, width).act_bits())
    }

    /// How rows are quantized at a site: the numbers of plane `p`.
    pub(crate) fn rule(&self, site: &str, width: Width, p: usize) -> Result<Rule, ExecError> {
        Ok(match self.site(site, width)? {
            Some(quant) => Rule::fixed(&quant, p),
            None => Rule::dynamic(self.plan.width_at(site, width).act_bits()),
        })
    }
}

/// Some columns of a weight, as many as fit a binding.
pub(crate) struct Panel {
    /// The columns.
    pub columns: std::ops::Range<usize>,
    /// Their codes, `[chunks, width]` times 16, or those in planes (`quee_quant::packing`, `width` rows), or their values, `[chunks, width]`
    /// times 4.
    pub content: Memory,
}

/// What kernels read of a linear layer's weight.
pub(crate) struct PackedCodes {
    /// All columns.
    pub panels: Vec<Panel>,
    /// Bits of a code where the panels hold planes.
    pub planes: Option<u8>,
    /// Scale, 0, sum of codes and bias of each column, `[width]`.
    pub infos: Memory,
}

/// A layer's weight in floats.
pub(crate) struct PackedFloats {
    /// All columns.
    pub panels: Vec<Panel>,
    /// `[n]`, where the layer has one.
    pub bias: Option<Memory>,
}

pub(crate) enum Packed {
    Codes(PackedCodes),
    Floats(PackedFloats),
    /// A parameter as it is.
    Plain(Memory),
}

impl Packed {
    fn bytes(&self) -> u64 {
        match self {
            Self::Codes(packed) => panel_bytes(&packed.panels) + packed.infos.bytes(),
            Self::Floats(packed) => panel_bytes(&packed.panels) + packed.bias.as_ref().map_or(0, Memory::bytes),
            Self::Plain(memory) => memory.bytes(),
        }
    }
}

fn panel_bytes(panels: &[Panel]) -> u64 {
    panels.iter().map(|panel| panel.content.bytes()).sum()
}

/// Packed weights within a budget.
pub(crate) struct Weights {
    gpu: Arc<Gpu>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<(usize, Form), Entry>,
    bytes: u64,
    clock: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Codes(u8),
    Floats,
    Plain,
    Replaced,
}

struct Entry {
    /// What was packed; another parameter under the same id is refused.
    source: Arc<[f32]>,
    packed: Arc<Packed>,
    used: u64,
}

impl Weights {
    fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, kept: Mutex::default() }
    }

    fn bytes(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// A layer's weight at the width of its site, in floats or as codes.
    pub fn linear(&self, linear: &Linear, width: Width, plan: &QuantPlan) -> Result<Arc<Packed>, ExecError> {
        let (n, k) = (linear.outputs, linear.inputs);
        let form = if width.is_float() { Form::Floats } else { Form::Codes(width.weight_bits()) };
        self.get(&linear.weight, &linear.site, form, || {
            if width.is_float() {
                let weight = &linear.weight.data;
                let panels = self.panels(n, 16 * k.div_ceil(4), |columns| {
                    self.gpu.upload(bytemuck::cast_slice(&pack_floats(
                        columns.len(),
                        k,
                        &weight[columns.start * k..columns.end * k],
                    )))
                })?;
                let bias = linear.bias.as_ref();
                let bias = bias.map(|bias| self.gpu.upload(bytemuck::cast_slice(&bias.data))).transpose()?;
                return Ok(Packed::Floats(PackedFloats { panels, bias }));
            }
            let layer = plan.weight(linear, width.weight_bits())?;
            let weight = &layer.weight;
            // Codes of 8 bits fill their bytes.
            let planes = Some(weight.bits).filter(|&bits| self.gpu.options().packed_weights && bits < 8);
            let panels = self.panels(n, 16 * k.div_ceil(16), |part| {
                let codes = &weight.codes[part.start * k..part.end * k];
                match planes {
                    Some(bits) => self.gpu.upload(bytemuck::cast_slice(&pack_planes(part.len(), k, bits, codes))),
                    None => self.gpu.upload(bytemuck::cast_slice(&pack_codes(part.len(), k, codes))),
                }
            })?;
            let infos = self.gpu.upload(bytemuck::cast_slice(&column_infos(weight, layer.bias.as_deref())))?;
            Ok(Packed::Codes(PackedCodes { panels, planes, infos }))
        })
    }

    /// Cuts `n` columns of `bytes` bytes each into panels that fit a binding.
    fn panels(
        &self,
        n: usize,
        bytes: usize,
        upload: impl Fn(std::ops::Range<usize>) -> Result<Memory, ExecError>,
    ) -> Result<Vec<Panel>, ExecError> {
        let most = (self.gpu.binding() / bytes.max(1) / 4 * 4).max(4);
        let panel = |first: usize| {
            let columns = first..n.min(first + most);
            Ok(Panel { content: upload(columns.clone())?, columns })
        };
        (0..n).step_by(most).map(panel).collect()
    }

    /// A parameter as it is; `replaced` where a plan has put other values in its place.
    pub fn plain(&self, param: &Param, replaced: bool) -> Result<Arc<Packed>, ExecError> {
        self.get(param, &param.name, if replaced { Form::Replaced } else { Form::Plain }, || {
            Ok(Packed::Plain(self.gpu.upload(bytemuck::cast_slice(&param.data))?))
        })
    }

    fn get(
        &self,
        param: &Param,
        site: &str,
        form: Form,
        pack: impl Fn() -> Result<Packed, ExecError>,
    ) -> Result<Arc<Packed>, ExecError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        if let Some(entry) = kept.entries.get_mut(&(param.id, form)) {
            if !Arc::ptr_eq(&entry.source, &param.data) {
                return Err(ExecError::Device(format!(
                    "{site}: parameter id {} already belongs to another weight of this engine; hint: use one engine per backbone, and ids of \
                     their own for added layers",
                    param.id
                )));
            }
            entry.used = now;
            return Ok(Arc::clone(&entry.packed));
        }
        // Under the lock, so that no weight is packed twice.
        let packed = match pack() {
            Err(ExecError::OutOfMemory { .. }) if !kept.entries.is_empty() => {
                // Weights that are not in use make room; those that recordings still need live on with them.
                kept.entries.clear();
                kept.bytes = 0;
                pack()?
            }
            other => other?,
        };
        let packed = Arc::new(packed);
        kept.bytes += packed.bytes();
        let budget = self.gpu.options().weight_memory;
        while kept.bytes > budget {
            let Some((&key, _)) = kept.entries.iter().min_by_key(|(_, entry)| entry.used) else { break };
            let entry = kept.entries.remove(&key).expect("just found");
            kept.bytes -= entry.packed.bytes();
        }
        let entry = Entry { source: Arc::clone(&param.data), packed: Arc::clone(&packed), used: now };
        kept.entries.insert((param.id, form), entry);
        Ok(packed)
    }
}

/// Columns of a product are counted in fours.
pub(crate) fn columns(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// Codes `[n, k]` to `[chunks, width, 16]`, 0 beyond K and n.
pub(crate) fn pack_codes(n: usize, k: usize, codes: &[i8]) -> Vec<i8> {
    let (width, chunks) = (columns(n), k.div_ceil(16));
    let mut packed = vec![0; chunks * width * 16];
    for (j, row) in codes.chunks_exact(k.max(1)).enumerate() {
        for (c, part) in row.chunks(16).enumerate() {
            packed[(c * width + j) * 16..][..part.len()].copy_from_slice(part);
        }
    }
    packed
}

/// Codes `[n, k]` to planes of `width` rows, 0 beyond n.
fn pack_planes(n: usize, k: usize, bits: u8, codes: &[i8]) -> Vec<u32> {
    let width = columns(n);
    let padded: Vec<i8> = codes.iter().copied().chain(std::iter::repeat_n(0, (width - n) * k)).collect();
    packing::pack(width, k, bits, &padded)
}

/// Values `[n, k]` to `[chunks, width, 4]`, 0 beyond K and n.
pub(crate) fn pack_floats(n: usize, k: usize, values: &[f32]) -> Vec<f32> {
    let (width, chunks) = (columns(n), k.div_ceil(4));
    let mut packed = vec![0.0; chunks * width * 4];
    for (j, row) in values.chunks_exact(k.max(1)).enumerate() {
        for (c, part) in row.chunks(4).enumerate() {
            packed[(c * width + j) * 4..][..part.len()].copy_from_slice(part);
        }
    }
    packed
}

/// Scale, zero point 0, sum and bias of each column, as bits.
fn column_infos(weight: &QuantWeight, bias: Option<&[f32]>) -> Vec<[u32; 4]> {
    let of = |j: usize| {
        let bias = bias.map_or(0.0, |bias| bias[j]);
        [weight.scales[j].to_bits(), 0, weight.sums[j] as u32, bias.to_bits()]
    };
    (0..columns(weight.n)).map(|j| if j < weight.n { of(j) } else { [0; 4] }).collect()
}
