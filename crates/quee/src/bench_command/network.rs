//! Blocks, whole networks, and batches whose samples run at different widths.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use quee_backbone::{ExecError, Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_gpu::bench::{Effort, median};
use quee_gpu::{Gpu, GpuEngine};
use quee_quant::{WeightQuantizer, Width};
use rayon::prelude::*;

use super::Row;
use super::subject::Subject;
use crate::cancel::Cancel;
use crate::progress::Stage;

/// The widths of blocks and networks.
fn widths() -> [Width; 3] {
    let width = |bits| Width::new(bits, bits).expect("a width of integers");
    [width(4), width(8), Width::FLOAT]
}

/// Logits of some of the pictures at the executor's present width.
fn logits(subject: &Subject, executor: &mut dyn Executor, from: usize, count: usize) -> Result<Vec<f32>, ExecError> {
    let input = subject.input(executor, from, count)?;
    let logits = subject.backbone.forward(executor, &input)?;
    executor.read(&logits)
}

/// Rows that make their own scales.
fn plan() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}

/// Which network, and how many pictures at a time.
pub struct Networks<'a> {
    /// Preset of the backbone; `None`: a small ViT.
    pub backbone: Option<&'a str>,
    /// Pictures at a time; none: a few usual numbers.
    pub batches: &'a [usize],
}

/// Blocks, networks and mixed batches.
pub fn measure(
    gpu: &Arc<Gpu>,
    effort: Effort,
    what: &Networks<'_>,
    cancel: &Cancel,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let usual: &[usize] = if effort.small { &[1, 2] } else { &[1, 8, 64] };
    let batches = if what.batches.is_empty() { usual } else { what.batches };
    let most = batches.iter().copied().max().unwrap_or(1);
    // A multiple of three near the usual 96, and of the size of the largest batch where that is larger.
    let mixed = if effort.small { 6 } else { most.max(96).next_multiple_of(3) };
    let name = what.backbone.unwrap_or(if effort.small { "vit_d6_w80_p2_8" } else { "vit_d7_w192_p4_32" });
    let subject = Subject::new(name, None, mixed.max(most))?;
    let engine = GpuEngine::on(plan(), Arc::clone(gpu));
    let stage = Stage::start("blocks and networks", 2 * batches.len() * widths().len() + 1);
    for width in widths() {
        for &batch in batches {
            cancel.check()?;
            rows.push(blocks(&subject, &engine, effort, width, batch)?);
            stage.advance(1);
        }
    }
    for width in widths() {
        for &batch in batches {
            cancel.check()?;
            rows.extend(network(&subject, &engine, effort, width, batch)?);
            stage.advance(1);
        }
    }
    rows.extend(mixture(&subject, &engine, effort, mixed)?);
    stage.finish(subject.backbone.name());
    Ok(())
}

/// All blocks in a row, then a wait: time, dispatches, submits, readbacks and bytes of one block.
fn blocks(subject: &Subject, engine: &Arc<GpuEngine>, effort: Effort, width: Width, batch: usize) -> Result<Row> {
    let executor = &mut engine.executor()?;
    let backbone = &subject.backbone;
    executor.set_width(Width::new(8, 8).expect("8 bits are a width"))?;
    let input = subject.input(executor, 0, batch)?;
    let tokens = backbone.stem(executor, &input)?;
    executor.set_width(width)?;
    executor.wait()?;
    let mut times = Vec::new();
    let mut before = engine.counts();
    // The first one packs the weights.
    for _ in 0..=effort.runs {
        before = engine.counts();
        let start = Instant::now();
        let mut x = tokens.clone();
        for index in 0..backbone.depth() {
            x = backbone.block(index, executor, &x)?;
        }
        executor.wait()?;
        times.push(start.elapsed().as_secs_f64());
    }
    let shape = executor.shape(&tokens)?.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    Ok(Row {
        section: "blocks: time of one, counts of all",
        name: backbone.name().into(),
        variant: format!("{} blocks", backbone.depth()),
        shape,
        width: width.to_string(),
        batch: Some(batch),
        clock: "host clock",
        runs: effort.runs,
        seconds: Some(median(times.split_off(1)) / backbone.depth() as f64),
        counts: Some(engine.counts() - before),
        ..Row::default()
    })
}

/// Pictures to logits on the GPU backend and, in turns with it, on the CPU backend.
fn network(subject: &Subject, engine: &Arc<GpuEngine>, effort: Effort, width: Width, batch: usize) -> Result<[Row; 2]> {
    let mut gpu = engine.executor()?;
    gpu.set_width(width)?;
    let cpu = CpuEngine::new(plan(), Isa::best());
    let threads = rayon::current_num_threads().min(batch);
    let part = batch.div_ceil(threads);
    let on_cpu = || -> Result<(), ExecError> {
        (0..batch).into_par_iter().step_by(part).try_for_each(|first| {
            let mut executor = cpu.executor();
            executor.set_width(width)?;
            logits(subject, &mut executor, first, part.min(batch - first)).map(drop)
        })
    };
    let (mut gpu_times, mut cpu_times) = (Vec::new(), Vec::new());
    let mut counts = Default::default();
    for _ in 0..=effort.runs {
        // A GPU that was idle while the processor computed takes a while to reach its clock.
        let warm = Instant::now();
        while !engine.gpu().info().is_software() && warm.elapsed().as_secs_f64() < effort.seconds {
            logits(subject, &mut gpu, 0, batch)?;
        }
        let before = engine.counts();
        let start = Instant::now();
        logits(subject, &mut gpu, 0, batch)?;
        gpu_times.push(start.elapsed().as_secs_f64());
        counts = engine.counts() - before;
        let start = Instant::now();
        on_cpu()?;
        cpu_times.push(start.elapsed().as_secs_f64());
    }
    let row = |name: String, seconds: f64| Row {
        section: "networks: pictures to logits",
        name,
        variant: subject.backbone.name().into(),
        width: width.to_string(),
        batch: Some(batch),
        clock: "host clock",
        runs: effort.runs,
        seconds: Some(seconds),
        images: Some(batch as f64 / seconds),
        ..Row::default()
    };
    let gpu_row = row("gpu backend".into(), median(gpu_times.split_off(1)));
    let threads = if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
    let cpu_row = row(format!("cpu backend ({}, {threads})", cpu.isa()), median(cpu_times.split_off(1)));
    Ok([Row { counts: Some(counts), ..gpu_row }, cpu_row])
}

/// Thirds of a batch at w2a4, w4a4 and w8a8: as one batch, and third by third.
fn mixture(subject: &Subject, engine: &Arc<GpuEngine>, effort: Effort, batch: usize) -> Result<[Row; 2]> {
    let width = |weight, act| Width::new(weight, act).expect("a width of integers");
    let third = batch / 3;
    let groups = [width(2, 4), width(4, 4), width(8, 8)].map(|width| (third, width));
    let mut executor = engine.executor()?;
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    let mut counts = [Default::default(); 2];
    for _ in 0..=effort.runs {
        let before = engine.counts();
        let start = Instant::now();
        executor.set_groups(&groups)?;
        logits(subject, &mut executor, 0, 3 * third)?;
        together.push(start.elapsed().as_secs_f64());
        let between = engine.counts();
        let start = Instant::now();
        for (at, (_, width)) in groups.into_iter().enumerate() {
            executor.set_width(width)?;
            logits(subject, &mut executor, at * third, third)?;
        }
        apart.push(start.elapsed().as_secs_f64());
        counts = [between - before, engine.counts() - between];
    }
    // Of each round, so that what else the machine does falls on both.
    let ratio = median(together.iter().zip(&apart).skip(1).map(|(together, apart)| together / apart).collect());
    let [together, apart] = [together, apart].map(|mut times| median(times.split_off(1)));
    let row = |name: &str, seconds: f64, counts| Row {
        section: "mixed batch: ratio of its time to that of its groups one by one, median over the runs",
        name: name.into(),
        variant: subject.backbone.name().into(),
        width: groups.map(|(_, width)| width.to_string()).join("+"),
        batch: Some(3 * third),
        clock: "host clock",
        runs: effort.runs,
        seconds: Some(seconds),
        images: Some(3.0 * third as f64 / seconds),
        counts: Some(counts),
        ..Row::default()
    };
    let one = row("one batch", together, counts[0]);
    Ok([Row { ratio: Some(ratio), ..one }, row("group by group", apart, counts[1])])
}
