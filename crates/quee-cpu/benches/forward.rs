//! Pictures to logits with static 8-bit quantizers: time of a batch, and where it goes.
//!
//! `cargo bench -p quee-cpu --bench forward`; `-- PRESET` or `-- profile` for a part of it, `-- float` for floats beside it. Weights are random. Variants run in turns, and ratios are those
//! of the turns, so that what else the machine does falls on all of them.

mod record;
mod subject;

use std::hint::black_box;
use std::time::Instant;

use quee_backbone::{ExecError, Executor, Value, presets};
use quee_cpu::{CpuExecutor, ProfileRow};
use quee_quant::{ActQuantizer, Width};
use rayon::prelude::*;
use subject::{Subject, eight_bits, median};

/// What is timed.
#[derive(Clone, Copy)]
struct Run {
    batch: usize,
    /// Executors side by side, each with a part of the batch.
    executors: usize,
    /// Threads of each of them.
    threads: usize,
    /// Whether the last block is computed for all tokens.
    full: bool,
    float: bool,
}

fn logits(
    subject: &Subject,
    executor: &mut CpuExecutor,
    run: Run,
    from: usize,
    count: usize,
) -> Result<Value, ExecError> {
    let images = subject.images(executor, from, count)?;
    executor.set_width(if run.float { Width::FLOAT } else { eight_bits() })?;
    if run.full { subject.backbone.forward(executor, &images) } else { subject.backbone.logits(executor, &images) }
}

/// Median and least seconds of each run, and the median of the ratios of the first to each.
fn interleaved(subject: &Subject, runs: &[Run], rounds: usize) -> Vec<[f64; 3]> {
    let mut executors: Vec<Vec<CpuExecutor>> =
        runs.iter().map(|run| (0..run.executors).map(|_| subject.executor(run.threads)).collect()).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    for round in 0..rounds + 2 {
        for ((run, executors), times) in runs.iter().zip(&mut executors).zip(&mut times) {
            let start = Instant::now();
            if let [executor] = &mut executors[..] {
                // Inside the pool, so that no operation has to get there first.
                rayon::scope(|_| black_box(logits(subject, executor, *run, 0, run.batch).expect("it runs")));
            } else {
                let part = run.batch.div_ceil(run.executors);
                executors.par_iter_mut().enumerate().for_each(|(i, executor)| {
                    let count = part.min(run.batch - i * part);
                    black_box(logits(subject, executor, *run, i * part, count).expect("it runs"));
                });
            }
            // The first rounds pack weights and fill caches.
            if round >= 2 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let ratio = |i: usize| median(times[0].iter().zip(&times[i]).map(|(first, this)| first / this).collect());
    let least = |i: usize| times[i].iter().copied().fold(f64::INFINITY, f64::min);
    (0..runs.len()).map(|i| [median(times[i].clone()), least(i), ratio(i)]).collect()
}

/// Whether floats are timed too: `-- float`.
fn wants_float() -> bool {
    std::env::args().any(|arg| arg == "float")
}

fn forward(name: &str, batches: &[usize]) {
    let preset = presets::find(name).expect("a preset");
    let subject = Subject::new(&*preset.architecture, batches.iter().copied().max().unwrap_or(1), ActQuantizer::Minmax);
    println!("\n{name}, w8a8 minmax, {}", subject.engine.isa());
    println!("{:>6} {:<34} {:>10} {:>10} {:>12} {:>12}", "batch", "", "ms", "least ms", "pictures/s", "times first");
    for &batch in batches {
        let one = Run { batch, executors: 1, threads: 1, full: false, float: false };
        let mut runs = vec![("one thread", one), ("one thread, last block in full", Run { full: true, ..one })];
        if batch > 1 {
            let two = Run { executors: 2, ..one };
            runs.push(("two executors", two));
            runs.push(("two executors, last block in full", Run { full: true, ..two }));
        }
        let two = Run { threads: 2, ..one };
        runs.push(("two threads", two));
        runs.push(("two threads, last block in full", Run { full: true, ..two }));
        if wants_float() {
            runs.push(("one thread, float", Run { float: true, ..one }));
        }
        let plain: Vec<Run> = runs.iter().map(|(_, run)| *run).collect();
        let rounds = if batch == 1 { 101 } else { 15 };
        for ((label, _), [seconds, least, ratio]) in runs.iter().zip(interleaved(&subject, &plain, rounds)) {
            let figures = [("ms", 1e3 * seconds), ("least ms", 1e3 * least), ("times first", ratio)];
            record::line(&format!("forward, {name}"), &format!("batch {batch}, {label}"), &figures);
            println!(
                "{batch:>6} {label:<34} {:>10.3} {:>10.3} {:>12.0} {ratio:>12.2}",
                1e3 * seconds,
                1e3 * least,
                batch as f64 / seconds
            );
        }
    }
}

/// Where the time of the fastest of several runs went.
fn profile(name: &str, batch: usize, activations: ActQuantizer) {
    let preset = presets::find(name).expect("a preset");
    let subject = Subject::new(&*preset.architecture, batch, activations);
    let mut executor = subject.engine.executor();
    let run = Run { batch, executors: 1, threads: 1, full: true, float: false };
    let mut best: Option<(f64, Vec<ProfileRow>)> = None;
    for _ in 0..40 {
        executor.profile(true);
        black_box(logits(&subject, &mut executor, run, 0, batch).expect("it runs"));
        let all = executor.profiled().iter().map(|row| row.time.as_secs_f64()).sum();
        if best.as_ref().is_none_or(|(least, _)| all < *least) {
            best = Some((all, executor.profiled().to_vec()));
        }
    }
    let (all, mut rows) = best.expect("there were runs");
    rows.sort_by_key(|row| std::cmp::Reverse(row.time));
    println!("\n{name}, {activations:?}, batch {batch}, one thread, last block in full: {:.3} ms", 1e3 * all);
    println!("{:<28} {:<16} {:<6} {:>8} {:>9} {:>7}", "operation", "place", "width", "calls", "ms", "share");
    for ProfileRow { operation, place, width, calls, time } in rows {
        let (width, seconds) = (width.to_string(), time.as_secs_f64());
        let share = 100.0 * seconds / all;
        println!("{operation:<28} {place:<16} {width:<6} {calls:>8} {:>9.3} {share:>6.1}%", 1e3 * seconds);
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-') && arg != "float").collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().expect("the first pool");
    for (name, batches) in [("vit_d7_w192_p4_32", [64, 8, 1]), ("deit_tiny_patch16_224", [64, 8, 1])] {
        if wants(name) {
            forward(name, &batches);
        }
    }
    for (name, batch) in [("vit_d7_w192_p4_32", 8), ("deit_tiny_patch16_224", 1)] {
        if wants("profile") || wants(name) {
            profile(name, batch, ActQuantizer::Minmax);
            profile(name, batch, ActQuantizer::DynamicToken);
        }
    }
}
