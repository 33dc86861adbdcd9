//! Encoder blocks at once against the same blocks operation by operation, with static quantizers and with rows that make their own scales.
//!
//! `cargo bench -p quee-cpu --bench blocks`. One thread, all blocks in full, random weights; the four variants run in turns, and ratios are medians over
//! the turns. Results are the same bits (`tests/blocks.rs`).

mod record;
mod subject;

use std::hint::black_box;
use std::time::Instant;

use quee_backbone::{Attention, ExecError, Executor, Linear, Norm, Value, forward_plain_operations, presets};
use quee_cpu::CpuExecutor;
use quee_quant::{ActQuantizer, Width};
use subject::{Subject, eight_bits, median};

/// Hands on everything but whole blocks.
struct ByOperation(CpuExecutor);

impl Executor for ByOperation {
    forward_plain_operations!(0);

    fn name(&self) -> String {
        self.0.name()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.0.set_width(width)
    }

    fn set_groups(&mut self, groups: &[(usize, Width)]) -> Result<(), ExecError> {
        self.0.set_groups(groups)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.0.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.0.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.0.attention_values(p, qkv, attention)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.0.norm_linear(x, norm, linear)
    }

    fn norm_linear_gelu(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        self.0.norm_linear_gelu(x, norm, linear)
    }

    fn linear_add(&mut self, x: &Value, linear: &Linear, residual: &Value) -> Result<Value, ExecError> {
        self.0.linear_add(x, linear, residual)
    }

    fn attention(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.0.attention(qkv, attention)
    }
}

fn measure(name: &str, batch: usize, rounds: usize) {
    let kinds = [ActQuantizer::Minmax, ActQuantizer::DynamicToken];
    let preset = presets::find(name).expect("a preset");
    let subjects = kinds.map(|activations| Subject::new(&*preset.architecture, batch, activations));
    let mut runs: Vec<(&Subject, Box<dyn Executor>, Vec<f64>)> = Vec::new();
    for subject in &subjects {
        runs.push((subject, Box::new(subject.executor(1)), Vec::new()));
        runs.push((subject, Box::new(ByOperation(subject.executor(1))), Vec::new()));
    }
    for round in 0..rounds + 2 {
        for (subject, executor, times) in &mut runs {
            executor.set_width(eight_bits()).expect("a width");
            let start = Instant::now();
            let images = subject.images(&mut **executor, 0, batch).expect("input");
            black_box(subject.backbone.forward(&mut **executor, &images).expect("it runs"));
            // The first rounds pack weights and fill caches.
            if round >= 2 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    for (kind, pair) in kinds.iter().zip(runs.chunks_exact(2)) {
        let [(_, _, at_once), (_, _, by_operation)] = pair else { unreachable!("pairs") };
        let gain = median(by_operation.iter().zip(at_once).map(|(a, b)| a / b).collect());
        let over_static = median(at_once.iter().zip(&runs[0].2).map(|(a, b)| a / b).collect());
        let (at_once, by_operation) = (1e3 * median(at_once.clone()), 1e3 * median(by_operation.clone()));
        let figures = [("ms", at_once), ("ms by operation", by_operation), ("by operation over at once", gain)];
        record::line(&format!("blocks, {name}"), &format!("batch {batch}, {kind:?}"), &figures);
        println!(
            "{name:<22} {batch:>5} {:<14} {at_once:>9.3} {by_operation:>13.3} {gain:>6.2} {over_static:>12.2}",
            format!("{kind:?}")
        );
    }
}

fn main() {
    println!(
        "{:<22} {:>5} {:<14} {:>9} {:>13} {:>6} {:>12}",
        "", "batch", "", "ms", "by operation", "ratio", "over static"
    );
    measure("vit_d7_w192_p4_32", 8, 31);
    measure("vit_d7_w192_p4_32", 1, 101);
    measure("deit_tiny_patch16_224", 1, 31);
}
