//! `quee pretrain`: a backbone from random weights, as described in a TOML file.

use anyhow::{Result, ensure};
use quee_backbone::presets;
use quee_backbone::vit::Vit;
use quee_train::init::init_vit;

use crate::cancel::Cancel;
use crate::training::{Job, TrainingArgs};

/// Trains the backbone, prints its curve, and writes it with the indices of the pictures it has seen.
///
/// # Errors
/// When something from outside is missing or wrong, training diverges, or a wish to stop.
pub fn pretrain(args: &TrainingArgs, cancel: &Cancel) -> Result<()> {
    let job = Job::new(args)?;
    ensure!(
        job.settings.weights.as_os_str().is_empty(),
        "`weights` = \"{}\": pretraining starts from random weights; hint: `quee finetune` starts from given ones",
        job.settings.weights.display()
    );
    let preset = presets::find(&job.settings.preset)?;
    let config = job.dimensions(&preset.config);
    let backbone = Vit::load(preset.name, config.clone(), init_vit(&config, job.settings.seed))?;
    job.run(&backbone, (preset.mean, preset.std), &[], cancel)
}
