//! What a run leaves behind. Every file is described in `docs/results.md`.

pub mod choices;
mod csv;
mod device;
mod heads;
mod page;
mod promises;
mod summary;
mod tensors;

use std::sync::Arc;

use crate::quantize::file::Quantizers;
use crate::records::Record;
use anyhow::{Context, Result};
use quee_policy::summary::Summary;
use quee_policy::tree::PathTree;
use serde::Serialize;

pub use device::DeviceWork;
pub use summary::{skill, subset};

use crate::artefact;
use crate::environment::Environment;
use crate::output::RunFolder;
use crate::recipe::Recipe;
use crate::report;
use crate::stages::backbone_runs::BackboneRuns;
use crate::stages::costs::Counted;
use crate::stages::efficiency::Efficiency;
use crate::stages::prepare::Prepared;
use crate::stages::study::SeedStudy;

/// Everything that a finished study knows.
pub struct Study {
    /// Settings.
    pub recipe: Recipe,
    /// Data, splits, backbone.
    pub prepared: Arc<Prepared>,
    /// Quantizers.
    pub quantizers: Arc<Quantizers>,
    /// Paths.
    pub tree: Arc<PathTree>,
    /// Features of all runs.
    pub runs: Arc<BackboneRuns>,
    /// Counted operations.
    pub counted: Arc<Counted>,
    /// Results by seed.
    pub seeds: Vec<SeedStudy>,
    /// All seeds together.
    pub summary: Summary,
    /// Program and machine.
    pub environment: Environment,
    /// Pictures of the batch that was timed, where times were measured.
    pub timed_batch: Option<usize>,
    /// What a device apart from the processor was asked to do.
    pub device_work: Option<DeviceWork>,
    /// What must stand beside every time, where the device only plays a GPU.
    pub time_caveat: Option<String>,
    /// What it costs that pictures part ways, where times were measured.
    pub routing: Option<Efficiency>,
    /// Seconds of each stage so far.
    pub records: Vec<Record>,
}

/// Writes all results into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(study: &Study, folder: &RunFolder) -> Result<()> {
    write_origin(folder, &study.recipe, &study.environment, &study.records)?;
    folder.write("splits.json", &json(&study.prepared.splits)?)?;
    folder.write("quant.json", &json(&study.quantizers.notes(&mut Vec::new()))?)?;
    folder.write("curve.csv", csv::curve(study).as_bytes())?;
    folder.write("predictor.csv", csv::predictor(study).as_bytes())?;
    folder.write("risk.csv", promises::risk(study).as_bytes())?;
    if let Some(sets) = promises::sets(study) {
        folder.write("sets.csv", sets.as_bytes())?;
    }
    folder.write("summary.json", &json(&summary::summary(study))?)?;
    folder.write("paths.safetensors", &tensors::paths(study)?)?;
    folder.write("choices.safetensors", &choices::choices(study)?)?;
    if study.routing.is_none() {
        write_policy(study, folder)?;
    }
    let page = page::page(study);
    folder.write("report.html", report::render(&page).as_bytes())?;
    folder.write("accuracy-cost.svg", report::accuracy_cost_svg(&page).as_bytes())
}

/// Writes what results come from: settings, program and machine, stages so far.
///
/// # Errors
/// As [`write()`].
pub fn write_origin(folder: &RunFolder, recipe: &Recipe, environment: &Environment, records: &[Record]) -> Result<()> {
    folder.write("recipe.toml", toml::to_string(recipe)?.as_bytes())?;
    folder.write("env.json", &json(environment)?)?;
    let log: String = records.iter().map(Record::line).collect::<Result<_>>()?;
    folder.write("log.jsonl", log.as_bytes())
}

/// Writes the policy of the first seed into `folder`; [`write()`] does it where no batches were routed with it.
///
/// # Errors
/// As [`write()`].
pub fn write_policy(study: &Study, folder: &RunFolder) -> Result<()> {
    folder.write("policy.safetensors", &artefact::write(study)?)
}

/// Indented JSON with a newline at its end.
///
/// # Errors
/// When the value is not representable.
pub fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(value).context("results are not representable in JSON")?;
    Ok((text + "\n").into_bytes())
}
