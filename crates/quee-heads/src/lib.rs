//! Gate features, cells, error predictors: inference, calibration and their quality.
//!
//! A backbone is cut into `S` segments; gate `s` (1 to `S − 1`) stands after segment `s`. A *prefix* at gate `s` is the
//! sequence of the `s` widths that brought a sample there, a *suffix* a sequence of at most `S − s` widths that could
//! follow; the empty suffix means "answer here". [`GatePaths`] numbers both. A gate's predictor maps features of
//! the sample to one probability of error per suffix (QuEE, arXiv 2406.14404; which features, and how cells are
//! formed, are choices of this project).
//!
//! - [`FeatureSpec`]: what a gate sees of a sample; [`Standardizer`] brings it to mean 0, deviation 1
//! - [`Cells`]: k-means over features, the discretised feature space
//! - [`targets`]: smoothed error rates per cell, prefix and suffix
//! - [`ExitHead`]: the classifier of an exit
//! - [`Mlp`], [`Ensemble`]: small networks, inference only (they are trained elsewhere)
//! - [`Trees`], [`train_trees`]: gradient-boosted trees that read the continuation as well, and their training
//! - [`SharedPredictor`]: one predictor for all gates, which reads the whole path
//! - [`Calibration`]: what brings probabilities to observed rates
//! - [`GatePredictor`]: all of a gate, from features to calibrated probabilities
//! - [`quality`]: how good such probabilities are
//!
//! Nothing here draws unseeded random numbers or depends on the number of threads.

mod boost;
mod calibrate;
mod cells;
mod continuations;
mod error;
mod exit;
mod features;
mod isotonic;
mod network;
mod paths;
mod predictor;
pub mod quality;
mod rows;
mod shared;
mod standardize;
pub mod targets;
mod trees;

pub use boost::{Boosted, TreeConfig, train_trees};
pub use calibrate::{Calibration, CalibrationKind};
pub use cells::Cells;
pub use continuations::{GatePaths, suffix_name};
pub use error::HeadsError;
pub use exit::ExitHead;
pub use features::{FeatureSpec, softmax};
pub use isotonic::Isotonic;
pub use network::{Ensemble, Mlp};
pub use predictor::{GatePredictor, Kind};
pub use quality::{FourWay, PredictorRow};
pub use rows::{PooledRows, RowBlock, pooled_rows};
pub use shared::{SharedModel, SharedPredictor};
pub use standardize::Standardizer;
pub use targets::RateTable;
pub use trees::Trees;

/// An outcome that does not exist, because the path table leaves out this pair of prefix and suffix.
///
/// Outcomes are stored as `u8`: 0 right, 1 wrong, 255 absent.
pub const ABSENT: u8 = u8::MAX;

/// Probabilities are kept this far from 0 and 1 wherever their logarithm is taken.
pub const PROBABILITY_FLOOR: f64 = 1e-6;
