//! `quee finetune`: a pretrained backbone on another data set, as described in a TOML file.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use quee_backbone::architecture::TensorSpec;
use quee_backbone::checkpoint::Checkpoint;
use quee_train::reset_head;

use crate::cancel::Cancel;
use crate::stages::seen::seen_pictures;
use crate::training::{Job, TrainingArgs};

/// What to fine-tune.
#[derive(Args)]
pub struct FinetuneArgs {
    /// What to train on what.
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Weights to start from, a safetensors or PyTorch file [default: `weights` of the description]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Begin with a new random classifier, even where that of the weights has the right number of classes
    #[arg(long)]
    reset_head: bool,
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
        "no weights to start from; hint: name a file with --weights or `weights`, or train from scratch with `quee pretrain`"
    );
    let mut checkpoint = Checkpoint::read(weights)?;
    let (_, earlier) = seen_pictures(&checkpoint, &job.data.name, job.data.len(), "")?;
    let tensors = job.preset.varied(&job.variant())?.tensors(job.data.classes);
    if args.reset_head || !has_head(&checkpoint, &tensors) {
        eprintln!(
            "{}: new head for {} classes instead of {}",
            weights.display(),
            job.data.classes,
            head(&checkpoint, &tensors)
        );
        reset_head(&mut checkpoint, &tensors, job.settings.seed);
    }
    let backbone = job.preset.load(&job.variant(), checkpoint)?;
    job.run(backbone.as_ref(), &earlier, cancel)
}

/// Whether the checkpoint's classifier has the shapes that `tensors` ask for.
fn has_head(checkpoint: &Checkpoint, tensors: &[TensorSpec]) -> bool {
    tensors.iter().filter(|spec| spec.head).all(|spec| checkpoint.shape(&spec.name) == Some(&spec.shape))
}

/// The number of classes of the checkpoint's classifier, for people.
fn head(checkpoint: &Checkpoint, tensors: &[TensorSpec]) -> String {
    let classes = tensors.iter().find(|spec| spec.head).and_then(|spec| checkpoint.shape(&spec.name)?.first());
    classes.map_or("none".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use quee_backbone::presets;
    use quee_train::random_weights;

    use super::*;

    #[test]
    fn a_head_for_other_classes_is_noticed_and_nothing_else_is_replaced() {
        for name in ["vit_d6_w80_p2_8", "deit_tiny_distilled_patch16_224"] {
            let preset = presets::find(name).unwrap();
            let (ten, three) = (preset.tensors(10), preset.tensors(3));
            let mut checkpoint = random_weights(&ten, 1);
            assert!(has_head(&checkpoint, &ten) && !has_head(&checkpoint, &three));
            assert_eq!(head(&checkpoint, &three), "10");
            reset_head(&mut checkpoint, &three, 2);
            assert!(has_head(&checkpoint, &three));
            let (new, mut old) = (preset.load(&Default::default(), checkpoint).unwrap(), random_weights(&ten, 1));
            assert_eq!(new.classes(), 3);
            let values: Vec<Vec<f32>> = new.params().iter().map(|p| p.data.to_vec()).collect();
            let exported = new.export(&values);
            assert_eq!(exported.len(), ten.len());
            for spec in ten.iter().filter(|spec| !spec.head) {
                let (_, _, kept) = exported.iter().find(|(tensor, _, _)| *tensor == spec.name).unwrap();
                assert_eq!(old.take(&spec.name, &spec.shape).unwrap()[..], kept[..], "{}", spec.name);
            }
        }
    }

    #[test]
    fn a_missing_head_is_made() {
        let preset = presets::find("vit_d6_w80_p2_8").unwrap();
        let tensors = preset.tensors(10);
        let mut headless = random_weights(&tensors, 1);
        headless.take("head.weight", &[10, 80]).unwrap();
        headless.take("head.bias", &[10]).unwrap();
        assert!(!has_head(&headless, &tensors));
        assert_eq!(head(&headless, &tensors), "none");
        reset_head(&mut headless, &tensors, 2);
        assert!(preset.load(&Default::default(), headless).is_ok());
    }
}
