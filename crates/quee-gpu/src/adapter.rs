//! The adapters of this machine, and which one to take.

use wgpu::{Backends, DeviceType};

use crate::error::GpuError;

/// What an adapter is called and can do.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterInfo {
    /// Name that the driver gives.
    pub name: String,
    /// Graphics interface, e.g. `Vulkan`.
    pub interface: String,
    /// What kind of device it is.
    pub kind: Kind,
    /// Driver and its version.
    pub driver: String,
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Memory that the invocations of a workgroup share, in bytes.
    pub shared_memory: u32,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Smallest and largest subgroup.
    pub subgroups: (u32, u32),
    /// Optional features that quee can use.
    pub features: Vec<&'static str>,
    /// Whether it multiplies matrices of 16 by 16 16-bit floats into 32-bit sums, with what the kernel for that needs beside it.
    pub matrix_units: bool,
}

/// What the kernel on matrix units needs.
pub(crate) const MATRIX_FEATURES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);
/// Shared memory of that kernel's largest tile, in bytes, and its invocations.
const MATRIX_SHARED: u32 = 48 << 10;
const MATRIX_INVOCATIONS: u32 = 512;

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A card with memory of its own.
    Discrete,
    /// Shares the memory of the processor.
    Integrated,
    /// A part of a GPU, given to a virtual machine.
    Virtual,
    /// The driver does not tell.
    Other,
    /// The processor plays a GPU.
    Software,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        })
    }
}

impl AdapterInfo {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let half = |found: &wgpu::CooperativeMatrixProperties| {
            let sizes = (found.m_size, found.n_size, found.k_size);
            let types = (found.ab_type, found.cr_type);
            sizes == (16, 16, 16) && types == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32)
        };
        let matrix_units = features.contains(MATRIX_FEATURES)
            && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
            && limits.max_compute_workgroup_storage_size >= MATRIX_SHARED
            && limits.max_compute_invocations_per_workgroup >= MATRIX_INVOCATIONS
            && adapter.cooperative_matrix_properties().iter().any(half);
        let known = [
            (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
            (wgpu::Features::SUBGROUP, "subgroups"),
            (wgpu::Features::SHADER_F16, "f16"),
            (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
        ];
        Self {
            name: info.name,
            interface: format!("{:?}", info.backend),
            kind: match info.device_type {
                DeviceType::DiscreteGpu => Kind::Discrete,
                DeviceType::IntegratedGpu => Kind::Integrated,
                DeviceType::VirtualGpu => Kind::Virtual,
                DeviceType::Cpu => Kind::Software,
                DeviceType::Other => Kind::Other,
            },
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            shared_memory: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            subgroups: (info.subgroup_min_size, info.subgroup_max_size),
            features: known.iter().filter(|(feature, _)| features.contains(*feature)).map(|(_, name)| *name).collect(),
            matrix_units,
        }
    }

    /// Name and driver as part of a file name.
    pub fn slug(&self) -> String {
        let plain = |text: &str| {
            let kept: String =
                text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
            let words: Vec<&str> = kept.split('-').filter(|word| !word.is_empty()).collect();
            words.join("-").to_lowercase()
        };
        format!("{}_{}", plain(&self.name), plain(&self.driver)).chars().take(120).collect()
    }

    /// Whether the processor plays a GPU.
    pub fn is_software(&self) -> bool {
        self.kind == Kind::Software
    }
}

/// For people: name, interface and, where it matters, that it is no real GPU.
impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let software = if self.is_software() { ", software adapter" } else { "" };
        write!(f, "{}, {}{software}", self.name, self.interface)
    }
}

/// Which adapter to take where there are several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// The fastest: discrete before integrated.
    #[default]
    High,
    /// The most frugal: integrated before discrete.
    Low,
}

/// The graphics interfaces that this build can use.
const INTERFACES: Backends = Backends::PRIMARY;

pub(crate) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = INTERFACES;
    // No validation layers and no names of objects: neither changes a result.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn adapters(instance: &wgpu::Instance) -> Result<Vec<(wgpu::Adapter, AdapterInfo)>, GpuError> {
    let found = pollster::block_on(instance.enumerate_adapters(INTERFACES));
    if found.is_empty() {
        return Err(match loader_missing() {
            true => GpuError::NoLoader,
            false => GpuError::NoAdapter { interfaces: "Vulkan, Metal and Direct3D 12".into() },
        });
    }
    Ok(found
        .into_iter()
        .map(|adapter| (AdapterInfo::of(&adapter), adapter))
        .map(|(info, adapter)| (adapter, info))
        .collect())
}

/// Whether Vulkan has not even a loader here. Other systems bring their graphics interface along.
#[cfg(target_os = "linux")]
fn loader_missing() -> bool {
    // SAFETY: the loader's initialisation has no requirements, and nothing of it is called.
    ["libvulkan.so.1", "libvulkan.so"].iter().all(|name| unsafe { libloading::Library::new(name) }.is_err())
}

#[cfg(not(target_os = "linux"))]
fn loader_missing() -> bool {
    false
}

/// The adapters of this machine, the one that would be taken first.
///
/// # Errors
/// When there is none.
pub fn list(power: Power) -> Result<Vec<AdapterInfo>, GpuError> {
    let mut found: Vec<AdapterInfo> = adapters(&instance())?.into_iter().map(|(_, info)| info).collect();
    found.sort_by_key(|info| rank(info.kind, power));
    Ok(found)
}

/// The adapter whose name contains `name` (in any case), or the first by kind.
pub(crate) fn choose(
    instance: &wgpu::Instance,
    name: Option<&str>,
    power: Power,
) -> Result<(wgpu::Adapter, AdapterInfo), GpuError> {
    let mut found = adapters(instance)?;
    found.sort_by_key(|(_, info)| rank(info.kind, power));
    let wanted = name.map(str::to_lowercase);
    let known: Vec<String> = found.iter().map(|(_, info)| format!("`{}`", info.name)).collect();
    found
        .into_iter()
        .find(|(_, info)| wanted.as_ref().is_none_or(|wanted| info.name.to_lowercase().contains(wanted)))
        .ok_or_else(|| GpuError::UnknownAdapter { name: name.unwrap_or_default().to_owned(), known })
}

/// Software comes last always: it proves that kernels are right, and the CPU backend is faster.
fn rank(kind: Kind, power: Power) -> u8 {
    match (kind, power) {
        (Kind::Discrete, Power::High) | (Kind::Integrated, Power::Low) => 0,
        (Kind::Integrated, Power::High) | (Kind::Discrete, Power::Low) => 1,
        (Kind::Virtual, _) => 2,
        (Kind::Other, _) => 3,
        (Kind::Software, _) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_the_last_choice() {
        for power in [Power::High, Power::Low] {
            for kind in [Kind::Discrete, Kind::Integrated, Kind::Virtual, Kind::Other] {
                assert!(rank(kind, power) < rank(Kind::Software, power));
            }
        }
        assert!(rank(Kind::Discrete, Power::High) < rank(Kind::Integrated, Power::High));
        assert!(rank(Kind::Integrated, Power::Low) < rank(Kind::Discrete, Power::Low));
    }
}
