//! GPU executor: the WGSL kernels of `shaders/` on wgpu, with the meaning of the CPU executor.
//!
//! - [`list`]: the adapters of this machine; [`Gpu`]: an open one
//! - [`GpuEngine`]: packed weights on a device; [`GpuExecutor`]: runs a backbone's program over them
//! - [`kernels`]: what the build script made of the shaders; [`tiles`]: which of them computes a product; [`tuning`]: choices
//!   that were measured
//! - [`debug`]: kernels run alone, for tests and benchmarks; [`mod@bench`]: how long they take
//!
//! Operations are recorded and submitted together when a value is read, so everything between two readbacks is one command buffer. A sample's
//! result does not depend on the samples beside it, bit for bit on one adapter.

mod adapter;
pub mod bench;
mod bindings;
mod clock;
pub mod debug;
mod device;
mod engine;
mod error;
mod executor;
mod heads;
pub mod kernels;
mod memory;
mod params;
mod profile;
mod recorder;
pub mod tiles;
pub mod tuning;

pub use adapter::{AdapterInfo, Kind, Power, list};
pub use device::{Gpu, GpuOptions, SmallLimits};
pub use engine::GpuEngine;
pub use error::GpuError;
pub use executor::GpuExecutor;
pub use profile::KernelTime;
pub use recorder::Counts;
