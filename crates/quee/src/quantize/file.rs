//! Quantizers on disk: a safetensors file of a kind of its own.
//!
//! Tensors: codes, scales and biases of every linear layer at every number of weight bits, and changed normalisations (see
//! [`quee_backbone::quant_file`]). Notes (JSON, under `quantizers`): quantizers of activations by site, what they were made from and with, and
//! how well they hold the values.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::quant_file::PlanNotes;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{Backbone, QuantPlan};
use quee_quant::Width;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{layers, quality};
use crate::output::write_whole;
use crate::recipe::Quant;

const FORMAT: &str = "quee quantizers 1";
/// Key of the notes.
const NOTES: &str = "quantizers";

/// What quantizers were made from and with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Version of the program.
    pub version: String,
    /// Name of the backbone.
    pub backbone: String,
    /// Where its weights came from.
    pub weights: String,
    /// SHA-256 of its parameters.
    pub fingerprint: String,
    /// Data set of the pictures.
    pub dataset: String,
    /// Positions of the pictures in it.
    pub pictures: Vec<usize>,
    /// Settings, `quant.*` of the recipe.
    pub settings: Quant,
    /// Widths that are ready.
    pub widths: Vec<Width>,
}

/// Signal to noise of what is stored at a place, in decibels, by bits.
pub type Quality = BTreeMap<String, BTreeMap<u8, f64>>;

/// All that is known of quantizers but the codes themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// What they were made from and with.
    pub origin: Origin,
    /// Quantizers of activations, and which layers' weights are stored.
    pub plan: PlanNotes,
    /// How well sites hold their values.
    pub activation_quality: Quality,
    /// How well codes hold the weights.
    pub weight_quality: Quality,
}

/// Quantizers with their history.
#[derive(Clone, Debug)]
pub struct Quantizers {
    /// What they were made from and with.
    pub origin: Origin,
    /// The quantizers.
    pub plan: QuantPlan,
    /// How well sites hold their values.
    pub activation_quality: Quality,
    /// How well codes hold the weights.
    pub weight_quality: Quality,
}

/// SHA-256 of the names and values of all parameters.
pub fn fingerprint(backbone: &dyn Backbone) -> String {
    let mut hash = Sha256::new();
    for param in backbone.params() {
        hash.update(param.name.as_bytes());
        param.data.iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Quantizers {
    /// A plan, not measured.
    pub fn new(origin: Origin, plan: QuantPlan) -> Self {
        Self { origin, plan, activation_quality: Quality::new(), weight_quality: Quality::new() }
    }

    /// Measures how well the plan holds what comes to it from `pictures`, and the weights that it stores.
    ///
    /// # Errors
    /// When the backbone's program fails.
    pub fn measure(&mut self, backbone: &dyn Backbone, pictures: &[f32], batch: usize) -> Result<()> {
        self.activation_quality = quality::activations(backbone, &self.plan, &self.origin.widths, pictures, batch)?;
        self.weight_quality = quality::weights(backbone, &self.plan)?;
        Ok(())
    }

    /// Puts the codes of every layer into the plan, those that are simply rounded included, for all widths that are ready. The backbone's own
    /// classifier stays in floats, as all exits do.
    ///
    /// # Errors
    /// When the program of the backbone fails.
    pub fn complete(&mut self, backbone: &dyn Backbone) -> Result<()> {
        layers::store(&mut self.plan, backbone, &self.origin.widths)?;
        self.weight_quality = quality::weights(backbone, &self.plan)?;
        Ok(())
    }

    /// The notes; appends the tensors to `tensors`.
    pub fn notes(&self, tensors: &mut Vec<TensorData>) -> Notes {
        Notes {
            origin: self.origin.clone(),
            plan: self.plan.store("", tensors),
            activation_quality: self.activation_quality.clone(),
            weight_quality: self.weight_quality.clone(),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written; then there is no file, or the one before.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.encode()?)
            .with_context(|| format!("{}: cannot write; hint: choose another place with --out", path.display()))
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When they are not representable.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        let notes = self.notes(&mut tensors);
        let notes = serde_json::to_string(&notes).context("the quantizers are not representable in JSON")?;
        let metadata = BTreeMap::from([("format".to_owned(), FORMAT.to_owned()), (NOTES.to_owned(), notes)]);
        Ok(encode(&tensors, &metadata))
    }

    /// Reads a file back.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(Checkpoint::read(path)?)
    }

    /// Reads the bytes of a file back; `origin` names them in errors.
    ///
    /// # Errors
    /// When they are damaged or of another version.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self> {
        Self::of(Checkpoint::parse(bytes, origin)?)
    }

    fn of(mut checkpoint: Checkpoint) -> Result<Self> {
        let file = checkpoint.origin().to_owned();
        let format = checkpoint.metadata().get("format").cloned().unwrap_or_default();
        ensure!(
            format == FORMAT,
            "{file}: format `{format}`, expected `{FORMAT}`; hint: `quee quantize RECIPE --out FILE` makes such a file"
        );
        let damaged = || format!("{file}: the quantizers are damaged; hint: make them again with `quee quantize`");
        let notes = checkpoint.metadata().get(NOTES).with_context(damaged)?;
        let Notes { origin, plan, activation_quality, weight_quality } =
            serde_json::from_str(notes).with_context(damaged)?;
        let plan = QuantPlan::load(plan, "", &mut checkpoint)?;
        checkpoint.finish()?;
        Ok(Self { origin, plan, activation_quality, weight_quality })
    }

    /// Refuses to serve another backbone, other settings or further widths than the quantizers were made for.
    ///
    /// # Errors
    /// Says what is different.
    pub fn expect_for(&self, path: &Path, backbone: &dyn Backbone, quant: &Quant, widths: &[Width]) -> Result<()> {
        let file = path.display();
        ensure!(
            self.origin.fingerprint == fingerprint(backbone),
            "{file}: made for other weights ({} of {}); hint: make quantizers for these weights with `quee quantize`",
            self.origin.backbone,
            self.origin.weights
        );
        let made = &self.origin.settings;
        let same = [
            ("weights", made.weights == quant.weights, format!("{:?}", made.weights)),
            ("activations", made.activations == quant.activations, made.activations.name().into()),
            ("rounding", made.rounding == quant.rounding, format!("{:?}", made.rounding)),
            ("bias_correction", made.bias_correction == quant.bias_correction, made.bias_correction.to_string()),
            ("wider", made.wider == quant.wider, format!("{:?}", made.wider)),
        ];
        for (key, same, value) in same {
            if !same {
                bail!(
                    "{file}: made with `quant.{key}` = {}; hint: change the recipe, or make quantizers with it",
                    value.to_lowercase()
                );
            }
        }
        if let Some(width) = widths.iter().find(|width| !self.origin.widths.contains(width)) {
            bail!(
                "{file}: not made for {width}; hint: make quantizers with `quant.widths` and `quant.static_widths` of this recipe"
            );
        }
        Ok(())
    }

    /// Bytes of the backbone at a width: packed codes, scales, and everything that stays in floats.
    pub fn bytes(&self, backbone: &dyn Backbone, width: Width) -> usize {
        let floats: usize = backbone.params().iter().map(|param| 4 * param.data.len()).sum();
        if width.is_float() {
            return floats;
        }
        let mut bytes = floats;
        for (site, layer) in self.plan.layers() {
            let bits = self.plan.width_at(site, width).weight_bits();
            if let Some(stored) = layer.weights.get(&bits) {
                let (n, k) = (stored.weight.n, stored.weight.k);
                bytes -= 4 * n * k;
                bytes += 4 * quee_quant::packing::words(n, k, bits) + 4 * n;
            }
        }
        bytes
    }
}
