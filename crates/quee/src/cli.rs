//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use quee_quant::Width;
use tracing_subscriber::EnvFilter;

use crate::backend::DeviceArgs;
use crate::cache::{Cache, CacheArgs};
use crate::cancel::{Cancel, Cancelled};
use crate::cells::folder::Plan;
use crate::cells::{self, EngineArgs, FolderCommand, Incomplete};
use crate::output::print;
use crate::recipe::{self, Recipe};
use crate::records::Log;
use crate::sweep::{self, Cases};
use crate::training::{self, TrainingArgs};
use crate::{
    backends_command, bench_command, cache_command, compare, data_command, export, finetune, inspect, ladder, predict,
    pretrain, quantize, repeat, run, tune_command, weights_command,
};

/// What is written to the standard error stream where `QUEE_LOG` does not say.
const LOGGED: &str = "error,quee_gpu=warn";
/// Exit code of every failure that has its cause outside the program.
const FAILED: u8 = 2;
/// Exit code where everything went well and the answer is no: results differ, or cells of a sweep have failed.
const NO: u8 = 1;
/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// Combine quantization and early exiting, sample by sample, on frozen vision transformers.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment from a recipe; results go to a new folder below --out
    Run(RunArgs),
    /// Run a finished run again, without the cache, and see whether every result is the same; exit code 1 if not
    Repeat(RepeatArgs),
    /// Write finished runs into an MLflow file store
    Export(export::ExportArgs),
    /// Run an experiment in several cases that answer a question, or, without any, in the many cells that its recipe lists in [sweep]
    Sweep(Box<SweepArgs>),
    /// Put finished runs on one axis: which is better, and where, on the same test pictures
    Compare(compare::CompareArgs),
    /// Look at recipes
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Measure which widths a recipe should offer, on pictures of exit-train
    Ladder(LadderArgs),
    /// Make the quantizers of a backbone, see which of its places lose most, or set quantizers beside each other
    Quantize(QuantizeArgs),
    /// Classify pictures with the policy that a run has stored
    Predict(predict::PredictArgs),
    /// Train a backbone from scratch, as described in a TOML file
    Pretrain(TrainingArgs),
    /// Train a pretrained backbone on another data set, as described in a TOML file
    Finetune(finetune::FinetuneArgs),
    /// Look at backbones
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// List what can run a backbone on this machine, and what would be taken
    Backends {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List, fetch and verify data sets
    #[command(subcommand)]
    Data(data_command::DataCommand),
    /// List and fetch published weights
    #[command(subcommand)]
    Weights(weights_command::WeightsCommand),
    /// List and throw away stored results of finished stages
    #[command(subcommand)]
    Cache(cache_command::CacheCommand),
    /// Measure this machine
    #[command(subcommand)]
    Bench(bench_command::BenchCommand),
    /// Find the fastest kernel for each product on a graphics adapter, and keep the answers for the GPU backend. All kernels give the same
    /// bits: results never depend on it, only times
    Tune(tune_command::TuneArgs),
}

#[derive(Args)]
struct QuantizeArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    quantize: quantize::command::QuantizeArgs,
}

#[derive(Subcommand)]
enum RecipeCommand {
    /// Print a recipe with every setting and default
    Show(RecipeArgs),
    /// Print every setting with its default and explanation
    Keys {
        /// Those of pretrain and finetune
        #[arg(long)]
        training: bool,
    },
}

/// Which recipe, and what to change in it.
#[derive(Args)]
struct RecipeArgs {
    /// Recipe file, e.g. experiments/digits/recipe.toml
    recipe: PathBuf,
    #[command(flatten)]
    changes: ChangeArgs,
}

/// What to change in a recipe.
#[derive(Args)]
struct ChangeArgs {
    /// Variant of the recipe, a table [profile.NAME] in it
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Change one setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Run this seed only, instead of the recipe's list
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads; 0 is one per processor. Results do not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Files that take the place of the recipe's.
#[derive(Args)]
struct InputArgs {
    /// Folder of the data set, or a folder that holds it by name [default: QUEE_DATA or the user's data folder, or what is embedded]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Weights of the backbone, a safetensors or PyTorch file [default: what is embedded, or was fetched by `quee weights`]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

impl InputArgs {
    /// Puts the choice into `recipe`, which then says all that there is to say.
    fn put_into(&self, mut recipe: Recipe) -> Result<Recipe> {
        if let Some(data) = &self.data {
            recipe.data.path = std::path::absolute(data)?;
        }
        if let Some(weights) = &self.weights {
            recipe.backbone.weights = std::path::absolute(weights)?;
        }
        Ok(recipe)
    }
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Folder for the results of this run, which must not exist yet [default: a new one below --out]
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    into: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Only say which stages would be computed, and why
    #[arg(long)]
    explain: bool,
    /// Append a line of JSON to FILE for every stage that ends; the results hold the same lines in log.jsonl
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Args)]
struct RepeatArgs {
    /// Results folder of a finished run, e.g. runs/digits/latest
    run: PathBuf,
    /// Where the new results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Threads; 0 is one per processor
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct SweepArgs {
    #[command(subcommand)]
    folder: Option<FolderCommand>,
    /// Recipe file, e.g. experiments/digits/recipe.toml
    #[arg(required = true)]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    changes: ChangeArgs,
    /// Files of cases, e.g. experiments/conditions/cells.toml; see docs/conditions.md. Without any, the cells of the recipe's [sweep] are run,
    /// see docs/sweeps.md
    cases: Vec<PathBuf>,
    #[command(flatten)]
    inputs: InputArgs,
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Folder of the cells, new or to go on with [default: a new one below --out]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "cases"])]
    into: Option<PathBuf>,
    /// Run the recipe's runs on paths in so many parts, each a cell, instead of the cells of its [sweep]
    #[arg(long, value_name = "N", conflicts_with = "cases", value_parser = clap::value_parser!(u16).range(1..))]
    shards: Option<u16>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Args)]
struct LadderArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Widths to measure, e.g. 3,4,w4a8,8 [default: 2 to 8 bits for weights and activations alike]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    widths: Vec<Width>,
    /// Most pictures of exit-train to measure on
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pictures: usize,
    /// Most widths to propose
    #[arg(long, value_name = "N", default_value_t = 3)]
    rungs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RecipeArgs {
    fn load(&self) -> Result<Recipe> {
        self.changes.load(&self.recipe)
    }
}

impl ChangeArgs {
    fn load(&self, path: &Path) -> Result<Recipe> {
        let mut recipe = recipe::load(path, self.profile.as_deref(), &self.sets)?;
        self.device.apply(&mut recipe)?;
        if let Some(seed) = self.seed {
            recipe.seeds = vec![seed];
        }
        if let Some(threads) = self.threads {
            recipe.threads = threads;
        }
        Ok(recipe)
    }
}

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("QUEE_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED)))
        .with_writer(std::io::stderr)
        .init();
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref::<Cancelled>().is_some() => {
            eprintln!("{error}");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) if error.downcast_ref::<Different>().is_some() => {
            eprintln!("{error}");
            ExitCode::from(NO)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(match error.downcast_ref::<Incomplete>() {
                Some(Incomplete::Cells(_)) => NO,
                Some(Incomplete::Stopped(_)) => INTERRUPTED,
                None => FAILED,
            })
        }
    }
}

fn carry_out(command: Command) -> Result<()> {
    quee_cpu::Isa::asked_for().map_err(anyhow::Error::msg)?;
    match command {
        Command::Run(args) => {
            let recipe = args.recipe.load()?;
            let recipe = args.inputs.put_into(recipe)?;
            let options = run::Options { out: args.out, into: args.into, ..run::Options::default() };
            let threads = recipe.threads;
            let cache = Arc::new(Cache::open(&args.cache));
            let log = args.log.as_deref().map(Log::open).transpose()?;
            if args.explain {
                return print(&supervised(threads, |pool, _| run::explain(recipe, options, pool, cache))?);
            }
            let folder = supervised(threads, |pool, cancel| run::run(recipe, options, pool, cache, log, cancel))?;
            print(&format!("{}\n", folder.display()))
        }
        Command::Repeat(args) => repeat(args),
        Command::Export(args) => print(&export::run(&args)?),
        Command::Sweep(args) => carry_out_sweep(*args),
        Command::Compare(args) => print(&blocking(0, "comparing", move |_| compare::run(&args))?),
        Command::Ladder(args) => {
            let recipe = args.recipe.load()?;
            let InputArgs { data, weights } = args.inputs;
            let options = run::Options { data, weights, ..run::Options::default() };
            let threads = recipe.threads;
            let asked = ladder::LadderOptions {
                widths: args.widths,
                pictures: args.pictures,
                rungs: args.rungs,
                json: args.json,
            };
            let work = move |cancel: &Cancel| ladder::ladder(&recipe, &options, &asked, cancel);
            let text = blocking(threads, "measuring", work)?;
            print(&text)
        }
        Command::Quantize(args) => {
            let recipe = args.recipe.load()?;
            let InputArgs { data, weights } = args.inputs;
            let options = run::Options { data, weights, ..run::Options::default() };
            let threads = recipe.threads;
            blocking(threads, "quantizing", move |cancel| {
                quantize::command::run(recipe, &options, &args.quantize, cancel)
            })
        }
        Command::Recipe(RecipeCommand::Show(args)) => print(&toml::to_string(&args.load()?)?),
        Command::Recipe(RecipeCommand::Keys { training }) => {
            print(if training { training::BASE } else { recipe::BASE })
        }
        Command::Inspect(command) => print(&inspect::run(&command)?),
        Command::Backends { json } => print(&backends_command::run(json)?),
        Command::Predict(args) => print(&predict::predict(&args)?),
        Command::Pretrain(args) => blocking(args.threads, "training", move |cancel| pretrain::pretrain(&args, cancel)),
        Command::Finetune(args) => {
            blocking(args.training.threads, "training", move |cancel| finetune::finetune(&args, cancel))
        }
        Command::Data(command) => print(&blocking(1, "fetching", move |cancel| data_command::run(&command, cancel))?),
        Command::Weights(command) => {
            print(&blocking(1, "fetching", move |cancel| weights_command::run(&command, cancel))?)
        }
        Command::Cache(command) => print(&cache_command::run(&command)?),
        Command::Bench(command) => {
            blocking(command.threads(), "measuring", move |cancel| bench_command::run(&command, cancel))
        }
        Command::Tune(args) => print(&blocking(1, "measuring", move |cancel| tune_command::run(&args, cancel))?),
    }
}

fn carry_out_sweep(args: SweepArgs) -> Result<()> {
    if let Some(command) = args.folder {
        return blocking(1, "the sweep", move |cancel| cells::run(&command, cancel));
    }
    let path = args.recipe.context("which recipe? hint: quee sweep experiments/digits/recipe.toml")?;
    if args.cases.is_empty() {
        let recipe = args.inputs.put_into(args.changes.load(&path)?)?;
        let cells = match args.shards {
            None => cells::table::cells(&path, &recipe)?,
            Some(of) => cells::table::shards(&recipe, of.into())?,
        };
        let plan = Plan { cells, recipe: recipe.name, cache: args.cache.arguments() };
        let (into, out, engine) = (args.into, args.out, args.engine);
        let work = move |cancel: &Cancel| cells::start(&plan, into.as_deref(), &out, &engine, cancel);
        return blocking(1, "the sweep", work);
    }
    args.engine.refuse()?;
    let read = |file: PathBuf| Ok((file.clone(), Cases::read(&file)?));
    let questions = args.cases.into_iter().map(read).collect::<Result<_>>()?;
    let recipe = args.changes.load(&path)?;
    let InputArgs { data, weights } = args.inputs;
    let options = run::Options { data, weights, out: args.out, into: None };
    let threads = recipe.threads;
    let (request, cache) = (sweep::Request { questions, recipe }, Arc::new(Cache::open(&args.cache)));
    let folders = supervised(threads, |pool, cancel| sweep::sweep(request, options, pool, cache, cancel))?;
    print(&folders.iter().map(|folder| format!("{}\n", folder.display())).collect::<String>())
}

fn repeat(args: RepeatArgs) -> Result<()> {
    let mut recipe = repeat::recipe_of(&args.run)?;
    if let Some(threads) = args.threads {
        recipe.threads = threads;
    }
    let (options, threads) = (run::Options { out: args.out, ..run::Options::default() }, recipe.threads);
    let run = |pool, cancel| run::run(recipe, options, pool, Arc::new(Cache::off()), None, cancel);
    let verdict = repeat::compare(&args.run, &supervised(threads, run)?)?;
    print(&verdict.text)?;
    if verdict.same { Ok(()) } else { Err(Different.into()) }
}

/// A run that came out otherwise.
#[derive(Debug, thiserror::Error)]
#[error("the results are not the same")]
struct Different;

/// Runs `work` on `threads` threads while watching for Ctrl-C; `what` names it should it break down.
fn blocking<T: Send + 'static>(
    threads: usize,
    what: &'static str,
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    supervised(threads, |pool, cancel| async move {
        let work = move || pool.install(|| work(&cancel));
        tokio::task::spawn_blocking(work)
            .await
            .with_context(|| format!("{what} broke down; this is a defect of quee, please report it"))?
    })
}

/// Runs `work` with a pool of `threads` threads (0: one per processor) while watching for Ctrl-C: the first asks the
/// stages to stop at their next batch, the second ends the program at once.
fn supervised<T, F: Future<Output = Result<T>>>(
    threads: usize,
    work: impl FnOnce(Arc<rayon::ThreadPool>, Cancel) -> F,
) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start the threads")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let cancel = Cancel::default();
    runtime.block_on(async {
        let mut task = std::pin::pin!(work(Arc::new(pool), cancel.clone()));
        loop {
            tokio::select! {
                done = &mut task => return done,
                signal = tokio::signal::ctrl_c() => {
                    signal.context("cannot watch for Ctrl-C")?;
                    if cancel.check().is_err() {
                        std::process::exit(i32::from(INTERRUPTED));
                    }
                    eprintln!("stopping soon (Ctrl-C again: at once)");
                    cancel.request();
                }
            }
        }
    })
}
