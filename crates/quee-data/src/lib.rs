//! Data sets, splits and transforms.
//!
//! - [`dataset`]: labelled pictures in memory, and normalised batches of them
//! - [`catalog`]: data sets by name
//! - [`digits`]: the handwritten digits inside the program, and their file format
//! - [`splits`]: which picture serves which purpose; [`training_split`]: the same for the training of a backbone
//! - [`augment`](mod@augment): random rotation, scale and shift for training
//! - [`picture`]: picture files in and out
//! - [`error`]: what can go wrong with a file or a setting
//!
//! Pictures are `[C, H, W]`: channels, height, width, row-major. "On the 0–1 scale" means that the least pixel value a
//! format can store is 0.0 and the largest 1.0.

pub mod augment;
pub mod catalog;
pub mod dataset;
pub mod digits;
pub mod error;
pub mod picture;
pub mod splits;
pub mod training_split;

pub use augment::{AugmentConfig, augment};
pub use catalog::{NAMES, load};
pub use dataset::{Dataset, normalize};
pub use error::DataError;
pub use picture::{read_picture, write_picture};
pub use splits::{BackboneSplit, Fractions, SplitError, SplitRequest, Splits, TestPart, draw_backbone_split};
pub use training_split::{Amount, TrainingRequest, TrainingSplit};
