//! `quee bench profile`: where the CPU executor's time goes, operation by operation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use quee_backbone::Executor;
use quee_cpu::{CpuEngine, Isa, ProfileRow};
use quee_gpu::bench::median;
use quee_quant::{ActQuantizer, Width};
use serde_json::json;

use super::subject::Subject;
use crate::cancel::Cancel;
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
    /// Threads inside one executor; with more than one, a block that is run at once is one row
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Passes; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// When the backbone cannot be had or run, or on a wish to stop.
pub fn run(args: &ProfileArgs, cancel: &Cancel) -> Result<()> {
    let batch = args.batch as usize;
    let subject = Subject::new(&args.preset, args.weights.as_deref(), batch)?;
    let engine = CpuEngine::new(Arc::new(subject.plan(args.quantizer, args.width)?), Isa::best());
    let mut executor = engine.executor();
    executor.set_threads(args.threads.into());
    executor.set_width(args.width)?;
    let (mut fastest, mut times) = (Pass::default(), Vec::new());
    // The first pass packs weights and fills caches.
    for pass in 0..=args.runs {
        cancel.check()?;
        executor.profile(true);
        let start = Instant::now();
        let images = subject.input(&mut executor, 0, batch)?;
        let logits = subject.backbone.logits(&mut executor, &images)?;
        let logits = executor.read(&logits)?;
        let time = start.elapsed();
        ensure!(logits.iter().all(|x| x.is_finite()), "{}: logits are not finite", args.preset);
        if pass > 0 {
            times.push(time.as_secs_f64());
            if fastest.rows.is_empty() || time < fastest.time {
                fastest = Pass { time, rows: executor.profiled().to_vec() };
            }
        }
    }
    let report = Report { args, kernels: executor.name(), fastest, median: median(times) };
    print(&if args.json { report.json() } else { report.text() })
}

/// One pass of pictures to logits.
#[derive(Default)]
struct Pass {
    time: Duration,
    rows: Vec<ProfileRow>,
}

struct Report<'a> {
    args: &'a ProfileArgs,
    kernels: String,
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
    fn parts(&self) -> Vec<(&'static str, Duration, Vec<&ProfileRow>)> {
        let of = |name: &'static str| {
            let mut rows: Vec<&ProfileRow> = self.fastest.rows.iter().filter(|row| part(&row.place) == name).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.time));
            (name, rows.iter().map(|row| row.time).sum(), rows)
        };
        let mut parts: Vec<(_, Duration, Vec<_>)> = PARTS.map(of).into();
        parts.retain(|(.., rows)| !rows.is_empty());
        parts.sort_by_key(|(_, time, _)| std::cmp::Reverse(*time));
        parts
    }

    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.fastest.time.as_secs_f64()
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
            1e3 * self.fastest.time.as_secs_f64(),
            1e3 * self.median,
        );
        let parts = self.parts();
        let labels = parts.iter().flat_map(|(_, _, rows)| rows.iter().map(|row| row.operation.chars().count() + 2));
        let label = labels.chain(PARTS.map(str::len)).max().unwrap_or(0);
        let place = self.fastest.rows.iter().map(|row| row.place.len()).max().unwrap_or(0).max(5);
        let heading = format!(
            "  {:BAR$}  {:>6}  {:>9}  {:>6}  {:label$}  {:place$}  width",
            "", "share", "ms", "calls", "", "place"
        );
        out += &(heading.trim_end().to_owned() + "\n");
        let mut line = |time: Duration, calls: &str, what: &str, at: &str, width: &str| {
            let (share, ms) = (self.share(time), 1e3 * time.as_secs_f64());
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
                let width = row.width.to_string();
                line(row.time, &row.calls.to_string(), &format!("  {}", row.operation), &row.place, &width);
            }
        }
        let known: Duration = self.fastest.rows.iter().map(|row| row.time).sum();
        line(self.fastest.time.saturating_sub(known), "", "between operations", "", "");
        out
    }

    fn json(&self) -> String {
        let ProfileArgs { preset, batch, width, quantizer, threads, runs, .. } = self.args;
        let row = |row: &ProfileRow| {
            json!({
                "part": part(&row.place),
                "operation": row.operation,
                "place": row.place,
                "width": row.width.to_string(),
                "calls": row.calls,
                "ms": 1e3 * row.time.as_secs_f64(),
                "share": self.share(row.time),
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
            "fastest_ms": 1e3 * self.fastest.time.as_secs_f64(),
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
