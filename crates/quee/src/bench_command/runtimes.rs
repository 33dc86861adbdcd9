//! `quee bench peers`: the CPU executor beside the runtimes that a user would otherwise pick, on the same weights, in turns.
//!
//! The others run in a script of the user's, which is called as `SCRIPT --model NAME --batch N --threads N --runs N --weights FILE` and
//! prints one line of JSON: for each runtime the milliseconds of a batch. Whatever in it is no number, and the settings themselves, are passed over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{ExecError, Executor};
use quee_cpu::{CpuEngine, CpuExecutor, Isa};
use quee_gpu::bench::median;
use quee_quant::{ActQuantizer, Width};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::subject::Subject;
use crate::cancel::Cancel;
use crate::output::print;

/// What to compare with.
#[derive(Args)]
pub struct PeersArgs {
    /// Python that has what the script needs
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// Script that times the other runtimes and prints one line of JSON, milliseconds of a batch by name; it is given --model, --batch, --threads,
    /// --runs and --weights
    #[arg(long, value_name = "FILE")]
    script: PathBuf,
    /// Backbone
    #[arg(long, value_name = "NAME", default_value = "vit_d7_w192_p4_32")]
    preset: String,
    /// Its weights, a safetensors file with timm's names [default: random ones]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Pictures at a time; may be given several times
    #[arg(long, value_name = "N", default_values_t = [64, 1], value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Vec<u32>,
    /// Threads of each [default: one per processor]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: u16,
    /// Rounds, in which all run one after the other
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Batches in a round, whose median counts
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Our variants. The first is what the others are held against.
const OURS: [(&str, ActQuantizer, bool); 4] = [
    ("quee int8 static", ActQuantizer::Minmax, false),
    ("quee int8 static, last block in full", ActQuantizer::Minmax, true),
    ("quee int8 dynamic", ActQuantizer::DynamicToken, false),
    ("quee int8 dynamic, last block in full", ActQuantizer::DynamicToken, true),
];

/// What the script is told and may tell again.
const SETTINGS: [&str; 4] = ["model", "batch", "threads", "runs"];

/// Measures and prints.
///
/// # Errors
/// When Python, the script or the weights are missing, the script fails or prints something else, or on a wish to stop.
pub fn run(args: &PeersArgs, cancel: &Cancel) -> Result<()> {
    ensure!(
        args.python.is_file(),
        "{}: no such program; hint: --python names the interpreter of an environment with the runtimes to compare with, e.g. .venv/bin/python",
        args.python.display()
    );
    ensure!(args.script.is_file(), "{}: no such script; hint: see --script", args.script.display());
    let threads = rayon::current_num_threads();
    let most = args.batch.iter().copied().max().unwrap_or(1) as usize;
    let subject = Subject::new(&args.preset, args.weights.as_deref(), most)?;
    let folder = tempfile::tempdir().context("cannot create a folder for the weights")?;
    let weights = match &args.weights {
        Some(path) => path.clone(),
        None => write_weights(&subject, folder.path())?,
    };
    let mut tables = Vec::new();
    for &batch in &args.batch {
        let peers = Peers { args, weights: &weights, threads, batch };
        let table = peers.compare(&subject, cancel)?;
        if !args.json {
            print(&table.text())?;
        }
        tables.push(table.json());
    }
    if args.json {
        print(&format!("{:#}\n", Value::from(tables)))?;
    }
    Ok(())
}

/// The backbone's tensors as published checkpoints name them.
fn write_weights(subject: &Subject, folder: &Path) -> Result<PathBuf> {
    let values: Vec<Vec<f32>> = subject.backbone.params().iter().map(|param| param.data.to_vec()).collect();
    let tensors: Vec<TensorData> = subject
        .backbone
        .export(&values)
        .into_iter()
        .map(|(name, shape, data)| TensorData::f32(name, shape, data))
        .collect();
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, encode(&tensors, &Default::default()))
        .with_context(|| format!("{}: cannot write", path.display()))?;
    Ok(path)
}

/// One batch size.
struct Peers<'a> {
    args: &'a PeersArgs,
    weights: &'a Path,
    threads: usize,
    batch: u32,
}

/// Milliseconds of each in every round, ours first.
struct Table {
    title: String,
    batch: u32,
    threads: usize,
    times: Vec<(String, Vec<f64>)>,
}

impl Peers<'_> {
    fn compare(&self, subject: &Subject, cancel: &Cancel) -> Result<Table> {
        let width = Width::new(8, 8).expect("8 bits are a width");
        let mut ours = Vec::new();
        for (name, activations, full) in OURS {
            let engine = CpuEngine::new(Arc::new(subject.plan(activations, width)?), Isa::best());
            ours.push((name, Ours::new(&engine, width, full, self.threads, self.batch as usize)?));
        }
        let mut times: Vec<(String, Vec<f64>)> =
            OURS.iter().map(|(name, ..)| ((*name).to_owned(), Vec::new())).collect();
        for round in 0..self.args.rounds as usize {
            for ((_, ours), (_, times)) in ours.iter_mut().zip(&mut times) {
                cancel.check()?;
                times.push(ours.median(subject, self.args.runs)?);
            }
            cancel.check()?;
            for (name, time) in self.script()? {
                match times.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, times)) => times.push(time),
                    None if round == 0 => times.push((name, vec![time])),
                    None => bail!("{}: `{name}` is not in every answer", self.args.script.display()),
                }
            }
            let missing = times.iter().find(|(_, times)| times.len() != round + 1);
            if let Some((name, _)) = missing {
                bail!("{}: `{name}` is not in every answer, or twice in one", self.args.script.display());
            }
        }
        let title = format!("{}, {}", self.args.preset, Isa::best());
        Ok(Table { title, batch: self.batch, threads: self.threads, times })
    }

    /// What the script says: milliseconds by name.
    fn script(&self) -> Result<Vec<(String, f64)>> {
        let PeersArgs { python, script, preset, runs, .. } = self.args;
        let mut command = Command::new(python);
        command.arg(script).args(["--model", preset]).arg("--weights").arg(self.weights);
        for (option, value) in [("--batch", self.batch), ("--threads", self.threads as u32), ("--runs", *runs)] {
            command.args([option, &value.to_string()]);
        }
        let output = command
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("{}: cannot be started; hint: --python names an interpreter", python.display()))?;
        let place = script.display();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
            bail!("{place}: failed ({}): {last}; hint: run it by hand with {}", output.status, python.display());
        }
        answers(&String::from_utf8_lossy(&output.stdout)).with_context(|| place.to_string())
    }
}

/// The numbers of the last line.
fn answers(text: &str) -> Result<Vec<(String, f64)>> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(line).map_err(|error| anyhow!("its last line is no JSON object: {error}"))?;
    let numbers = object.into_iter().filter(|(name, _)| !SETTINGS.contains(&name.as_str()));
    let numbers: Vec<(String, f64)> = numbers.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect();
    ensure!(!numbers.is_empty(), "its last line has no milliseconds");
    if let Some((name, time)) = numbers.iter().find(|(_, time)| *time <= 0.0) {
        bail!("`{name}` took {time} ms");
    }
    Ok(numbers)
}

/// One of our variants: an executor for each thread, or for one picture one executor on all threads.
struct Ours {
    executors: Vec<CpuExecutor>,
    batch: usize,
    full: bool,
}

impl Ours {
    fn new(engine: &Arc<CpuEngine>, width: Width, full: bool, threads: usize, batch: usize) -> Result<Self, ExecError> {
        let count = threads.min(batch);
        let mut executors: Vec<CpuExecutor> = (0..count).map(|_| engine.executor()).collect();
        for executor in &mut executors {
            executor.set_width(width)?;
            if count == 1 {
                executor.set_threads(threads);
            }
        }
        Ok(Self { executors, batch, full })
    }

    fn once(&mut self, subject: &Subject) -> Result<(), ExecError> {
        let (batch, full, part) = (self.batch, self.full, self.batch.div_ceil(self.executors.len()));
        self.executors.par_iter_mut().enumerate().try_for_each(|(i, executor)| {
            let from = (i * part).min(batch);
            let count = part.min(batch - from);
            if count == 0 {
                return Ok(());
            }
            let images = subject.input(executor, from, count)?;
            let backbone = &subject.backbone;
            let logits =
                if full { backbone.forward(executor, &images)? } else { backbone.logits(executor, &images)? };
            executor.read(&logits).map(drop)
        })
    }

    /// Milliseconds of a batch: the median of some, after two that warm up.
    fn median(&mut self, subject: &Subject, runs: u32) -> Result<f64, ExecError> {
        let mut times = Vec::new();
        for _ in 0..runs + 2 {
            let start = Instant::now();
            self.once(subject)?;
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
        Ok(median(times.split_off(2)))
    }
}

impl Table {
    /// Name, median and least milliseconds, and the median over the rounds of how many times as long as our first.
    fn rows(&self) -> Vec<(&str, [f64; 2], f64)> {
        let first = &self.times[0].1;
        let ratio = |times: &[f64]| median(times.iter().zip(first).map(|(time, first)| time / first).collect());
        let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        let rows = self.times.iter();
        rows.map(|(name, times)| (name.as_str(), [median(times.clone()), least(times)], ratio(times))).collect()
    }

    fn text(&self) -> String {
        let rows = self.rows();
        let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let rounds = self.times[0].1.len();
        let mut out = format!(
            "\n{}, batch of {}, {} threads, medians of {rounds} rounds\n  {:width$}  {:>10}  {:>10}  {:>10}\n",
            self.title, self.batch, self.threads, "", "ms", "least ms", "times ours"
        );
        for (name, [ms, least], ratio) in rows {
            out += &format!("  {name:width$}  {ms:>10.3}  {least:>10.3}  {ratio:>10.2}\n");
        }
        out
    }

    fn json(&self) -> Value {
        let row = |(name, [ms, least], ratio): (&str, [f64; 2], f64)| json!({ "name": name, "ms": ms, "least_ms": least, "times_ours": ratio });
        json!({
            "what": self.title,
            "batch": self.batch,
            "threads": self.threads,
            "rounds": self.times[0].1.len(),
            "rows": self.rows().into_iter().map(row).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_last_line_count() {
        let text =
            "a warning\n{\"model\": \"x\", \"batch\": 4, \"threads\": 2, \"a\": 1.5, \"note\": \"n\", \"b\": 3}\n\n";
        assert_eq!(answers(text).unwrap(), [("a".to_owned(), 1.5), ("b".to_owned(), 3.0)]);
        for bad in ["", "no JSON", "{\"batch\": 4}", "[1]", "{\"a\": 0}"] {
            assert!(answers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let times = vec![("ours".to_owned(), vec![1.0, 10.0, 2.0]), ("other".to_owned(), vec![3.0, 20.0, 6.0])];
        let table = Table { title: "x".into(), batch: 1, threads: 2, times };
        assert_eq!(table.rows(), [("ours", [2.0, 1.0], 1.0), ("other", [6.0, 3.0], 3.0)]);
        assert!(table.text().contains("other       6.000       3.000        3.00"), "{}", table.text());
    }
}
