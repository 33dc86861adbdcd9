//! All runs of the backbone that a study needs. They do not depend on seeds: exits, predictors and policies of any
//! seed are trained on the same features.

use anyhow::Result;
use quee_policy::tree::{PathTree, ROOT};
use quee_quant::Width;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::prepare::Prepared;
use super::walk::{Drive, Program};
use crate::recipe::{ExitFeatures, Recipe};

/// Features behind every segment of one path: `[segment][picture · dim]`.
pub type PathFeatures = Vec<Vec<f32>>;

/// The splits that are evaluated along the whole tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PerSplit<T> {
    /// Path table of cells and predictors.
    pub fit: T,
    /// Calibration and fronts.
    pub cal_a: T,
    /// Risk control.
    pub cal_b: T,
    /// Figures.
    pub test: T,
}

impl<T> PerSplit<T> {
    /// Applies `f` to every split.
    ///
    /// # Errors
    /// The first of `f`.
    pub fn try_map<'a, U, E>(&'a self, mut f: impl FnMut(&'a T) -> Result<U, E>) -> Result<PerSplit<U>, E> {
        Ok(PerSplit { fit: f(&self.fit)?, cal_a: f(&self.cal_a)?, cal_b: f(&self.cal_b)?, test: f(&self.test)? })
    }

    /// Applies `f` to every split.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(&'a T) -> U) -> PerSplit<U> {
        PerSplit { fit: f(&self.fit), cal_a: f(&self.cal_a), cal_b: f(&self.cal_b), test: f(&self.test) }
    }
}

/// A run at one width throughout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StaticFeatures {
    /// Width.
    pub width: Width,
    /// Features on *fit*: of float, where the gates of a baseline are trained, and with folds of all. Otherwise empty.
    pub fit: PathFeatures,
    /// Features on *cal-a*.
    pub cal_a: PathFeatures,
    /// Features on *cal-b*.
    pub cal_b: PathFeatures,
    /// Features on *test*.
    pub test: PathFeatures,
}

/// Features of all runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackboneRuns {
    /// For training the exits: one entry per draw of paths.
    pub exit_train: Vec<PathFeatures>,
    /// Behind the stem, for training the probe of gate 0: `[picture · dim]`.
    pub exit_train_stem: Vec<f32>,
    /// Along the tree: `[node][picture · dim]`; at the root, behind the stem.
    pub tree: PerSplit<Vec<Vec<f32>>>,
    /// Float first, then widths that the tree does not hold.
    pub statics: Vec<StaticFeatures>,
}

/// Widths of the static runs outside the tree: float, then those of the recipe that the tree does not hold.
pub fn static_widths(recipe: &Recipe) -> Vec<Width> {
    let mut widths = vec![Width::FLOAT];
    for &width in &recipe.quant.static_widths {
        if !recipe.quant.widths.contains(&width) && !widths.contains(&width) {
            widths.push(width);
        }
    }
    widths
}

/// Pictures that will pass the progress bar.
pub fn steps(recipe: &Recipe, prepared: &Prepared) -> usize {
    let splits = &prepared.splits;
    let evaluated = splits.cal_a.len() + splits.cal_b.len() + splits.test.len();
    // On fit: along the tree; and in float, or at all static widths but that.
    let (widths, folds) = (static_widths(recipe).len(), recipe.data.folds > 0);
    prepared.exit_train().len() * (draws(recipe).len() + usize::from(!folds))
        + prepared.fit().len() * if folds { widths } else { 2 }
        + evaluated
        + evaluated * widths
}

/// What each pass over exit-train runs along: float, or paths drawn per batch.
fn draws(recipe: &Recipe) -> Vec<Option<u64>> {
    let random = match recipe.exits.train_on {
        ExitFeatures::Float => 0,
        ExitFeatures::RandomPaths => recipe.exits.path_draws as u64,
    };
    std::iter::once(None).chain((0..random).map(Some)).collect()
}

impl BackboneRuns {
    /// Runs everything.
    ///
    /// # Errors
    /// What the executor reports, or a wish to stop.
    pub fn compute(
        recipe: &Recipe,
        prepared: &Prepared,
        program: &Program,
        tree: &PathTree,
        drive: &Drive,
    ) -> Result<Self> {
        let (splits, widths) = (&prepared.splits, &recipe.quant.widths);
        let segments = program.segments.len();
        let draws = draws(recipe);
        let path = |run: usize, batch: usize| match draws[run] {
            None => vec![Width::FLOAT; segments],
            Some(draw) => {
                let mut rng = ChaCha8Rng::seed_from_u64(recipe.data.split_seed);
                rng.set_stream(draw << 32 | batch as u64);
                random_path(tree, widths, &mut rng)
            }
        };
        let exit_pictures = prepared.pictures(prepared.exit_train());
        let exit_train = program.paths_features(drive, &exit_pictures, draws.len(), path, segments)?;

        let along_tree = |indices: &[usize]| program.tree_features(drive, &prepared.pictures(indices), tree, widths);
        let tree = PerSplit {
            fit: along_tree(prepared.fit())?,
            cal_a: along_tree(&splits.cal_a)?,
            cal_b: along_tree(&splits.cal_b)?,
            test: along_tree(&splits.test)?,
        };

        let exit_train_stem = match recipe.data.folds {
            0 => program.all_stem_features(drive, &exit_pictures)?,
            // The same pictures.
            _ => tree.fit[ROOT].clone(),
        };

        let mut statics = Vec::new();
        for width in static_widths(recipe) {
            let path = vec![width; segments];
            let along = |indices: &[usize]| program.path_features(drive, &prepared.pictures(indices), &path);
            let (cal_a, cal_b, test) = (along(&splits.cal_a)?, along(&splits.cal_b)?, along(&splits.test)?);
            let fit = match (width.is_float(), recipe.data.folds) {
                // The first of the runs above.
                (true, 1..) => exit_train[0].clone(),
                (true, 0) | (false, 1..) => along(prepared.fit())?,
                (false, 0) => Vec::new(),
            };
            statics.push(StaticFeatures { width, fit, cal_a, cal_b, test });
        }
        Ok(Self { exit_train, exit_train_stem, tree, statics })
    }
}

/// A path of full depth, every allowed width equally likely at every step.
fn random_path(tree: &PathTree, widths: &[Width], rng: &mut ChaCha8Rng) -> Vec<Width> {
    let mut node = ROOT;
    let mut path = Vec::new();
    while !tree.node(node).children.is_empty() {
        node = rng.random_range(tree.node(node).children.clone());
        path.push(widths[tree.node(node).width.expect("only the root has no width")]);
    }
    path
}
