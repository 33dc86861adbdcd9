//! Records dispatches and submits them together: one command buffer for everything between two readbacks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quee_backbone::ExecError;
use quee_backbone::params::place;
use serde::{Deserialize, Serialize};

use crate::bindings::Bindings;
use crate::clock::{Clock, Stamps};
use crate::device::{Gpu, Memory, Pipeline};
use crate::kernels::{Binding, Source};
use crate::memory::Pool;
use crate::profile::{KernelTime, Profile};

/// Most bytes of the parameters of a dispatch: a multiple of what every adapter asks for.
const PARAMS: usize = 512;
/// Dispatches of one command buffer; beyond, another one is begun.
pub(crate) const DISPATCHES: usize = 512;
/// Places that can report NaN or infinity.
const FLAGS: usize = 512;

/// How much work the device was given.
#[derive(Debug, Default)]
pub struct Counters {
    dispatches: AtomicU64,
    submits: AtomicU64,
    readbacks: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Kernels started.
    pub dispatches: u64,
    /// Command buffers handed over.
    pub submits: u64,
    /// Times that the host waited for data.
    pub readbacks: u64,
    /// Bytes written to the device, parameters included, weights not.
    pub bytes_up: u64,
    /// Bytes read from the device.
    pub bytes_down: u64,
}

impl Counters {
    /// What was counted so far.
    pub fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            dispatches: of(&self.dispatches),
            submits: of(&self.submits),
            readbacks: of(&self.readbacks),
            bytes_up: of(&self.bytes_up),
            bytes_down: of(&self.bytes_down),
        }
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dispatches: self.dispatches + other.dispatches,
            submits: self.submits + other.submits,
            readbacks: self.readbacks + other.readbacks,
            bytes_up: self.bytes_up + other.bytes_up,
            bytes_down: self.bytes_down + other.bytes_down,
        }
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            dispatches: self.dispatches - before.dispatches,
            submits: self.submits - before.submits,
            readbacks: self.readbacks - before.readbacks,
            bytes_up: self.bytes_up - before.bytes_up,
            bytes_down: self.bytes_down - before.bytes_down,
        }
    }
}

/// A part of a buffer as a kernel sees it: a binding shows all of the buffer or, where that is too large, begins at a multiple of the
/// adapter's alignment, so the part itself begins `at` bytes into the binding.
#[derive(Clone)]
pub(crate) struct Span {
    buffer: wgpu::Buffer,
    start: u64,
    size: u64,
    at: u64,
}

impl Span {
    /// What the kernel sees: of which buffer, from where, how many bytes.
    pub fn binding(&self) -> (&wgpu::Buffer, u64, u64) {
        (&self.buffer, self.start, self.size)
    }

    /// Where the part begins, in numbers of 32 bits.
    pub fn at(&self) -> u32 {
        (self.at / 4) as u32
    }

    /// Where the part begins, in vectors of four such numbers.
    pub fn at4(&self) -> u32 {
        (self.at / 16) as u32
    }
}

struct Dispatch {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    params: u32,
    size: [u32; 3],
    kernel: &'static str,
    place: Arc<str>,
}

/// A recording, with the buffers that every recording needs.
pub(crate) struct Recorder {
    pub gpu: Arc<Gpu>,
    pub pool: Arc<Pool>,
    pub counters: Arc<Counters>,
    pub bindings: Arc<Bindings>,
    dispatches: Vec<Dispatch>,
    params: Vec<u8>,
    params_buffer: Memory,
    flags: Memory,
    sites: Vec<String>,
    slots: HashMap<String, u32>,
    staging: Option<Memory>,
    /// What is recorded next belongs to.
    place: Arc<str>,
    profile: Option<Profile>,
}

impl Recorder {
    pub fn new(gpu: Arc<Gpu>, counters: Arc<Counters>) -> Result<Self, ExecError> {
        use wgpu::BufferUsages as Usage;
        let params_buffer = gpu.allocate((PARAMS * DISPATCHES) as u64, Usage::UNIFORM | Usage::COPY_DST, false)?;
        let flags = gpu.allocate((FLAGS * 4) as u64, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, false)?;
        let pool = Pool::new(Arc::clone(&gpu));
        Ok(Self {
            bindings: gpu.bindings(),
            gpu,
            pool,
            counters,
            dispatches: Vec::new(),
            params: Vec::new(),
            params_buffer,
            flags,
            sites: Vec::new(),
            slots: HashMap::new(),
            staging: None,
            place: Arc::from(""),
            profile: None,
        })
    }

    /// Says at which site the dispatches that follow are; only a profile asks.
    pub fn at(&mut self, site: &str) {
        if self.profile.is_some() && *self.place != *place(site) {
            self.place = Arc::from(place(site));
        }
    }

    /// Times every dispatch from now on, or no longer. Without timestamps nothing is timed.
    pub fn set_profile(&mut self, on: bool) -> Result<(), ExecError> {
        self.profile = if on { Profile::new(&self.gpu, DISPATCHES)? } else { None };
        Ok(())
    }

    /// The times so far.
    pub fn profiled(&self) -> &[KernelTime] {
        self.profile.as_ref().map_or(&[], Profile::rows)
    }

    /// Number under which a kernel reports values that are not finite at `site`.
    pub fn slot(&mut self, site: &str) -> u32 {
        if let Some(&slot) = self.slots.get(site) {
            return slot;
        }
        // A backbone with more sites than slots: the last ones share a name.
        let slot = self.sites.len().min(FLAGS - 1);
        if slot == self.sites.len() {
            self.sites.push(site.to_owned());
        }
        self.slots.insert(site.to_owned(), slot as u32);
        slot as u32
    }

    /// The buffer of those reports.
    pub fn flags(&self) -> Span {
        Span { buffer: self.flags.buffer.clone(), start: 0, size: self.flags.bytes(), at: 0 }
    }

    /// Stands in for an operand that is not used.
    pub fn nothing(&self) -> Span {
        Span { buffer: self.gpu.nothing.clone(), start: 0, size: self.gpu.nothing.size(), at: 0 }
    }

    /// Bytes `from..from + bytes` of a buffer.
    pub fn span(&self, buffer: &wgpu::Buffer, from: usize, bytes: usize) -> Span {
        let from = from as u64;
        // All of a buffer that fits a binding, whatever the part: then other parts, as other batches have, find their bind group.
        if buffer.size() <= self.gpu.binding() as u64 {
            return Span { buffer: buffer.clone(), start: 0, size: buffer.size(), at: from };
        }
        let align = u64::from(self.gpu.limits().min_storage_buffer_offset_alignment).max(16);
        let start = from / align * align;
        // Whole vectors, and no binding is empty.
        let end = (from + (bytes as u64).max(4)).next_multiple_of(16).min(buffer.size());
        Span { buffer: buffer.clone(), start, size: end - start, at: from - start }
    }

    /// Rows, heads or samples `run` of a buffer, of `bytes` bytes each.
    pub fn part(&self, buffer: &wgpu::Buffer, run: &Range<usize>, bytes: usize) -> Span {
        self.span(buffer, run.start * bytes, run.len() * bytes)
    }

    /// Most workgroups along an axis.
    pub fn workgroups(&self) -> usize {
        self.gpu.limits().max_compute_workgroups_per_dimension as usize
    }

    /// Cuts `count` rows (or samples, or columns) into runs that fit a binding when each takes `bytes` bytes of an operand, for each
    /// operand, and that are at most `most` long.
    pub fn runs(
        &self,
        op: &str,
        count: usize,
        bytes: &[usize],
        most: usize,
    ) -> Result<impl Iterator<Item = Range<usize>> + use<>, ExecError> {
        let step = self.step(op, bytes, most)?;
        Ok((0..count).step_by(step).map(move |first| first..count.min(first + step)))
    }

    /// The longest run: at most `most`, and each `bytes` of it within a binding.
    pub fn step(&self, op: &str, bytes: &[usize], most: usize) -> Result<usize, ExecError> {
        let largest = bytes.iter().copied().max().unwrap_or(1).max(1);
        let step = (self.gpu.binding() / largest).min(most);
        if step == 0 {
            let binding = self.gpu.binding();
            return Err(self.gpu.refused(&format!(
                "{op}: one part needs {largest} bytes in one binding, and the adapter's largest has {binding}"
            )));
        }
        Ok(step)
    }

    /// Records one dispatch of `size` workgroups.
    pub fn dispatch<P: bytemuck::Pod>(
        &mut self,
        source: &'static Source,
        constants: &[(&'static str, f64)],
        params: &P,
        operands: &[Span],
        size: [usize; 3],
    ) -> Result<(), ExecError> {
        if size.contains(&0) {
            return Ok(());
        }
        let pipeline = self.gpu.pipeline(source, constants)?;
        if self.dispatches.len() == DISPATCHES {
            self.submit(None, None)?;
        }
        let bytes = bytemuck::bytes_of(params);
        assert!(bytes.len() <= PARAMS && operands.len() + 1 == source.bindings.len(), "{}", source.name);
        let at = self.params.len();
        self.params.extend_from_slice(bytes);
        // Parameters of the next dispatch begin where the adapter allows.
        let align = self.gpu.limits().min_uniform_buffer_offset_alignment as usize;
        self.params.resize(at + bytes.len().next_multiple_of(align), 0);
        let group = self.bindings.group(source, operands, self.gpu.complaints(), || {
            bind(&self.gpu, source, &pipeline, &self.params_buffer.buffer, bytes.len(), operands)
        });
        let (size, kernel, place) = (size.map(|n| n as u32), source.name, Arc::clone(&self.place));
        self.dispatches.push(Dispatch { pipeline, group, params: at as u32, size, kernel, place });
        Ok(())
    }

    /// Hands everything recorded over; with `copy`, bytes of a buffer go to the staging buffer afterwards, and with `stamps`, the times
    /// at which the first dispatch began and the last one ended are kept.
    fn submit(
        &mut self,
        copy: Option<(&wgpu::Buffer, u64)>,
        stamps: Option<&Stamps>,
    ) -> Result<Option<wgpu::SubmissionIndex>, ExecError> {
        if self.dispatches.is_empty() && copy.is_none() {
            return Ok(None);
        }
        let gpu = &self.gpu;
        if !self.params.is_empty() {
            gpu.queue.write_buffer(&self.params_buffer.buffer, 0, &self.params);
        }
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        // A pass for everything, or one for each dispatch that is to be timed.
        let stamps = self.profile.as_ref().map(|profile| &profile.stamps).or(stamps);
        let each = if self.profile.is_some() { 1 } else { DISPATCHES };
        let passes = self.dispatches.len().div_ceil(each) as u32;
        for (number, dispatches) in (0..).zip(self.dispatches.chunks(each)) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: stamps.map(|stamps| stamps.writes(number)),
            });
            let mut pipeline = None;
            for dispatch in dispatches {
                if pipeline.replace(Arc::as_ptr(&dispatch.pipeline)) != Some(Arc::as_ptr(&dispatch.pipeline)) {
                    pass.set_pipeline(&dispatch.pipeline.pipeline);
                }
                pass.set_bind_group(0, &dispatch.group, &[dispatch.params]);
                let [x, y, z] = dispatch.size;
                pass.dispatch_workgroups(x, y, z);
            }
        }
        if let Some((buffer, bytes)) = copy {
            let staging = &self.staging.as_ref().expect("made before the copy").buffer;
            encoder.copy_buffer_to_buffer(&self.flags.buffer, 0, staging, 0, (FLAGS * 4) as u64);
            encoder.copy_buffer_to_buffer(buffer, 0, staging, (FLAGS * 4) as u64, bytes);
        }
        if let Some(stamps) = stamps.filter(|_| passes > 0) {
            stamps.resolve(&mut encoder, passes);
        }
        let index = gpu.queue.submit([encoder.finish()]);
        let count = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        count(&self.counters.dispatches, self.dispatches.len());
        count(&self.counters.submits, 1);
        count(&self.counters.bytes_up, self.params.len());
        let mut dispatches = std::mem::take(&mut self.dispatches);
        self.params.clear();
        self.pool.submitted();
        self.bindings.submitted();
        gpu.check()?;
        if let Some(profile) = &mut self.profile {
            let seconds = profile.stamps.read(gpu, dispatches.len())?;
            for (dispatch, seconds) in dispatches.iter().zip(seconds) {
                profile.add(dispatch.kernel, &dispatch.place, dispatch.size, seconds);
            }
        }
        // Its memory serves the next recording.
        dispatches.clear();
        self.dispatches = dispatches;
        Ok(Some(index))
    }

    /// Runs everything recorded and waits for it.
    pub fn wait(&mut self) -> Result<(), ExecError> {
        match self.submit(None, None)? {
            Some(index) => self.poll(index),
            None => Ok(()),
        }
    }

    /// Runs everything recorded and waits for it; the seconds that it took by `clock`. What was recorded must fit one submission: with more
    /// than [`DISPATCHES`], only the last ones count.
    pub fn time(&mut self, clock: &Clock) -> Result<f64, ExecError> {
        let start = std::time::Instant::now();
        let stamps = clock.stamps();
        let Some(index) = self.submit(None, stamps)? else { return Ok(0.0) };
        self.poll(index)?;
        let wall = start.elapsed().as_secs_f64();
        stamps.map_or(Ok(wall), |stamps| Ok(stamps.read(&self.gpu, 1)?.into_iter().sum()))
    }

    fn poll(&self, index: wgpu::SubmissionIndex) -> Result<(), ExecError> {
        let polled = self.gpu.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        self.gpu.check()?;
        polled.map(drop).map_err(|e| self.gpu.refused(&e.to_string()))
    }

    /// Runs everything recorded and returns the first `count` floats of a buffer.
    ///
    /// # Errors
    /// When a kernel has found NaN or infinity, or the device fails.
    pub fn read(&mut self, buffer: &wgpu::Buffer, count: usize) -> Result<Vec<f32>, ExecError> {
        let bytes = (count * 4) as u64;
        let needed = (FLAGS * 4) as u64 + bytes.max(4);
        if self.staging.as_ref().is_none_or(|staging| staging.bytes() < needed) {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            self.staging = Some(self.gpu.allocate(needed.next_multiple_of(4096), usage, false)?);
        }
        let index = self.submit(Some((buffer, bytes)), None)?.expect("a copy is always submitted");
        let staging = &self.staging.as_ref().expect("made above").buffer;
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, ..needed, move |result| {
            // Nobody listens any more when waiting has failed.
            let _ = sender.send(result);
        });
        self.poll(index)?;
        let mapped = receiver.recv().map_err(|_| self.gpu.refused("a readback got no answer"))?;
        mapped.map_err(|e| self.gpu.refused(&e.to_string()))?;
        let (flags, data) = {
            let view = staging.get_mapped_range(..needed).map_err(|e| self.gpu.refused(&e.to_string()))?;
            let (flags, data) = view.split_at(FLAGS * 4);
            let flags: Vec<u32> = bytemuck::pod_collect_to_vec(flags);
            (flags, bytemuck::pod_collect_to_vec::<u8, f32>(&data[..count * 4]))
        };
        staging.unmap();
        self.counters.readbacks.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_down.fetch_add(needed, Ordering::Relaxed);
        if let Some(slot) = flags.iter().position(|&flag| flag != 0) {
            self.gpu.queue.write_buffer(&self.flags.buffer, 0, &[0; FLAGS * 4]);
            return Err(ExecError::NotFinite { site: self.sites[slot].clone() });
        }
        Ok(data)
    }

    /// Writes `content` to a buffer that no unsubmitted command uses.
    pub fn write(&self, buffer: &wgpu::Buffer, content: &[u8]) {
        self.gpu.queue.write_buffer(buffer, 0, content);
        self.counters.bytes_up.fetch_add(content.len() as u64, Ordering::Relaxed);
    }
}

/// A bind group of parameters, `bytes` long and at an offset given later, and operands.
fn bind(
    gpu: &Gpu,
    source: &'static Source,
    pipeline: &Pipeline,
    params: &wgpu::Buffer,
    bytes: usize,
    operands: &[Span],
) -> wgpu::BindGroup {
    debug_assert!(source.bindings[0] == Binding::Uniform);
    let uniform = wgpu::BufferBinding { buffer: params, offset: 0, size: std::num::NonZero::new(bytes as u64) };
    let storage = operands.iter().map(|span| wgpu::BufferBinding {
        buffer: &span.buffer,
        offset: span.start,
        size: std::num::NonZero::new(span.size),
    });
    let entries: Vec<wgpu::BindGroupEntry> = std::iter::once(uniform)
        .chain(storage)
        .enumerate()
        .map(|(at, binding)| wgpu::BindGroupEntry {
            binding: at as u32,
            resource: wgpu::BindingResource::Buffer(binding),
        })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.layout,
        entries: &entries,
    })
}
