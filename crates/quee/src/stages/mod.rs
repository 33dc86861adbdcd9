//! What an experiment does, step by step. Each file is one stage; `run` puts them in order.
//!
//! - [`prepare`]: data, splits, backbone
//! - [`seen`]: which pictures the backbone has seen
//! - [`source`]: pictures batch by batch
//! - [`tables`]: features that may be larger than memory
//! - [`shards`]: runs on paths in parts
//! - [`attempts`]: batches on a device that may be lost or too small
//! - [`walk`]: the backbone along paths
//! - [`backbone_runs`]: all runs that a study needs, independent of seeds
//! - [`costs`]: counted operations and measured time
//! - [`answers`]: exits on features: classes and probabilities
//! - [`exits`]: training the exits
//! - [`said`]: what the exits say along all paths
//! - [`gates`]: features at gates, cells, predictors
//! - [`trained`]: exits and gates of one seed, and what they say of every split
//! - [`study`]: policies and baselines of one seed
//! - [`route`]: a stored policy at work on batches
//! - [`efficiency`]: what it costs that pictures part ways
//! - [`quality`]: how well gates predict
//! - [`guarantees`]: risk control and prediction sets, checked

pub mod answers;
pub mod attempts;
#[cfg(test)]
mod attempts_tests;
pub mod backbone_runs;
pub mod costs;
pub mod efficiency;
pub mod exits;
pub mod gates;
pub mod guarantees;
pub mod prepare;
pub mod quality;
pub mod route;
pub mod said;
pub mod seen;
pub mod shards;
pub mod source;
pub mod study;
pub mod tables;
pub mod trained;
pub mod walk;
