//! What `quee pretrain` and `quee finetune` share: the recipe, the pictures, and a training that survives being killed.

mod settings;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::presets::{self, Preset};
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{Backbone, NamedTensor, Variant};
use quee_data::{Dataset, TrainingRequest, TrainingSplit, Transform};
use quee_train::training::{AnyError, accuracy};
use quee_train::{Part, TrainDevice, TrainError, TrainState, train};
use sha2::{Digest, Sha256};

pub use self::settings::{BASE, Settings};
use self::watch::Watch;
use crate::cancel::{Cancel, Cancelled};
use crate::output::{hidden_file, write_whole};
use crate::stages::prepare::{load_data, transform_of};
use crate::stages::seen::{NOTE_DATASET, NOTE_TRAIN_INDICES};

/// Note of a state: what decides how the training goes.
const NOTE_FINGERPRINT: &str = "fingerprint";
/// Pictures whose values go into the fingerprint of a data set, spread evenly over it.
const FINGERPRINT_PICTURES: usize = 256;

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
    /// Where the weights go, in safetensors; the state of an unfinished training lies beside them, with `.state` at its end [default: in runs/, named after preset and data set]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What the backbone is trained on
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Begin anew where an unfinished training left its state
    #[arg(long)]
    restart: bool,
    /// Threads; 0 is one per processor. The weights do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
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
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Tried before the training: hours later is too late to find that the place is not writable.
        std::fs::create_dir_all(folder)
            .and_then(|()| hidden_file(folder).map(drop))
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
    /// When *test* holds pictures that the backbone has seen, a picture cannot be had, the state belongs to another training,
    /// something cannot be written, or a wish to stop; the state is kept then.
    pub fn run(&self, backbone: &dyn Backbone, earlier: &[usize], cancel: &Cancel) -> Result<()> {
        if let Some(index) = self.split.test.iter().find(|index| earlier.contains(index)) {
            bail!(
                "picture {index} is for testing, but the weights have been trained on it; hint: choose the `split_seed` and sizes that the weights were made with"
            );
        }
        let transform = transform_of(&self.preset, backbone.image_shape());
        let TrainingSplit { train: train_part, validation: validation_part, test: test_part } = &self.split;
        let labels = [train_part, validation_part, test_part].map(|part| self.data.labels_of(part));
        let [train_labels, validation_labels, test_labels] = &labels;
        let plain = |index: usize| Ok(self.data.batch(&[index], &transform)?);
        let training = Part {
            labels: train_labels,
            picture: &|place, rng| {
                let stored = self.data.picture(train_part[place])?;
                Ok(transform.augmented(stored, &self.settings.augment, rng)?)
            },
        };
        let validation = Part { labels: validation_labels, picture: &|place, _| plain(validation_part[place]) };
        let validation = (!validation_labels.is_empty()).then_some(validation);

        let config = self.settings.config();
        let fingerprint = self.fingerprint(backbone, &transform)?;
        let mut state_file = self.out.clone().into_os_string();
        state_file.push(".state");
        let state_file = PathBuf::from(state_file);
        let start = self.earlier_state(&state_file, backbone, &fingerprint)?;
        eprintln!(
            "{} on {}: {} pictures for training, {} for validation, {} for testing; {}",
            backbone.name(),
            self.data.name,
            train_labels.len(),
            validation_labels.len(),
            test_labels.len(),
            self.device.name()
        );
        let notes = BTreeMap::from([(NOTE_FINGERPRINT.to_owned(), fingerprint)]);
        let save = |state: &TrainState| -> Result<(), AnyError> {
            let bytes = state.encode(backbone, &config, &notes);
            write_whole(&state_file, &bytes)
                .map_err(|e| format!("{}: {e}; hint: is the disk full?", state_file.display()).into())
        };
        let mut watch = Watch::new(&save, cancel, config.epochs, train_labels.len(), start.as_ref());
        let trained = match train(backbone, training, validation, &config, &self.device, start, &mut watch) {
            Err(TrainError::Stopped { .. }) => {
                let message = format!("stopped on request; the same command goes on from {}", state_file.display());
                return Err(anyhow::Error::new(Cancelled).context(message));
            }
            other => other?,
        };
        drop(watch);
        let best = Checkpoint::from_tensors("the trained backbone", trained.tensors.clone());
        let best = self.preset.load(&self.variant(), best)?;
        let test = Part { labels: test_labels, picture: &|place, _| plain(test_part[place]) };
        let test = accuracy(best.as_ref(), test, &self.device)?;
        eprintln!("epoch {}: accuracy {test:.4} on {} test pictures", trained.epoch, test_labels.len());
        let outcome = [
            ("epoch", trained.epoch.to_string()),
            ("test_accuracy", format!("{test:?}")),
            ("test_pictures", test_labels.len().to_string()),
        ];
        self.write(&trained.tensors, earlier, outcome)?;
        match std::fs::remove_file(&state_file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("{}: cannot remove the finished state", state_file.display()))?;
            }
            _ => {}
        }
        eprintln!("{}", self.out.display());
        Ok(())
    }

    /// The state that an unfinished run of this training has left.
    fn earlier_state(&self, file: &Path, backbone: &dyn Backbone, fingerprint: &str) -> Result<Option<TrainState>> {
        if self.args.restart || !file.exists() {
            return Ok(None);
        }
        let hint = "hint: --restart begins anew, --out chooses another place";
        let checkpoint = Checkpoint::read(file).context(hint)?;
        ensure!(
            checkpoint.metadata().get(NOTE_FINGERPRINT).is_some_and(|found| found == fingerprint),
            "{}: an unfinished training with another recipe, data or starting weights lies here; {hint}",
            file.display()
        );
        let state = TrainState::decode(checkpoint, backbone, &self.settings.config()).context(hint)?;
        eprintln!("going on from {}: {} epochs done", file.display(), state.history.len());
        Ok(Some(state))
    }

    /// A hash of what decides how the training goes: the program's version, settings, pictures and starting weights.
    fn fingerprint(&self, backbone: &dyn Backbone, transform: &Transform) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(toml::to_string(&self.settings).expect("settings are plain values"));
        for part in [&self.split.train, &self.split.validation, &self.split.test] {
            hash.update((part.len() as u64).to_le_bytes());
            part.iter().for_each(|&index| hash.update((index as u64).to_le_bytes()));
        }
        self.data.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
        let step = self.data.len().div_ceil(FINGERPRINT_PICTURES).max(1);
        let some: Vec<usize> = (0..self.data.len()).step_by(step).collect();
        self.data.batch(&some, transform)?.iter().for_each(|value| hash.update(value.to_le_bytes()));
        for param in backbone.params() {
            hash.update(&param.name);
            param.data.iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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
