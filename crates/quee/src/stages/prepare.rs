//! Data, splits and backbone of a run.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use quee_backbone::Backbone;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::cost::BackboneCost;
use quee_backbone::presets::{self, Preset};
use quee_data::{
    DataError, Dataset, Fractions, Interpolation, Limits, SplitRequest, Splits, TestPart, Transform, catalog,
};

use crate::assets;
use crate::folders;
use crate::quantize;
use crate::recipe::Recipe;
use crate::stages::seen::{Seen, seen_pictures};
use crate::stages::source::Part;

/// Everything that is fixed before the first computation.
pub struct Prepared {
    /// Pictures and labels.
    pub data: Dataset,
    /// Which picture serves which purpose.
    pub splits: Splits,
    /// With `data.folds`: exit-train and fit together, the pictures of both.
    pooled: Option<Vec<usize>>,
    /// Architecture by name, with its normalisation.
    pub preset: Preset,
    /// From a stored picture to what the backbone takes.
    pub transform: Transform,
    /// Backbone with weights.
    pub backbone: Box<dyn Backbone>,
    /// File or asset the weights come from.
    pub weights_origin: String,
    /// Its cost per picture.
    pub cost: BackboneCost,
    /// What is known about the pictures that the backbone has seen.
    pub seen: Seen,
}

/// Loads what the recipe names. `data` and `weights` are the command line's choices and win over the recipe's.
///
/// # Errors
/// When a file is missing or damaged, the split is impossible, or backbone and data do not fit together.
pub fn prepare(recipe: &Recipe, data: Option<&Path>, weights: Option<&Path>) -> Result<Prepared> {
    let chosen = |option: Option<&Path>, setting: &Path| -> Option<PathBuf> {
        option.map(Path::to_path_buf).or_else(|| (!setting.as_os_str().is_empty()).then(|| setting.to_path_buf()))
    };
    let data = load_data(&recipe.data.name, chosen(data, &recipe.data.path))?;
    let preset = presets::find(&recipe.backbone.preset)?;
    let checkpoint = match chosen(weights, &recipe.backbone.weights) {
        Some(path) => Checkpoint::read(&path)?,
        None => match assets::checkpoint(preset.name, &data.name) {
            Some(embedded) => embedded?,
            None => match folders::weights_file(preset.name) {
                Some(path) => Checkpoint::read(&path)?,
                None => bail!(
                    "no weights for `{}` on `{}`; hint: name a safetensors or PyTorch file with --weights or `backbone.weights`, or see `quee weights list`",
                    preset.name,
                    data.name
                ),
            },
        },
    };
    let (mut seen, mut trained_on) = seen_pictures(&checkpoint, &data.name, data.len(), &recipe.backbone.seen)?;
    let weights_origin = checkpoint.origin().to_owned();
    let backbone = preset.load(&recipe.backbone.variant(), checkpoint)?;
    ensure!(
        backbone.classes() == data.classes,
        "{weights_origin}: the classifier has {} classes, data set `{}` has {}; hint: are these weights for another data set? \
         Fine-tuning with --reset-head gives them a new classifier",
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
    let official_test: Vec<usize> = data.official_test.clone().into_iter().flatten().collect();
    let (test, unused) = match (official_test.is_empty(), settings.development) {
        (false, false) => (TestPart::Given(official_test), Vec::new()),
        (_, false) => (TestPart::Drawn(settings.test), Vec::new()),
        (_, true) => (TestPart::Drawn(settings.test), official_test),
    };
    let mut unused = unused;
    if settings.seen {
        ensure!(
            !trained_on.is_empty(),
            "`data.seen`: it is not known which pictures of `{}` the backbone has seen; hint: `backbone.seen` lists them",
            data.name
        );
        let test: &[usize] = if let TestPart::Given(test) = &test { test } else { &[] };
        let taken =
            |index: &usize| [trained_on.as_slice(), test, &unused].iter().any(|list| list.binary_search(index).is_ok());
        let unseen: Vec<usize> = (0..data.len()).filter(|index| !taken(index)).collect();
        unused.extend(unseen);
        (seen, trained_on) = (Seen::Wanted, Vec::new());
    }
    let splits = Splits::draw(&SplitRequest {
        labels: &data.labels,
        backbone_train: &trained_on,
        unused: &unused,
        test,
        fractions: Fractions {
            exit_train: settings.exit_train,
            fit: settings.fit,
            cal_a: settings.cal_a,
            cal_b: settings.cal_b,
        },
        limits: Limits { train: settings.limit_train, test: settings.limit_test },
        contiguous: settings.contiguous,
        seed: settings.split_seed,
    })?;
    let mut cost = BackboneCost::count(backbone.as_ref())?;
    cost.set_wider(&quantize::wider::wider(&recipe.quant.wider, backbone.as_ref(), &quantize::widths(&recipe.quant))?);
    let transform = transform_of(&preset, backbone.image_shape());
    let pooled = (recipe.data.folds > 0).then(|| {
        let mut both = [splits.exit_train.as_slice(), &splits.fit].concat();
        both.sort_unstable();
        both
    });
    Ok(Prepared { data, splits, pooled, preset, transform, backbone, weights_origin, cost, seen })
}

/// Loads the data set `name` from `path`; without a path, from the user's data folder (see [`folders`]), where it is in it, or
/// else from the program itself.
///
/// # Errors
/// When the data set isn't there, or a file of it is missing or damaged.
pub fn load_data(name: &str, path: Option<PathBuf>) -> Result<Dataset, DataError> {
    // A folder of data sets need not hold those that are embedded; of the others it must say where it has looked.
    let usable = |folder: &PathBuf| name != "folder" && (name != "digits" || catalog::is_at(name, folder));
    quee_data::load(name, path.or_else(|| folders::user().filter(usable)).as_deref())
}

/// What is done with a picture before the backbone sees it, in training and evaluation alike.
pub fn transform_of(preset: &Preset, [channels, height, width]: [usize; 3]) -> Transform {
    Transform {
        channels,
        height,
        width,
        crop: preset.crop,
        interpolation: match preset.interpolation {
            presets::Interpolation::Bilinear => Interpolation::Bilinear,
            presets::Interpolation::Bicubic => Interpolation::Bicubic,
        },
        mean: preset.mean.to_vec(),
        std: preset.std.to_vec(),
    }
}

impl Prepared {
    /// Pictures that exits are trained on.
    pub fn exit_train(&self) -> &[usize] {
        self.pooled.as_deref().unwrap_or(&self.splits.exit_train)
    }

    /// Pictures that predictors are trained on. With `data.folds` those of the exits, see [`exits`](super::exits).
    pub fn fit(&self) -> &[usize] {
        self.pooled.as_deref().unwrap_or(&self.splits.fit)
    }

    /// Pictures of a split, batch by batch.
    pub fn pictures<'a>(&'a self, indices: &'a [usize]) -> Part<'a> {
        Part { data: &self.data, transform: &self.transform, indices }
    }

    /// Normalised pictures `[n, C, H, W]`, all at once: for a few.
    ///
    /// # Errors
    /// When a file cannot be read or decoded.
    pub fn images(&self, indices: &[usize]) -> Result<Vec<f32>, DataError> {
        self.data.batch(indices, &self.transform)
    }
}
