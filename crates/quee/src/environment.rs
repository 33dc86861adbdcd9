//! What a result needs to be told apart from another: program, machine, backend.

use quee_train::TrainDevice;
use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::recipe::Backend;

/// The environment of a run, as stored in `env.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the program.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// Backend, and its instruction set or graphics adapter.
    pub backend: String,
    /// What the recipe asks for.
    pub backend_asked: String,
    /// Why this backend was taken.
    pub backend_reason: String,
    /// Adapter of a graphics backend; the processor otherwise.
    pub adapter: String,
    /// `cpu`, or the kind of graphics device: `discrete`, `integrated`, `virtual`, `other`, or `software` where the processor plays one.
    pub device_type: String,
    /// Driver of the adapter; `none` on the processor.
    pub driver: String,
    /// The processor, which trains whatever the backend.
    pub processor: String,
    /// Instruction sets that matter to the kernels.
    pub cpu_features: Vec<String>,
    /// Threads in use.
    pub threads: usize,
    /// Where exits and predictors are trained.
    pub training_device: String,
    /// Operating system and architecture.
    pub platform: String,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Start of the run, UTC.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
}

impl Environment {
    /// Looks at the machine.
    pub fn detect(asked: Backend, device: &Device, training: &TrainDevice, threads: usize, seeds: &[u64]) -> Self {
        let adapter = device.adapter();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("QUEE_COMMIT").into(),
            backend: device.describe(),
            backend_asked: asked.to_string(),
            backend_reason: device.reason().to_owned(),
            adapter: device.name(),
            device_type: adapter.map_or_else(|| "cpu".into(), |info| info.kind.to_string()),
            driver: adapter.map_or_else(|| "none".into(), |info| info.driver.clone()),
            processor: processor(),
            cpu_features: features(),
            threads,
            training_device: format!("burn on {}", training.name()),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            seeds: seeds.to_vec(),
            started: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            command: std::env::args().collect(),
        }
    }
}

/// The processor's own name, where the system tells it.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Instruction sets that matter to the kernels, as this processor has them.
pub fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let tests = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("fma", is_x86_feature_detected!("fma")),
    ];
    #[cfg(target_arch = "aarch64")]
    let tests = [
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let tests: [(&str, bool); 0] = [];
    tests.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}
