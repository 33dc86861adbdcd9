//! From the name of a backend to executors.

use std::sync::Arc;

use anyhow::{Result, ensure};
use quee_backbone::{ExecError, Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_gpu::{AdapterInfo, Counts, Gpu, GpuEngine, GpuError, GpuOptions};
use quee_train::{TrainDevice, TrainError};

use crate::environment;
use crate::recipe::{self, Backend, Recipe};

/// Makes executors that share one set of quantized weights.
pub trait Engine: Send + Sync {
    /// A new executor, at float width. After the loss of a device it runs on another one.
    ///
    /// # Errors
    /// When the device has too little memory, or another one cannot be opened.
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError>;

    /// What runs the operations, e.g. `cpu (avx2)`.
    fn describe(&self) -> String;

    /// How many batches to work on at a time; without a number, one for each thread.
    fn batches_at_a_time(&self) -> Option<usize> {
        None
    }

    /// Gives back memory that is kept for later.
    fn trim(&self) {}

    /// Work that a device was given so far, where there is a device apart.
    fn counts(&self) -> Option<Counts> {
        None
    }
}

/// What the command line changes of a recipe's choice.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// What runs the backbone [default: as the recipe says]
    #[arg(long)]
    backend: Option<Backend>,
    /// Graphics adapter, a part of its name; see `quee backends`
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

impl DeviceArgs {
    /// Puts the choice into `recipe`.
    ///
    /// # Errors
    /// When an adapter is named for the processor.
    pub fn apply(&self, recipe: &mut Recipe) -> Result<()> {
        if let Some(backend) = self.backend {
            recipe.backend = backend;
        }
        if let Some(adapter) = &self.adapter {
            ensure!(
                recipe.backend != Backend::Cpu,
                "--adapter {adapter}: backend cpu has none; hint: add --backend gpu or auto"
            );
            recipe.gpu.adapter.clone_from(adapter);
        }
        Ok(())
    }
}

/// What a backbone runs on: the processor, or an open graphics adapter.
#[derive(Clone)]
pub struct Device {
    kind: Kind,
    /// Why this one.
    reason: String,
}

#[derive(Clone)]
enum Kind {
    Cpu(Isa),
    Gpu(Arc<Gpu>),
}

impl Device {
    /// Opens what `backend` asks for. What was taken for `auto` is said on the error stream.
    ///
    /// # Errors
    /// When a graphics adapter is asked for and cannot be had.
    pub fn open(backend: Backend, settings: &recipe::Gpu) -> Result<Self, GpuError> {
        match backend {
            Backend::Cpu => Ok(Self::cpu("as asked for".into())),
            Backend::Gpu => Ok(Self::gpu(Gpu::open(&settings.options())?, "as asked for".into())),
            Backend::Auto => {
                let device = Self::best(&settings.options());
                eprintln!("backend auto: {}, {}", device.describe(), device.reason);
                Ok(device)
            }
        }
    }

    /// A real GPU where there is one, else the processor.
    fn best(options: &GpuOptions) -> Self {
        let opened = real_adapter(options).and_then(|_| Gpu::open(options).map_err(|error| without_hint(&error)));
        match opened {
            Ok(gpu) => Self::gpu(gpu, "the first GPU that fits".into()),
            Err(reason) => Self::cpu(format!("because there is no GPU to be had: {reason}")),
        }
    }

    fn cpu(reason: String) -> Self {
        Self { kind: Kind::Cpu(Isa::best()), reason }
    }

    fn gpu(gpu: Arc<Gpu>, reason: String) -> Self {
        Self { kind: Kind::Gpu(gpu), reason }
    }

    /// Where exits and gates are trained: on a GPU only in programs built with the feature `train-gpu`.
    ///
    /// # Errors
    /// When the training library finds no adapter.
    pub fn training(&self) -> Result<TrainDevice, TrainError> {
        match &self.kind {
            Kind::Gpu(_) if cfg!(feature = "train-gpu") => TrainDevice::gpu(),
            _ => Ok(TrainDevice::cpu()),
        }
    }

    /// An engine on this device with the quantizers of `plan`.
    pub fn engine(&self, plan: Arc<QuantPlan>) -> Arc<dyn Engine> {
        match &self.kind {
            Kind::Cpu(isa) => Arc::new(OnCpu(CpuEngine::new(plan, *isa))),
            Kind::Gpu(gpu) => Arc::new(OnGpu(GpuEngine::on(plan, Arc::clone(gpu)))),
        }
    }

    /// Backend, and what of it: `cpu (avx2)`, `gpu (NVIDIA L4, Vulkan)`.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Cpu(isa) => format!("cpu ({isa})"),
            Kind::Gpu(gpu) => format!("gpu ({})", gpu.info()),
        }
    }

    /// Why it was taken.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Name of the adapter, or of the processor.
    pub fn name(&self) -> String {
        self.adapter().map_or_else(environment::processor, |info| info.name.clone())
    }

    /// The graphics adapter, where it is one.
    pub fn adapter(&self) -> Option<&AdapterInfo> {
        match &self.kind {
            Kind::Cpu(_) => None,
            Kind::Gpu(gpu) => Some(gpu.info()),
        }
    }

    /// What must stand beside every time measured on this device, where it is no real GPU but plays one.
    pub fn caveat(&self) -> Option<String> {
        let info = self.adapter().filter(|info| info.is_software())?;
        Some(format!("times of a software adapter ({}), not of a GPU", info.name))
    }
}

/// The adapter that `options` ask for, if it is a real GPU; otherwise why there is none, as the end of a sentence.
pub fn real_adapter(options: &GpuOptions) -> Result<AdapterInfo, String> {
    let found = quee_gpu::list(options.power).map_err(|error| without_hint(&error))?;
    let named = |info: &&AdapterInfo| {
        let part = options.adapter.as_deref().unwrap_or_default().to_lowercase();
        info.name.to_lowercase().contains(&part)
    };
    // Software stands behind everything else, so a real GPU is also what opening takes.
    let real = found.iter().filter(named).find(|info| !info.is_software());
    real.cloned().ok_or_else(|| {
        let names: Vec<String> = found.iter().map(|info| format!("{} ({})", info.name, info.kind)).collect();
        let wanted = options.adapter.as_ref().map_or(String::new(), |name| format!(" whose name contains `{name}`"));
        format!("of the graphics adapters, {}, none is a GPU{wanted}", names.join(", "))
    })
}

/// What is wrong, for where nobody has to do anything about it.
pub fn without_hint(error: &GpuError) -> String {
    let message = error.to_string();
    message.split("; hint:").next().unwrap_or_default().to_owned()
}

struct OnCpu(Arc<CpuEngine>);

impl Engine for OnCpu {
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(self.0.executor()))
    }

    fn describe(&self) -> String {
        format!("cpu ({})", self.0.isa())
    }
}

/// On a graphics adapter.
pub(crate) struct OnGpu(pub(crate) Arc<GpuEngine>);

impl Engine for OnGpu {
    fn executor(&self) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(self.0.executor()?))
    }

    fn describe(&self) -> String {
        format!("gpu ({})", self.0.gpu().info())
    }

    /// While the device computes one, the other is brought in, read and divided among exits.
    fn batches_at_a_time(&self) -> Option<usize> {
        Some(2)
    }

    fn trim(&self) {
        self.0.trim();
    }

    fn counts(&self) -> Option<Counts> {
        Some(self.0.counts())
    }
}
