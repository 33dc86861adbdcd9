//! An open adapter: its device and queue, its pipelines, its memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quee_backbone::ExecError;

use crate::adapter::{self, AdapterInfo, Power};
use crate::bindings::{Bindings, Registry};
use crate::error::GpuError;
use crate::kernels::{Binding, Source};
use crate::tiles::{self, Abilities, Shape, Tile};
use crate::tuning;

/// What to open, and how much of it to use.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuOptions {
    /// Part of the adapter's name, in any case; without it the first by kind.
    pub adapter: Option<String>,
    /// Which kind comes first.
    pub power: Power,
    /// Most bytes that buffers may take together; without it, what the driver gives.
    pub memory: Option<u64>,
    /// Most bytes that packed weights keep between uses; the least recently used make room.
    pub weight_memory: u64,
    /// Whether weights of 2 to 7 bits stay packed on the device, so that `b` bits take `b / 8` of the memory of codes in bytes, and are expanded
    /// each time before they are used.
    pub packed_weights: bool,
    /// Folder with files of tiles that were measured ([`tuning`](crate::tuning)); that of the adapter is used where there is one.
    pub tuning: Option<PathBuf>,
    /// Smaller limits than the adapter's; for tests of what happens on small adapters.
    pub limits: Option<SmallLimits>,
    /// Kernels made for discrete GPUs (`true`) or for software adapters (`false`); without it, by the kind of the adapter.
    pub tiled: Option<bool>,
    /// Whether matrix units are used where the adapter has some.
    pub matrix_units: bool,
    /// Whether discrete GPUs compute the attention of integer widths in one dispatch where it fits. Results stay the same; for tests and timing.
    pub fused_attention: bool,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            adapter: None,
            power: Power::High,
            memory: None,
            weight_memory: 2 << 30,
            packed_weights: false,
            limits: None,
            tuning: None,
            tiled: None,
            matrix_units: true,
            fused_attention: true,
        }
    }
}

/// Limits below those of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallLimits {
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub max_binding: u64,
    /// Most workgroups along one axis of a dispatch.
    pub workgroups: u32,
}

/// A device, shared by all executors that run on it.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    info: AdapterInfo,
    options: GpuOptions,
    limits: wgpu::Limits,
    matrix_units: bool,
    pipelines: Mutex<HashMap<&'static str, Vec<Arc<Pipeline>>>>,
    /// Choices of tiles by class of shapes.
    tiles: Mutex<HashMap<Shape, &'static Tile>>,
    health: Arc<Health>,
    ledger: Arc<Ledger>,
    /// Stands in for operands that a variant of a kernel does not use.
    pub(crate) nothing: wgpu::Buffer,
}

/// A kernel with its constants filled in.
pub(crate) struct Pipeline {
    constants: Vec<(&'static str, f64)>,
    pub pipeline: wgpu::ComputePipeline,
    /// Equal for all pipelines of a kernel.
    pub layout: wgpu::BindGroupLayout,
}

/// What the driver has complained about.
#[derive(Default)]
struct Health {
    lost: AtomicBool,
    message: Mutex<Option<String>>,
    /// Messages so far.
    complaints: AtomicU64,
}

impl Health {
    fn note(&self, message: String) {
        self.complaints.fetch_add(1, Ordering::Relaxed);
        // The first complaint is the cause of those that follow.
        self.message.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }
}

impl Gpu {
    /// Opens an adapter with all that it has.
    ///
    /// # Errors
    /// When there is none, none of that name, or the driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Arc<Self>, GpuError> {
        let (adapter, info) = adapter::choose(&adapter::instance(), options.adapter.as_deref(), options.power)?;
        let mut limits = adapter.limits();
        if let Some(small) = options.limits {
            limits.max_storage_buffer_binding_size = small.max_binding.min(limits.max_storage_buffer_binding_size);
            limits.max_compute_workgroups_per_dimension =
                small.workgroups.min(limits.max_compute_workgroups_per_dimension);
            limits.max_compute_invocations_per_workgroup = 256;
            limits.max_compute_workgroup_storage_size = 16 << 10;
        }
        let matrix_units = options.matrix_units && options.limits.is_none() && info.matrix_units;
        let wanted = if matrix_units { adapter::MATRIX_FEATURES } else { wgpu::Features::empty() };
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY | wanted,
            required_limits: limits.clone(),
            // SAFETY: the one experimental feature is that of matrix units; what wgpu says of it is that it may have defects, and the
            // kernel that uses it stays within its tiles and bindings on every path.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) =
            opened.map_err(|e| GpuError::Refused { adapter: info.name.clone(), reason: e.to_string() })?;
        let health = Arc::new(Health::default());
        let lost = Arc::clone(&health);
        device.set_device_lost_callback(move |reason, message| {
            lost.note(format!("{reason:?}: {message}"));
            lost.lost.store(true, Ordering::SeqCst);
        });
        let complaints = Arc::clone(&health);
        device.on_uncaptured_error(Arc::new(move |error| complaints.note(error.to_string())));
        let nothing = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 256,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let gpu = Self {
            device,
            queue,
            info,
            options: options.clone(),
            limits,
            matrix_units,
            pipelines: Mutex::default(),
            tiles: Mutex::default(),
            health,
            ledger: Arc::default(),
            nothing,
        };
        if let Some(folder) = &options.tuning {
            tuning::load(&gpu, folder);
        }
        Ok(Arc::new(gpu))
    }

    /// The adapter.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// What was asked for when it was opened.
    pub fn options(&self) -> &GpuOptions {
        &self.options
    }

    /// Limits of the device.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Most bytes of an operand in one dispatch: what a binding holds, less what aligning its ends may take.
    pub(crate) fn binding(&self) -> usize {
        let slack = u64::from(self.limits.min_storage_buffer_offset_alignment).max(16) + 16;
        // Kernels count in numbers of 32 bits with 32 bits.
        let most = self.limits.max_storage_buffer_binding_size.min(1 << 33);
        usize::try_from(most - slack).unwrap_or(usize::MAX)
    }

    /// Whether kernels for discrete GPUs are used.
    pub fn is_tiled(&self) -> bool {
        self.abilities().tiled
    }

    /// Which kernels it can run, and which suit it.
    pub fn abilities(&self) -> Abilities {
        Abilities { tiled: self.options.tiled.unwrap_or(!self.info.is_software()), matrix_units: self.matrix_units }
    }

    /// The kernel that computes a product: the one that was set for its class, or the usual one.
    pub fn tile(&self, shape: Shape) -> &'static Tile {
        let set = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        set.get(&shape.class())
            .copied()
            .filter(|tile| tile.can(shape, self.abilities()))
            .unwrap_or_else(|| tiles::usual(shape, self.abilities()))
    }

    /// Classes of shapes whose kernel was set.
    pub fn chosen(&self) -> usize {
        self.tiles.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sets the kernel for all products of the class of `shape`. Results stay the same, bit for bit.
    ///
    /// # Panics
    /// When the tile multiplies other operands.
    pub fn set_tile(&self, shape: Shape, tile: &'static Tile) {
        assert!(tiles::all(shape.operands).contains(tile), "{} for {shape:?}", tile.name);
        self.tiles.lock().unwrap_or_else(PoisonError::into_inner).insert(shape.class(), tile);
    }

    /// Whether the device is gone and another one must be opened.
    pub fn is_lost(&self) -> bool {
        self.health.lost.load(Ordering::SeqCst)
    }

    /// Gives the device up, as if the driver had lost it; for tests.
    pub fn lose(&self) {
        self.device.destroy();
        // The callback comes with the next poll.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.health.note("given up".into());
        self.health.lost.store(true, Ordering::SeqCst);
    }

    /// Bytes of all buffers.
    pub fn allocated(&self) -> u64 {
        self.ledger.bytes.load(Ordering::Relaxed)
    }

    /// How often the driver has complained.
    pub(crate) fn complaints(&self) -> u64 {
        self.health.complaints.load(Ordering::Relaxed)
    }

    /// Bind groups of a recorder to come.
    pub(crate) fn bindings(&self) -> Arc<Bindings> {
        self.ledger.bindings.register()
    }

    /// An error when the driver has complained since the last call.
    pub(crate) fn check(&self) -> Result<(), ExecError> {
        let message = self.health.message.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_lost() {
            let reason = message.clone().unwrap_or_default();
            return Err(ExecError::DeviceLost { device: self.info.name.clone(), reason });
        }
        let mut message = message;
        match message.take() {
            Some(message) => Err(self.refused(&message)),
            None => Ok(()),
        }
    }

    pub(crate) fn refused(&self, message: &str) -> ExecError {
        ExecError::Device(format!("{}: {message}", self.info))
    }

    /// A new buffer.
    pub(crate) fn allocate(&self, bytes: u64, usage: wgpu::BufferUsages, mapped: bool) -> Result<Memory, ExecError> {
        let out_of_memory = |reason: String| ExecError::OutOfMemory { device: self.info.name.clone(), reason };
        let taken = self.ledger.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Subtracts again when it is dropped on the way out.
        let share = Share { bytes, ledger: Arc::clone(&self.ledger) };
        if let Some(limit) = self.options.memory.filter(|&limit| taken + bytes > limit) {
            return Err(out_of_memory(format!("{bytes} bytes more than the {taken} in use pass the limit of {limit}")));
        }
        if bytes > self.limits.max_buffer_size {
            let most = self.limits.max_buffer_size;
            return Err(out_of_memory(format!("a buffer of {bytes} bytes, where the adapter's largest has {most}")));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: mapped,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(out_of_memory(format!("{bytes} bytes more than the {taken} in use: {error}")));
        }
        Ok(Memory { buffer, share })
    }

    /// A buffer with `content`.
    pub(crate) fn upload(&self, content: &[u8]) -> Result<Memory, ExecError> {
        let bytes = content.len().max(16).next_multiple_of(16) as u64;
        let memory = self.allocate(bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC, true)?;
        {
            let range = memory.buffer.get_mapped_range_mut(..).map_err(|e| self.refused(&e.to_string()));
            // A lost device maps nothing.
            let mut range = self.check().and(range)?;
            range.slice(..content.len()).copy_from_slice(content);
        }
        memory.buffer.unmap();
        Ok(memory)
    }

    /// The pipeline of a kernel with these constants.
    pub(crate) fn pipeline(
        &self,
        source: &'static Source,
        constants: &[(&'static str, f64)],
    ) -> Result<Arc<Pipeline>, ExecError> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kernel = pipelines.entry(source.name).or_default();
        if let Some(found) = of_kernel.iter().find(|found| found.constants == constants) {
            return Ok(Arc::clone(found));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = Arc::new(self.build(source, constants));
        if let Some(error) = pollster::block_on(scope.pop()) {
            self.check()?;
            return Err(self.refused(&format!("the driver refuses the kernel `{}`: {error}", source.name)));
        }
        of_kernel.push(Arc::clone(&made));
        Ok(made)
    }

    fn build(&self, source: &'static Source, constants: &[(&'static str, f64)]) -> Pipeline {
        let device = &self.device;
        let entries: Vec<wgpu::BindGroupLayoutEntry> = source
            .bindings
            .iter()
            .enumerate()
            .map(|(at, kind)| wgpu::BindGroupLayoutEntry {
                binding: at as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match kind {
                        Binding::Uniform => wgpu::BufferBindingType::Uniform,
                        Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: *kind == Binding::Uniform,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(source.name), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(source.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = wgpu::ShaderModuleDescriptor {
            label: Some(source.name),
            source: wgpu::ShaderSource::Wgsl(source.wgsl.into()),
        };
        // SAFETY: kernels are fixed when this crate is built. Their loops end after a number of turns that parameters give, they index shared
        // memory by their own place and constants alone, and their tests run them at every edge of a tile. Buffers are guarded by the
        // device as ever: what is left out are clamped indices and counted loops, a fifth of a network's time on a discrete GPU.
        let module = unsafe { device.create_shader_module_trusted(module, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(source.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Pipeline { constants: constants.to_vec(), pipeline, layout }
    }
}

/// A buffer that is counted.
#[derive(Debug)]
pub(crate) struct Memory {
    pub buffer: wgpu::Buffer,
    share: Share,
}

impl Memory {
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            self.share.ledger.bindings.forget(&self.buffer);
        }
    }
}

/// What a device's buffers have in common.
#[derive(Debug, Default)]
struct Ledger {
    /// Bytes of all.
    bytes: AtomicU64,
    /// What else keeps them alive.
    bindings: Registry,
}

/// A buffer's share of what is allocated.
#[derive(Debug)]
struct Share {
    bytes: u64,
    ledger: Arc<Ledger>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ledger.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Variant;

    #[test]
    fn a_kernel_that_the_driver_refuses_is_an_error_with_its_name() {
        static REFUSED: Source = Source {
            name: "refused",
            // A type that does not exist: what the build script would not let pass.
            wgsl: "@group(0) @binding(0) var<uniform> p: Params; @compute @workgroup_size(1) fn main() {}",
            bindings: &[Binding::Uniform],
            variants: &[Variant { name: "main", constants: &[], shared: 0 }],
        };
        let gpu = match Gpu::open(&GpuOptions::default()) {
            Ok(gpu) => gpu,
            Err(error) => {
                // Written past the test harness, which shows no output of tests that pass.
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {error}\n"));
                return;
            }
        };
        let error = gpu.pipeline(&REFUSED, &[]).err().expect("it is refused").to_string();
        assert!(error.contains("`refused`") && error.contains("Params") && error.contains(&gpu.info().name), "{error}");
        // It is told once, and the device works on.
        assert_eq!(gpu.check(), Ok(()));
        assert!(gpu.pipeline(&crate::kernels::ADD, &[]).is_ok());
    }
}
