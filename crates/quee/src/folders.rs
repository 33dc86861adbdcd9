//! The user's folders: data sets and weights, stored results, and what was measured on this machine.
//!
//! `$QUEE_DATA`, or `quee/data` in the platform's folder for the data of programs (`$XDG_DATA_HOME` or `~/.local/share`
//! on Linux). A data set lies in `<folder>/<name>`, weights in `<folder>/weights`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of data sets: the one given, else the user's.
///
/// # Errors
/// When there is no home folder to derive it from.
pub fn data(given: Option<&Path>) -> Result<PathBuf> {
    given
        .map(Path::to_path_buf)
        .or_else(user)
        .context("there is no home folder; hint: name a folder with --data or QUEE_DATA")
}

/// The folder of weights below [`data`].
///
/// # Errors
/// As [`data`].
pub fn weights(given: Option<&Path>) -> Result<PathBuf> {
    Ok(data(given)?.join("weights"))
}

/// The weights that `quee weights fetch NAME` or the user has put into the folder of weights.
pub fn weights_file(name: &str) -> Option<PathBuf> {
    quee_data::fetch::weights_file(&user()?.join("weights"), name)
}

/// The user's folder; `None` where there is neither the variable nor a home folder.
pub fn user() -> Option<PathBuf> {
    let named = std::env::var_os("QUEE_DATA").filter(|v| !v.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(dirs::data_dir()?.join("quee").join("data")))
}

/// The folder of stored results: the one given, else `$QUEE_CACHE`, else `quee/results` in the platform's folder for the caches of programs.
///
/// # Errors
/// When there is no home folder to derive it from.
pub fn cache(given: Option<&Path>) -> Result<PathBuf> {
    let named = || std::env::var_os("QUEE_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
    given
        .map(Path::to_path_buf)
        .or_else(named)
        .or_else(|| Some(dirs::cache_dir()?.join("quee").join("results")))
        .context("there is no home folder; hint: name a folder with --cache or QUEE_CACHE")
}

/// The folder of files that `quee tune` writes and the GPU backend reads: `quee/tuning` in the platform's folder for the caches of programs
/// (`$XDG_CACHE_HOME` or `~/.cache` on Linux); `None` where there is none.
pub fn tuning() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("quee").join("tuning"))
}
