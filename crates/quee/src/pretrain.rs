//! `quee pretrain`: a backbone from scratch, as described in a TOML file.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use quee_backbone::presets;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{Backbone, NamedTensor, Variant};
use quee_data::{AugmentConfig, Dataset, Transform, augment, draw_backbone_split};
use quee_train::TrainError;
use quee_train::init::random_weights;
use quee_train::pretrain::{Pictures, PretrainConfig, pretrain as train};
use serde::Deserialize;

use crate::cancel::{Cancel, Cancelled};
use crate::stages::prepare::{load_data, transform_of};
use crate::stages::seen::{NOTE_DATASET, NOTE_TRAIN_INDICES};

/// What to train, and where to put it.
#[derive(Args)]
pub struct PretrainArgs {
    /// Description of the training, e.g. experiments/digits/pretrain.toml
    recipe: PathBuf,
    /// Where the weights go, in safetensors [default: in runs/, named after preset and data set]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File or folder with the data set, or a folder that holds it by name [default: QUEE_DATA, or what is embedded]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Threads; 0 is one per processor. The weights do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

/// The TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    dataset: String,
    preset: String,
    split_seed: u64,
    train_pictures: usize,
    test_pictures: usize,
    seed: u64,
    epochs: usize,
    batch: usize,
    learning_rate: f64,
    weight_decay: f64,
    warmup_epochs: usize,
    label_smoothing: f32,
    augment: AugmentConfig,
}

/// Trains the backbone, prints its curve, and writes it with the indices of the pictures it has seen.
///
/// # Errors
/// When something from outside is missing or wrong, training diverges, or a wish to stop; nothing is written then.
pub fn pretrain(args: &PretrainArgs, cancel: &Cancel) -> Result<()> {
    let file = args.recipe.display();
    let text = std::fs::read_to_string(&args.recipe)
        .with_context(|| format!("{file}: cannot read the description; hint: e.g. experiments/digits/pretrain.toml"))?;
    let settings: Settings = toml::from_str(&text).with_context(|| format!("{file}: not a valid description"))?;
    settings.augment.check().with_context(|| format!("{file}: augment"))?;
    let default = || PathBuf::from(format!("runs/{}.{}.safetensors", settings.preset, settings.dataset));
    let out = args.out.clone().unwrap_or_else(default);
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
    // Claimed before the training: hours later is too late to find that the place is not writable.
    let mut output = std::fs::create_dir_all(&folder)
        .and_then(|()| tempfile::NamedTempFile::new_in(&folder))
        .with_context(|| format!("{}: cannot write there; hint: choose another file with --out", out.display()))?;

    let data = load_data(&settings.dataset, args.data.clone())?;
    let preset = presets::find(&settings.preset)?;
    let split =
        draw_backbone_split(&data.labels, settings.train_pictures, settings.test_pictures, settings.split_seed)?;
    let weights = random_weights(&preset.tensors(data.classes), settings.seed);
    let backbone = preset.load(&Variant::default(), weights)?;
    let transform = transform_of(&preset, backbone.image_shape());
    let tensors = run(&settings, &data, &split.train, &split.test, backbone.as_ref(), &transform, cancel)?;
    let indices: Vec<String> = split.train.iter().map(ToString::to_string).collect();
    let notes = BTreeMap::from([
        (NOTE_DATASET.to_owned(), data.name.clone()),
        (NOTE_TRAIN_INDICES.to_owned(), indices.join(" ")),
        ("preset".to_owned(), preset.name.to_owned()),
        ("recipe".to_owned(), text),
    ]);
    let tensors: Vec<TensorData> =
        tensors.into_iter().map(|(name, shape, values)| TensorData::f32(name, shape, values)).collect();
    let write = |output: &mut tempfile::NamedTempFile| -> std::io::Result<()> {
        output.write_all(&encode(&tensors, &notes))?;
        output.as_file().sync_all()
    };
    write(&mut output).with_context(|| format!("{}: cannot write; hint: is the disk full?", out.display()))?;
    output.persist(&out).with_context(|| format!("{}: cannot put the file there", out.display()))?;
    eprintln!("{}", out.display());
    Ok(())
}

/// Trains and prints one line per epoch; name, shape and values of every tensor.
fn run(
    settings: &Settings,
    data: &Dataset,
    train_part: &[usize],
    test_part: &[usize],
    backbone: &dyn Backbone,
    transform: &Transform,
    cancel: &Cancel,
) -> Result<Vec<NamedTensor>> {
    let shape = transform.shape();
    // Moved on the 0–1 scale, where the fill is black, then normalised. All training pictures stay in memory: files are
    // decoded and resized once, before the first epoch.
    let images = data.unit_batch(train_part, transform)?;
    let (labels, test_labels) = (data.labels_of(train_part), data.labels_of(test_part));
    let test_images = data.batch(test_part, transform)?;
    let config = PretrainConfig {
        epochs: settings.epochs,
        batch: settings.batch,
        learning_rate: settings.learning_rate,
        weight_decay: settings.weight_decay,
        warmup_epochs: settings.warmup_epochs,
        label_smoothing: settings.label_smoothing,
        seed: settings.seed,
        ..PretrainConfig::default()
    };
    eprintln!("{} training and {} test pictures, {} epochs", labels.len(), test_labels.len(), config.epochs);
    eprintln!("epoch    loss  accuracy in training  on test");
    let trained = train(
        backbone,
        Pictures { images: &images, labels: &labels },
        Pictures { images: &test_images, labels: &test_labels },
        &config,
        &|image, rng| {
            let mut moved = augment(image, shape, &settings.augment, rng);
            transform.normalize(&mut moved);
            moved
        },
        &mut |report| {
            eprintln!(
                "{:5}  {:6.4}  {:20.4}  {:7.4}",
                report.epoch, report.loss, report.train_accuracy, report.validation_accuracy
            );
            if cancel.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    match trained {
        Err(TrainError::Stopped { .. }) => Err(Cancelled.into()),
        other => Ok(other?),
    }
}
