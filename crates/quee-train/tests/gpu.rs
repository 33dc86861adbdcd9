//! Training on the GPU follows the same curve as on the processor.
#![cfg(feature = "train-gpu")]

mod common;

use common::{config, fresh, noise};
use quee_backbone::Backbone;
use quee_backbone::vit::Pool;
use quee_train::exits::ExitRows;
use quee_train::training::{AnyError, EpochReport, Next, Observer, Progress, accuracy};
use quee_train::{
    ExitConfig, GateConfig, GateRows, Part, Rule, TrainConfig, TrainDevice, TrainState, Trained, soft_labels, train,
    train_exit, train_gate,
};

/// Keeps the state after the second epoch.
#[derive(Default)]
struct Watch(Option<TrainState>);

impl Observer for Watch {
    fn step(&mut self, _: &Progress) -> Next {
        Next::Go
    }
    fn epoch(&mut self, report: &EpochReport) -> Next {
        if report.epoch == 2 { Next::Save } else { Next::Go }
    }
    fn save(&mut self, state: &TrainState) -> Result<(), AnyError> {
        self.0 = Some(state.clone());
        Ok(())
    }
}

fn vit() -> Box<dyn Backbone> {
    fresh(&config(Pool::ClassToken), 3)
}

/// The adapter, unless there is none.
fn gpu() -> Option<TrainDevice> {
    match TrainDevice::gpu() {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            // Written past the test harness, which shows no output of tests that pass.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {error}\n"));
            None
        }
    }
}

fn run(device: &TrainDevice, settings: &TrainConfig, start: Option<TrainState>, watch: &mut Watch) -> Trained {
    let labels: Vec<u16> = (0..48).map(|i| i % 5).collect();
    let images = noise(48 * 64, 7);
    // A class is a shade, so that there is something to learn.
    let picture = |i: usize, _: &mut rand_chacha::ChaCha8Rng| {
        Ok(images[i * 64..(i + 1) * 64].iter().map(|x| 0.2 * x + f32::from(labels[i]) / 2.0 - 1.0).collect())
    };
    let part = Part { labels: &labels, picture: &picture };
    train(&*vit(), part, Some(part), settings, device, start, watch).unwrap()
}

#[test]
fn losses_agree_with_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let base =
        TrainConfig { epochs: 4, batch: 16, warmup_epochs: 1, learning_rate: 2e-3, mixup: 0.2, ..Default::default() };
    let sgd = Rule::Sgd { momentum: 0.9, nesterov: true };
    for settings in [
        base.clone(),
        TrainConfig { rule: sgd, learning_rate: 0.02, weight_decay: 1e-4, ..base.clone() },
        TrainConfig { backbone_rate: 0.0, ..base },
    ] {
        let mut watch = Watch::default();
        let (here, there) =
            (run(&TrainDevice::cpu(), &settings, None, &mut Watch::default()), run(&gpu, &settings, None, &mut watch));
        assert!(there.history[3].loss < there.history[0].loss, "{:?}", there.history);
        for (here, there) in here.history.iter().zip(&there.history) {
            // Twelve steps of sums in another order, in 32-bit floats: 1e-3 of losses around 1.5.
            assert!((here.loss - there.loss).abs() < 1e-3, "{settings:?}: {here:?} {there:?}");
        }
        // A state is the same on every device: what the GPU began, the processor ends.
        let state = watch.0.unwrap();
        let ended = run(&TrainDevice::cpu(), &settings, Some(state), &mut Watch::default());
        assert!((ended.history[3].loss - here.history[3].loss).abs() < 1e-3);
    }
}

#[test]
fn answers_agree_with_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let labels: Vec<u16> = (0..300).map(|i| i % 5).collect();
    let images = noise(300 * 64, 9);
    let part = Part { labels: &labels, picture: &|i, _| Ok(images[i * 64..(i + 1) * 64].to_vec()) };
    let share = |device: &TrainDevice| accuracy(&*vit(), part, device).unwrap();
    // Two pictures in 300 may lie on the border between two classes.
    assert!((share(&gpu) - share(&TrainDevice::cpu())).abs() < 0.01);
    assert!(gpu.name().starts_with("gpu ("), "{}", gpu.name());
}

#[test]
fn exits_and_gates_come_out_as_on_the_processor() {
    let Some(gpu) = gpu() else { return };
    let (rows, dim, classes) = (96, 8, 3);
    let labels: Vec<u16> = (0..rows as u16).map(|i| i % 3).collect();
    let noise = noise(rows * dim, 11);
    // The first three features tell the class.
    let features: Vec<f32> = (0..rows * dim)
        .map(|i| 0.3 * noise[i] + if i % dim == usize::from(labels[i / dim]) { 1.0 } else { 0.0 })
        .collect();
    let config = ExitConfig { epochs: 5, batch: 32, ..Default::default() };
    let one_hot = soft_labels(labels.iter().copied(), classes, 0.0);
    let exit_rows = ExitRows { inputs: dim, classes, features: &features, targets: &one_hot };
    let exit = |device| train_exit(device, exit_rows, &config, None).unwrap();
    let (here, there) = (exit(&TrainDevice::cpu()), exit(&gpu));
    // Fifteen steps of a rate of 0.01 on sums in another order.
    assert!(here.w2.iter().zip(&there.w2).all(|(a, b)| (a - b).abs() < 1e-3), "{here:?} {there:?}");

    let targets: Vec<f32> = labels.iter().flat_map(|&label| [f32::from(label == 0), f32::from(label == 1)]).collect();
    let rows = GateRows { inputs: dim, outputs: 2, features: &features, targets: &targets };
    let config = GateConfig { members: 2, max_epochs: 5, ..Default::default() };
    let gate = |device| train_gate(device, rows, rows, &config).unwrap();
    for (here, there) in gate(&TrainDevice::cpu()).iter().zip(&gate(&gpu)) {
        assert!((here.log_loss - there.log_loss).abs() < 1e-3, "{here:?} {there:?}");
    }
}
