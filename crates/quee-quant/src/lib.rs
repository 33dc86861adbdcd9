//! Bit-widths, quantizers and the scalar reference of every integer operation.
//!
//! Vocabulary: a real number `x` is stored as an integer *code* `q` with `x ≈ (q − zero) · scale`.
//! Weights are symmetric (`zero = 0`) with one scale per output channel; activations are asymmetric, with one
//! scale and zero point per row (a *row* is one token of one sample) that may be the same for all rows.
//! Codes are computed with as `i8`, whatever the bit-width.
//!
//! - [`Width`]: a pair of bit-widths, `w4a8`, or float
//! - [`weight`]: symmetric per-channel weight quantizers; [`gptq`](mod@gptq): rounding against the layer's output
//! - [`activation`]: scale and zero point from a range; per-token dynamic quantization
//! - [`site`]: quantizers of one place, with steps of one or several sizes
//! - [`observe`]: static ranges from calibration values
//! - [`packing`]: codes of few bits in memory
//! - [`mod@reference`]: integer matrix product and quantized linear layer, one scalar at a time

pub mod activation;
pub mod gptq;
pub mod observe;
pub mod packing;
pub mod reference;
pub mod site;
pub mod weight;
mod width;

pub use activation::{ActQuant, quantize_row_dynamic};
pub use observe::{ActQuantizer, RangeObserver};
pub use site::{LogSqrt2, Plane, SiteQuant, Twin};
pub use weight::{QuantWeight, WeightQuantizer};
pub use width::{Width, WidthError};
