//! All runs of the backbone that a study needs. They do not depend on seeds: exits, predictors and policies of any
//! seed are trained on the same features.

use std::borrow::Cow;
use std::io::{Read, Write};

use super::prepare::Prepared;
use super::tables::{Lists, Scratch, Table};
use super::walk::{Drive, Program};
use crate::cache::{from_postcard, to_postcard};
use crate::recipe::{ExitFeatures, Recipe};
use anyhow::Result;
use quee_policy::tree::{PathTree, ROOT};
use quee_quant::Width;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The splits that are evaluated along the whole tree.
#[derive(Clone, Debug, Default)]
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

/// A run at one width throughout: features behind every segment, `[picture][dim]`.
#[derive(Debug)]
pub struct StaticFeatures {
    /// Width.
    pub width: Width,
    /// On every split. Of *fit* as [`BackboneRuns::on_fit`] says.
    pub on: PerSplit<Table>,
}

/// Features of all runs, lists of `[picture][dim]`.
#[derive(Debug)]
pub struct BackboneRuns {
    segments: usize,
    /// For training the exits: those of the float run, then of every draw of paths.
    exit_train: Table,
    /// Behind the stem, for training the probe of gate 0. No list where these are the pictures of *fit*.
    exit_train_stem: Table,
    /// By node of the tree; at the root, behind the stem.
    pub tree: PerSplit<Table>,
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
        let exit_train = program.paths_features(drive, &exit_pictures, draws.len(), path)?;

        let along_tree = |indices: &[usize]| program.tree_features(drive, &prepared.pictures(indices), tree, widths);
        let tree = PerSplit {
            fit: along_tree(prepared.fit())?,
            cal_a: along_tree(&splits.cal_a)?,
            cal_b: along_tree(&splits.cal_b)?,
            test: along_tree(&splits.test)?,
        };

        let exit_train_stem = match recipe.data.folds {
            0 => program.all_stem_features(drive, &exit_pictures)?,
            _ => Table::default(),
        };

        let mut statics = Vec::new();
        for width in static_widths(recipe) {
            let path = vec![width; segments];
            let along = |indices: &[usize]| program.path_features(drive, &prepared.pictures(indices), &path);
            let (cal_a, cal_b, test) = (along(&splits.cal_a)?, along(&splits.cal_b)?, along(&splits.test)?);
            // Of float, where the gates of a baseline are trained, and with folds of all; but those of float are the first of the runs above then.
            let fit = match width.is_float() == (recipe.data.folds == 0) {
                true => along(prepared.fit())?,
                false => Table::default(),
            };
            statics.push(StaticFeatures { width, on: PerSplit { fit, cal_a, cal_b, test } });
        }
        Ok(Self { segments, exit_train, exit_train_stem, tree, statics })
    }

    /// Runs that exits are trained on: the float one, and draws of paths.
    pub fn draws(&self) -> usize {
        self.exit_train.lists().len() / self.segments
    }

    /// Features of *exit-train* behind every segment, in a run that exits are trained on; the first is the float one.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn exit_train(&self, run: usize) -> Lists<'_> {
        self.exit_train.part(run * self.segments..(run + 1) * self.segments)
    }

    /// Features of *exit-train* behind the stem, `[picture][dim]`.
    ///
    /// # Errors
    /// When their file cannot be read.
    pub fn exit_train_stem(&self) -> Result<Cow<'_, [f32]>> {
        match self.exit_train_stem.lists().is_empty() {
            true => self.tree.fit.list(ROOT),
            false => self.exit_train_stem.list(0),
        }
    }

    /// Features of *fit* behind every segment of static run `index`: of float, and of the others with folds. Otherwise there are none.
    pub fn on_fit(&self, index: usize) -> Lists<'_> {
        let lists = self.statics[index].on.fit.lists();
        match self.statics[index].width.is_float() && lists.is_empty() {
            true => self.exit_train(0),
            false => lists,
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn encode(&self, out: &mut dyn Write) -> Result<()> {
        let widths: Vec<Width> = self.statics.iter().map(|of| of.width).collect();
        to_postcard(&(self.segments, widths), out)?;
        self.tables().try_for_each(|table| Ok(table.encode(out)?))
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// When it cannot be read, or put into a temporary file.
    pub fn decode(from: &mut dyn Read, scratch: &Scratch) -> Result<Self> {
        let (segments, widths): (usize, Vec<Width>) = from_postcard(from)?;
        let mut table = || Table::decode(from, scratch);
        let (exit_train, exit_train_stem) = (table()?, table()?);
        let mut splits =
            || -> Result<_> { Ok(PerSplit { fit: table()?, cal_a: table()?, cal_b: table()?, test: table()? }) };
        let tree = splits()?;
        let statics = widths.into_iter().map(|width| Ok(StaticFeatures { width, on: splits()? }));
        let statics = statics.collect::<Result<Vec<_>>>()?;
        Ok(Self { segments, exit_train, exit_train_stem, tree, statics })
    }

    /// All tables, in the order of files.
    fn tables(&self) -> impl Iterator<Item = &Table> {
        let splits = std::iter::once(&self.tree).chain(self.statics.iter().map(|of| &of.on));
        let of_splits = splits.flat_map(|of| [&of.fit, &of.cal_a, &of.cal_b, &of.test]);
        [&self.exit_train, &self.exit_train_stem].into_iter().chain(of_splits)
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
