//! Pictures per second of one training step, forward and backward: `cargo bench --package quee-train`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quee_backbone::presets;
use quee_train::training::{AnyError, EpochReport, Next, Observer, Progress};
use quee_train::{Part, TrainConfig, TrainDevice, TrainState, random_weights, train};

struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &Progress) -> Next {
        Next::Go
    }
    fn epoch(&mut self, _: &EpochReport) -> Next {
        Next::Go
    }
    fn save(&mut self, _: &TrainState) -> Result<(), AnyError> {
        Ok(())
    }
}

/// One step on 64 pictures of 3×32×32 with `vit_d7_w192_p4_32`, the whole backbone and the head alone.
fn steps(criterion: &mut Criterion) {
    let preset = presets::find("vit_d7_w192_p4_32").expect("a preset of this name exists");
    let weights = random_weights(&preset.tensors(10), 0);
    let backbone = preset.load(&Default::default(), weights).expect("weights fit");
    let labels: Vec<u16> = (0..64).map(|i| i % 10).collect();
    let picture =
        |i: usize, _: &mut rand_chacha::ChaCha8Rng| Ok((0..3072).map(|p| ((i * p) % 7) as f32 / 7.0).collect());
    let part = Part { labels: &labels, picture: &picture };
    let mut group = criterion.benchmark_group("training step, 64 pictures");
    group.throughput(Throughput::Elements(64)).sample_size(10);
    for (name, backbone_rate) in [("whole", 1.0), ("head", 0.0)] {
        let config = TrainConfig { epochs: 1, batch: 64, backbone_rate, ..Default::default() };
        group.bench_function(name, |bencher| {
            bencher.iter(|| train(&*backbone, part, None, &config, &TrainDevice::cpu(), None, &mut Silent));
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
