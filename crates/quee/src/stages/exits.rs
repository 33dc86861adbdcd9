//! Training the exits of one seed on features of random paths.

use anyhow::Result;
use quee_heads::{ExitHead, Mlp, Standardizer};
use quee_train::exits::{ExitConfig, ExitRows, train_exit};
use quee_train::{TrainDevice, soft_labels};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answers::{ExitHeads, NodeAnswers, own_head};
use super::backbone_runs::BackboneRuns;
use super::prepare::Prepared;
use super::walk::exit_dim;
use crate::cancel::Cancel;
use crate::recipe::{ExitKind, ExitTokens, Recipe};

/// Exits, and those that answer for the pictures of *fit* in their place.
#[derive(Serialize, Deserialize)]
pub struct TrainedExits {
    /// One per segment.
    pub heads: ExitHeads,
    /// Classifier of the mean token behind the stem: what gate 0 sees. Nobody answers there.
    pub probe: ExitHead,
    /// With `data.folds`, where *fit* and *exit-train* are the same pictures: exits that have not seen them.
    folds: Option<ExitFolds>,
}

/// Exits trained without the pictures of a fold, for these.
#[derive(Serialize, Deserialize)]
struct ExitFolds {
    heads: Vec<(ExitHeads, ExitHead)>,
    of_picture: Vec<usize>,
}

impl TrainedExits {
    /// Fold by picture of *fit*, where there are folds.
    pub fn fold_of_picture(&self) -> Option<&[usize]> {
        self.folds.as_ref().map(|folds| folds.of_picture.as_slice())
    }

    /// The exits that a picture of *fit* is answered with.
    pub fn for_fit(&self, picture: usize) -> &ExitHeads {
        self.folds.as_ref().map_or(&self.heads, |folds| &folds.heads[folds.of_picture[picture]].0)
    }

    /// The probe that a picture of *fit* is looked at with.
    pub fn probe_for_fit(&self, picture: usize) -> &ExitHead {
        self.folds.as_ref().map_or(&self.probe, |folds| &folds.heads[folds.of_picture[picture]].1)
    }
}

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
) -> Result<TrainedExits> {
    let trainer = Trainer::new(recipe, prepared, runs, on, seed, cancel)?;
    let all: Vec<usize> = (0..trainer.pictures).collect();
    let count = recipe.data.folds;
    if count == 0 {
        let (heads, probe) = trainer.train(&all)?;
        return Ok(TrainedExits { heads, probe, folds: None });
    }
    let of_picture = folds(trainer.pictures, count, recipe.data.contiguous, seed);
    let without = |fold: usize| all.iter().copied().filter(|&picture| of_picture[picture] != fold).collect();
    let chosen: Vec<Vec<usize>> = (0..count).map(without).chain([all.clone()]).collect();
    let mut heads: Vec<_> = chosen.par_iter().map(|pictures| trainer.train(pictures)).collect::<Result<_>>()?;
    let (whole, probe) = heads.pop().expect("one more than there are folds");
    Ok(TrainedExits { heads: whole, probe, folds: Some(ExitFolds { heads, of_picture }) })
}

/// A fold for every picture: at random, or in blocks where neighbours belong together.
fn folds(pictures: usize, count: usize, contiguous: bool, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pictures).collect();
    if !contiguous {
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    let mut of_picture = vec![0; pictures];
    for (place, picture) in order.into_iter().enumerate() {
        of_picture[picture] = place * count / pictures;
    }
    of_picture
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    runs: &'a BackboneRuns,
    on: &'a TrainDevice,
    seed: u64,
    cancel: &'a Cancel,
    own: ExitHead,
    /// Numbers that the exits to be trained see of a picture.
    dim: usize,
    pictures: usize,
    /// Class probabilities to learn, `[picture][class]`.
    targets: Vec<f32>,
}

impl<'a> Trainer<'a> {
    fn new(
        recipe: &'a Recipe,
        prepared: &Prepared,
        runs: &'a BackboneRuns,
        on: &'a TrainDevice,
        seed: u64,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let own = own_head(prepared.backbone.head());
        let dim = exit_dim(prepared.backbone.as_ref(), recipe, 0);
        let labels = prepared.data.labels_of(prepared.exit_train());
        let mut targets = soft_labels(labels.iter().copied(), own.classes(), 0.0);
        let share = recipe.exits.distillation as f32;
        if share > 0.0 {
            // The first run is the float one, and its last features are what the backbone's own classifier sees.
            let last = runs.exit_train(0).last()?;
            let taught = NodeAnswers::compute(&own, &last).probabilities;
            targets.iter_mut().zip(taught).for_each(|(target, p)| *target += share * (p - *target));
        }
        Ok(Self { recipe, runs, on, seed, cancel, own, dim, pictures: labels.len(), targets })
    }

    /// All exits and the probe, from the runs of the chosen pictures.
    fn train(&self, chosen: &[usize]) -> Result<(ExitHeads, ExitHead)> {
        let last = self.recipe.paths.segments.len() - 1;
        let mut heads: Vec<ExitHead> = match self.recipe.exits.cascade {
            false => (0..last)
                .into_par_iter()
                .map(|segment| self.exit(segment, self.features(segment, chosen)?, self.dim, chosen))
                .collect::<Result<_>>()?,
            true => self.cascade(last, chosen)?,
        };
        heads.push(self.own.clone());
        Ok((ExitHeads(heads), self.probe(chosen)?))
    }

    /// A linear classifier of the mean token behind the stem, which no norm has brought to scale.
    fn probe(&self, chosen: &[usize]) -> Result<ExitHead> {
        let (dim, last) = (self.own.dim, self.recipe.paths.segments.len() - 1);
        let stem = self.runs.exit_train_stem()?;
        let token = |&picture: &usize| &stem[picture * dim..(picture + 1) * dim];
        let rows: Vec<f32> = chosen.iter().flat_map(token).copied().collect();
        let network = self.standardized(ExitKind::Linear, last as u64, rows, dim, chosen, 1)?;
        Ok(ExitHead { dim, network })
    }

    /// A classifier that is trained on `rows` with mean 0 and deviation 1, and takes them as they are.
    fn standardized(
        &self,
        kind: ExitKind,
        seed: u64,
        mut rows: Vec<f32>,
        inputs: usize,
        chosen: &[usize],
        runs: usize,
    ) -> Result<Mlp> {
        let standardizer = Standardizer::fit(&rows, inputs)?;
        standardizer.apply(&mut rows);
        let mut network = self.network(kind, seed, &rows, inputs, chosen, runs)?;
        let (weights, biases) = match network.hidden {
            0 => (&mut network.w2, &mut network.b2),
            _ => (&mut network.w1, &mut network.b1),
        };
        for (weights, bias) in weights.chunks_exact_mut(inputs).zip(biases) {
            for ((weight, mean), std) in weights.iter_mut().zip(&standardizer.mean).zip(&standardizer.std) {
                *weight /= std;
                *bias -= *weight * mean;
            }
        }
        Ok(network)
    }

    /// Each exit after the one before it, whose probabilities it reads.
    fn cascade(&self, last: usize, chosen: &[usize]) -> Result<Vec<ExitHead>> {
        let (dim, classes) = (self.dim, self.own.classes());
        let mut heads: Vec<ExitHead> = Vec::new();
        let mut said: Option<NodeAnswers> = None;
        for segment in 0..last {
            let features = self.features(segment, chosen)?;
            let rows = match &said {
                None => features.clone(),
                Some(said) => {
                    let mut rows = Vec::with_capacity(features.len() / dim * (dim + classes));
                    for (token, previous) in features.chunks_exact(dim).zip(said.probabilities.chunks_exact(classes)) {
                        rows.extend_from_slice(token);
                        ExitHead::push_previous(&mut rows, previous);
                    }
                    rows
                }
            };
            let inputs = dim + if said.is_some() { classes } else { 0 };
            let head = self.exit(segment, rows, inputs, chosen)?;
            let next = NodeAnswers::compute_after(&head, &features, said.as_ref());
            said = Some(next);
            heads.push(head);
        }
        Ok(heads)
    }

    /// Features behind a segment, `[run][picture][dim]`.
    fn features(&self, segment: usize, chosen: &[usize]) -> Result<Vec<f32>> {
        let (dim, draws) = (self.dim, self.runs.draws());
        let mut all = Vec::with_capacity(draws * chosen.len() * dim);
        for run in 0..draws {
            let features = self.runs.exit_train(run).get(segment)?;
            chosen.iter().for_each(|&picture| all.extend_from_slice(&features[picture * dim..(picture + 1) * dim]));
        }
        Ok(all)
    }

    fn exit(&self, segment: usize, rows: Vec<f32>, inputs: usize, chosen: &[usize]) -> Result<ExitHead> {
        let (kind, runs) = (self.recipe.exits.head, self.runs.draws());
        let network = match self.recipe.exits.tokens {
            ExitTokens::Class => self.network(kind, segment as u64, &rows, inputs, chosen, runs)?,
            // No norm has brought the mean to scale.
            ExitTokens::ClassAndMean => self.standardized(kind, segment as u64, rows, inputs, chosen, runs)?,
        };
        Ok(ExitHead { dim: self.dim, network })
    }

    /// A classifier of `rows`, `[run][picture][inputs]`.
    fn network(
        &self,
        kind: ExitKind,
        seed: u64,
        rows: &[f32],
        inputs: usize,
        chosen: &[usize],
        runs: usize,
    ) -> Result<Mlp> {
        self.cancel.check()?;
        let (settings, classes) = (&self.recipe.exits, self.own.classes());
        let targets: Vec<f32> = chosen
            .iter()
            .flat_map(|&picture| &self.targets[picture * classes..(picture + 1) * classes])
            .copied()
            .collect();
        let config = ExitConfig {
            hidden: if kind == ExitKind::Hidden { settings.hidden } else { 0 },
            epochs: settings.epochs,
            batch: settings.batch,
            learning_rate: settings.learning_rate,
            weight_decay: settings.weight_decay,
            seed: self.seed.wrapping_mul(1000).wrapping_add(seed),
        };
        let rows = ExitRows { inputs, classes, features: rows, targets: &targets.repeat(runs) };
        Ok(train_exit(self.on, rows, &config, None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_even_and_blocks_where_neighbours_belong_together() {
        let count = |of: &[usize], fold: usize| of.iter().filter(|&&f| f == fold).count();
        let random = folds(103, 5, false, 1);
        assert!((0..5).all(|fold| (20..=21).contains(&count(&random, fold))));
        assert!(random.windows(2).filter(|pair| pair[0] != pair[1]).count() > 50);
        let blocks = folds(103, 5, true, 1);
        assert_eq!(blocks.windows(2).filter(|pair| pair[0] != pair[1]).count(), 4);
    }
}
