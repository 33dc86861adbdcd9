//! Backbones and executors.
//!
//! A [`Backbone`] is written once, as a program over the operations of the [`Executor`] trait. An executor gives the
//! program a meaning: integer kernels on a processor, floats with gradients, counting costs, watching value ranges.
//! Both traits are dyn-compatible, so that a recipe can pick either by name at run time.
//!
//! - [`executor`]: the operations and the opaque [`Value`] they pass around
//! - [`groups`]: batches whose samples run at different widths
//! - [`params`]: what a program's operations carry: weights, biases, names
//! - [`backbone`]: the program of a backbone
//! - [`architecture`]: dimensions that make backbones; [`weights`]: where their tensors come from
//! - [`families`]: one file for each family; [`encoder`], [`positions`]: what they share
//! - [`presets`]: architectures by their timm-style name
//! - [`fit`]: which preset a checkpoint belongs to
//! - [`checkpoint`]: named tensors from safetensors and PyTorch files
//! - [`tensor_file`]: writing safetensors files
//! - [`cost`]: an executor whose tensors are shapes; counts multiply-accumulates and bit operations
//! - [`cost_dynn`]: another way to count, for comparison with published curves
//! - [`layers`]: the linear layers of a program
//! - [`calibrate`]: an executor that watches what enters each quantized operation
//! - [`quant_plan`]: which quantizer runs where; [`quant_file`]: the same in files

pub mod architecture;
pub mod backbone;
pub mod calibrate;
pub mod checkpoint;
pub mod cost;
pub mod cost_dynn;
pub mod encoder;
pub mod executor;
pub mod families;
pub mod fit;
mod forward;
pub mod groups;
pub mod layers;
pub mod params;
pub mod positions;
pub mod presets;
pub mod quant_file;
pub mod quant_plan;
pub mod tensor_file;
pub mod weights;

pub use architecture::{Architecture, Pool, Variant};
pub use backbone::{Backbone, NamedTensor};
pub use executor::{ExecError, Executor, Value};
pub use families::vit;
pub use groups::Groups;
pub use params::{Attention, Linear, Norm, Param, Performer, Window};
pub use quant_plan::{LayerPlan, LayerWeight, QuantPlan, Wider};
