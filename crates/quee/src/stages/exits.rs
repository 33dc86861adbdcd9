//! Training the exits of one seed on features of random paths.

use anyhow::Result;
use quee_heads::ExitHead;
use quee_train::TrainDevice;
use quee_train::exits::{ExitConfig, train_exit};
use rayon::prelude::*;

use super::answers::{ExitHeads, own_head};
use super::backbone_runs::BackboneRuns;
use super::prepare::Prepared;
use crate::cancel::Cancel;
use crate::recipe::Recipe;

/// Trains one exit per segment but the last; the last is the backbone's own classifier.
///
/// # Errors
/// When training diverges, or a wish to stop.
pub fn train(
    recipe: &Recipe,
    prepared: &Prepared,
    runs: &BackboneRuns,
    on: &TrainDevice,
    seed: u64,
    cancel: &Cancel,
) -> Result<ExitHeads> {
    let own = own_head(prepared.backbone.head());
    let labels = prepared.data.labels_of(&prepared.splits.exit_train);
    let all_labels = labels.repeat(runs.exit_train.len());
    let last = recipe.paths.segments.len() - 1;
    let mut heads: Vec<ExitHead> = (0..last)
        .into_par_iter()
        .map(|segment| {
            cancel.check()?;
            let features: Vec<f32> = runs.exit_train.iter().flat_map(|draw| &draw[segment]).copied().collect();
            let settings = ExitConfig {
                epochs: recipe.exits.epochs,
                batch: recipe.exits.batch,
                learning_rate: recipe.exits.learning_rate,
                weight_decay: recipe.exits.weight_decay,
                seed: seed.wrapping_mul(1000).wrapping_add(segment as u64),
            };
            Ok(train_exit(on, &features, &all_labels, own.dim, own.classes, &settings, None)?)
        })
        .collect::<Result<_>>()?;
    heads.push(own);
    Ok(ExitHeads(heads))
}
