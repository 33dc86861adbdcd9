//! `quee bench routing`: what it costs that pictures part ways.
//!
//! A stored policy runs on test pictures in batches. On the same batches, in turns, every width runs at full depth with each part timed, so
//! that one knows what the segments, exits and gates that the policy ran would have taken as plain batches. *Routing efficiency* is that
//! time divided by the time of the policy.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use quee_backbone::Executor;
use quee_policy::lambda::within_budget;
use quee_policy::tree::NodeId;
use quee_quant::Width;
use serde::Serialize;

use crate::artefact::{self, StoredPolicy};
use crate::backend::{Device, DeviceArgs, Engine};
use crate::cancel::Cancel;
use crate::stages::answers::NodeAnswers;
use crate::stages::prepare::{Prepared, prepare};
use crate::stages::route::{Routed, Router};
use crate::stages::walk::Program;

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

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    backend: String,
    pictures: usize,
    batch: usize,
    threads: usize,
    lambda: Option<f64>,
    /// Whether all pictures run one path, and nobody asks a gate.
    committed: bool,
    accuracy: f64,
    mean_depth: f64,
    /// Pictures per second and thread.
    policy_rate: f64,
    /// What the parts that ran would give as plain batches.
    mix_rate: f64,
    routing_efficiency: f64,
    /// Full depth at one width, without exits on the way, by width.
    statics: Vec<Static>,
}

#[derive(Debug, Serialize)]
struct Static {
    width: String,
    accuracy: f64,
    rate: f64,
    /// Rate of the policy divided by this one.
    policy_over_this: f64,
}

/// Seconds and pictures.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    seconds: f64,
    pictures: usize,
}

impl Spent {
    fn add(&mut self, since: Instant, pictures: usize) {
        self.seconds += since.elapsed().as_secs_f64();
        self.pictures += pictures;
    }

    fn each(self) -> f64 {
        self.seconds / self.pictures.max(1) as f64
    }
}

/// What all batches took.
#[derive(Clone, Debug)]
struct Times {
    policy: Spent,
    stem: Spent,
    /// `[width][segment]`.
    segments: Vec<Vec<Spent>>,
    /// Features, exit and gate behind each segment.
    looks: Vec<Spent>,
    /// `[width]`: pictures that are right at full depth.
    right: Vec<usize>,
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
    let (times, routed) = bench.measure(test, args.batch, threads)?;
    let report = bench.report(&device.describe(), &times, &routed, test, args.batch, threads);
    if args.json {
        return Ok(serde_json::to_string(&report)? + "\n");
    }
    Ok(text(&report))
}

struct Bench<'a> {
    policy: &'a StoredPolicy,
    prepared: &'a Prepared,
    engine: &'a dyn Engine,
    lambda: f64,
    commit: Option<NodeId>,
    cancel: &'a Cancel,
}

impl Bench<'_> {
    /// Every batch once by the policy and once at each width, in turns; the first batch of each thread is repeated.
    fn measure(&self, pictures: &[usize], batch: usize, threads: usize) -> Result<(Times, Vec<Routed>)> {
        let batches: Vec<&[usize]> = pictures.chunks(batch).collect();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let worker = || -> Result<Times> {
            let mut executor = self.engine.executor()?;
            let mut times = self.nothing();
            let mut warm = false;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(chosen) = batches.get(index) else { return Ok(times) };
                self.cancel.check()?;
                let images = self.prepared.images(chosen)?;
                if !std::mem::replace(&mut warm, true) {
                    self.batch(executor.as_mut(), &images, chosen, index, &mut self.nothing())?;
                }
                let routed = self.batch(executor.as_mut(), &images, chosen, index, &mut times)?;
                done.lock().expect("nobody panics here").push((index, routed));
            }
        };
        let times = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<_>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect::<Result<Vec<Times>>>()
        })?;
        let mut all = self.nothing();
        for part in &times {
            all.join(part);
        }
        let mut routed = done.into_inner().expect("nobody panics here");
        routed.sort_unstable_by_key(|(index, _)| *index);
        Ok((all, routed.into_iter().flat_map(|(_, routed)| routed).collect()))
    }

    fn nothing(&self) -> Times {
        let (widths, segments) = (self.policy.tree.widths(), self.policy.tree.segments());
        Times {
            policy: Spent::default(),
            stem: Spent::default(),
            segments: vec![vec![Spent::default(); segments]; widths],
            looks: vec![Spent::default(); segments],
            right: vec![0; widths],
        }
    }

    /// The policy and every width, beginning with another one for each batch.
    fn batch(
        &self,
        executor: &mut dyn Executor,
        images: &[f32],
        chosen: &[usize],
        index: usize,
        times: &mut Times,
    ) -> Result<Vec<Routed>> {
        let widths = self.policy.tree.widths();
        let mut routed = Vec::new();
        for turn in 0..=widths {
            match (turn + index) % (widths + 1) {
                0 => {
                    let router = Router::new(self.policy, self.lambda, self.commit);
                    let start = Instant::now();
                    routed = router.run(executor, images)?;
                    times.policy.add(start, chosen.len());
                }
                width => self.full_depth(executor, images, chosen, width - 1, times)?,
            }
        }
        Ok(routed)
    }

    fn full_depth(
        &self,
        executor: &mut dyn Executor,
        images: &[f32],
        chosen: &[usize],
        width: usize,
        times: &mut Times,
    ) -> Result<()> {
        let (policy, recipe, tree) = (self.policy, &self.policy.recipe, &self.policy.tree);
        let program =
            Program { backbone: policy.backbone.as_ref(), segments: &recipe.paths.segments, stem: recipe.quant.stem };
        let of_width: Width = recipe.quant.widths[width];
        let start = Instant::now();
        let mut tokens = program.stem(executor, images, recipe.quant.stem)?;
        times.stem.add(start, chosen.len());
        let mut before: Option<NodeAnswers> = None;
        for segment in 0..tree.segments() {
            let start = Instant::now();
            tokens = program.segment(executor, segment, of_width, &tokens)?;
            times.segments[width][segment].add(start, chosen.len());
            let start = Instant::now();
            let features = program.features(executor, segment, &tokens)?;
            let head = &policy.heads.0[segment];
            let said = NodeAnswers::compute_after(head, &features, before.as_ref().filter(|_| head.is_cascade()));
            if let (Some(gate), Some(node)) = (policy.gates.get(segment), tree.find(&vec![width; segment + 1])) {
                let (classes, dim) = (head.classes(), features.len() / chosen.len());
                let (so_far, prefix) = (tree.widths_of(node), tree.prefix_index(node));
                let (mut row, mut predicted) = (Vec::new(), Vec::new());
                for at in 0..chosen.len() {
                    row.clear();
                    let of = |said: &NodeAnswers| said.probabilities[at * classes..(at + 1) * classes].to_vec();
                    let previous = before.as_ref().map(of);
                    let token = &features[at * dim..(at + 1) * dim];
                    gate.spec().write(segment + 1, &of(&said), previous.as_deref(), &so_far, token, &mut row);
                    gate.predict(&row, prefix, &mut predicted);
                    std::hint::black_box(&predicted);
                }
            }
            times.looks[segment].add(start, chosen.len());
            before = Some(said);
        }
        let labels = self.prepared.data.labels_of(chosen);
        let said = before.context("there is at least one segment")?;
        times.right[width] += said.answers.iter().zip(&labels).filter(|(answer, label)| answer == label).count();
        Ok(())
    }

    fn report(
        &self,
        backend: &str,
        times: &Times,
        routed: &[Routed],
        test: &[usize],
        batch: usize,
        threads: usize,
    ) -> Report {
        let tree = &self.policy.tree;
        let (labels, count) = (self.prepared.data.labels_of(test), routed.len() as f64);
        // Who commits looks once, at the end.
        let looks = |depth: usize| -> f64 {
            match self.commit {
                Some(_) => times.looks[depth - 1].each(),
                None => times.looks[..depth].iter().map(|look| look.each()).sum(),
            }
        };
        let parts = |routed: &Routed| -> f64 {
            let path = tree.widths_of(routed.node);
            let segments = path.iter().enumerate().map(|(segment, &width)| times.segments[width][segment].each());
            times.stem.each() + segments.sum::<f64>() + looks(path.len())
        };
        let mix: f64 = routed.iter().map(parts).sum();
        let policy_rate = 1.0 / times.policy.each();
        let mix_rate = count / mix;
        let of_width = |width: usize| {
            let segments: f64 = times.segments[width].iter().map(|spent| spent.each()).sum();
            let last = times.looks.last().copied().unwrap_or_default();
            let rate = 1.0 / (times.stem.each() + segments + last.each());
            Static {
                width: self.policy.recipe.quant.widths[width].to_string(),
                accuracy: times.right[width] as f64 / count,
                rate,
                policy_over_this: policy_rate / rate,
            }
        };
        let right = routed.iter().zip(&labels).filter(|(routed, label)| routed.class == **label).count();
        Report {
            backend: backend.to_owned(),
            pictures: routed.len(),
            batch,
            threads,
            lambda: self.lambda.is_finite().then_some(self.lambda),
            committed: self.commit.is_some(),
            accuracy: right as f64 / count,
            mean_depth: routed.iter().map(|routed| tree.node(routed.node).depth as f64).sum::<f64>() / count,
            policy_rate,
            mix_rate,
            routing_efficiency: policy_rate / mix_rate,
            statics: (0..tree.widths()).map(of_width).collect(),
        }
    }
}

impl Times {
    fn join(&mut self, other: &Self) {
        let add = |to: &mut Spent, from: &Spent| {
            to.seconds += from.seconds;
            to.pictures += from.pictures;
        };
        add(&mut self.policy, &other.policy);
        add(&mut self.stem, &other.stem);
        for (to, from) in self.segments.iter_mut().flatten().zip(other.segments.iter().flatten()) {
            add(to, from);
        }
        self.looks.iter_mut().zip(&other.looks).for_each(|(to, from)| add(to, from));
        self.right.iter_mut().zip(&other.right).for_each(|(to, from)| *to += from);
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let path = if report.committed { ", all on one path" } else { "" };
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {} pictures in batches of {}, {} at a time; pictures per second and thread\n\n{:24} {:>9} {:>9}",
        report.backend, report.pictures, report.batch, report.threads, "", "accuracy", "rate"
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
    text
}
