//! `quee finetune`: a pretrained backbone on another data set, as described in a TOML file.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use quee_backbone::checkpoint::{Checkpoint, CheckpointError};
use quee_backbone::presets;
use quee_backbone::vit::{Vit, VitConfig};
use quee_train::init::init_vit;

use crate::cancel::Cancel;
use crate::stages::prepare::seen_pictures;
use crate::training::{Job, TrainingArgs};

/// What to fine-tune.
#[derive(Args)]
pub struct FinetuneArgs {
    /// What to train on what.
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Weights to start from, in safetensors [default: `weights` of the description]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

/// Trains the backbone, prints its curve, and writes it with the indices of the pictures it has seen. A classifier for
/// another number of classes is replaced by a new one.
///
/// # Errors
/// When something from outside is missing or wrong, training diverges, or a wish to stop.
pub fn finetune(args: &FinetuneArgs, cancel: &Cancel) -> Result<()> {
    let job = Job::new(&args.training)?;
    let weights = args.weights.as_ref().unwrap_or(&job.settings.weights);
    ensure!(
        !weights.as_os_str().is_empty(),
        "no weights to start from; hint: name a safetensors file with --weights or `weights`, or train from scratch with `quee pretrain`"
    );
    let preset = presets::find(&job.settings.preset)?;
    let mut checkpoint = Checkpoint::read(weights)?;
    let (_, earlier) = seen_pictures(&checkpoint, &job.data)?;
    let config = job.dimensions(&preset.config);
    if let Some(old) = fit_head(&mut checkpoint, &config, job.settings.seed)? {
        eprintln!("{}: new head for {} classes instead of {old}", weights.display(), config.classes);
    }
    let backbone = Vit::load(preset.name, config, checkpoint)?;
    job.run(&backbone, (preset.mean, preset.std), &earlier, cancel)
}

/// Gives `checkpoint` a new random classifier where its own is for another number of classes or missing; what it had.
fn fit_head(checkpoint: &mut Checkpoint, config: &VitConfig, seed: u64) -> Result<Option<String>, CheckpointError> {
    let old = match checkpoint.shape("head.weight") {
        Some(&[classes, _]) if classes == config.classes => return Ok(None),
        Some(&[classes, _]) => classes.to_string(),
        _ => "none".to_owned(),
    };
    let mut fresh = init_vit(config, seed);
    for (name, shape) in config.tensors().into_iter().filter(|(name, _)| name.starts_with("head.")) {
        let data = fresh.take(&name, &shape)?;
        checkpoint.insert(&name, shape, data.to_vec());
    }
    Ok(Some(old))
}

#[cfg(test)]
mod tests {
    use quee_backbone::Backbone;

    use super::*;

    #[test]
    fn a_head_for_other_classes_is_replaced_and_nothing_else() {
        let of = |classes| VitConfig { classes, ..presets::find("vit_d6_w80_p2_8").unwrap().config };
        let start = Vit::load("ten", of(10), init_vit(&of(10), 1)).unwrap();
        let mut same = init_vit(&of(10), 1);
        assert_eq!(fit_head(&mut same, &of(10), 2).unwrap(), None);

        let mut other = init_vit(&of(10), 1);
        assert_eq!(fit_head(&mut other, &of(3), 2).unwrap(), Some("10".into()));
        let new = Vit::load("three", of(3), other).unwrap();
        assert_eq!(new.classes(), 3);
        for (old, new) in start.params().into_iter().zip(new.params()) {
            assert_eq!(old.name, new.name);
            assert_eq!(old.data == new.data, !old.name.starts_with("head."), "{}", old.name);
        }

        let (mut headless, shape) = (init_vit(&of(10), 1), [10, 80]);
        headless.take("head.weight", &shape).unwrap();
        headless.take("head.bias", &[10]).unwrap();
        assert_eq!(fit_head(&mut headless, &of(10), 2).unwrap(), Some("none".into()));
        assert!(Vit::load("ten", of(10), headless).is_ok());
    }
}
