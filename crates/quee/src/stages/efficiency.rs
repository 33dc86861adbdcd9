//! What it costs that pictures part ways.
//!
//! A stored policy runs on pictures in batches. On the same batches, in turns, every width runs at full depth with each part timed, so
//! that one knows what the segments, exits and gates that the policy ran would have taken as plain batches. *Routing efficiency* is that
//! time divided by the time of the policy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use quee_backbone::Executor;
use quee_policy::tree::NodeId;
use quee_quant::Width;
use serde::Serialize;

use super::answers::NodeAnswers;
use super::backbone_runs::static_widths;
use super::prepare::Prepared;
use super::route::{Routed, Router};
use super::walk::Program;
use crate::artefact::StoredPolicy;
use crate::backend::Engine;
use crate::cancel::Cancel;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Efficiency {
    /// Pictures that were run.
    pub pictures: usize,
    /// Pictures of a batch.
    pub batch: usize,
    /// Batches at a time.
    pub threads: usize,
    /// Price of the policy; none where it is infinite.
    pub lambda: Option<f64>,
    /// Whether all pictures run one path, and nobody asks a gate.
    pub committed: bool,
    /// Share of pictures that the policy answers rightly.
    pub accuracy: f64,
    /// Mean number of segments that a picture runs.
    pub mean_depth: f64,
    /// Pictures per second and thread.
    pub policy_rate: f64,
    /// What the parts that ran would give as plain batches.
    pub mix_rate: f64,
    /// The one divided by the other.
    pub routing_efficiency: f64,
    /// Full depth at one width, without exits on the way: the widths of the tree, then the others that the run knows.
    pub statics: Vec<Static>,
    /// What the parts take as plain batches.
    pub parts: Parts,
}

/// Milliseconds of a picture in plain batches.
#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    /// Picture to tokens, on quantized paths.
    pub stem_ms: f64,
    /// `[width][segment]`, widths as in `statics`.
    pub segments_ms: Vec<Vec<f64>>,
    /// Behind each segment: features, exit, and the gate where there is one.
    pub looks_ms: Vec<f64>,
}

/// Full depth at one width.
#[derive(Clone, Debug, Serialize)]
pub struct Static {
    /// Width.
    pub width: Width,
    /// Share of right answers.
    pub accuracy: f64,
    /// Pictures per second and thread.
    pub rate: f64,
    /// Rate of the policy divided by this one.
    pub policy_over_this: f64,
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
    /// `[width]`.
    stems: Vec<Spent>,
    /// `[width][segment]`.
    segments: Vec<Vec<Spent>>,
    /// Features, exit and gate behind each segment, at widths of the tree.
    looks: Vec<Spent>,
    /// `[width]`: pictures that are right at full depth.
    right: Vec<usize>,
}

/// A policy at one setting, and what it is measured on.
pub struct Bench<'a> {
    /// Policy.
    pub policy: &'a StoredPolicy,
    /// Data.
    pub prepared: &'a Prepared,
    /// Makes executors.
    pub engine: &'a dyn Engine,
    /// Price.
    pub lambda: f64,
    /// The path that all pictures run at this price, where gate 0 commits to one.
    pub commit: Option<NodeId>,
    /// Checked between batches.
    pub cancel: &'a Cancel,
}

impl Bench<'_> {
    /// Runs the pictures at positions `pictures` of the data set in batches of `batch`, so many at a time.
    ///
    /// # Errors
    /// When a picture cannot be had, the executor fails, or on a wish to stop.
    ///
    /// # Panics
    /// When `batch` is 0.
    pub fn measure(&self, pictures: &[usize], batch: usize, threads: usize) -> Result<Efficiency> {
        let (times, routed) = self.times(pictures, batch, threads)?;
        Ok(self.efficiency(&times, &routed, pictures, batch, threads))
    }

    /// Runs a batch, and parts of it down to one picture: a device makes kernels, buffers and packed weights when it first meets a size, and
    /// batches shrink as pictures leave.
    fn warm_up(&self, executor: &mut dyn Executor, images: &[f32], chosen: &[usize]) -> Result<()> {
        let picture = images.len() / chosen.len();
        let mut count = chosen.len();
        loop {
            self.batch(executor, &images[..count * picture], &chosen[..count], 0, &mut self.nothing())?;
            if count == 1 {
                return Ok(());
            }
            count = count.div_ceil(4);
        }
    }

    /// Full depth at these widths: those of the tree, then the others.
    fn widths(&self) -> Vec<Width> {
        let recipe = &self.policy.recipe;
        recipe.quant.widths.iter().copied().chain(static_widths(recipe)).collect()
    }

    /// Every batch once by the policy and once at each width, in turns; the first batch of each thread also before anything is timed.
    fn times(&self, pictures: &[usize], batch: usize, threads: usize) -> Result<(Times, Vec<Routed>)> {
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
                    self.warm_up(executor.as_mut(), &images, chosen)?;
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
        let (widths, segments) = (self.widths().len(), self.policy.tree.segments());
        Times {
            policy: Spent::default(),
            stems: vec![Spent::default(); widths],
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
        let widths = self.widths();
        let mut routed = Vec::new();
        for turn in 0..=widths.len() {
            match (turn + index) % (widths.len() + 1) {
                0 => {
                    let router = Router::new(self.policy, self.lambda, self.commit);
                    let start = Instant::now();
                    routed = router.run(executor, images)?;
                    times.policy.add(start, chosen.len());
                }
                at => self.full_depth(executor, images, chosen, (at - 1, widths[at - 1]), times)?,
            }
        }
        Ok(routed)
    }

    fn full_depth(
        &self,
        executor: &mut dyn Executor,
        images: &[f32],
        chosen: &[usize],
        (at, width): (usize, Width),
        times: &mut Times,
    ) -> Result<()> {
        let (policy, recipe, tree) = (self.policy, &self.policy.recipe, &self.policy.tree);
        let program = Program::new(policy.backbone.as_ref(), recipe);
        let stem = if width.is_float() { width } else { recipe.quant.stem };
        let start = Instant::now();
        let mut tokens = program.stem(executor, images, stem)?;
        // A device that only records would run what it has recorded when the exit reads, and the exit would seem to take the time.
        executor.wait()?;
        times.stems[at].add(start, chosen.len());
        let mut before: Option<NodeAnswers> = None;
        for segment in 0..tree.segments() {
            let start = Instant::now();
            tokens = program.segment(executor, segment, width, &tokens)?;
            executor.wait()?;
            times.segments[at][segment].add(start, chosen.len());
            let start = Instant::now();
            let features = program.features(executor, segment, &tokens)?;
            let head = &policy.heads.0[segment];
            let said = NodeAnswers::compute_after(head, &features, before.as_ref().filter(|_| head.is_cascade()));
            if let (Some(gate), Some(node)) = (policy.gates.get(segment), tree.find(&vec![at; segment + 1])) {
                let (classes, dim) = (head.classes(), features.len() / chosen.len());
                let so_far = tree.widths_of(node);
                let (mut row, mut predicted) = (Vec::new(), Vec::new());
                for picture in 0..chosen.len() {
                    row.clear();
                    let part = picture * classes..(picture + 1) * classes;
                    let of = |said: &NodeAnswers| said.probabilities[part.clone()].to_vec();
                    let previous = before.as_ref().map(of);
                    let token = &features[picture * dim..(picture + 1) * dim];
                    gate.spec().write(segment + 1, &of(&said), previous.as_deref(), &so_far, token, &mut row);
                    policy.predict(node, &row, &mut predicted);
                    std::hint::black_box(&predicted);
                }
            }
            if at < tree.widths() {
                times.looks[segment].add(start, chosen.len());
            }
            before = Some(said);
        }
        let labels = self.prepared.data.labels_of(chosen);
        let said = before.context("there is at least one segment")?;
        times.right[at] += said.answers.iter().zip(&labels).filter(|(answer, label)| answer == label).count();
        Ok(())
    }

    fn efficiency(&self, times: &Times, routed: &[Routed], test: &[usize], batch: usize, threads: usize) -> Efficiency {
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
            times.stem().each() + segments.sum::<f64>() + looks(path.len())
        };
        let mix: f64 = routed.iter().map(parts).sum();
        let policy_rate = 1.0 / times.policy.each();
        let mix_rate = count / mix;
        let of_width = |(at, width): (usize, Width)| {
            let segments: f64 = times.segments[at].iter().map(|spent| spent.each()).sum();
            let last = times.looks.last().copied().unwrap_or_default();
            let rate = 1.0 / (times.stems[at].each() + segments + last.each());
            Static { width, accuracy: times.right[at] as f64 / count, rate, policy_over_this: policy_rate / rate }
        };
        let right = routed.iter().zip(&labels).filter(|(routed, label)| routed.class == **label).count();
        Efficiency {
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
            statics: self.widths().into_iter().enumerate().map(of_width).collect(),
            parts: times.parts(),
        }
    }
}

impl Times {
    /// The stem on quantized paths.
    fn stem(&self) -> Spent {
        self.stems[0]
    }

    fn parts(&self) -> Parts {
        let ms = |spent: &Spent| 1e3 * spent.each();
        Parts {
            stem_ms: ms(&self.stem()),
            segments_ms: self.segments.iter().map(|segments| segments.iter().map(ms).collect()).collect(),
            looks_ms: self.looks.iter().map(ms).collect(),
        }
    }

    fn join(&mut self, other: &Self) {
        let add = |to: &mut Spent, from: &Spent| {
            to.seconds += from.seconds;
            to.pictures += from.pictures;
        };
        add(&mut self.policy, &other.policy);
        self.stems.iter_mut().zip(&other.stems).for_each(|(to, from)| add(to, from));
        for (to, from) in self.segments.iter_mut().flatten().zip(other.segments.iter().flatten()) {
            add(to, from);
        }
        self.looks.iter_mut().zip(&other.looks).for_each(|(to, from)| add(to, from));
        self.right.iter_mut().zip(&other.right).for_each(|(to, from)| *to += from);
    }
}
