//! `quee repeat`: does a run come out again?

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::recipe::{self, Recipe};

/// Files of numbers and choices: the same on the same program and backend.
const RESULTS: &[&str] = &[
    "curve.csv",
    "predictor.csv",
    "risk.csv",
    "sets.csv",
    "splits.json",
    "paths.safetensors",
    "choices.safetensors",
    "policy.safetensors",
];
/// What may explain a difference.
const ENVIRONMENT: &[&str] = &["version", "commit", "backend", "driver", "processor", "training_device"];
/// The recipe of the run in `folder`.
///
/// # Errors
/// When it is no results folder.
pub fn recipe_of(folder: &Path) -> Result<Recipe> {
    let file = folder.join("recipe.toml");
    if !file.is_file() {
        bail!(
            "{}: no such file; hint: quee repeat takes the results folder of a finished run, e.g. runs/digits/latest",
            file.display()
        );
    }
    Ok(recipe::load_whole(&file)?)
}

/// What a comparison finds.
pub struct Verdict {
    /// For people.
    pub text: String,
    /// Whether all results are the same.
    pub same: bool,
}

/// Compares the results of two runs, file by file. Columns of measured times are left out of `curve.csv`.
///
/// # Errors
/// When a file cannot be read.
pub fn compare(before: &Path, after: &Path) -> Result<Verdict> {
    let (mut text, mut same) = (String::new(), true);
    for name in RESULTS {
        let files = [before, after].map(|folder| folder.join(name));
        let verdict = match files.each_ref().map(|file| file.is_file()) {
            [false, false] => continue,
            [true, true] => {
                let [a, b] = files.each_ref().map(|file| contents(file));
                if a? == b? { "the same" } else { "differs" }
            }
            _ => "is in one run only",
        };
        same &= verdict == "the same";
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:20} {verdict}");
    }
    let environments = [before, after].map(|folder| environment(&folder.join("env.json")));
    let [was, is] = environments;
    let (was, is) = (was?, is?);
    for name in ENVIRONMENT.iter().filter(|name| was[**name] != is[**name]) {
        let _ = writeln!(text, "{name:20} {} -> {}", was[*name], is[*name]);
    }
    let _ = writeln!(text, "{}", after.display());
    Ok(Verdict { text, same })
}

/// The bytes of a file; of `curve.csv` without the columns of measured times.
fn contents(file: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    if file.file_name().is_none_or(|name| name != "curve.csv") {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let header = text.lines().next().unwrap_or_default();
    // Names of methods may hold commas, but times stand behind them: columns are counted from the end.
    let columns: Vec<&str> = header.split(',').collect();
    let timed: Vec<usize> =
        (0..columns.len()).filter(|&at| columns[at].starts_with("ms_per_image")).map(|at| columns.len() - at).collect();
    let without = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let kept = cells.iter().enumerate().filter(|(at, _)| !timed.contains(&(cells.len() - at)));
        kept.map(|(_, cell)| *cell).collect::<Vec<_>>().join(",")
    };
    Ok(text.lines().map(without).collect::<Vec<_>>().join("\n").into_bytes())
}

fn environment(file: &PathBuf) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: is damaged", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(folder: &Path, curve: &str, commit: &str) {
        std::fs::write(folder.join("curve.csv"), curve).unwrap();
        std::fs::write(folder.join("env.json"), format!(r#"{{"version":"1","commit":"{commit}"}}"#)).unwrap();
    }

    #[test]
    fn times_may_differ_and_figures_may_not() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let curve = |ms: &str, accuracy: &str| {
            format!("method,seed,accuracy,ms_per_image,bits\n\"early exit, margin\",0,{accuracy},{ms},2.0\n")
        };
        run(a.path(), &curve("0.1", "0.9"), "x");
        run(b.path(), &curve("0.2", "0.9"), "y");
        let verdict = compare(a.path(), b.path()).unwrap();
        assert!(verdict.same && verdict.text.contains(r#""x" -> "y""#), "{}", verdict.text);
        run(b.path(), &curve("0.1", "0.8"), "x");
        let verdict = compare(a.path(), b.path()).unwrap();
        assert!(!verdict.same && verdict.text.contains("differs"), "{}", verdict.text);
        std::fs::write(b.path().join("sets.csv"), "").unwrap();
        assert!(compare(a.path(), b.path()).unwrap().text.contains("in one run only"));
        assert!(recipe_of(a.path()).unwrap_err().to_string().contains("hint"));
    }
}
