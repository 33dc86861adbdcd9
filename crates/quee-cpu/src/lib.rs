//! CPU executor: integer kernels for AMX, AVX-512 VNNI, AVX-VNNI, AVX2, NEON and any other processor.
//!
//! - [`CpuExecutor`]: runs a backbone's program; [`CpuEngine`]: packed weights that several executors share
//! - [`Isa`]: instruction sets, detected at run time
//! - [`gemm`]: the integer matrix product on its own
//! - [`ProfileRow`]: where an executor's time goes
//!
//! At integer widths the result is the same, bit for bit, on every instruction set, in every batch, and through fused or
//! separate operations. Floating-point steps (normalisation, softmax, GELU, scales) are plain Rust without fused
//! multiply-add, compiled once per instruction set, or written for one with the same operations in the same order. In float width the matrix product uses fused multiply-add where there is one,
//! so instruction sets differ in the last bits there; batches and fusion still do not. Performer attention, which T2T-ViT has in
//! its stem, is in floats at every width, so instruction sets differ there too.

mod aligned;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod checks;
mod engine;
mod executor;
mod gelu;
pub mod gemm;
mod isa;
mod lanes;
mod linear;
mod math;
mod norm;
mod parallel;
mod performer;
mod profile;
mod quantize;
mod softmax;
mod tensor;
mod unfold;

pub use engine::CpuEngine;
pub use executor::CpuExecutor;
pub use isa::Isa;
pub use profile::ProfileRow;
