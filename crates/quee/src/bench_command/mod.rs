//! `quee bench`: how fast this machine is.
//!
//! `gpu`, times of the kernels, of blocks and of whole networks on a graphics adapter:
//!
//! - `table`: rows of figures as text and as CSV
//! - `kernels`: peaks of the adapter and single kernels
//! - `network`: blocks, whole networks, batches of mixed widths
//! - `peer`: our products beside those of burn's wgpu backend
//!
//! On the processor:
//!
//! - `profile`: where the time goes
//! - `runtimes`: beside other runtimes
//!
//! On either: `routing`, what it costs that pictures part ways.
//!
//! `subject` is what profiles and peers run.

mod kernels;
mod network;
mod peer;
mod profile;
mod routing;
mod runtimes;
mod subject;
mod table;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use quee_gpu::bench::Effort;
use quee_gpu::{Gpu, GpuOptions};

use crate::cancel::Cancel;
use crate::folders;
use crate::output::{print, write_whole};
use table::Row;

/// What to measure.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Time the kernels of the GPU backend, blocks and whole networks, on one adapter
    Gpu(GpuArgs),
    /// Run a stored policy on test pictures in batches, beside what its parts take as plain batches
    Routing(routing::RoutingArgs),
    /// Show where a backend's time goes, operation by operation or kernel by kernel
    Profile(profile::ProfileArgs),
    /// Time the CPU backend beside other runtimes on the same weights, in turns; they run in a script of your own
    Peers(runtimes::PeersArgs),
}

impl BenchCommand {
    /// Threads of the pool that it runs in; 0 is one per processor.
    pub fn threads(&self) -> usize {
        match self {
            Self::Gpu(_) | Self::Routing(_) => 0,
            Self::Profile(args) => args.threads.into(),
            Self::Peers(args) => args.threads.into(),
        }
    }
}

/// How to measure.
#[derive(Args)]
pub struct GpuArgs {
    /// Adapter: part of its name [default: the most powerful]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Write all figures to a CSV file in this folder; its name is made of adapter and driver
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Small shapes and short runs: shows that everything works, its figures mean little
    #[arg(long)]
    quick: bool,
    /// What to measure; may be given several times [default: all]
    #[arg(long, value_name = "PART")]
    part: Vec<Part>,
    /// Kernels of the part `kernels` whose names contain this [default: all]
    #[arg(long, value_name = "TEXT")]
    kernel: Option<String>,
    /// Backbone of the part `networks`, a preset; its weights are random [default: `vit_d7_w192_p4_32`]
    #[arg(long, value_name = "PRESET")]
    backbone: Option<String>,
    /// Pictures at a time in the part `networks`; may be given several times [default: 1, 8 and 64]
    #[arg(long, value_name = "N")]
    batch: Vec<NonZero<u16>>,
}

/// A part of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What the adapter reaches at best, and single kernels beside it
    Kernels,
    /// Products beside those of burn's wgpu backend (needs a program built with train-gpu)
    Products,
    /// Blocks, whole networks and batches of mixed widths, beside the CPU backend
    Networks,
}

/// Said of times that a software adapter gives.
pub const SOFTWARE: &str = "software adapter: these are times of the processor, not of a GPU";

/// Measures and prints.
///
/// # Errors
/// When something that is to be measured is not there, it fails, the figures cannot be written, or a wish to stop. Figures of the parts of
/// `gpu` are printed, and written with `--csv`, as soon as they are there.
pub fn run(command: &BenchCommand, cancel: &Cancel) -> Result<()> {
    match command {
        BenchCommand::Gpu(args) => gpu(args, cancel),
        BenchCommand::Routing(args) => print(&routing::run(args, cancel)?),
        BenchCommand::Profile(args) => profile::run(args, cancel),
        BenchCommand::Peers(args) => runtimes::run(args, cancel),
    }
}

fn gpu(args: &GpuArgs, cancel: &Cancel) -> Result<()> {
    if let Some(folder) = &args.csv {
        // Before minutes of measuring.
        std::fs::create_dir_all(folder).with_context(|| {
            format!("{}: cannot create the folder; hint: choose another with --csv", folder.display())
        })?;
    }
    let options = GpuOptions { adapter: args.adapter.clone(), tuning: folders::tuning(), ..GpuOptions::default() };
    let gpu = Gpu::open(&options)?;
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let csv = args.csv.as_ref().map(|folder| folder.join(format!("bench-{}.csv", gpu.info().slug())));
    let mut figures = Figures { gpu: &gpu, csv, rows: Vec::new(), printed: 0 };

    let wanted = |part| args.part.is_empty() || args.part.contains(&part);

    print(&heading(&gpu))?;
    if wanted(Part::Kernels) {
        let (peaks, clock) = kernels::measure(&gpu, effort, args.kernel.as_deref(), cancel, &mut figures.rows)?;
        print(&format!("times of kernels by {clock}\n{}", kernels::peaks_text(&peaks)))?;
        figures.publish()?;
    }
    if wanted(Part::Products) {
        let comparison = peer::measure(&gpu, effort, cancel, &mut figures.rows)?;
        figures.publish()?;
        print(&format!("{comparison}\n"))?;
    }
    if wanted(Part::Networks) {
        let batches: Vec<usize> = args.batch.iter().map(|n| n.get().into()).collect();
        let what = network::Networks { backbone: args.backbone.as_deref(), batches: &batches };
        network::measure(&gpu, effort, &what, cancel, &mut figures.rows)?;
        figures.publish()?;
    }
    if let Some(path) = &figures.csv {
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Figures so far.
struct Figures<'g> {
    gpu: &'g Arc<Gpu>,
    csv: Option<PathBuf>,
    rows: Vec<Row>,
    printed: usize,
}

impl Figures<'_> {
    /// Prints the rows that are new, and writes all to the file.
    fn publish(&mut self) -> Result<()> {
        print(&table::text(&self.rows[self.printed..]))?;
        self.printed = self.rows.len();
        if let Some(path) = &self.csv {
            write(path, &table::csv(&self.rows, self.gpu))?;
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text.as_bytes())
        .with_context(|| format!("{}: cannot write; hint: choose another folder with --csv", path.display()))
}

fn heading(gpu: &Arc<Gpu>) -> String {
    let info = gpu.info();
    let warning = if info.is_software() { format!("WARNING: {SOFTWARE}\n") } else { String::new() };
    format!(
        "{warning}adapter: {} ({}, {}), driver {}\nquee {}, {} choices of `quee tune` in products, blocks and networks\n",
        info.name,
        info.interface,
        info.kind,
        info.driver,
        env!("CARGO_PKG_VERSION"),
        gpu.chosen(),
    )
}
