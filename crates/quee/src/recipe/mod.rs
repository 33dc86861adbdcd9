//! A recipe: everything that defines an experiment.
//!
//! `experiments/base.toml` is compiled in: it holds every key, its default and its explanation. A recipe file states only
//! what differs, may build on another file by `extends`, may hold variants under `[profile.NAME]`, and in `[sweep]` what [`crate::cells`] run.

mod load;
mod settings;
mod shard;

pub use load::{BASE, RecipeError, changed, load, load_whole, merge, resolve, sweep_table, typed};
pub use settings::*;
pub use shard::{Part, Shard};
