//! The quee program: recipes, stages, results and reports.
//!
//! - [`cli`]: the command line
//! - [`recipe`]: what defines an experiment
//! - [`stages`]: what an experiment does, step by step; [`experiment`] has them run in order, [`sweep`] in several cases
//! - [`artefact`]: the policy on disk
//! - [`predict`]: a stored policy at work on pictures
//! - [`report`]: the page that a run leaves behind; [`compare`]: finished runs on one axis
//! - [`backend`]: what runs a backbone; [`backends_command`] lists it
//! - [`data_command`], [`weights_command`]: getting and checking data sets and weights
//! - [`cells`]: one recipe with many settings, a run each, here or on a cluster
//! - [`cache`], [`cache_command`]: what is stored of finished stages
//! - [`records`]: what a run tells of its stages; [`repeat`]: whether it comes out again; [`export`]: runs for other tools
//! - [`training`]: what [`pretrain`] (a backbone from random weights) and [`finetune`] (from those of another task) share
//! - [`inspect`]: what a backbone computes, operation by operation
//! - [`bench_command`]: how fast kernels and networks are on a graphics adapter and on the processor; [`tune_command`]: which kernels are the fastest there
//! - [`ladder`]: which widths a recipe should offer

pub mod artefact;
pub mod assets;
pub mod backend;
pub mod backends_command;
pub mod bench_command;
pub mod cache;
pub mod cache_command;
pub mod cancel;
pub mod cells;
pub mod cli;
pub mod compare;
pub mod data_command;
pub mod environment;
pub mod experiment;
pub mod export;
pub mod finetune;
pub mod folders;
pub mod inspect;
pub mod ladder;
pub mod output;
pub mod parts;
pub mod predict;
pub mod pretrain;
pub mod progress;
pub mod quantize;
pub mod ready;
pub mod recipe;
pub mod records;
pub mod repeat;
pub mod report;
pub mod results;
pub mod run;
pub mod stages;
pub mod sweep;
pub mod training;
pub mod transfer;
pub mod tune_command;
pub mod weights_command;
