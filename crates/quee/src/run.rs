//! `quee run`: an experiment from a recipe to its report.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use quee_policy::sampling::PathDraw;
use quee_policy::tree::{Monotone, PathTree};

use crate::backend::{Device, Engine};
use crate::cache::{self, Cache};
use crate::cancel::Cancel;
use crate::experiment::{Base, Runner};
use crate::output::RunFolder;
use crate::parts;
use crate::progress::Stage;
use crate::quantize;
use crate::quantize::file::{Origin, Quantizers, fingerprint};
use crate::ready::Ready;
use crate::recipe::{self, Recipe, Shard};
use crate::records::Log;
use crate::results;
use crate::stages::attempts;
use crate::stages::backbone_runs;
use crate::stages::costs::Timings;
use crate::stages::prepare::Prepared;
use crate::stages::walk::Program;

/// What the command line adds to a recipe.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Data set.
    pub data: Option<PathBuf>,
    /// Weights.
    pub weights: Option<PathBuf>,
    /// Where results go: to a new folder in here.
    pub out: PathBuf,
    /// Where results go, to the letter; instead of `out`.
    pub into: Option<PathBuf>,
}

/// Runs `recipe` and returns the folder with its results.
///
/// # Errors
/// When something from outside is missing or wrong, or a wish to stop. No results folder is left behind then.
pub async fn run(
    recipe: Recipe,
    options: Options,
    pool: Arc<rayon::ThreadPool>,
    cache: Arc<Cache>,
    log: Option<Log>,
    cancel: Cancel,
) -> Result<PathBuf> {
    let folder = match &options.into {
        Some(target) => RunFolder::exactly(target)?,
        None => RunFolder::create(&options.out, &recipe.name)?,
    };
    let mut runner = Runner::new(pool, cache).logging(log);
    if let Shard::One(part) = recipe.paths.shard {
        return parts::run(Arc::new(recipe), part, &options, folder, runner, &cancel).await;
    }
    let base = Arc::new(Base::compute(Arc::new(recipe), &options, &mut runner, &cancel).await?);
    let results = base.evaluate(Arc::clone(&base.recipe), &mut runner, &cancel).await?;
    let mut study = base.study(results, runner.records.clone());
    let mut folder = folder;
    if study.recipe.timing.measure {
        (study, folder) = base.route(study, folder, &mut runner, &cancel).await?;
        study.records.clone_from(&runner.records);
    }
    let written = runner.stage("write results", 0, move |_| {
        results::write(&study, &folder)?;
        let target = folder.finish()?;
        Ok((target.clone(), format!("{}", target.join("report.html").display())))
    });
    written.await
}

/// Says which stages of `recipe` would be computed, and why; computes none.
///
/// # Errors
/// When something from outside is missing or wrong.
pub async fn explain(
    recipe: Recipe,
    options: Options,
    pool: Arc<rayon::ThreadPool>,
    cache: Arc<Cache>,
) -> Result<String> {
    let (recipe, mut runner) = (Arc::new(recipe), Runner::new(pool, Arc::clone(&cache)));
    let ready = Ready::load(&recipe, &options, &mut runner).await?;
    cache::explain::explain(&cache, &ready.keys, &recipe, &ready.prepared.cost)
}

/// The tree of a recipe, or what is drawn of it.
///
/// # Errors
/// When it has more paths than the recipe's limit.
pub fn path_tree(recipe: &Recipe) -> Result<PathTree> {
    let monotone = match recipe.paths.monotone {
        recipe::Monotone::Free => Monotone::Free,
        recipe::Monotone::NonIncreasing => Monotone::NonIncreasing,
        recipe::Monotone::NonDecreasing => Monotone::NonDecreasing,
    };
    let (segments, widths, paths) = (recipe.paths.segments.len(), recipe.quant.widths.len(), &recipe.paths);
    if paths.sample == 0 {
        return Ok(PathTree::new(segments, widths, monotone, paths.limit)?);
    }
    // Before so many are drawn.
    ensure!(
        paths.sample <= paths.limit,
        "paths.sample = {}: more than paths.limit = {}; hint: draw fewer, or raise the limit",
        paths.sample,
        paths.limit
    );
    let draw = PathDraw { paths: paths.sample, turn: paths.turn, seed: paths.sample_seed };
    let tree = draw.tree(segments, widths, monotone)?;
    let (count, limit) = (tree.paths().len(), paths.limit);
    ensure!(
        count <= limit,
        "paths.sample = {}: with their prefixes these are {count} paths, more than paths.limit = {limit}; hint: draw fewer, or raise the limit",
        paths.sample
    );
    Ok(tree)
}

/// The backbone cut as the recipe says.
pub fn program<'a>(recipe: &'a Recipe, prepared: &'a Prepared) -> Program<'a> {
    Program::new(prepared.backbone.as_ref(), recipe)
}

/// Whether to measure how well new quantizers hold what they stand for, which takes one more run over the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// It will be stored.
    Measured,
    /// Nobody will look at it.
    Left,
}

/// The quantizers of a recipe: from its file, or made on pictures of exit-train, where any are needed. Also a few words on them. `say` gets what
/// the user should know meanwhile.
///
/// # Errors
/// When a picture cannot be had, a file is wrong, the executor fails, or on a wish to stop.
pub fn calibrate(
    recipe: &Recipe,
    prepared: &Prepared,
    device: &Device,
    quality: Quality,
    cancel: &Cancel,
    say: &dyn Fn(&str),
) -> Result<(Quantizers, String)> {
    let (quant, backbone, widths) = (&recipe.quant, prepared.backbone.as_ref(), quantize::widths(&recipe.quant));
    if !quant.file.as_os_str().is_empty() {
        let stored = Quantizers::read(&quant.file)?;
        stored.expect_for(&quant.file, backbone, quant, &widths)?;
        return Ok((stored, format!("from {}", quant.file.display())));
    }
    let chosen = calibration_pictures(recipe, prepared);
    let pictures = prepared.images(chosen)?;
    let request = quantize::Request { backbone, quant, widths: &widths, batch: recipe.paths.batch };
    let (plan, outcome) = quantize::calibrate(request, device, &pictures, cancel, say)?;
    let origin = Origin {
        version: env!("CARGO_PKG_VERSION").into(),
        backbone: backbone.name().into(),
        weights: prepared.weights_origin.clone(),
        fingerprint: fingerprint(backbone),
        dataset: prepared.data.name.clone(),
        pictures: chosen.to_vec(),
        settings: quant.clone(),
        widths,
    };
    let mut made = Quantizers::new(origin, plan);
    if quality == Quality::Measured {
        made.measure(backbone, &pictures, recipe.paths.batch)?;
    }
    Ok((made, outcome))
}

/// The pictures of exit-train that quantizers are made with.
pub fn calibration_pictures<'p>(recipe: &Recipe, prepared: &'p Prepared) -> &'p [usize] {
    let all = &prepared.splits.exit_train;
    &all[..all.len().min(recipe.quant.calibration_pictures)]
}

/// Times every part on one batch of *fit*. Also a few words on it.
///
/// # Errors
/// When a picture cannot be had, the executor fails, or on a wish to stop.
pub fn measure(
    recipe: &Recipe,
    prepared: &Prepared,
    engine: &dyn Engine,
    cancel: &Cancel,
    stage: &Stage,
) -> Result<(Timings, String)> {
    let chosen: Vec<usize> = prepared.fit().iter().copied().take(recipe.paths.batch).collect();
    let images = prepared.images(&chosen)?;
    let mut widths = recipe.quant.widths.clone();
    widths.extend(backbone_runs::static_widths(recipe));
    widths.sort();
    widths.dedup();
    let picture = images.len() / chosen.len().max(1);
    let timings = attempts::whole(engine, chosen.len(), &|text| stage.say(text), |size| {
        Timings::measure(&program(recipe, prepared), engine, &images[..size * picture], size, &widths, cancel)
    })?;
    let outcome = format!("{} widths, batches of {}, one at a time", widths.len(), timings.batch);
    Ok((timings, outcome))
}
