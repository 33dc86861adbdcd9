//! Everything that runs integer kernels, and what each promises.

use std::sync::{Arc, OnceLock};

use quee_backbone::{Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_gpu::{Gpu, GpuEngine, GpuError, GpuOptions};

/// Makes executors that share packed weights.
pub type Executors = Box<dyn Fn() -> Box<dyn Executor> + Send + Sync>;

/// An instruction set of this machine, or a way to use its adapter.
pub struct Device {
    /// Name.
    pub name: String,
    /// Whether integer runs equal the scalar reference bit for bit. A graphics driver may round divisions, roots and sums of floats
    /// otherwise than IEEE 754 says, so a code may differ by one where a value lies at the edge between two.
    pub exact: bool,
    /// Whether values that are not finite are reported by the operation that meets them. A GPU records operations and runs them when
    /// something is read, which is when it can tell.
    pub immediate: bool,
    engine: Box<dyn Fn(Arc<QuantPlan>) -> Executors>,
}

impl Device {
    /// Executors that share weights.
    pub fn engine(&self, plan: &Arc<QuantPlan>) -> Executors {
        (self.engine)(Arc::clone(plan))
    }

    /// One executor.
    pub fn executor(&self, plan: &Arc<QuantPlan>) -> Box<dyn Executor> {
        self.engine(plan)()
    }

    /// Whether `got` is what the scalar reference or another device gave.
    ///
    /// Bit for bit where the device promises that; otherwise a mean difference of at most 1% of the largest value: one step of
    /// the coarsest quantizer in a hundredth of all places.
    pub fn agrees(&self, got: &[f32], want: &[f32]) -> bool {
        if self.exact || got.len() != want.len() || want.is_empty() {
            return got == want;
        }
        let largest = want.iter().fold(0.0f32, |top, x| top.max(x.abs()));
        let difference: f32 = got.iter().zip(want).map(|(a, b)| (a - b).abs()).sum();
        difference <= 0.01 * largest * want.len() as f32
    }

    fn cpu(isa: Isa) -> Self {
        let engine = move |plan| {
            let engine = CpuEngine::new(plan, isa);
            Box::new(move || Box::new(engine.executor()) as Box<dyn Executor>) as Executors
        };
        Self { name: format!("cpu ({isa})"), exact: true, immediate: true, engine: Box::new(engine) }
    }

    fn gpu(name: &str, gpu: &Arc<Gpu>) -> Self {
        let gpu = Arc::clone(gpu);
        let name = format!("{name} on {}", gpu.info());
        let engine = move |plan| {
            let engine = GpuEngine::on(plan, Arc::clone(&gpu));
            Box::new(move || Box::new(engine.executor().expect("the adapter works")) as Box<dyn Executor>) as Executors
        };
        Self { name, exact: false, immediate: false, engine: Box::new(engine) }
    }
}

/// The adapter, opened with one set of kernels: what they are called, and the device.
type Opened = (&'static str, Arc<Gpu>);

/// The adapter, opened once with each set of kernels, or why there is none. A GPU is never given the kernels for software adapters.
fn adapters() -> &'static Result<Vec<Opened>, GpuError> {
    static ADAPTERS: OnceLock<Result<Vec<Opened>, GpuError>> = OnceLock::new();
    ADAPTERS.get_or_init(|| {
        let open = |tiled| Gpu::open(&GpuOptions { tiled: Some(tiled), ..Default::default() });
        let tiled = open(true)?;
        let direct = if tiled.info().is_software() { Some(("direct kernels", open(false)?)) } else { None };
        Ok(direct.into_iter().chain([("tiled kernels", tiled)]).collect())
    })
}

/// Every device of this machine; a line about those that are missing.
pub fn devices() -> Vec<Device> {
    let mut all: Vec<Device> = Isa::available().into_iter().map(Device::cpu).collect();
    match adapters() {
        Ok(gpus) => all.extend(gpus.iter().map(|(name, gpu)| Device::gpu(name, gpu))),
        Err(error) => crate::skipped(&format!("the GPU's part of a test: {error}")),
    }
    all
}
