//! Data sets, splits and transforms.
//!
//! - [`dataset`]: labelled pictures in memory or in files, and normalised batches of them
//! - [`catalog`]: data sets by name
//! - [`digits`]: the handwritten digits inside the program, and their file format
//! - [`cifar`], [`svhn`], [`mod@folder`]: the published formats, and one folder per class; [`mat5`] reads MATLAB files
//! - [`splits`]: which picture serves which purpose; [`training_split`]: the same for the training of a backbone
//! - [`transform`]: channels, resizing, centre crop and normalisation
//! - [`augment`](mod@augment): random crops, flips, rotation, scale and shift for training
//! - [`picture`]: picture files in and out
//! - [`fetch`]: getting data sets and weights from their official addresses, and checking them
//! - [`error`]: what can go wrong with a file or a setting
//!
//! Pictures are `[C, H, W]`: channels, height, width, row-major. "On the 0–1 scale" means that the least pixel value a
//! format can store is 0.0 and the largest 1.0.

pub mod augment;
pub mod catalog;
pub mod cifar;
pub mod dataset;
pub mod digits;
pub mod error;
pub mod fetch;
pub mod folder;
mod jpeg;
pub mod mat5;
pub mod picture;
mod resample;
pub mod splits;
pub mod svhn;
pub mod training_split;
pub mod transform;

pub use augment::{AugmentConfig, ResizedCrop, augment};
pub use catalog::{NAMES, load};
pub use dataset::{Dataset, PartSizes, Pixels, normalize};
pub use error::DataError;
pub use picture::{Picture, read_picture, write_picture};
pub use splits::{BackboneSplit, Fractions, Limits, SplitError, SplitRequest, Splits, TestPart, draw_backbone_split};
pub use training_split::{Amount, TrainingRequest, TrainingSplit};
pub use transform::{Interpolation, Transform};
