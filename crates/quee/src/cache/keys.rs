//! What each stage depends on.
//!
//! A key names the settings that matter to its stage and those of the stages before it, and stands for data, weights and program by
//! hashes of their bytes. The program is part of every key: another build may round otherwise.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use quee_backbone::Backbone;
use quee_data::{Dataset, Pixels, TrainingSplit};
use quee_store::{Key, KeyParts};
use serde::Serialize;
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::backend::Device;
use crate::environment;
use crate::quantize::file::fingerprint;
use crate::recipe::{Part, Recipe};
use crate::stages::prepare::Prepared;

/// Settings that quantizers depend on; names that end in a dot stand for a whole table.
const QUANTIZERS: &[&str] = &["backbone.preset", "quant.", "paths.batch"];
/// Settings that runs of the backbone depend on besides.
const RUNS: &[&str] = &[
    "paths.segments",
    "paths.monotone",
    "paths.sample",
    "paths.turn",
    "paths.sample_seed",
    "exits.train_on",
    "exits.tokens",
    "exits.path_draws",
    "data.folds",
    "data.split_seed",
];
/// Settings that exits depend on besides.
const EXITS: &[&str] = &["exits.", "data.contiguous"];
/// Settings that gates depend on besides.
const GATES: &[&str] = &["features.", "cells.", "predictor.", "policy.cost", "policy.methods"];

/// Settings that policies and baselines depend on besides.
const POLICIES: &[&str] = &["policy."];

/// Keys of the stages of a run.
#[derive(Clone, Debug)]
pub struct Keys {
    settings: Vec<(String, String)>,
    inputs: Vec<(&'static str, String)>,
    training: String,
    processor: String,
}

impl Keys {
    /// What is known once data, splits and backbone are loaded.
    ///
    /// # Errors
    /// When a file of quantizers or the program itself cannot be read.
    pub fn new(recipe: &Recipe, prepared: &Prepared, device: &Device, training: &str) -> Result<Self> {
        let mut inputs = vec![
            ("program", program()?.to_owned()),
            ("backend", format!("{}, driver {}", device.describe(), driver(device))),
            ("weights", fingerprint(prepared.backbone.as_ref())),
            ("data", data(&prepared.data)?),
            ("splits", divided(prepared.splits.parts())),
        ];
        let file = &recipe.quant.file;
        if !file.as_os_str().is_empty() {
            let bytes = std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
            inputs.push(("quantizers", hex(Sha256::digest(bytes))));
        }
        Ok(Self {
            settings: settings(recipe)?,
            inputs,
            training: training.to_owned(),
            processor: environment::processor(),
        })
    }

    /// The keys of another recipe on the same data, backbone and device.
    ///
    /// # Errors
    /// When the recipe is not representable.
    pub fn of(&self, recipe: &Recipe) -> Result<Self> {
        Ok(Self { settings: settings(recipe)?, ..self.clone() })
    }

    fn parts(&self, stage: &str, names: &[&[&str]]) -> KeyParts {
        let wanted = |name: &str| {
            let fits = |wish: &&str| *wish == name || wish.ends_with('.') && name.starts_with(*wish);
            names.iter().any(|names| names.iter().any(fits))
        };
        let mut parts = KeyParts::new(stage);
        for (name, value) in self.settings.iter().filter(|(name, _)| wanted(name)) {
            parts = parts.text(name, value);
        }
        for (name, value) in &self.inputs {
            parts = parts.text(*name, value);
        }
        parts
    }

    /// Quantizers.
    ///
    /// # Errors
    /// When there are too many parts to be named.
    pub fn quantizers(&self) -> Result<Key> {
        Ok(self.parts("quantizers", &[QUANTIZERS]).key()?)
    }

    /// Runs of the backbone on all paths.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn runs(&self) -> Result<Key> {
        Ok(self.parts("runs on paths", &[QUANTIZERS, RUNS]).key()?)
    }

    /// One part of the runs of the backbone on all paths.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn part_of_runs(&self, part: Part) -> Result<Key> {
        Ok(self.parts("part of the runs on paths", &[QUANTIZERS, RUNS]).text("part", part).key()?)
    }

    /// Measured times; those of another processor are others.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn times(&self) -> Result<Key> {
        let parts = self.parts("measured times", &[QUANTIZERS, &["paths.segments", "exits.tokens"]]);
        Ok(parts.text("processor", &self.processor).key()?)
    }

    /// Exits of one seed.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn exits(&self, seed: u64) -> Result<Key> {
        let parts = self.parts("exits", &[QUANTIZERS, RUNS, EXITS]);
        Ok(parts.text("training", &self.training).text("seed", seed).key()?)
    }

    /// Times of the heads of one seed.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn head_times(&self, seed: u64) -> Result<Key> {
        let parts = self.parts("times of heads", &[QUANTIZERS, RUNS, EXITS, GATES, &["policy.continuations"]]);
        let parts = parts.text("training", &self.training).text("seed", seed);
        Ok(parts.text("processor", &self.processor).key()?)
    }

    /// Policies and baselines of one seed. `times` are the measured ones that settings are priced with.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn policies(&self, seed: u64, times: &[u8]) -> Result<Key> {
        let parts = self.parts("policies", &[QUANTIZERS, RUNS, EXITS, GATES, POLICIES]);
        Ok(parts.text("training", &self.training).text("seed", seed).bytes("times", times).key()?)
    }

    /// Gates of one seed: cells, predictors, calibration. `costs` are those of segments that some predictors read.
    ///
    /// # Errors
    /// As [`quantizers`](Self::quantizers).
    pub fn gates(&self, seed: u64, costs: &[Vec<f64>]) -> Result<Key> {
        let parts = self.parts("gates", &[QUANTIZERS, RUNS, EXITS, GATES]);
        let parts =
            parts.bytes("costs", &costs.iter().flatten().flat_map(|cost| cost.to_le_bytes()).collect::<Vec<_>>());
        Ok(parts.text("training", &self.training).text("seed", seed).key()?)
    }
}

/// The training of a whole backbone that has the weights of `backbone` at first. `device` says what trains.
///
/// # Errors
/// When pictures or the program itself cannot be read.
pub fn training(
    settings: &impl Serialize,
    backbone: &dyn Backbone,
    data: &Dataset,
    split: &TrainingSplit,
    device: &str,
) -> Result<Key> {
    let mut parts = KeyParts::new("training of a backbone");
    // The path of the weights says nothing: their values count.
    for (name, value) in self::settings(settings)?.iter().filter(|(name, _)| name != "weights") {
        parts = parts.text(name, value);
    }
    let split = [("train", &split.train[..]), ("validation", &split.validation[..])];
    let inputs = [
        ("program", program()?.to_owned()),
        ("device", device.to_owned()),
        ("starting weights", fingerprint(backbone)),
        ("data", self::data(data)?),
        ("splits", divided(split)),
    ];
    Ok(inputs.into_iter().fold(parts, |parts, (name, value)| parts.text(name, value)).key()?)
}

/// All settings by dotted name.
fn settings(recipe: &impl Serialize) -> Result<Vec<(String, String)>> {
    let table = Table::try_from(recipe).context("the recipe is not representable in TOML")?;
    let mut settings = Vec::new();
    flatten("", &table, &mut settings);
    Ok(settings)
}

/// Leaves of a table by dotted name.
fn flatten(prefix: &str, table: &Table, all: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            Value::Table(inner) => flatten(&format!("{name}."), inner, all),
            other => all.push((name, other.to_string())),
        }
    }
}

/// Hash of the program's own file.
fn program() -> Result<&'static str> {
    static PROGRAM: OnceLock<std::io::Result<String>> = OnceLock::new();
    let read = || Ok(hex(Sha256::digest(std::fs::read(std::env::current_exe()?)?)));
    PROGRAM.get_or_init(read).as_deref().map_err(|error| anyhow::anyhow!("the program's own file: {error}"))
}

fn driver(device: &Device) -> String {
    device.adapter().map_or_else(|| "none".into(), |info| info.driver.clone())
}

/// Pictures and labels: the bytes in memory; of files their names, lengths and times of change.
fn data(data: &Dataset) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{} {:?}", data.classes, data.official_test));
    data.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
    match &data.pixels {
        Pixels::Memory { shape, max, values } => {
            hash.update(format!("{shape:?} {max}"));
            hash.update(values);
        }
        Pixels::Files(files) => {
            for file in files {
                let about = file.metadata().with_context(|| format!("{}: cannot be read", file.display()))?;
                let changed = about.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                hash.update(format!("{} {} {changed:?}\n", file.display(), about.len()));
            }
        }
    }
    Ok(hex(hash.finalize()))
}

/// Which picture serves which purpose.
fn divided<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> String {
    let mut hash = Sha256::new();
    for (name, part) in parts {
        hash.update(format!("{name} {part:?}\n"));
    }
    hex(hash.finalize())
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
