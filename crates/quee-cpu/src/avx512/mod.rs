//! AVX-512 VNNI: an encoder block sample by sample, so that everything between the residual stream that comes in and the one that
//! goes out stays in the second-level cache, most of it as 8-bit codes.
//!
//! Operands of products are bytes: of the left one codes with 128 added, unsigned; of the right one, packed beforehand ([`matrix`]), plain
//! codes. `Σ (a + 128)·b = Σ a·b + 128·Σ b`, and what is too much, like `zero·Σ b`, depends on the column alone: sums start from it.
//!
//! Every function does the float operations of its portable twin in the same order, so results are equal bit for bit. What the twin checks on
//! every value (finiteness, range) is here either proven once from the weights, or checked where the proof does not reach; what fails the check is left to the twin.
//!
//! - [`matrix`]: packed right operand, register tiles; [`signed`]: signed left operands; [`linear`]: weights behind codes
//! - [`amx`]: the same tiles where AMX multiplies
//! - [`codes`]: floats to codes, four vectors at a time
//! - [`norm`], [`gelu`], [`softmax`]: elementwise parts
//! - [`epilogue`]: what happens to the sums of a tile
//! - [`attention`]: one head
//! - [`block`]: weights and quantizers of a block, [`fixed`] for all samples or of [`rows`]; [`run`]: samples on one thread or several;
//!   [`timer`]: what a block's parts take

pub(crate) mod amx;
pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod codes;
pub(crate) mod epilogue;
mod fixed;
pub(crate) mod gelu;
pub(crate) mod linear;
pub(crate) mod matrix;
pub(crate) mod norm;
mod rows;
pub(crate) mod run;
pub(crate) mod signed;
pub(crate) mod softmax;
pub(crate) mod timer;

/// Floats or 32-bit integers of a vector.
pub(crate) const LANES: usize = 16;
/// Columns of a full panel, and bytes of a vector.
pub(crate) const COLUMNS: usize = 64;
