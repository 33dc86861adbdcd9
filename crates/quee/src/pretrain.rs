//! `quee pretrain`: a backbone from random weights, as described in a TOML file.

use anyhow::{Result, ensure};
use quee_train::random_weights;

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
    let tensors = job.preset.varied(&job.variant())?.tensors(job.data.classes);
    let backbone = job.preset.load(&job.variant(), random_weights(&tensors, job.settings.seed))?;
    job.run(backbone.as_ref(), &[], cancel)
}
