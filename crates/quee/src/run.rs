//! `quee run`: an experiment from a recipe to its report.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use quee_policy::bootstrap::Bootstrap;
use quee_policy::summary::{Summary, summarise};
use quee_policy::tree::{Monotone, PathTree};

use crate::backend::{Device, Engine};
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::output::RunFolder;
use crate::progress::Stage;
use crate::quantize;
use crate::quantize::file::{Origin, Quantizers, fingerprint};
use crate::recipe::{self, Recipe};
use crate::results::{self, DeviceWork, Study};
use crate::stages::attempts;
use crate::stages::backbone_runs::{self, BackboneRuns};
use crate::stages::costs::{Counted, Timings};
use crate::stages::prepare::{Prepared, prepare};
use crate::stages::study::{SeedStudy, Shared, study};
use crate::stages::walk::{Drive, Program};

/// What the command line adds to a recipe.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Data set.
    pub data: Option<PathBuf>,
    /// Weights.
    pub weights: Option<PathBuf>,
    /// Where results go.
    pub out: PathBuf,
}

/// Seed of the bootstrap: resamples are the same in every run.
const BOOTSTRAP_SEED: u64 = 0;

/// Runs stages one after the other, each as a blocking task on the pool of threads, and keeps their times.
struct Runner {
    pool: Arc<rayon::ThreadPool>,
    seconds: Vec<(String, f64)>,
}

impl Runner {
    /// Runs one stage. `work` returns its result and a few words on what came out.
    async fn stage<T: Send + 'static>(
        &mut self,
        name: &str,
        steps: usize,
        work: impl FnOnce(&Stage) -> Result<(T, String)> + Send + 'static,
    ) -> Result<T> {
        let (pool, label) = (Arc::clone(&self.pool), name.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            pool.install(|| {
                let stage = Stage::start(&label, steps);
                let (result, outcome) = work(&stage)?;
                Ok::<_, anyhow::Error>((result, stage.finish(&outcome)))
            })
        });
        let (result, seconds) = task
            .await
            .with_context(|| format!("stage `{name}` broke down; this is a defect of quee, please report it"))??;
        self.seconds.push((name.to_owned(), seconds));
        Ok(result)
    }
}

/// Runs `recipe` and returns the folder with its results.
///
/// # Errors
/// When something from outside is missing or wrong, or a wish to stop. No results folder is left behind then.
pub async fn run(recipe: Recipe, options: Options, pool: Arc<rayon::ThreadPool>, cancel: Cancel) -> Result<PathBuf> {
    let folder = RunFolder::create(&options.out, &recipe.name)?;
    let threads = pool.current_num_threads();
    let mut runner = Runner { pool, seconds: Vec::new() };
    let recipe = Arc::new(recipe);
    let device = Device::open(recipe.backend, &recipe.gpu)?;

    let (r, o) = (Arc::clone(&recipe), options.clone());
    let prepared = runner.stage("prepare", 0, move |_| {
        let prepared = prepare(&r, o.data.as_deref(), o.weights.as_deref())?;
        let outcome = format!("{} pictures, backbone {}", prepared.data.len(), prepared.backbone.name());
        Ok((Arc::new(prepared), outcome))
    });
    let prepared = prepared.await?;
    let tree = Arc::new(path_tree(&recipe)?);

    let (r, p, d, c) = (Arc::clone(&recipe), Arc::clone(&prepared), device.clone(), cancel.clone());
    let made = runner.stage("calibrate quantizers", 0, move |stage| {
        let (made, outcome) = calibrate(&r, &p, &d, Quality::Measured, &c, &|text| stage.say(text))?;
        Ok((Arc::new(made), outcome))
    });
    let quantizers = made.await?;
    let engine = device.engine(Arc::new(quantizers.plan.clone()));
    let training = device.training()?;
    let environment = Environment::detect(recipe.backend, &device, &training, threads, &recipe.seeds);

    let inputs = (Arc::clone(&recipe), Arc::clone(&prepared), Arc::clone(&tree), Arc::clone(&engine), cancel.clone());
    let steps = backbone_runs::steps(&recipe, &prepared);
    let runs = runner.stage("run backbone on paths", steps, move |stage| {
        let (recipe, prepared, tree, engine, cancel) = &inputs;
        let program = program(recipe, prepared);
        let drive = Drive::new(engine.as_ref(), recipe.paths.batch, cancel, stage);
        let runs = BackboneRuns::compute(recipe, prepared, &program, tree, &drive)?;
        Ok((Arc::new(runs), format!("{} paths, {} segment runs per picture", tree.paths().len(), tree.paths().len())))
    });
    let runs = runs.await?;
    let work = engine.counts();

    let timings = match recipe.timing.measure {
        false => None,
        true => {
            let inputs = (Arc::clone(&recipe), Arc::clone(&prepared), Arc::clone(&engine), cancel.clone());
            let caveat = device.caveat().map_or(String::new(), |caveat| format!("; {caveat}"));
            let timed = runner.stage("measure times", 0, move |stage| {
                let (timings, outcome) = measure(&inputs.0, &inputs.1, inputs.2.as_ref(), &inputs.3, stage)?;
                Ok((timings, outcome + &caveat))
            });
            Some(Arc::new(timed.await?))
        }
    };

    let counted = Arc::new(Counted::new(recipe.policy.cost, &prepared.cost, &recipe.paths.segments));
    let mut seeds: Vec<SeedStudy> = Vec::new();
    for &seed in &recipe.seeds {
        let inputs = (
            Arc::clone(&recipe),
            Arc::clone(&prepared),
            Arc::clone(&tree),
            Arc::clone(&runs),
            Arc::clone(&counted),
            timings.clone(),
            training.clone(),
            cancel.clone(),
        );
        let name = format!("train and test, seed {seed}");
        let done = runner.stage(&name, 0, move |_| {
            let (recipe, prepared, tree, runs, counted, timings, training, cancel) = &inputs;
            let timings = timings.as_deref();
            let shared = Shared { recipe, prepared, tree, runs, counted, timings, training, cancel };
            let study = study(shared, seed)?;
            let settings: usize = study.result.methods.iter().map(|m| m.settings.len()).sum();
            let methods = study.result.methods.len();
            Ok((study, format!("{methods} methods, {settings} settings")))
        });
        seeds.push(done.await?);
    }
    cancel.check()?;

    let resamples = recipe.statistics.resamples;
    let summarised = runner.stage("bootstrap", 0, move |_| {
        let results: Vec<_> = seeds.iter().map(|seed| seed.result.clone()).collect();
        let summary: Summary = summarise(&results, &Bootstrap { resamples, seed: BOOTSTRAP_SEED })?;
        Ok(((seeds, summary), format!("{resamples} resamples")))
    });
    let (seeds, summary) = summarised.await?;

    let study = Study {
        recipe: Arc::unwrap_or_clone(recipe),
        prepared,
        quantizers,
        tree,
        runs,
        counted,
        seeds,
        summary,
        environment,
        timed_batch: timings.as_ref().map(|timings| timings.batch),
        device_work: work.map(|runs| DeviceWork {
            batch: timings.as_ref().map_or(0, |timings| timings.batch),
            parts: timings.as_ref().map_or_else(Vec::new, |timings| timings.work.clone()),
            runs,
        }),
        time_caveat: device.caveat(),
        seconds: runner.seconds.clone(),
    };
    let written = runner.stage("write results", 0, move |_| {
        results::write(&study, &folder)?;
        let target = folder.finish()?;
        Ok((target.clone(), format!("{}", target.join("report.html").display())))
    });
    written.await
}

/// The tree of a recipe.
///
/// # Errors
/// When it has more paths than the recipe's limit.
pub fn path_tree(recipe: &Recipe) -> Result<PathTree> {
    let monotone = match recipe.paths.monotone {
        recipe::Monotone::Free => Monotone::Free,
        recipe::Monotone::NonIncreasing => Monotone::NonIncreasing,
        recipe::Monotone::NonDecreasing => Monotone::NonDecreasing,
    };
    Ok(PathTree::new(recipe.paths.segments.len(), recipe.quant.widths.len(), monotone, recipe.paths.limit)?)
}

/// The backbone cut as the recipe says.
pub fn program<'a>(recipe: &'a Recipe, prepared: &'a Prepared) -> Program<'a> {
    Program { backbone: prepared.backbone.as_ref(), segments: &recipe.paths.segments, stem: recipe.quant.stem }
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

/// Times every part on one batch of *fit*.
fn measure(
    recipe: &Recipe,
    prepared: &Prepared,
    engine: &dyn Engine,
    cancel: &Cancel,
    stage: &Stage,
) -> Result<(Timings, String)> {
    let chosen: Vec<usize> = prepared.splits.fit.iter().copied().take(recipe.paths.batch).collect();
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
