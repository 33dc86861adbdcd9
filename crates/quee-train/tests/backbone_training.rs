//! Training of a backbone: it learns, chooses on validation pictures, goes on after a stop, and gives the same bits whatever
//! the number of threads.

mod common;

use common::{config, fresh, noise, same_for_all_threads};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::vit::Pool;
use quee_backbone::{Backbone, Executor, NamedTensor};
use quee_train::training::{AnyError, EpochReport, Next, Observer, Progress, accuracy};
use quee_train::{
    BurnExecutor, Part, Rule, TrainConfig, TrainDevice, TrainError, TrainState, Trained, flex_device, train,
};
use rand::RngExt;

fn vit() -> Box<dyn Backbone> {
    fresh(&config(Pool::ClassToken), 3)
}

/// Pictures whose class is the row pair or column that is bright, under noise.
fn pictures(count: usize, seed: u64) -> (Vec<f32>, Vec<u16>) {
    let mut images = noise(count * 64, seed);
    let labels: Vec<u16> = (0..count).map(|i| (i * 7 % 5) as u16).collect();
    for (image, &label) in images.chunks_exact_mut(64).zip(&labels) {
        for (place, pixel) in image.iter_mut().enumerate() {
            let (y, x) = (place / 8, place % 8);
            let bright = if label < 3 { y / 2 == usize::from(label) } else { x / 2 == usize::from(label) - 2 };
            *pixel += if bright { 1.0 } else { 0.0 };
        }
    }
    (images, labels)
}

/// Keeps reports and the last state; stops after `stop_after` steps in all.
#[derive(Default)]
struct Watch {
    reports: Vec<EpochReport>,
    steps: usize,
    stop_after: Option<usize>,
    saved: Option<TrainState>,
}

impl Observer for Watch {
    fn step(&mut self, progress: &Progress) -> Next {
        assert!(progress.step <= progress.steps && progress.pictures > 0);
        self.steps += 1;
        if self.stop_after == Some(self.steps) { Next::Stop } else { Next::Go }
    }

    fn epoch(&mut self, report: &EpochReport) -> Next {
        self.reports.push(*report);
        Next::Go
    }

    fn save(&mut self, state: &TrainState) -> Result<(), AnyError> {
        self.saved = Some(state.clone());
        Ok(())
    }
}

/// Trains on 200 pictures with a random shade, with 100 for validation.
fn run(
    backbone: &dyn Backbone,
    settings: &TrainConfig,
    start: Option<TrainState>,
    watch: &mut Watch,
) -> Result<Trained, TrainError> {
    let ((images, labels), (held_images, held_labels)) = (pictures(200, 1), pictures(100, 2));
    let training = Part {
        labels: &labels,
        picture: &|i, rng| {
            let shade = rng.random::<f32>() - 0.5;
            Ok(images[i * 64..(i + 1) * 64].iter().map(|x| x + shade).collect())
        },
    };
    let validation = Part { labels: &held_labels, picture: &|i, _| Ok(held_images[i * 64..(i + 1) * 64].to_vec()) };
    train(backbone, training, Some(validation), settings, &TrainDevice::cpu(), start, watch)
}

fn outcome(settings: &TrainConfig) -> Trained {
    run(&*vit(), settings, None, &mut Watch::default()).unwrap()
}

fn load(tensors: &[NamedTensor]) -> Box<dyn Backbone> {
    common::load(&config(Pool::ClassToken), Checkpoint::from_tensors("trained", tensors.to_vec()))
}

const SGD: Rule = Rule::Sgd { momentum: 0.9, nesterov: true };

#[test]
fn it_learns_and_returns_the_epoch_it_reports() {
    let settings = TrainConfig { epochs: 25, batch: 50, warmup_epochs: 2, learning_rate: 3e-3, ..Default::default() };
    let trained = same_for_all_threads(|| outcome(&settings));
    let last = trained.history[24];
    assert_eq!(trained.history.iter().map(|r| r.epoch).collect::<Vec<_>>(), (1..=25).collect::<Vec<_>>());
    assert!(trained.history[0].loss > 1.4 && last.loss < 1.0, "{:?}", trained.history);
    assert!(last.train_accuracy > 0.85 && last.validation_accuracy > Some(0.8), "{last:?}");
    let best = trained.history.iter().map(|r| r.validation_accuracy.unwrap()).fold(0.0, f64::max);
    let first_best = trained.history.iter().find(|r| r.validation_accuracy == Some(best)).unwrap();
    assert_eq!(trained.epoch, first_best.epoch);

    let (images, labels) = pictures(100, 2);
    let backbone = load(&trained.tensors);
    let mut executor = BurnExecutor::float(flex_device());
    let input = executor.input(&[100, 1, 8, 8], &images).unwrap();
    let logits = backbone.forward(&mut executor, &input).unwrap();
    let logits = executor.read(&logits).unwrap();
    let answer = |row: &[f32]| (0..5).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let right = logits.chunks(5).zip(&labels).filter(|(row, label)| answer(row) == usize::from(**label)).count();
    assert_eq!(right as f64 / 100.0, best);
    let part = Part { labels: &labels, picture: &|i, _| Ok(images[i * 64..(i + 1) * 64].to_vec()) };
    assert_eq!(accuracy(&*backbone, part, &TrainDevice::cpu()).unwrap(), best);
}

#[test]
fn gradient_descent_and_mixup_learn_too() {
    let settings = TrainConfig { epochs: 25, batch: 20, warmup_epochs: 2, ..Default::default() };
    let sgd = TrainConfig { rule: SGD, learning_rate: 0.1, weight_decay: 1e-4, ..settings.clone() };
    let mixup = TrainConfig { mixup: 0.4, learning_rate: 3e-3, ..settings };
    // Plain gradient descent learns transformers slowly; one in five is chance.
    for (settings, least) in [(sgd, 0.4), (mixup, 0.7)] {
        let reached = outcome(&settings).history[24].validation_accuracy;
        assert!(reached > Some(least), "{settings:?}: {reached:?}");
    }
    let few = TrainConfig { rule: SGD, mixup: 0.4, epochs: 1, ..Default::default() };
    same_for_all_threads(|| outcome(&few));
}

#[test]
fn gradient_descent_is_what_its_formula_says() {
    // With one step of constant rate and no momentum, the step is that of the gradient: twice the rate, twice the way.
    let way = |rate: f64, rule| {
        let settings = TrainConfig {
            epochs: 1,
            batch: 200,
            warmup_epochs: 0,
            learning_rate: rate,
            weight_decay: 0.0,
            rule,
            clip_norm: 1e9,
            ..Default::default()
        };
        let trained = outcome(&settings).tensors;
        let start = vit();
        let ways = start.params().iter().zip(trained).flat_map(|(p, (_, _, new))| {
            p.data.iter().zip(new).map(|(old, new)| f64::from(new - old)).collect::<Vec<_>>()
        });
        ways.collect::<Vec<f64>>()
    };
    let plain = Rule::Sgd { momentum: 0.0, nesterov: false };
    let (one, two, ahead) = (way(0.5, plain), way(1.0, plain), way(0.5, SGD));
    let largest = one.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(largest > 1e-3);
    for ((one, two), ahead) in one.iter().zip(&two).zip(&ahead) {
        // 1e-6: weights near 1 are rounded to 6e-8, twice.
        assert!((2.0 * one - two).abs() < 1e-6, "{one} {two}");
        // The first step of Nesterov's form is 1 + momentum times the gradient.
        assert!((1.9 * one - ahead).abs() < 1e-6, "{one} {ahead}");
    }
}

#[test]
fn it_depends_on_the_seed() {
    let run = |seed| outcome(&TrainConfig { epochs: 1, seed, ..Default::default() }).tensors;
    assert_ne!(run(0), run(1));
}

#[test]
fn a_stopped_training_goes_on_as_if_nothing_had_happened() {
    // 200 pictures in batches of 60: 4 steps per epoch. Stops in the middle and at the end of epochs.
    let base = TrainConfig { epochs: 4, batch: 60, warmup_epochs: 1, mixup: 0.2, ..Default::default() };
    let others = [
        TrainConfig { rule: SGD, learning_rate: 0.05, ..base.clone() },
        TrainConfig { backbone_rate: 0.1, layer_decay: 0.8, ..base.clone() },
        TrainConfig { backbone_rate: 0.0, ..base.clone() },
    ];
    for settings in std::iter::once(base).chain(others) {
        let whole = outcome(&settings);
        let mut state: Option<TrainState> = None;
        for stop in [1, 5, 2, 4] {
            let mut watch = Watch { stop_after: Some(stop), ..Default::default() };
            let stopped = run(&*vit(), &settings, state.take(), &mut watch);
            assert!(matches!(stopped, Err(TrainError::Stopped { .. })));
            // Through the file, as a run that was killed would find it.
            let saved = watch.saved.unwrap();
            let bytes = saved.encode(&*vit(), &settings, &Default::default());
            let file = Checkpoint::parse(&bytes, "state").unwrap();
            let read = TrainState::decode(file, &*vit(), &settings).unwrap();
            assert_eq!(read, saved);
            state = Some(read);
        }
        let state = state.unwrap();
        assert_eq!((state.history.len(), state.step), (2, 4));
        assert_eq!(run(&*vit(), &settings, Some(state), &mut Watch::default()).unwrap(), whole, "{settings:?}");
    }
}

#[test]
fn the_head_alone_is_trained_at_backbone_rate_zero() {
    let settings = TrainConfig { epochs: 3, batch: 50, warmup_epochs: 0, backbone_rate: 0.0, ..Default::default() };
    let start = vit();
    let trained = same_for_all_threads(|| outcome(&settings));
    for (param, (name, _, new)) in start.params().iter().zip(&trained.tensors) {
        assert_eq!(*param.data != **new, name.starts_with("head."), "{name}");
    }
    assert!(trained.history[2].loss < trained.history[0].loss);
}

#[test]
fn lower_layers_move_less() {
    let way = |backbone_rate, layer_decay| -> Vec<f32> {
        let settings =
            TrainConfig { epochs: 1, batch: 200, warmup_epochs: 0, backbone_rate, layer_decay, ..Default::default() };
        let (start, trained) = (vit(), outcome(&settings).tensors);
        ["patch_embed.proj.bias", "blocks.0.mlp.fc1.bias", "blocks.2.mlp.fc1.bias", "head.bias"]
            .map(|wanted| {
                let old = start.params().iter().find(|p| p.name == wanted).unwrap();
                let (_, _, new) = trained.iter().find(|(name, _, _)| name == wanted).unwrap();
                old.data.iter().zip(new).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            })
            .to_vec()
    };
    // The first step of Adam is as long as the learning rate in every direction. 1%: what epsilon takes of it.
    let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 0.01 * b;
    let decayed = way(0.1, 0.5);
    for (got, factor) in decayed.iter().zip([0.1 * 0.0625, 0.1 * 0.125, 0.1 * 0.5, 1.0]) {
        assert!(close(*got, 1e-3 * factor), "{decayed:?}");
    }
}

#[test]
fn without_validation_the_last_epoch_is_kept() {
    let (images, labels) = pictures(50, 1);
    let part = Part { labels: &labels, picture: &|i, _| Ok(images[i * 64..(i + 1) * 64].to_vec()) };
    let settings = TrainConfig { epochs: 3, ..Default::default() };
    let go = |start, watch: &mut Watch| train(&*vit(), part, None, &settings, &TrainDevice::cpu(), start, watch);
    let whole = go(None, &mut Watch::default()).unwrap();
    assert_eq!((whole.epoch, whole.history[2].validation_accuracy), (3, None));

    let mut watch = Watch { stop_after: Some(2), ..Default::default() };
    assert!(matches!(go(None, &mut watch), Err(TrainError::Stopped { epoch: 1 })));
    let bytes = watch.saved.unwrap().encode(&*vit(), &settings, &Default::default());
    let state = TrainState::decode(Checkpoint::parse(&bytes, "state").unwrap(), &*vit(), &settings).unwrap();
    assert_eq!(go(Some(state), &mut Watch::default()).unwrap(), whole);
}

#[test]
fn bad_data_and_failures_are_reported() {
    let (images, mut labels) = pictures(8, 1);
    let settings = TrainConfig { epochs: 2, ..Default::default() };
    let go = |labels: &[u16], settings: &TrainConfig, spoil: &(dyn Fn(usize) -> Option<f32> + Sync)| {
        let part = Part {
            labels,
            picture: &|i, _| match spoil(i) {
                Some(value) => Ok(vec![value; 64]),
                None if i == 6 => Err("no such file: six.png".into()),
                None => Ok(images[i * 64..(i + 1) * 64].to_vec()),
            },
        };
        train(&*vit(), part, None, settings, &TrainDevice::cpu(), None, &mut Watch::default())
    };
    let fine = |_| Some(0.5);
    assert!(go(&labels, &settings, &fine).is_ok());
    assert!(matches!(go(&[], &settings, &fine), Err(TrainError::Empty { .. })));
    let nan = |i| Some(if i == 3 { f32::NAN } else { 0.0 });
    assert!(matches!(go(&labels, &settings, &nan), Err(TrainError::Value { .. })));
    let message = go(&labels, &settings, &|_| None).unwrap_err().to_string();
    assert!(message.contains("six.png"), "{message}");
    let wrong = TrainConfig { label_smoothing: 1.5, ..Default::default() };
    assert!(matches!(go(&labels, &wrong, &fine), Err(TrainError::Setting { what: "label smoothing", .. })));
    let wild = TrainConfig { learning_rate: 1e30, warmup_epochs: 0, ..Default::default() };
    assert!(matches!(go(&labels, &wild, &fine), Err(TrainError::Diverged { .. })));
    labels[3] = 5;
    assert!(matches!(go(&labels, &settings, &fine), Err(TrainError::Label { index: 3, label: 5, classes: 5 })));

    struct Full;
    impl Observer for Full {
        fn step(&mut self, _: &Progress) -> Next {
            Next::Save
        }
        fn epoch(&mut self, _: &EpochReport) -> Next {
            Next::Go
        }
        fn save(&mut self, _: &TrainState) -> Result<(), AnyError> {
            Err("the disk is full".into())
        }
    }
    labels[3] = 0;
    let part = Part { labels: &labels, picture: &|_, _| Ok(vec![0.5; 64]) };
    let failed = train(&*vit(), part, None, &settings, &TrainDevice::cpu(), None, &mut Full).unwrap_err();
    assert!(failed.to_string().contains("the disk is full"), "{failed}");
}

#[test]
fn damaged_states_are_refused() {
    let settings = TrainConfig { epochs: 3, batch: 60, ..Default::default() };
    let mut watch = Watch { stop_after: Some(6), ..Default::default() };
    assert!(run(&*vit(), &settings, None, &mut watch).is_err());
    let bytes = watch.saved.unwrap().encode(&*vit(), &settings, &Default::default());
    let decode = |bytes: &[u8], settings: &TrainConfig| {
        let file = Checkpoint::parse(bytes, "x.state").map_err(|e| e.to_string())?;
        TrainState::decode(file, &*vit(), settings).map_err(|e| e.to_string())
    };
    assert!(decode(&bytes, &settings).is_ok());
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (from, to, word) in [
        ("quee training state 1", "quee training state 9", "format"),
        ("\"step\":\"2 ", "\"step\":\"x ", "step"),
        ("moment1.head.bias", "moment9.head.bias", "moment1.head.bias"),
        ("\"history\"", "\"histori\"", "history"),
    ] {
        let message = decode(&replaced(from, to), &settings).unwrap_err();
        assert!(message.contains("x.state") && message.contains(word) && message.contains("hint"), "{message}");
    }
    // Moments of another rule are left over.
    let other = TrainConfig { rule: SGD, ..settings.clone() };
    assert!(decode(&bytes, &other).unwrap_err().contains("moment1"));
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(decode(&bytes[..length], &settings).unwrap_err().contains("x.state"));
    }
}

#[test]
fn frozen_parameters_stay() {
    let backbone = fresh(&common::t2t_config(), 3);
    let (images, labels) = (noise(40 * 256, 1), vec![1; 40]);
    let part = Part { labels: &labels, picture: &|i, _| Ok(images[i * 256..(i + 1) * 256].to_vec()) };
    let settings = TrainConfig { epochs: 1, ..Default::default() };
    let trained = train(&*backbone, part, None, &settings, &TrainDevice::cpu(), None, &mut Watch::default()).unwrap();
    assert_eq!(trained.tensors.len(), backbone.params().len());
    for (param, (name, _, values)) in backbone.params().iter().zip(&trained.tensors) {
        assert_eq!(param.name, *name);
        assert_eq!(*param.data == **values, param.frozen, "{name}");
    }
}
