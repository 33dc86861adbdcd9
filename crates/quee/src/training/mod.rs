//! What `quee pretrain` and `quee finetune` share: the recipe, the pictures, and a training that survives being killed.

mod settings;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::presets::{self, Preset};
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{Backbone, NamedTensor, Variant};
use quee_cpu::Isa;
use quee_data::{Dataset, TrainingRequest, TrainingSplit};
use quee_train::training::{Trained, accuracy};
use quee_train::{Part, TrainDevice, TrainError, TrainState, train};

pub use self::settings::{BASE, Settings};
use self::watch::{Watch, print_curve};
use crate::cache::{Cache, CacheArgs, Checkpoint as Kept, keys};
use crate::cancel::{Cancel, Cancelled};
use crate::output::{folder_of, is_writable, write_whole};
use crate::stages::prepare::{load_data, transform_of};
use crate::stages::seen::{NOTE_DATASET, NOTE_TRAIN_INDICES};

/// What a backbone is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The GPU; the program must be built with the feature `train-gpu`
    Gpu,
}

/// What to train on what, and where to put it.
#[derive(Args)]
pub struct TrainingArgs {
    /// Description of the training, e.g. experiments/digits/pretrain.toml
    recipe: PathBuf,
    /// Variant of the description, a table [profile.NAME] in it
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Change one setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the data set, or a folder that holds it by name [default: QUEE_DATA or the user's data folder, or what is embedded]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Where the weights go, in safetensors [default: in runs/, named after preset and data set]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What the backbone is trained on
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Threads; 0 is one per processor. The weights do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    #[command(flatten)]
    cache: CacheArgs,
}

/// A training that has been checked and not begun.
pub struct Job<'a> {
    args: &'a TrainingArgs,
    /// What the recipe says.
    pub settings: Settings,
    /// Architecture by name, with the picture size of the recipe.
    pub preset: Preset,
    /// Pictures and labels.
    pub data: Dataset,
    split: TrainingSplit,
    device: TrainDevice,
    out: PathBuf,
}

impl<'a> Job<'a> {
    /// Reads the recipe and what it names, and makes sure that the result can be written.
    ///
    /// # Errors
    /// When something from outside is missing or wrong.
    pub fn new(args: &'a TrainingArgs) -> Result<Self> {
        let settings = Settings::load(&args.recipe, args.profile.as_deref(), &args.sets)?;
        let default = || PathBuf::from(format!("runs/{}.{}.safetensors", settings.preset, settings.dataset));
        let out = args.out.clone().unwrap_or_else(default);
        // Tried before the training: hours later is too late to find that the place is not writable.
        std::fs::create_dir_all(folder_of(&out))
            .and_then(|()| is_writable(&out))
            .with_context(|| format!("{}: cannot write there; hint: choose another file with --out", out.display()))?;
        let device = match args.device {
            DeviceChoice::Cpu => TrainDevice::cpu(),
            DeviceChoice::Gpu => TrainDevice::gpu()?,
        };
        let preset = presets::find(&settings.preset)?;
        let data = load_data(&settings.dataset, args.data.clone())?;
        let split = TrainingSplit::draw(&TrainingRequest {
            labels: &data.labels,
            official_test: data.official_test.clone(),
            seen: settings.train_pictures.clone(),
            validation: settings.validation_pictures,
            test: settings.test_pictures,
            seed: settings.split_seed,
        })?;
        Ok(Self { args, settings, preset, data, split, device, out })
    }

    /// How the backbone differs from its preset.
    pub fn variant(&self) -> Variant {
        Variant { image: (self.settings.image > 0).then_some(self.settings.image), pool: None }
    }

    /// Trains `backbone`, or goes on where an earlier run was stopped, reports on the test part, and writes the weights.
    /// `earlier` are pictures of this data set that the backbone has seen before.
    ///
    /// # Errors
    /// When *test* holds pictures that the backbone has seen, a picture cannot be had, training diverges, the weights cannot be written, or a
    /// wish to stop; the state is kept then.
    pub fn run(&self, backbone: &dyn Backbone, earlier: &[usize], cancel: &Cancel) -> Result<()> {
        if let Some(index) = self.split.test.iter().find(|index| earlier.contains(index)) {
            bail!(
                "picture {index} is for testing, but the weights have been trained on it; hint: choose the `split_seed` and sizes that the weights were made with"
            );
        }
        let TrainingSplit { train, validation, test } = &self.split;
        eprintln!(
            "{} on {}: {} pictures for training, {} for validation, {} for testing; {}",
            backbone.name(),
            self.data.name,
            train.len(),
            validation.len(),
            test.len(),
            self.device.name()
        );
        // The processor's kernels differ in the last bits between instruction sets.
        let device = match self.args.device {
            DeviceChoice::Cpu => format!("cpu ({})", Isa::best()),
            DeviceChoice::Gpu => self.device.name().to_owned(),
        };
        let key = keys::training(&self.settings, backbone, &self.data, &self.split, &device)?;
        let (cache, say) = (Cache::open(&self.args.cache), |text: &str| eprintln!("{text}"));
        let (trained, stored) = cache.stage(&key, cancel, &say, |kept| self.train(backbone, kept, cancel))?;
        if stored {
            print_curve(&trained.history);
            eprintln!("trained by an earlier run (stored)");
        }
        self.report(backbone, &trained, earlier)
    }

    /// Trains, from the beginning or from the state in `kept`.
    fn train(&self, backbone: &dyn Backbone, kept: &Kept, cancel: &Cancel) -> Result<Trained> {
        let transform = transform_of(&self.preset, backbone.image_shape());
        let TrainingSplit { train: train_part, validation: validation_part, .. } = &self.split;
        let [train_labels, validation_labels] = [train_part, validation_part].map(|part| self.data.labels_of(part));
        let training = Part {
            labels: &train_labels,
            picture: &|place, rng| {
                let stored = self.data.picture(train_part[place])?;
                Ok(transform.augmented(stored, &self.settings.augment, rng)?)
            },
        };
        let plain = |index: usize| Ok(self.data.batch(&[index], &transform)?);
        let validation = Part { labels: &validation_labels, picture: &|place, _| plain(validation_part[place]) };
        let validation = (!validation_labels.is_empty()).then_some(validation);

        let config = self.settings.config();
        let start = kept.state().and_then(|bytes| {
            let file = Checkpoint::parse(&bytes, "the state of the training").map_err(anyhow::Error::from);
            let state = file.and_then(|file| Ok(TrainState::decode(file, backbone, &config)?));
            state.inspect_err(|error| eprintln!("{error:#}; beginning anew")).ok()
        });
        if let Some(TrainState { history, step, .. }) = &start {
            let within = if *step > 0 { format!(" and {step} steps of the next") } else { String::new() };
            eprintln!("going on where a run was stopped: {} epochs done{within}", history.len());
        }
        let keep = |state: &TrainState| kept.keep_state(&state.encode(backbone, &config, &BTreeMap::new()));
        let mut watch = Watch::new(&keep, cancel, config.epochs, train_labels.len(), start.as_ref());
        match train(backbone, training, validation, &config, &self.device, start, &mut watch) {
            Err(TrainError::Stopped { epoch }) => {
                let how = if watch.kept() { "the same command goes on there" } else { "nothing is kept" };
                let message = format!("stopped on request after {epoch} epochs; {how}");
                Err(anyhow::Error::new(Cancelled).context(message))
            }
            other => Ok(other?),
        }
    }

    /// Counts right answers on the test part, and writes the weights.
    fn report(&self, backbone: &dyn Backbone, trained: &Trained, earlier: &[usize]) -> Result<()> {
        let transform = transform_of(&self.preset, backbone.image_shape());
        let best = Checkpoint::from_tensors("the trained backbone", trained.tensors.clone());
        let best = self.preset.load(&self.variant(), best)?;
        let test_part = &self.split.test;
        let labels = self.data.labels_of(test_part);
        let plain = |index: usize| Ok(self.data.batch(&[index], &transform)?);
        let test = Part { labels: &labels, picture: &|place, _| plain(test_part[place]) };
        let test = accuracy(best.as_ref(), test, &self.device)?;
        eprintln!("epoch {}: accuracy {test:.4} on {} test pictures", trained.epoch, labels.len());
        let outcome = [
            ("epoch", trained.epoch.to_string()),
            ("test_accuracy", format!("{test:?}")),
            ("test_pictures", labels.len().to_string()),
        ];
        self.write(&trained.tensors, earlier, outcome)?;
        eprintln!("{}", self.out.display());
        Ok(())
    }

    fn write(&self, tensors: &[NamedTensor], earlier: &[usize], outcome: [(&str, String); 3]) -> Result<()> {
        let mut seen = self.split.seen();
        seen.extend(earlier);
        seen.sort_unstable();
        seen.dedup();
        let seen: Vec<String> = seen.iter().map(ToString::to_string).collect();
        let mut notes = BTreeMap::from([
            (NOTE_DATASET.to_owned(), self.data.name.clone()),
            (NOTE_TRAIN_INDICES.to_owned(), seen.join(" ")),
            ("preset".to_owned(), self.settings.preset.clone()),
            ("recipe".to_owned(), toml::to_string(&self.settings).expect("settings are plain values")),
        ]);
        notes.extend(outcome.map(|(name, value)| (name.to_owned(), value)));
        let tensor = |(name, shape, values): &NamedTensor| TensorData::f32(name, shape.clone(), values.iter().copied());
        let tensors: Vec<TensorData> = tensors.iter().map(tensor).collect();
        write_whole(&self.out, &encode(&tensors, &notes))
            .with_context(|| format!("{}: cannot write; hint: is the disk full?", self.out.display()))
    }
}
