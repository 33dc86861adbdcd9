//! `quee export`: finished runs in the form of MLflow's file store, which its page and its libraries read.
//!
//! A store is a folder of experiments; an experiment holds runs; a run holds `params`, `tags` and `metrics`, one small text file each. A
//! metric's file has a line `milliseconds value step` per value: the step of a setting is its place on the front.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use sha2::{Digest, Sha256};
use toml::Table;

use crate::output::write_whole;

/// What to export, and where to.
#[derive(Args)]
pub struct ExportArgs {
    /// Results folders of finished runs
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder of an MLflow file store; see it with `mlflow ui --backend-store-uri DIR`
    #[arg(long, value_name = "DIR")]
    mlflow: PathBuf,
}

/// Exports all runs; says where each went.
///
/// # Errors
/// When a run is none, or the store cannot be written.
pub fn run(args: &ExportArgs) -> Result<String> {
    let exported = args.runs.iter().map(|run| export(run, &args.mlflow));
    exported.map(|folder| Ok(format!("{}\n", folder?.display()))).collect()
}

fn export(run: &Path, store: &Path) -> Result<PathBuf> {
    let run = run.canonicalize().with_context(|| format!("{}: no such folder", run.display()))?;
    let read = |name: &str| {
        let file = run.join(name);
        fs::read_to_string(&file).with_context(|| {
            format!("{}: cannot be read; hint: name the results folder of a finished run", file.display())
        })
    };
    let summary: Value = serde_json::from_str(&read("summary.json")?).context("summary.json is damaged")?;
    let environment: Value = serde_json::from_str(&read("env.json")?).context("env.json is damaged")?;
    let recipe: Table = read("recipe.toml")?.parse().context("recipe.toml is damaged")?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = text(&summary["recipe"]);
    ensure!(!name.is_empty(), "{}: summary.json names no recipe", run.display());

    let started = text(&environment["started"]);
    let start =
        humantime::parse_rfc3339(&started).ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let start = start.map_or(0, |time| time.as_millis());
    let seconds: f64 =
        summary["seconds_by_stage"].as_array().into_iter().flatten().filter_map(|stage| stage.get(1)?.as_f64()).sum();
    let end = start + (seconds * 1e3) as u128;

    let experiment = identity(&[&name])[..18].to_owned();
    let label = run.file_name().map_or_else(String::new, |id| id.to_string_lossy().into_owned());
    let id = identity(&[&name, &label, &started]);
    let about =
        |lines: &[(&str, String)]| lines.iter().map(|(key, value)| format!("{key}: {value}\n")).collect::<String>();
    let experiment_folder = store.join(&experiment);
    let folder = experiment_folder.join(&id);
    fs::create_dir_all(folder.join("artifacts")).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let put = |path: PathBuf, content: &str| -> Result<()> {
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        write_whole(&path, content.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))
    };
    let quoted = |text: &str| serde_json::to_string(text).expect("text is representable");
    let location = |path: &Path| quoted(&format!("file://{}", path.display()));
    let absolute = std::path::absolute(&folder)?;
    put(
        experiment_folder.join("meta.yaml"),
        &about(&[
            ("artifact_location", location(&std::path::absolute(&experiment_folder)?)),
            ("creation_time", start.to_string()),
            ("experiment_id", quoted(&experiment)),
            ("last_update_time", start.to_string()),
            ("lifecycle_stage", "active".into()),
            ("name", quoted(&name)),
        ]),
    )?;
    put(
        folder.join("meta.yaml"),
        &about(&[
            ("artifact_uri", location(&absolute.join("artifacts"))),
            ("end_time", end.to_string()),
            ("entry_point_name", "''".into()),
            ("experiment_id", quoted(&experiment)),
            ("lifecycle_stage", "active".into()),
            ("run_id", quoted(&id)),
            ("run_name", quoted(&label)),
            ("run_uuid", quoted(&id)),
            ("source_name", "''".into()),
            ("source_type", "4".into()),
            ("source_version", "''".into()),
            ("start_time", start.to_string()),
            ("status", "3".into()),
            ("tags", "[]".into()),
            ("user_id", "quee".into()),
        ]),
    )?;
    let mut params = Vec::new();
    leaves("", &recipe, &mut params);
    for (key, value) in params {
        put(folder.join("params").join(key), &value)?;
    }
    for key in ["version", "commit", "backend", "processor"] {
        put(folder.join("tags").join(key), &text(&environment[key]))?;
    }
    put(folder.join("tags/mlflow.runName"), &label)?;
    let metric = |name: &str, values: &[f64]| -> Result<()> {
        let lines = values.iter().enumerate().filter(|(_, value)| value.is_finite());
        let text: String = lines.map(|(step, value)| format!("{start} {value} {step}\n")).collect();
        if text.is_empty() { Ok(()) } else { put(folder.join("metrics").join(legal(name)), &text) }
    };
    metric("float_accuracy", &[summary["float_accuracy"].as_f64().unwrap_or(f64::NAN)])?;
    metric("seconds", &[seconds])?;
    for method in summary["methods"].as_array().into_iter().flatten() {
        let name = text(&method["name"]);
        for key in ["area", "cost_at_drop_0_5", "cost_at_drop_1_0", "cost_of_0_5"] {
            metric(&format!("{name}/{key}"), &[method[key].as_f64().unwrap_or(f64::NAN)])?;
        }
    }
    for (method, points) in fronts(&read("curve.csv")?) {
        let (costs, accuracies): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
        metric(&format!("{method}/front_relative_cost"), &costs)?;
        metric(&format!("{method}/front_accuracy"), &accuracies)?;
    }
    for name in ["report.html", "accuracy-cost.svg", "summary.json", "curve.csv", "recipe.toml", "env.json"] {
        put(folder.join("artifacts").join(name), &read(name)?)?;
    }
    Ok(folder)
}

/// Cost and accuracy of the first seed's settings, by method, in the order of the file.
fn fronts(curve: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines = curve.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    // Only names of methods and settings hold commas, and they come first: columns are counted from the end.
    let from_end = |name: &str| header.iter().position(|column| *column == name).map(|at| header.len() - at);
    let (Some(cost), Some(accuracy)) = (from_end("relative_cost"), from_end("accuracy")) else { return Vec::new() };
    let mut all: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let mut first_seed = None;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |back: usize| cells.get(cells.len().wrapping_sub(back))?.parse::<f64>().ok();
        let (method, rest) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\",").unwrap_or((quoted, "")),
            None => line.split_once(',').unwrap_or((line, "")),
        };
        let seed = rest.split(',').next().unwrap_or_default().to_owned();
        if *first_seed.get_or_insert(seed.clone()) != seed {
            continue;
        }
        let Some(point) = number(cost).zip(number(accuracy)) else { continue };
        match all.iter_mut().find(|(name, _)| name == method) {
            Some((_, points)) => points.push(point),
            None => all.push((method.to_owned(), vec![point])),
        }
    }
    all
}

fn leaves(prefix: &str, table: &Table, all: &mut Vec<(String, String)>) {
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => leaves(&format!("{prefix}{name}."), inner, all),
            toml::Value::String(text) => all.push((format!("{prefix}{name}"), text.clone())),
            other => all.push((format!("{prefix}{name}"), other.to_string())),
        }
    }
}

/// Names of metrics may hold letters, digits, `_`, `-`, `.`, spaces and `/`.
fn legal(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "_-. /".contains(c) { c } else { '_' }).collect()
}

fn identity(parts: &[&str]) -> String {
    let bytes = Sha256::digest(parts.join("\n"));
    let digits = bytes.iter().take(16);
    // MLflow's experiments are numbers, its runs hexadecimal: digits from 0 to 9 serve for both.
    digits.map(|byte| format!("{:02}", byte % 100)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_are_those_of_the_first_seed() {
        let curve = "method,seed,setting,accuracy,relative_cost,bits\n\"a, b\",0,\"x, y\",0.5,0.1,2\n\"a, b\",0,z,0.6,0.2,2\nc,0,s,0.7,0.3,2\nc,1,s,0.8,0.4,2\n";
        let expected = vec![("a, b".to_owned(), vec![(0.1, 0.5), (0.2, 0.6)]), ("c".to_owned(), vec![(0.3, 0.7)])];
        assert_eq!(fronts(curve), expected);
        assert!(fronts("nothing,to,see\n").is_empty());
        assert_eq!(legal("QuEE: a, b/area"), "QuEE_ a_ b/area");
        assert_eq!(identity(&["a"]).len(), 32);
    }
}
