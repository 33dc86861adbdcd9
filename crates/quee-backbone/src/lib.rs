//! Backbones and executors.
//!
//! A [`Backbone`] is written once, as a program over the operations of the [`Executor`] trait. An executor gives the
//! program a meaning: integer kernels on a processor, floats with gradients, counting costs, watching value ranges.
//! Both traits are dyn-compatible, so that a recipe can pick either by name at run time.
//!
//! - [`executor`]: the operations and the opaque [`Value`] they pass around
//! - [`params`]: what a program's operations carry: weights, biases, names
//! - [`backbone`]: the trait that an architecture implements
//! - [`vit`]: the vision transformer (arXiv 2010.11929)
//! - [`presets`]: architectures by their timm-style name
//! - [`checkpoint`]: named tensors from safetensors and PyTorch files
//! - [`tensor_file`]: writing safetensors files
//! - [`cost`]: an executor whose tensors are shapes; counts multiply-accumulates and bit operations
//! - [`calibrate`]: an executor that watches what enters each quantized operation
//! - [`quant_plan`]: which quantizer runs where

pub mod backbone;
pub mod calibrate;
pub mod checkpoint;
pub mod cost;
pub mod executor;
mod forward;
pub mod params;
pub mod presets;
pub mod quant_plan;
pub mod tensor_file;
pub mod vit;

pub use backbone::Backbone;
pub use executor::{ExecError, Executor, Value};
pub use params::{Attention, Linear, Norm, Param};
pub use quant_plan::QuantPlan;
