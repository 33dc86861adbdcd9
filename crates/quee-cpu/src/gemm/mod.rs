//! Matrix products `out[m, n] = Σ_k a[m, k] · b[n, k]`: of integer codes, exact, and of floats in one fixed order.
//!
//! Both work in the same way. B is packed once into *panels* of columns (`panels::Panels`): inside a panel the codes lie
//! group by group, a *group* being the run of k that one instruction multiplies and adds (1 float, 2 or 4 codes). A *tile* of
//! up to six rows and one panel is summed in registers over the whole of K (`tile::Tile`), one splat group of A against a
//! few vectors of B at a time.
//!
//! On AVX-512 VNNI the integer product is that of `crate::avx512`.
//!
//! - `codes`: integer product on each instruction set
//! - `fused`: a layer from codes to codes
//! - `float`: float product
//! - `panels`: packed layout
//! - `tile`: loops around the tiles, and the portable tile
//! - `register`: tiles of vectors, for processors of `x86` and `arm`

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm;
pub mod codes;
pub(crate) mod float;
pub mod fused;
pub(crate) mod panels;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod register;
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub use codes::{GemmScratch, PackedB, gemm_i8};
pub use fused::FusedLinear;
