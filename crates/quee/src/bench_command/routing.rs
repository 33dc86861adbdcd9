//! `quee bench routing`: [what it costs that pictures part ways](crate::stages::efficiency), for a stored policy.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use quee_policy::lambda::within_budget;
use serde::Serialize;

use crate::artefact;
use crate::backend::{Device, DeviceArgs};
use crate::cancel::Cancel;
use crate::stages::efficiency::{Bench, Efficiency};
use crate::stages::prepare::prepare;

/// Which policy, which setting, how many pictures.
#[derive(Args)]
pub struct RoutingArgs {
    /// Results folder of a run, e.g. runs/digits/latest
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Price of computing, as for `quee predict`
    #[arg(long, value_name = "L", required_unless_present = "budget", conflicts_with = "budget")]
    lambda: Option<f64>,
    /// Mean cost per picture, relative to the float backbone
    #[arg(long, value_name = "R")]
    budget: Option<f64>,
    /// Pictures of a batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Most test pictures
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pictures: usize,
    /// Batches at a time, each on a thread of its own; 0: one per processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came out, and on what.
#[derive(Serialize)]
struct Report {
    backend: String,
    #[serde(flatten)]
    found: Efficiency,
}

/// Measures; the text to print.
///
/// # Errors
/// When the run or its data cannot be read, no setting is within the budget, the executor fails, or on a wish to stop.
pub fn run(args: &RoutingArgs, cancel: &Cancel) -> Result<String> {
    let policy = artefact::read(&args.run)?;
    let mut recipe = policy.recipe.clone();
    args.device.apply(&mut recipe)?;
    let prepared = prepare(&recipe, None, None)?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    ensure!(args.batch > 0, "--batch 0: a batch has at least one picture");
    let settings: Vec<(f64, f64)> =
        policy.settings.iter().map(|s| (s.lambda.unwrap_or(f64::INFINITY), s.cal_cost)).collect();
    let lambda = match (args.lambda, args.budget) {
        (Some(lambda), _) => lambda,
        (None, Some(budget)) => {
            let found = within_budget(&settings, budget)
                .with_context(|| format!("--budget {budget}: no setting of the run is that cheap"))?;
            settings[found].0
        }
        (None, None) => bail!("name --lambda or --budget"),
    };
    let commit = policy.settings.iter().rfind(|s| s.lambda.unwrap_or(f64::INFINITY) <= lambda).and_then(|s| s.commit);
    let threads = if args.threads == 0 { rayon::current_num_threads() } else { args.threads };
    let engine = device.engine(policy.plan.clone());
    let bench = Bench { policy: &policy, prepared: &prepared, engine: engine.as_ref(), lambda, commit, cancel };
    let test = &prepared.splits.test[..args.pictures.min(prepared.splits.test.len())];
    let report = Report { backend: device.describe(), found: bench.measure(test, args.batch, threads)? };
    if args.json {
        return Ok(serde_json::to_string(&report)? + "\n");
    }
    Ok(text(&report.backend, &report.found))
}

fn text(backend: &str, report: &Efficiency) -> String {
    let mut text = String::new();
    let path = if report.committed { ", all on one path" } else { "" };
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {} pictures in batches of {}, {} at a time; pictures per second and thread\n\n{:24} {:>9} {:>9}",
        backend, report.pictures, report.batch, report.threads, "", "accuracy", "rate"
    );
    let name = format!("policy{path}");
    let _ = writeln!(text, "{name:24} {:>9.4} {:>9.0}", report.accuracy, report.policy_rate);
    let _ = writeln!(text, "{:24} {:>9} {:>9.0}", "its parts, plain batches", "", report.mix_rate);
    for of in &report.statics {
        let (name, ratio) = (format!("{} at full depth", of.width), of.policy_over_this);
        let _ = writeln!(text, "{name:24} {:>9.4} {:>9.0}   policy / this {ratio:.2}", of.accuracy, of.rate);
    }
    let _ = writeln!(
        text,
        "\nrouting efficiency {:.3}; mean depth {:.2} segments",
        report.routing_efficiency, report.mean_depth
    );
    let parts = &report.parts;
    let line = |times: &[f64]| times.iter().map(|ms| format!(" {ms:8.4}")).collect::<String>();
    let _ = writeln!(text, "\nmilliseconds of a picture in plain batches\n{:24}{}", "stem", line(&[parts.stem_ms]));
    for (of, segments) in report.statics.iter().zip(&parts.segments_ms) {
        let _ = writeln!(text, "{:24}{}", format!("segments, {}", of.width), line(segments));
    }
    let _ = writeln!(text, "{:24}{}", "features, exit, gate", line(&parts.looks_ms));
    text
}
