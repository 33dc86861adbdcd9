//! `quee backends`: what can run a backbone on this machine.

use anyhow::Result;
use quee_cpu::Isa;
use quee_gpu::{AdapterInfo, GpuOptions, Power};
use serde::Serialize;

use crate::backend::{real_adapter, without_hint};
use crate::environment;

/// Everything that is listed.
#[derive(Serialize)]
struct Backends {
    cpu: Processor,
    adapters: Vec<Adapter>,
    /// Why there are no adapters.
    no_adapter: Option<String>,
    /// What `--backend gpu` takes: a name out of `adapters`.
    gpu: Option<String>,
    /// What `--backend auto` takes: a name out of `adapters`, or none, which means the processor.
    auto_gpu: Option<String>,
    /// Why `auto` takes the processor.
    auto_reason: Option<String>,
}

#[derive(Serialize)]
struct Processor {
    name: String,
    /// Those that kernels are written for and the machine has, slowest first; the last is used.
    instruction_sets: Vec<String>,
    features: Vec<String>,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    interface: String,
    kind: String,
    driver: String,
    max_binding_bytes: u64,
    max_buffer_bytes: u64,
    shared_memory_bytes: u32,
    max_invocations: u32,
    subgroup_min: u32,
    subgroup_max: u32,
    features: Vec<&'static str>,
}

impl Adapter {
    fn of(info: &AdapterInfo) -> Self {
        Self {
            name: info.name.clone(),
            interface: info.interface.clone(),
            kind: info.kind.to_string(),
            driver: info.driver.clone(),
            max_binding_bytes: info.max_binding,
            max_buffer_bytes: info.max_buffer,
            shared_memory_bytes: info.shared_memory,
            max_invocations: info.invocations,
            subgroup_min: info.subgroups.0,
            subgroup_max: info.subgroups.1,
            features: info.features.clone(),
        }
    }
}

/// The text to print. That there is no adapter is an answer, not an error.
///
/// # Errors
/// When the answer cannot be written as JSON.
pub fn run(json: bool) -> Result<String> {
    let (found, no_adapter) = match quee_gpu::list(Power::High) {
        Ok(found) => (found, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let auto = real_adapter(&GpuOptions::default());
    let backends = Backends {
        cpu: Processor {
            name: environment::processor(),
            instruction_sets: Isa::available().iter().map(ToString::to_string).collect(),
            features: environment::features(),
        },
        gpu: found.first().map(|info| info.name.clone()),
        adapters: found.iter().map(Adapter::of).collect(),
        no_adapter: no_adapter.as_ref().map(without_hint),
        auto_gpu: auto.as_ref().ok().map(|info| info.name.clone()),
        auto_reason: auto.err(),
    };
    if json {
        return Ok(serde_json::to_string_pretty(&backends)? + "\n");
    }
    let hint = no_adapter.map(|error| error.to_string());
    Ok(text(&backends, hint.as_deref()))
}

fn text(backends: &Backends, no_adapter: Option<&str>) -> String {
    let cpu = &backends.cpu;
    let used = Isa::best();
    let mut out = format!("cpu  {}\n", cpu.name);
    out += &line("instruction sets", &format!("{} (used: {used})", cpu.instruction_sets.join(", ")));
    if !cpu.features.is_empty() {
        out += &line("features", &cpu.features.join(", "));
    }
    for adapter in &backends.adapters {
        let software =
            if adapter.kind == "software" { ": the processor plays a GPU, to check kernels with" } else { "" };
        out += &format!("\ngpu  {}\n", adapter.name);
        out += &line("kind", &format!("{}{software}", adapter.kind));
        out += &line("driver", &format!("{}, {}", adapter.driver, adapter.interface));
        out += &line("largest binding", &bytes(adapter.max_binding_bytes));
        out += &line("largest buffer", &bytes(adapter.max_buffer_bytes));
        out += &line("shared memory", &format!("{} per workgroup", bytes(adapter.shared_memory_bytes.into())));
        out += &line("invocations", &format!("{} per workgroup", adapter.max_invocations));
        out += &line("subgroups", &subgroups(adapter));
        let features = if adapter.features.is_empty() { "none".to_owned() } else { adapter.features.join(", ") };
        out += &line("optional features", &features);
    }
    if let Some(reason) = no_adapter {
        out += &format!("\n{reason}\n");
    }
    let gpu = backends.gpu.clone().unwrap_or_else(|| "nothing, and fails".to_owned());
    let auto = backends.auto_gpu.clone().unwrap_or_else(|| format!("cpu ({used})"));
    out + &format!("\n--backend cpu   takes cpu ({used})\n--backend gpu   takes {gpu}\n--backend auto  takes {auto}\n")
}

fn line(name: &str, value: &str) -> String {
    format!("     {name:18} {value}\n")
}

fn subgroups(adapter: &Adapter) -> String {
    match (adapter.subgroup_min, adapter.subgroup_max) {
        (least, most) if least == most => format!("of {least}"),
        (least, most) => format!("of {least} to {most}"),
    }
}

/// A size in the largest unit that it reaches.
fn bytes(size: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| size >= *unit) {
        Some((name, unit)) if size.is_multiple_of(*unit) => format!("{} {name}", size / unit),
        Some((name, unit)) => format!("{:.1} {name}", size as f64 / *unit as f64),
        None => format!("{size} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let of = [0, 1000, 32 << 10, 128 << 20, (2 << 30) - 1, u64::MAX].map(bytes);
        assert_eq!(of, ["0 bytes", "1000 bytes", "32 KiB", "128 MiB", "2.0 GiB", "17179869184.0 GiB"]);
    }
}
