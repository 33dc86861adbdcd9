//! What a recipe for the training of a backbone says. Defaults and explanations are in `experiments/training.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use quee_data::{Amount, AugmentConfig};
use quee_train::{Rule, TrainConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::recipe;

/// Every key with its default and explanation.
pub const BASE: &str = include_str!("../../../../experiments/training.toml");

/// What turns gradients into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// AdamW.
    Adamw,
    /// Gradient descent with momentum.
    Sgd,
}

/// A resolved recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Data set by name.
    pub dataset: String,
    /// Architecture by name.
    pub preset: String,
    /// Weights to start from; empty for none.
    pub weights: PathBuf,
    /// Side of the pictures; 0 for the preset's.
    pub image: usize,
    /// Pictures for training and validation together.
    pub train_pictures: Amount,
    /// Those of them that validate.
    pub validation_pictures: usize,
    /// Pictures for testing.
    pub test_pictures: usize,
    /// Seed of the split.
    pub split_seed: u64,
    /// Seed of the training.
    pub seed: u64,
    /// Passes over the training pictures.
    pub epochs: usize,
    /// Pictures per step.
    pub batch: usize,
    /// What turns gradients into steps.
    pub optimizer: Optimizer,
    /// Share of the last step that is kept.
    pub momentum: f64,
    /// Whether to look one step ahead.
    pub nesterov: bool,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Epochs of linear warm-up.
    pub warmup_epochs: usize,
    /// Factor on the rate of everything but the head.
    pub backbone_rate: f64,
    /// Further factor per block.
    pub layer_decay: f64,
    /// Weight decay on matrices.
    pub weight_decay: f64,
    /// Probability mass on all classes.
    pub label_smoothing: f32,
    /// α of mixup.
    pub mixup: f64,
    /// Largest norm of all gradients.
    pub clip_norm: f64,
    /// How training pictures are changed.
    pub augment: AugmentConfig,
}

impl Settings {
    /// Reads the recipe in `path` with the variant `profile` and the changes `sets` (each `KEY=VALUE`).
    ///
    /// # Errors
    /// When a file cannot be read or holds unknown keys or impossible values.
    pub fn load(path: &Path, profile: Option<&str>, sets: &[String]) -> Result<Self> {
        let base: Table = BASE.parse().expect("the embedded base is valid TOML");
        let mut table = recipe::resolve(path, profile, sets, &base)?;
        // Here a movement that is not named does not happen; the type's own default moves pictures a little.
        if let Some(Value::Table(augment)) = table.get_mut("augment") {
            for still in ["rotation", "shift", "scale"] {
                augment.entry(still).or_insert(Value::Float(0.0));
            }
        }
        let file = path.display().to_string();
        let settings: Self = recipe::typed(&file, table)?;
        settings.augment.check().with_context(|| format!("{file}: augment"))?;
        settings.config().check().with_context(|| file.clone())?;
        ensure!(!settings.dataset.is_empty(), "{file}: `dataset` is empty; hint: name a data set");
        Ok(settings)
    }

    /// The settings of the loop.
    pub fn config(&self) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch: self.batch,
            rule: match self.optimizer {
                Optimizer::Adamw => Rule::AdamW,
                Optimizer::Sgd => Rule::Sgd { momentum: self.momentum, nesterov: self.nesterov },
            },
            learning_rate: self.learning_rate,
            backbone_rate: self.backbone_rate,
            layer_decay: self.layer_decay,
            weight_decay: self.weight_decay,
            warmup_epochs: self.warmup_epochs,
            label_smoothing: self.label_smoothing,
            mixup: self.mixup,
            clip_norm: self.clip_norm,
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, sets: &[&str]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("finetune.toml");
        std::fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Settings::load(&path, Some("small").filter(|_| text.contains("profile")), &sets)
    }

    #[test]
    fn the_base_is_complete_and_changes_no_picture() {
        let settings = load("", &[]).unwrap();
        assert_eq!((settings.train_pictures.clone(), settings.epochs), (Amount::Count(0), 30));
        let AugmentConfig { rotation, shift, scale, .. } = settings.augment;
        assert_eq!([rotation, shift, scale], [0.0; 3]);
    }

    #[test]
    fn profiles_sets_and_tables_are_merged() {
        let text =
            "train_pictures = [0, 500]\n[augment]\nshift = 2.0\n[profile.small]\nepochs = 3\naugment.scale = 0.5";
        let settings = load(text, &["optimizer=sgd", "augment.shift=1"]).unwrap();
        assert_eq!(settings.train_pictures, Amount::Range([0, 500]));
        assert_eq!((settings.epochs, settings.augment.shift, settings.augment.scale), (3, 1.0, 0.5));
        assert_eq!(settings.config().rule, Rule::Sgd { momentum: 0.9, nesterov: true });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("epoch = 3", ["epoch", "did you mean `epochs`"]),
            ("[augment]\nturn = 1.0", ["turn", "rotation"]),
            ("[augment]\nshift = -1.0", ["augment.shift", "hint"]),
            ("epochs = 0", ["epochs", "at least 1"]),
            ("batch = -1", ["batch", "finetune.toml"]),
            ("optimizer = \"lion\"", ["lion", "adamw"]),
            ("mixup = nan", ["mixup", "NaN"]),
            ("dataset = \"\"", ["dataset", "hint"]),
        ] {
            let message = format!("{:#}", load(text, &[]).unwrap_err());
            assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
        }
    }
}
