//! `quee bench profile`: where the time goes, operation by operation on the processor, kernel by kernel on a graphics adapter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use quee_backbone::{Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_gpu::bench::median;
use quee_gpu::{Gpu, GpuEngine, GpuOptions};
use quee_quant::{ActQuantizer, Width};
use serde_json::json;

use super::SOFTWARE;
use super::subject::Subject;
use crate::cancel::Cancel;
use crate::folders;
use crate::output::print;
use crate::quantize::command::names;

/// What to profile.
#[derive(Args)]
pub struct ProfileArgs {
    /// Backbone
    #[arg(long, value_name = "NAME", default_value = "vit_d7_w192_p4_32")]
    preset: String,
    /// Its weights, a safetensors or PyTorch file [default: random ones]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Pictures at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Width of the whole program
    #[arg(long, default_value = "w8a8")]
    width: Width,
    /// Quantizer of activations
    #[arg(long, value_name = "NAME", default_value = "dynamic-token", value_parser = names())]
    quantizer: ActQuantizer,
    /// What runs it
    #[arg(long, value_enum, default_value_t = Runner::Cpu)]
    backend: Runner,
    /// Adapter of the backend `gpu`: part of its name [default: the most powerful]
    #[arg(long, value_name = "NAME", requires_if("gpu", "backend"))]
    adapter: Option<String>,
    /// Threads inside one executor of the backend `cpu`; with more than one, a block that is run at once is one row
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Passes; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What runs a backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Runner {
    /// The processor
    Cpu,
    /// A graphics adapter; its kernels are timed by its own timestamps, each in a pass of its own
    Gpu,
}

/// Measures and prints.
///
/// # Errors
/// When the backbone or the adapter cannot be had or run, or on a wish to stop.
pub fn run(args: &ProfileArgs, cancel: &Cancel) -> Result<()> {
    let subject = Subject::new(&args.preset, args.weights.as_deref(), args.batch as usize)?;
    let plan = Arc::new(subject.plan(args.quantizer, args.width)?);
    let report = match args.backend {
        Runner::Cpu => on_cpu(args, &subject, plan, cancel)?,
        Runner::Gpu => on_gpu(args, &subject, plan, cancel)?,
    };
    print(&if args.json { report.json() } else { report.text() })
}

fn on_cpu<'a>(args: &'a ProfileArgs, subject: &Subject, plan: Arc<QuantPlan>, cancel: &Cancel) -> Result<Report<'a>> {
    let mut executor = CpuEngine::new(plan, Isa::best()).executor();
    executor.set_threads(args.threads.into());
    executor.set_width(args.width)?;
    let row = |row: &quee_cpu::ProfileRow| Row {
        operation: row.operation.to_owned(),
        place: row.place.clone(),
        detail: row.width.to_string(),
        calls: row.calls,
        seconds: row.time.as_secs_f64(),
    };
    let (mut fastest, mut times) = (Pass::default(), Vec::new());
    // The first pass packs weights and fills caches.
    for pass in 0..=args.runs {
        cancel.check()?;
        executor.profile(true);
        let seconds = logits(subject, &mut executor, args)?;
        if pass > 0 {
            times.push(seconds);
            if fastest.rows.is_empty() || seconds < fastest.seconds {
                fastest = Pass { seconds, rows: executor.profiled().iter().map(row).collect() };
            }
        }
    }
    let kernels = executor.name();
    Ok(Report { args, kernels, rest: "between operations", notes: Vec::new(), fastest, median: median(times) })
}

/// Times of kernels come from passes in which each is timed, those of a pass from passes in which none is.
fn on_gpu<'a>(args: &'a ProfileArgs, subject: &Subject, plan: Arc<QuantPlan>, cancel: &Cancel) -> Result<Report<'a>> {
    let options = GpuOptions { adapter: args.adapter.clone(), tuning: folders::tuning(), ..GpuOptions::default() };
    let gpu = Gpu::open(&options)?;
    let mut executor = GpuEngine::on(plan, Arc::clone(&gpu)).executor()?;
    executor.set_width(args.width)?;
    let mut fastest = Pass::default();
    let mut times = Vec::new();
    for pass in 0..=args.runs {
        cancel.check()?;
        let seconds = logits(subject, &mut executor, args)?;
        if pass > 0 {
            times.push(seconds);
        }
    }
    fastest.seconds = times.iter().copied().fold(f64::INFINITY, f64::min);
    let total = |rows: &[Row]| rows.iter().map(|row| row.seconds).sum::<f64>();
    for _ in 0..args.runs {
        cancel.check()?;
        executor.profile(true)?;
        logits(subject, &mut executor, args)?;
        let rows: Vec<Row> = executor
            .profiled()
            .iter()
            .map(|row| Row {
                operation: row.kernel.to_owned(),
                place: row.place.clone(),
                detail: row.workgroups.map(|n| n.to_string()).join("x"),
                calls: row.calls,
                seconds: row.seconds,
            })
            .collect();
        if fastest.rows.is_empty() || total(&rows) < total(&fastest.rows) {
            fastest.rows = rows;
        }
    }
    let mut notes = Vec::new();
    if gpu.info().is_software() {
        notes.push(format!("WARNING: {SOFTWARE}"));
    }
    notes.push(match total(&fastest.rows) > 0.0 {
        true => "kernels by the adapter's timestamps, one by one; the last column is their workgroups".into(),
        false => "the adapter has no timestamps: kernels cannot be timed one by one".into(),
    });
    let rest = "host, and what one kernel hides of another";
    Ok(Report { args, kernels: executor.name(), rest, notes, fastest, median: median(times) })
}

/// Pictures to logits; the seconds that it took.
fn logits(subject: &Subject, executor: &mut dyn Executor, args: &ProfileArgs) -> Result<f64> {
    let start = Instant::now();
    let images = subject.input(executor, 0, args.batch as usize)?;
    let logits = subject.backbone.logits(executor, &images)?;
    let logits = executor.read(&logits)?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(logits.iter().all(|x| x.is_finite()), "{}: logits are not finite", args.preset);
    Ok(seconds)
}

/// Time of one kind of operation.
struct Row {
    operation: String,
    place: String,
    /// Width, or workgroups.
    detail: String,
    calls: u64,
    seconds: f64,
}

/// One pass of pictures to logits.
#[derive(Default)]
struct Pass {
    seconds: f64,
    rows: Vec<Row>,
}

struct Report<'a> {
    args: &'a ProfileArgs,
    kernels: String,
    /// What the time is called that no row has.
    rest: &'static str,
    /// Said before the table.
    notes: Vec<String>,
    fastest: Pass,
    /// Seconds of a pass.
    median: f64,
}

/// Characters of the longest bar.
const BAR: usize = 24;

/// Parts of a backbone, in the order of the program.
const PARTS: [&str; 3] = ["around the blocks", "attention", "MLP"];

/// The part that a place belongs to.
fn part(place: &str) -> &'static str {
    match place.split('.').next() {
        Some("attn") => PARTS[1],
        Some("mlp") => PARTS[2],
        _ => PARTS[0],
    }
}

/// A bar of `share` of the longest one, in eighths of a character.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (8 * BAR) as f64).round() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let bar = "█".repeat(eighths / 8) + rest;
    let blank = BAR - bar.chars().count();
    bar + &" ".repeat(blank)
}

impl Report<'_> {
    /// Parts, largest first, each with its rows, largest first.
    fn parts(&self) -> Vec<(&'static str, f64, Vec<&Row>)> {
        let of = |name: &'static str| {
            let mut rows: Vec<&Row> = self.fastest.rows.iter().filter(|row| part(&row.place) == name).collect();
            rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
            (name, rows.iter().map(|row| row.seconds).sum(), rows)
        };
        let mut parts: Vec<(_, f64, Vec<_>)> = PARTS.map(of).into();
        parts.retain(|(.., rows)| !rows.is_empty());
        parts.sort_by(|(_, a, _), (_, b, _)| b.total_cmp(a));
        parts
    }

    fn share(&self, seconds: f64) -> f64 {
        seconds / self.fastest.seconds
    }

    fn text(&self) -> String {
        let ProfileArgs { preset, batch, width, quantizer, threads, runs, .. } = self.args;
        let s = |count: u32| if count == 1 { "" } else { "s" };
        let mut out = format!(
            "{preset}, {width}, {}, {}, batch of {batch}, {threads} thread{}: the fastest of {runs} pass{} took {:.3} ms, the median {:.3} ms\n\n",
            quantizer.name(),
            self.kernels,
            s((*threads).into()),
            if *runs == 1 { "" } else { "es" },
            1e3 * self.fastest.seconds,
            1e3 * self.median,
        );
        for note in &self.notes {
            out += &format!("{note}\n\n");
        }
        let parts = self.parts();
        let labels = parts.iter().flat_map(|(_, _, rows)| rows.iter().map(|row| row.operation.chars().count() + 2));
        let label = labels.chain(PARTS.map(str::len)).max().unwrap_or(0);
        let place = self.fastest.rows.iter().map(|row| row.place.len()).max().unwrap_or(0).max(5);
        let heading = format!(
            "  {:BAR$}  {:>6}  {:>9}  {:>6}  {:label$}  {:place$}  {}",
            "",
            "share",
            "ms",
            "calls",
            "",
            "place",
            if self.args.backend == Runner::Cpu { "width" } else { "workgroups" }
        );
        out += &(heading.trim_end().to_owned() + "\n");
        let mut line = |seconds: f64, calls: &str, what: &str, at: &str, width: &str| {
            let (share, ms) = (self.share(seconds), 1e3 * seconds);
            let line = format!(
                "  {}  {:>5.1}%  {ms:>9.4}  {calls:>6}  {what:label$}  {at:place$}  {width}",
                bar(share),
                100.0 * share
            );
            out += &(line.trim_end().to_owned() + "\n");
        };
        for (name, time, rows) in &parts {
            line(*time, "", name, "", "");
            for row in rows {
                line(row.seconds, &row.calls.to_string(), &format!("  {}", row.operation), &row.place, &row.detail);
            }
        }
        let known: f64 = self.fastest.rows.iter().map(|row| row.seconds).sum();
        line((self.fastest.seconds - known).max(0.0), "", self.rest, "", "");
        out
    }

    fn json(&self) -> String {
        let ProfileArgs { preset, batch, width, quantizer, threads, runs, .. } = self.args;
        let detail = if self.args.backend == Runner::Cpu { "width" } else { "workgroups" };
        let row = |row: &Row| {
            json!({
                "part": part(&row.place),
                "operation": row.operation,
                "place": row.place,
                detail: row.detail,
                "calls": row.calls,
                "ms": 1e3 * row.seconds,
                "share": self.share(row.seconds),
            })
        };
        let rows: Vec<_> = self.parts().iter().flat_map(|(.., rows)| rows.iter().map(|x| row(x))).collect();
        let report = json!({
            "preset": preset,
            "width": width.to_string(),
            "quantizer": quantizer.name(),
            "kernels": self.kernels,
            "batch": batch,
            "threads": threads,
            "runs": runs,
            "fastest_ms": 1e3 * self.fastest.seconds,
            "median_ms": 1e3 * self.median,
            "rows": rows,
        });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_their_column() {
        for (share, full) in [(0.0, 0), (0.5, 12), (1.0, 24), (1.7, 24)] {
            assert_eq!(bar(share).chars().filter(|c| *c == '█').count(), full);
        }
        assert!((0..=100).all(|percent| bar(f64::from(percent) / 100.0).chars().count() == BAR));
        assert!(bar(1.0 / 192.0).starts_with('▏'));
    }

    #[test]
    fn places_belong_to_parts() {
        let parts = ["attn.qkv", "attn", "mlp.fc1", "patch_embed.proj", ""].map(part);
        assert_eq!(parts, ["attention", "attention", "MLP", "around the blocks", "around the blocks"]);
    }
}
