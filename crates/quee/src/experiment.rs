//! The stages of an experiment: what no seed and no head changes is computed once ([`Base`]), and what is trained on top of it is
//! evaluated as often as one likes.

use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result};
use quee_gpu::Counts;
use quee_policy::bootstrap::Bootstrap;
use quee_policy::summary::{Summary, summarise};
use quee_policy::tree::PathTree;
use quee_train::TrainDevice;

use crate::artefact;
use crate::backend::Device;
use crate::cache::keys::Keys;
use crate::cache::{Cache, Checkpoint, from_postcard, to_postcard};
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::output::RunFolder;
use crate::parts;
use crate::progress::Stage;
use crate::quantize::file::Quantizers;
use crate::ready::{Calibrated, Ready, told};
use crate::recipe::Recipe;
use crate::records::{self, Log, Record};
use crate::report::text::count;
use crate::results::{self, DeviceWork, Study, subset};
use crate::run::{Options, measure, program};
use crate::stages::backbone_runs::{self, BackboneRuns};
use crate::stages::costs::{Counted, Timings};
use crate::stages::efficiency::Bench;
use crate::stages::prepare::Prepared;
use crate::stages::study::{OPEN_LOOP, SeedStudy, Shared, study};
use crate::stages::trained::fit_pictures;
use crate::stages::walk::{Drive, Share};

/// Loss that is accepted in the setting whose speed is measured on batches.
const ROUTED_DROP: f64 = 0.005;
/// Test pictures that it is measured on at most.
const ROUTED_PICTURES: usize = 512;
/// Seed of the bootstrap: resamples are the same in every run.
pub const BOOTSTRAP_SEED: u64 = 0;

/// Runs stages one after the other, each as a blocking task on the pool of threads, and keeps their times.
pub struct Runner {
    /// Threads.
    pub pool: Arc<rayon::ThreadPool>,
    /// Where results of stages are kept.
    pub cache: Arc<Cache>,
    /// Stages so far.
    pub records: Vec<Record>,
    log: Option<Log>,
}

impl Runner {
    /// Nothing has run yet.
    pub fn new(pool: Arc<rayon::ThreadPool>, cache: Arc<Cache>) -> Self {
        Self { pool, cache, records: Vec::new(), log: None }
    }

    /// The same, telling `log` of every stage that ends.
    pub fn logging(self, log: Option<Log>) -> Self {
        Self { log, ..self }
    }

    /// Runs one stage. `work` returns its result and a few words on what came out.
    ///
    /// # Errors
    /// What `work` reports.
    pub async fn stage<T: Send + 'static>(
        &mut self,
        name: &str,
        steps: usize,
        work: impl FnOnce(&Stage) -> Result<(T, String)> + Send + 'static,
    ) -> Result<T> {
        let (pool, label) = (Arc::clone(&self.pool), name.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            pool.install(|| {
                let stage = Stage::start(&label, steps);
                records::reset_peak();
                let (result, outcome) = work(&stage)?;
                let (said, peak) = (stage.said(), records::peak());
                let seconds = stage.finish(&outcome);
                Ok::<_, anyhow::Error>((result, Record::now(&label, seconds, peak, outcome, said)))
            })
        });
        let (result, record) = task
            .await
            .with_context(|| format!("stage `{name}` broke down; this is a defect of quee, please report it"))??;
        if let Some(log) = &mut self.log {
            log.append(&record);
        }
        self.records.push(record);
        Ok(result)
    }
}

/// Data, backbone, quantizers and all runs of the backbone: what exits, predictors and policies are made of.
pub struct Base {
    /// Settings.
    pub recipe: Arc<Recipe>,
    prepared: Arc<Prepared>,
    quantizers: Arc<Quantizers>,
    tree: Arc<PathTree>,
    runs: Arc<BackboneRuns>,
    timings: Option<Arc<Timings>>,
    device_work: Option<DeviceWork>,
    keys: Arc<Keys>,
    training: TrainDevice,
    environment: Environment,
    time_caveat: Option<String>,
    device: Device,
}

/// What was trained and evaluated on a [`Base`].
pub struct Results {
    recipe: Arc<Recipe>,
    counted: Arc<Counted>,
    /// By seed.
    pub seeds: Vec<SeedStudy>,
    /// All seeds together.
    pub summary: Summary,
}

impl Base {
    /// Runs the backbone on all paths.
    ///
    /// # Errors
    /// When something from outside is missing or wrong, or a wish to stop.
    pub async fn compute(recipe: Arc<Recipe>, options: &Options, runner: &mut Runner, cancel: &Cancel) -> Result<Self> {
        let Calibrated { ready, quantizers, engine, environment } =
            Calibrated::compute(&recipe, options, runner, cancel).await?;
        let Ready { device, training, prepared, tree, keys } = ready;
        let cache = Arc::clone(&runner.cache);

        let inputs =
            (Arc::clone(&recipe), Arc::clone(&prepared), Arc::clone(&tree), Arc::clone(&engine), cancel.clone());
        let (k, store) = (Arc::clone(&keys), Arc::clone(&cache));
        let steps = backbone_runs::steps(&recipe, &prepared);
        let runs = runner.stage("run backbone on paths", steps, move |stage| {
            let (recipe, prepared, tree, engine, cancel) = &inputs;
            let program = program(recipe, prepared);
            let scratch = Arc::new(store.scratch());
            let read = |from: &mut dyn Read| -> Result<_> {
                let work = from_postcard(from)?;
                Ok((BackboneRuns::decode(from, &scratch)?, work))
            };
            let write = |(runs, work): &(BackboneRuns, Option<Counts>), out: &mut dyn Write| {
                to_postcard(work, out)?;
                runs.encode(out)
            };
            let compute = |kept: &Checkpoint| {
                let parts = parts::stored(recipe, &store, &k, &scratch, &|text| stage.say(text))?;
                let share = parts.as_ref().map_or(Share::All, |(parts, _)| Share::Missing(parts));
                let drive = Drive::new(engine.as_ref(), recipe.paths.batch, cancel, stage);
                let drive = drive.keeping(kept).in_scratch(Arc::clone(&scratch)).sharing(share);
                let runs = BackboneRuns::compute(recipe, prepared, &program, tree, &drive)?;
                let Some((parts, work)) = parts else { return Ok((runs, engine.counts())) };
                stage.say(&parts.finish()?);
                Ok((runs, engine.counts().map(|own| work.into_iter().fold(own, |all, part| all + part))))
            };
            let made = store.stage_in_form(&k.runs()?, cancel, &|text| stage.say(text), (&read, &write), compute);
            let ((runs, work), stored) = made?;
            let (paths, all) = (tree.paths().len(), tree.count_in_all());
            let drawn = if paths as u128 == all { String::new() } else { format!(" drawn from {all}") };
            let outcome = format!("{paths} paths{drawn}, {paths} segment runs per picture");
            Ok(((Arc::new(runs), work), told(outcome, stored)))
        });
        let (runs, work) = runs.await?;

        let timings = match recipe.timing.measure {
            false => None,
            true => {
                let inputs = (Arc::clone(&recipe), Arc::clone(&prepared), Arc::clone(&engine), cancel.clone());
                let caveat = device.caveat().map_or(String::new(), |caveat| format!("; {caveat}"));
                let (k, store) = (Arc::clone(&keys), cache);
                let timed = runner.stage("measure times", 0, move |stage| {
                    let (recipe, prepared, engine, cancel) = &inputs;
                    let ((timings, outcome), stored) =
                        store.stage(&k.times()?, cancel, &|text| stage.say(text), |_| {
                            measure(recipe, prepared, engine.as_ref(), cancel, stage)
                        })?;
                    Ok((timings, told(outcome + &caveat, stored)))
                });
                Some(Arc::new(timed.await?))
            }
        };
        let device_work = work.map(|runs| DeviceWork {
            batch: timings.as_ref().map_or(0, |timings| timings.batch),
            parts: timings.as_ref().map_or_else(Vec::new, |timings| timings.work.clone()),
            runs,
        });
        let time_caveat = device.caveat();
        Ok(Self {
            recipe,
            prepared,
            quantizers,
            tree,
            runs,
            timings,
            device_work,
            keys,
            training,
            environment,
            time_caveat,
            device,
        })
    }

    /// Whether `recipe` can be evaluated on these runs: it differs from theirs only in what is made on top of the backbone. What of the exits' settings
    /// says how the backbone is run is also among those that the cache's key for runs names (`cache/keys.rs`).
    pub fn serves(&self, recipe: &Recipe) -> bool {
        let on_top = |from: &Recipe| Recipe {
            name: String::new(),
            seeds: Vec::new(),
            threads: 0,
            features: self.recipe.features.clone(),
            cells: self.recipe.cells.clone(),
            predictor: self.recipe.predictor.clone(),
            policy: self.recipe.policy.clone(),
            statistics: self.recipe.statistics.clone(),
            exits: crate::recipe::Exits {
                train_on: from.exits.train_on,
                path_draws: from.exits.path_draws,
                tokens: from.exits.tokens,
                ..self.recipe.exits.clone()
            },
            ..from.clone()
        };
        on_top(&self.recipe) == on_top(recipe)
    }

    /// Trains exits and predictors for every seed of `recipe`, which these runs must [serve](Self::serves), and evaluates every policy and
    /// baseline.
    ///
    /// # Errors
    /// When training diverges, or a wish to stop.
    pub async fn evaluate(&self, recipe: Arc<Recipe>, runner: &mut Runner, cancel: &Cancel) -> Result<Results> {
        let prepared = &self.prepared;
        let keys = Arc::new(self.keys.of(&recipe)?);
        let counted =
            Arc::new(Counted::new(recipe.policy.cost, &prepared.cost, &recipe.paths.segments, self.timings.as_deref()));
        let mut seeds: Vec<SeedStudy> = Vec::new();
        for &seed in &recipe.seeds {
            let inputs = (
                Arc::clone(&recipe),
                Arc::clone(prepared),
                Arc::clone(&self.tree),
                Arc::clone(&self.runs),
                Arc::clone(&counted),
                self.timings.clone(),
                self.training.clone(),
                cancel.clone(),
            );
            let (keys, cache) = (Arc::clone(&keys), Arc::clone(&runner.cache));
            let name = format!("train and test, seed {seed}");
            let done = runner.stage(&name, 0, move |stage| {
                let (recipe, prepared, tree, runs, counted, timings, training, cancel) = &inputs;
                let (timings, keys, cache) = (timings.as_deref(), keys.as_ref(), cache.as_ref());
                let say = &|text: &str| stage.say(text);
                let shared =
                    Shared { recipe, prepared, tree, runs, counted, timings, training, cancel, cache, keys, say };
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
        Ok(Results { recipe, counted, seeds, summary })
    }

    /// Pictures that predictors of `recipe` learn from.
    pub fn fit_pictures(&self, recipe: &Recipe) -> usize {
        fit_pictures(recipe, self.prepared.fit().len())
    }

    /// Data set and its size, seeds, backend, as a sentence.
    pub fn circumstances(&self) -> String {
        let (recipe, prepared) = (&self.recipe, &self.prepared);
        let subset = subset(recipe, prepared).map_or(String::new(), |subset| format!(" (development {subset})"));
        let seeds: Vec<String> = recipe.seeds.iter().map(u64::to_string).collect();
        format!(
            "Data: {}{subset}, {} test pictures, seeds {}, backend {}.",
            prepared.data.name,
            count(prepared.splits.test.len()),
            seeds.join(", "),
            self.environment.backend
        )
    }

    /// Program, machine and seeds.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Everything together, as result files need it; `records` are those of all stages so far.
    pub fn study(&self, results: Results, records: Vec<Record>) -> Study {
        let Results { recipe, counted, seeds, summary } = results;
        Study {
            recipe: Arc::unwrap_or_clone(recipe),
            prepared: Arc::clone(&self.prepared),
            quantizers: Arc::clone(&self.quantizers),
            tree: Arc::clone(&self.tree),
            runs: Arc::clone(&self.runs),
            counted,
            seeds,
            summary,
            environment: self.environment.clone(),
            timed_batch: self.timings.as_ref().map(|timings| timings.batch),
            device_work: self.device_work.clone(),
            time_caveat: self.time_caveat.clone(),
            routing: None,
            records,
        }
    }

    /// Stores the policy of a study's first seed in `folder`, and measures how fast it is on batches of test pictures at the setting that
    /// loses 0.5 points where settings are chosen.
    ///
    /// # Errors
    /// When the file cannot be written or read back, the executor fails, or on a wish to stop.
    pub async fn route(
        &self,
        mut study: Study,
        folder: RunFolder,
        runner: &mut Runner,
        cancel: &Cancel,
    ) -> Result<(Study, RunFolder)> {
        let (prepared, device, cancel) = (Arc::clone(&self.prepared), self.device.clone(), cancel.clone());
        let routed = runner.stage("route batches", 0, move |_| {
            results::write_policy(&study, &folder)?;
            let policy = artefact::read(folder.path())?;
            let result = &study.seeds[0].result;
            let method = result.methods.iter().find(|m| m.name == OPEN_LOOP).context("there is an open-loop policy")?;
            let setting = policy.settings[method.for_drop(&result.float, ROUTED_DROP)];
            let engine = device.engine(Arc::clone(&policy.plan));
            let bench = Bench {
                policy: &policy,
                prepared: &prepared,
                engine: engine.as_ref(),
                lambda: setting.lambda.unwrap_or(f64::INFINITY),
                commit: setting.commit,
                cancel: &cancel,
            };
            let test = &prepared.splits.test;
            let test = &test[..test.len().min(ROUTED_PICTURES)];
            let threads = engine.batches_at_a_time().unwrap_or_else(rayon::current_num_threads);
            let found = bench.measure(test, study.recipe.paths.batch, threads)?;
            let path = if found.committed { ", all on one path" } else { "" };
            let outcome = format!("routing efficiency {:.2}{path}", found.routing_efficiency);
            study.routing = Some(found);
            Ok(((study, folder), outcome))
        });
        routed.await
    }
}
