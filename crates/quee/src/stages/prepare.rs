//! Data, splits and backbone of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use quee_backbone::Backbone;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::cost::BackboneCost;
use quee_backbone::presets::{self, Preset};
use quee_backbone::vit::Vit;
use quee_data::{Dataset, Fractions, SplitRequest, Splits, TestPart};

use crate::assets;
use crate::recipe::Recipe;

/// Key in a checkpoint's notes: the data set that it was trained on.
pub const NOTE_DATASET: &str = "dataset";
/// Key in a checkpoint's notes: the indices of the pictures it was trained on, separated by blanks.
pub const NOTE_TRAIN_INDICES: &str = "train_indices";

/// Everything that is fixed before the first computation.
pub struct Prepared {
    /// Pictures and labels.
    pub data: Dataset,
    /// Which picture serves which purpose.
    pub splits: Splits,
    /// Architecture by name, with its normalisation.
    pub preset: Preset,
    /// Backbone with weights.
    pub backbone: Vit,
    /// File or asset the weights come from.
    pub weights_origin: String,
    /// Its cost per picture.
    pub cost: BackboneCost,
    /// What is known about the pictures that the backbone has seen.
    pub seen: Seen,
}

/// What is known about the pictures that the backbone has seen in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The checkpoint carries their indices; no split holds one of them.
    Excluded,
    /// The checkpoint says that it was trained on another data set.
    OtherData,
    /// The checkpoint does not say.
    Unknown,
}

impl Seen {
    /// One sentence for the report.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Excluded => "The backbone has seen no picture of exit-train, fit, cal or test.",
            Self::OtherData => "The backbone was trained on another data set.",
            Self::Unknown => {
                "The backbone's file does not say which pictures it was trained on: if fit or cal are among them, predicted \
                 errors are too low."
            }
        }
    }
}

/// Loads what the recipe names. `data` and `weights` are the command line's choices and win over the recipe's.
///
/// # Errors
/// When a file is missing or damaged, the split is impossible, or backbone and data do not fit together.
pub fn prepare(recipe: &Recipe, data: Option<&Path>, weights: Option<&Path>) -> Result<Prepared> {
    let chosen = |option: Option<&Path>, setting: &Path| -> Option<PathBuf> {
        option.map(Path::to_path_buf).or_else(|| (!setting.as_os_str().is_empty()).then(|| setting.to_path_buf()))
    };
    let data_path = chosen(data, &recipe.data.path).or_else(|| in_data_folder(&recipe.data.name));
    let data = quee_data::load(&recipe.data.name, data_path.as_deref())?;
    let preset = presets::find(&recipe.backbone.preset)?;
    let checkpoint = match chosen(weights, &recipe.backbone.weights) {
        Some(path) => Checkpoint::read(&path)?,
        None => match assets::checkpoint(preset.name, &data.name) {
            Some(embedded) => embedded?,
            None => bail!(
                "no weights for `{}` on `{}`; hint: name a safetensors file with --weights or `backbone.weights`",
                preset.name,
                data.name
            ),
        },
    };
    let (seen, trained_on) = seen_pictures(&checkpoint, &data)?;
    let weights_origin = checkpoint.origin().to_owned();
    let backbone = preset.load(checkpoint)?;
    let [c, h, w] = backbone.image_shape();
    ensure!(
        data.shape() == [c, h, w],
        "backbone `{}` takes pictures of {c}×{h}×{w}, data set `{}` has {:?}; hint: choose another `backbone.preset`",
        preset.name,
        data.name,
        data.shape()
    );
    ensure!(
        backbone.classes() == data.classes,
        "{weights_origin}: the classifier has {} classes, data set `{}` has {}; hint: are these weights for another data set?",
        backbone.classes(),
        data.name,
        data.classes
    );
    let blocks: usize = recipe.paths.segments.iter().sum();
    ensure!(
        blocks == backbone.depth(),
        "`paths.segments` = {:?} has {blocks} blocks, backbone `{}` has {}; hint: the segments must add up to all blocks",
        recipe.paths.segments,
        preset.name,
        backbone.depth()
    );
    let settings = &recipe.data;
    let splits = Splits::draw(&SplitRequest {
        labels: &data.labels,
        backbone_train: &trained_on,
        test: match &data.official_test {
            Some(range) => TestPart::Given(range.clone().collect()),
            None => TestPart::Drawn(settings.test),
        },
        fractions: Fractions {
            exit_train: settings.exit_train,
            fit: settings.fit,
            cal_a: settings.cal_a,
            cal_b: settings.cal_b,
        },
        contiguous: settings.contiguous,
        seed: settings.split_seed,
    })?;
    let cost = BackboneCost::count(&backbone)?;
    Ok(Prepared { data, splits, preset, backbone, weights_origin, cost, seen })
}

/// `$QUEE_DATA/<name>`, when there is such a thing: a folder of data sets need not hold those that are embedded.
pub(crate) fn in_data_folder(name: &str) -> Option<PathBuf> {
    let place = PathBuf::from(std::env::var_os("QUEE_DATA")?).join(name);
    place.exists().then_some(place)
}

/// What the checkpoint's notes say about the pictures it was trained on.
pub(crate) fn seen_pictures(checkpoint: &Checkpoint, data: &Dataset) -> Result<(Seen, Vec<usize>)> {
    let notes = checkpoint.metadata();
    match (notes.get(NOTE_DATASET), notes.get(NOTE_TRAIN_INDICES)) {
        (Some(dataset), _) if *dataset != data.name => Ok((Seen::OtherData, Vec::new())),
        (Some(_), Some(indices)) => {
            let parsed: Result<Vec<usize>, _> = indices.split_whitespace().map(str::parse).collect();
            let parsed = parsed.with_context(|| {
                format!(
                    "{}: the note `{NOTE_TRAIN_INDICES}` is no list of indices; hint: was the file edited?",
                    checkpoint.origin()
                )
            })?;
            Ok((Seen::Excluded, parsed))
        }
        _ => Ok((Seen::Unknown, Vec::new())),
    }
}

impl Prepared {
    /// Normalised pictures `[n, C, H, W]` of a split.
    pub fn images(&self, indices: &[usize]) -> Vec<f32> {
        self.data.images(indices, self.preset.mean, self.preset.std)
    }
}
