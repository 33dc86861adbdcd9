//! How the time of a pass grows with pictures, tokens and features, and with the bits of the width.
//!
//! `cargo bench -p quee-cpu --bench growth`. One thread, dynamic-token quantizers, every block in full, random weights; each series is measured in turns,
//! and medians count. The exponent is that of the growth from the line before: 1 is in proportion.

mod record;
mod subject;

use std::hint::black_box;
use std::time::Instant;

use quee_backbone::Executor;
use quee_backbone::vit::{Pool, VitConfig};
use quee_cpu::CpuExecutor;
use quee_quant::{ActQuantizer, Width};
use subject::{Subject, median};

/// One point of a series.
struct Point {
    /// What grows.
    size: f64,
    label: String,
    subject: Subject,
    executor: CpuExecutor,
    batch: usize,
}

/// The backbone of `vit_d7_w192_p4_32` with other sides and widths: heads of 64 features, an MLP of twice the features.
fn vit(side: usize, dim: usize) -> VitConfig {
    VitConfig {
        image: side,
        channels: 3,
        patch: 4,
        dim,
        depth: 7,
        heads: dim / 64,
        hidden: 2 * dim,
        qkv_bias: true,
        distilled: false,
        pool: Pool::ClassToken,
    }
}

fn point(size: f64, label: String, config: &VitConfig, batch: usize, width: Width) -> Point {
    let subject = Subject::new(config, batch, ActQuantizer::DynamicToken);
    let mut executor = subject.executor(1);
    executor.set_width(width).expect("a width");
    Point { size, label, subject, executor, batch }
}

/// Prints milliseconds of each point, and the exponent of its growth.
fn series(what: &str, mut points: Vec<Point>) {
    const ROUNDS: usize = 41;
    let mut times = vec![Vec::new(); points.len()];
    for round in 0..ROUNDS + 2 {
        for (point, times) in points.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let images = point.subject.images(&mut point.executor, 0, point.batch).expect("input");
            black_box(point.subject.backbone.forward(&mut point.executor, &images).expect("it runs"));
            // The first rounds pack weights and fill caches.
            if round >= 2 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    println!("\n{what}\n{:>22} {:>10} {:>10} {:>9}", "", "ms", "least ms", "exponent");
    let mut before: Option<(f64, f64)> = None;
    for (point, times) in points.iter().zip(times) {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let seconds = median(times);
        let exponent = before.map(|(size, time)| (least / time).ln() / (point.size / size).ln());
        let exponent = exponent.filter(|x| x.is_finite()).map_or(String::new(), |x| format!("{x:.2}"));
        record::line(&format!("growth, {what}"), &point.label, &[("ms", 1e3 * seconds), ("least ms", 1e3 * least)]);
        println!("{:>22} {:>10.3} {:>10.3} {exponent:>9}", point.label, 1e3 * seconds, 1e3 * least);
        before = Some((point.size, least));
    }
}

fn main() {
    let eight = subject::eight_bits();
    let base = |batch, width| point(batch as f64, String::new(), &vit(32, 192), batch, width);
    series(
        "pictures, 65 tokens of 192 features, w8a8",
        [1, 2, 4, 8, 16, 32, 64].map(|batch| Point { label: batch.to_string(), ..base(batch, eight) }).into(),
    );
    series(
        "tokens, one picture, 192 features, w8a8",
        [16, 32, 64, 96, 128]
            .map(|side: usize| {
                let tokens = (side / 4).pow(2) + 1;
                point(tokens as f64, tokens.to_string(), &vit(side, 192), 1, eight)
            })
            .into(),
    );
    series(
        "features, one picture, 65 tokens, w8a8",
        [64, 128, 192, 384, 768].map(|dim| point(dim as f64, dim.to_string(), &vit(32, dim), 1, eight)).into(),
    );
    series(
        "widths, eight pictures",
        ["w2a2", "w4a4", "w6a6", "w8a8", "float"]
            .map(|name| Point { size: 1.0, label: name.into(), ..base(8, name.parse().expect("a width")) })
            .into(),
    );
}
