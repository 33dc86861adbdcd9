//! Several threads give the bits that one gives.

mod common;
mod outputs;

use std::sync::Arc;

use common::{backbone, dynamic, numbers, pictures, plan, random, widths};
use outputs::{logits, tokens};
use quee_backbone::families::mixer::MixerConfig;
use quee_backbone::families::t2t::T2tConfig;
use quee_backbone::{Architecture, Executor, Pool, Value};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::Width;

#[test]
fn blocks_are_the_same_on_any_number() {
    let backbone = &*backbone(8, 128, false, 1.0);
    let pictures = pictures(backbone, 5);
    let size = pictures.len() / 5;
    for plan in [plan(backbone), dynamic()] {
        for (isa, width) in Isa::available().into_iter().flat_map(|isa| [(isa, widths()[0]), (isa, Width::FLOAT)]) {
            let mut one = CpuExecutor::new(Arc::clone(&plan), isa);
            one.set_width(width).unwrap();
            for threads in 2..=4 {
                let mut several = one.engine().executor();
                several.set_threads(threads);
                several.set_width(width).unwrap();
                for count in [1, 2, 5] {
                    let pictures = &pictures[..count * size];
                    let same = tokens(backbone, &mut one, pictures) == tokens(backbone, &mut several, pictures);
                    assert!(same, "{isa} {width}, {threads} threads, {count} pictures");
                    let want = logits(backbone, &mut one, pictures);
                    assert_eq!(logits(backbone, &mut several, pictures), want, "{isa} {width}, {threads} threads");
                }
            }
        }
    }
}

/// Pictures large enough that everything is divided, windows and pools of every family among it.
#[test]
fn families_are_the_same_on_any_number() {
    let t2t =
        T2tConfig { image: 64, channels: 3, token_dim: 16, dim: 64, depth: 1, heads: 1, hidden: 64, pool: Pool::Mean };
    let mixer = MixerConfig { image: 32, channels: 3, patch: 2, dim: 64, depth: 1, token_hidden: 32, hidden: 64 };
    for config in [&t2t as &dyn Architecture, &mixer] {
        let backbone = &*random(config, 1.0);
        let pictures = pictures(backbone, 5);
        for width in [widths()[0], Width::FLOAT] {
            let mut one = CpuExecutor::new(dynamic(), Isa::best());
            one.set_width(width).unwrap();
            let want = logits(backbone, &mut one, &pictures);
            for threads in 2..=4 {
                let mut several = one.engine().executor();
                several.set_threads(threads);
                several.set_width(width).unwrap();
                assert_eq!(logits(backbone, &mut several, &pictures), want, "{width}, {threads} threads");
            }
        }
    }
}

#[test]
fn operations_are_the_same_on_any_number() {
    type Operation = fn(&mut CpuExecutor, &Value) -> Value;
    let operations: [Operation; 7] = [
        |executor, x| executor.gelu(x).unwrap(),
        |executor, x| executor.softmax(x).unwrap(),
        |executor, x| executor.transpose(x).unwrap(),
        |executor, x| executor.slice_features(x, 3, 50).unwrap(),
        |executor, x| executor.select_samples(x, &[6, 0, 0, 2, 5]).unwrap(),
        |executor, x| executor.mean_tokens(x, 2).unwrap(),
        |executor, x| {
            let other = executor.gelu(x).unwrap();
            executor.add(x, &other).unwrap()
        },
    ];
    let shape = [7, 101, 67];
    let x = numbers(shape.iter().product(), 3.0, 5);
    for isa in Isa::available() {
        for (i, operation) in operations.iter().enumerate() {
            let run = |threads| {
                let mut executor = CpuExecutor::new(dynamic(), isa);
                executor.set_threads(threads);
                let x = executor.input(&shape, &x).unwrap();
                let y = operation(&mut executor, &x);
                (executor.shape(&y).unwrap(), executor.read(&y).unwrap())
            };
            let want = run(1);
            assert!((2..=4).all(|threads| run(threads) == want), "operation {i}, {isa}");
        }
    }
}
