//! What fuzz targets do with the bytes that a fuzzer makes up: one module per target, and what they share.
//!
//! The workspace's tests include these files and let every target read its seeds, so that nothing here is built by a fuzzer alone.

pub mod checkpoint;
pub mod cifar;
pub mod mat5;
mod memory;
pub mod pickle;
pub mod quantizers;
pub mod seeds;
mod shells;
pub mod store_entry;
pub mod store_parts;

pub use self::memory::bounded;

/// What a target does with bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its file in `fuzz_targets` and of its folder in `seeds`.
pub const TARGETS: &[(&str, Target)] = &[
    ("checkpoint", checkpoint::run),
    ("cifar", cifar::run),
    ("mat5", mat5::run),
    ("pickle", pickle::run),
    ("quantizers", quantizers::run),
    ("store_entry", store_entry::run),
    ("store_parts", store_parts::run),
];
