//! Cells of a sweep: one recipe with many settings, each a run of its own, here or as jobs of Slurm. (Cells of the feature space are something else.)
//!
//! - [`table`]: `[sweep]` in a recipe, and the cells that it stands for
//! - [`folder`]: what is laid down before anything runs
//! - [`state`], [`status`]: how far a cell is
//! - [`worker`]: one cell in a process of its own; [`local`]: some at a time, shown by `board`; [`slurm`]: as an array of jobs
//! - [`collect`]: the figures of all cells

mod board;
pub mod collect;
pub mod folder;
pub mod local;
pub mod slurm;
pub mod state;
pub mod status;
pub mod table;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::cache_command::Size;
use crate::cancel::Cancel;
use crate::output::print;
use folder::{Plan, SweepFolder};
use slurm::{Slurm, SlurmArgs};
use state::{Lock, State, is_done};
use status::{Heard, Status};
use table::Cell;

/// How long a task waits for the cell that another process seems to run: a look at a lock takes but a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// What runs the cells.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// This machine
    Local,
    /// An array of Slurm jobs
    Slurm,
}

/// How to run cells.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct EngineArgs {
    /// What runs the cells of a sweep [default: local, or what ran it before]
    #[arg(long)]
    engine: Option<EngineKind>,
    /// Most cells at a time [default: 1, with Slurm as many as it likes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Most memory: here of all cells together, each expected to take what the largest took; with Slurm of each
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    #[command(flatten)]
    slurm: SlurmArgs,
}

/// What to do with a sweep that there is.
#[derive(clap::Subcommand)]
pub enum FolderCommand {
    /// Show how far the cells of a sweep are
    Status {
        /// Folder of the sweep
        folder: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run or submit the cells of a sweep that are not done, with the settings that it was started with
    Resume {
        /// Folder of the sweep
        folder: PathBuf,
        /// How to run them
        #[command(flatten)]
        engine: EngineArgs,
    },
    /// Put the figures of all cells into cells.csv, summary.json and report.html; exit code 1 if some are missing
    Collect {
        /// Folder of the sweep
        folder: PathBuf,
    },
    /// Run one cell, as tasks of an array do
    #[command(hide = true)]
    Cell {
        /// Folder of the sweep
        folder: PathBuf,
        /// Number of the cell, from 0
        index: usize,
        /// Threads, where the recipe leaves them open
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
    },
}

/// A cell, as `--json` prints it.
#[derive(Serialize)]
struct Listed {
    cell: String,
    #[serde(flatten)]
    status: Status,
}

/// Why a sweep is not complete. What could be done was done.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// Some cells have failed or are missing.
    #[error("{0}")]
    Cells(String),
    /// The user asked to stop.
    #[error("stopped on request; go on with: quee sweep resume {0}")]
    Stopped(String),
}

impl EngineArgs {
    fn is_given(&self) -> bool {
        self.engine.is_some() || self.jobs.is_some() || self.memory.is_some() || self.slurm.given().is_some()
    }

    /// The first option of a kind that cases in one process have no use for.
    ///
    /// # Errors
    /// When there is one.
    pub fn refuse(&self) -> Result<()> {
        ensure!(
            !self.is_given(),
            "--engine, --jobs, --memory and options of Slurm are for the cells of [sweep]; cases run in one process"
        );
        Ok(())
    }
}

/// Starts the sweep `plan` in the folder `into` (one that holds it already is gone on with), or in a new one below `out`.
///
/// # Errors
/// [`Incomplete`] when cells have failed or on a wish to stop; others when something from outside is missing or wrong.
pub fn start(plan: &Plan, into: Option<&Path>, out: &Path, args: &EngineArgs, cancel: &Cancel) -> Result<()> {
    let sweep = match into {
        Some(root) => SweepFolder::create_or_open(root, plan)?,
        None => SweepFolder::create(out, plan)?,
    };
    go_on(&sweep, args, cancel)
}

/// Carries out a command on a sweep that there is.
///
/// # Errors
/// As [`start`].
pub fn run(command: &FolderCommand, cancel: &Cancel) -> Result<()> {
    match command {
        FolderCommand::Status { folder, json } => {
            let sweep = SweepFolder::open(folder)?;
            let all = statuses(&sweep)?;
            if *json {
                let listed = |(cell, status): (&Cell, _)| Listed { cell: cell.name.clone(), status };
                let all: Vec<Listed> = sweep.cells.iter().zip(all).map(listed).collect();
                return print(&String::from_utf8_lossy(&crate::results::json(&all)?));
            }
            print(&status::table(&sweep, &all))
        }
        FolderCommand::Resume { folder, engine } => go_on(&SweepFolder::open(folder)?, engine, cancel),
        FolderCommand::Collect { folder } => {
            let sweep = SweepFolder::open(folder)?;
            let mut all = statuses(&sweep)?;
            let page = collect::collect(&sweep, &mut all)?;
            print(&format!("{}\n", page.display()))?;
            complete(&sweep, &all)
        }
        FolderCommand::Cell { folder, index, threads } => cell(&SweepFolder::open(folder)?, *index, *threads, cancel),
    }
}

/// Runs or submits what is not done.
fn go_on(sweep: &SweepFolder, args: &EngineArgs, cancel: &Cancel) -> Result<()> {
    let stored = Slurm::of(sweep)?;
    let kind = args.engine.unwrap_or(if stored.is_some() { EngineKind::Slurm } else { EngineKind::Local });
    let jobs = args.jobs.map(|jobs| jobs as usize);
    match kind {
        EngineKind::Slurm => submit(sweep, stored.unwrap_or_default(), args, jobs),
        EngineKind::Local => {
            if let Some(option) = args.slurm.given() {
                bail!("{option}: the engine local has no use for it; hint: add --engine slurm");
            }
            let limits = local::Limits { jobs: jobs.unwrap_or(1), memory: args.memory };
            local::run(sweep, limits, cancel)?;
            let mut all = statuses(sweep)?;
            let page = collect::collect(sweep, &mut all)?;
            eprintln!("{}: {}", status::counts(&all), page.display());
            print(&format!("{}\n", sweep.root.display()))?;
            if cancel.check().is_err() {
                return Err(Incomplete::Stopped(sweep.root.display().to_string()).into());
            }
            complete(sweep, &all)
        }
    }
}

fn submit(sweep: &SweepFolder, mut slurm: Slurm, args: &EngineArgs, jobs: Option<usize>) -> Result<()> {
    let mut unknown = None;
    let heard = slurm.heard(sweep, &mut |why| unknown = Some(why.to_owned()));
    // What runs or waits in the queue must not be submitted twice.
    if let Some(why) = unknown {
        bail!("{why}");
    }
    let open = |&index: &usize| match Status::of(&sweep.cell(index), &heard[index]) {
        Status::Failed { .. } => true,
        Status::Waiting { queued } => queued.is_none(),
        Status::Done { .. } | Status::Running { .. } => false,
    };
    let cells: Vec<usize> = (0..sweep.cells.len()).filter(open).collect();
    let shown = sweep.root.display();
    if cells.is_empty() {
        eprintln!("nothing to submit: every cell is done, runs or waits in the queue");
    } else {
        slurm.ask(&args.slurm, jobs, args.memory)?;
        let id = slurm.submit(sweep, &cells)?;
        eprintln!("job {id}: {} of {} cells submitted", cells.len(), sweep.cells.len());
    }
    eprintln!("look with: quee sweep status {shown}; when all are done: quee sweep collect {shown}");
    print(&format!("{shown}\n"))
}

/// One cell in this process's place in a queue.
fn cell(sweep: &SweepFolder, index: usize, threads: Option<usize>, cancel: &Cancel) -> Result<()> {
    let Some(cell) = sweep.cells.get(index) else {
        bail!(
            "{}: has {} cells, numbers from 0; there is none with the number {index}",
            sweep.root.display(),
            sweep.cells.len()
        );
    };
    let (folder, asked) = (sweep.cell(index), Instant::now());
    let lock = loop {
        match Lock::take(&folder)? {
            Some(lock) => break lock,
            None if asked.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            None => bail!("{}: another process runs this cell; hint: quee sweep status says where", folder.display()),
        }
    };
    if is_done(&folder) {
        return Ok(());
    }
    let how = worker::How { threads, apart: false, cancel };
    match worker::run(sweep, index, &lock, &how, &AtomicU64::new(0), &|_| {})? {
        State::Done(_) => Ok(()),
        State::Failed { ended, lines, .. } => {
            let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
            Err(Incomplete::Cells(format!("{}: {ended}{lines}", cell.name)).into())
        }
        _ => Err(Incomplete::Stopped(sweep.root.display().to_string()).into()),
    }
}

/// How far every cell is. Where Slurm has them and cannot be asked, that is said.
fn statuses(sweep: &SweepFolder) -> Result<Vec<Status>> {
    // Slurm first: what ended meanwhile has written how.
    let heard = match Slurm::of(sweep)? {
        Some(slurm) => slurm.heard(sweep, &mut |why| eprintln!("{why}; showing what the cells have written")),
        None => vec![Heard::Nothing; sweep.cells.len()],
    };
    Ok(heard.iter().enumerate().map(|(index, heard)| Status::of(&sweep.cell(index), heard)).collect())
}

fn complete(sweep: &SweepFolder, all: &[Status]) -> Result<()> {
    status::trouble(sweep, all).map_or(Ok(()), |text| Err(Incomplete::Cells(text).into()))
}
