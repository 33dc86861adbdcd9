//! Trainings of exits and gates learn what there is to learn, and give the same bits whatever the number of threads.

mod common;

use common::{noise, same_for_all_threads};
use quee_heads::{Ensemble, Mlp};
use quee_train::exits::ExitRows;
use quee_train::gates::log_loss;
use quee_train::{
    ExitConfig, GateConfig, GateMember, GateRows, TrainDevice, TrainError, soft_labels, train_exit, train_gate,
};

/// Features of `classes` clouds.
fn clouds(rows: usize, dim: usize, classes: usize, seed: u64) -> (Vec<f32>, Vec<u16>) {
    let (centres, mut features) = (noise(classes * dim, 77), noise(rows * dim, seed));
    let labels: Vec<u16> = (0..rows).map(|row| (row % classes) as u16).collect();
    for (row, &label) in features.chunks_exact_mut(dim).zip(&labels) {
        row.iter_mut().zip(&centres[usize::from(label) * dim..]).for_each(|(x, c)| *x = 2.0 * *x + c);
    }
    (features, labels)
}

/// What an exit learns from, with the class alone as target.
fn rows<'a>(features: &'a [f32], targets: &'a [f32], inputs: usize, classes: usize) -> ExitRows<'a> {
    ExitRows { inputs, classes, features, targets }
}

fn accuracy(head: &Mlp, features: &[f32], labels: &[u16]) -> f64 {
    let answer = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let mut logits = Vec::new();
    let mut correct = |(row, label): &(&[f32], &u16)| {
        head.forward(row, &mut logits);
        answer(&logits) == usize::from(**label)
    };
    let right = features.chunks(head.inputs).zip(labels).filter(|pair| correct(pair));
    right.count() as f64 / labels.len() as f64
}

#[test]
fn exits_learn_clouds_of_features() {
    let ((features, labels), (new_features, new_labels)) = (clouds(900, 64, 10, 1), clouds(500, 64, 10, 2));
    let targets = soft_labels(labels.iter().copied(), 10, 0.0);
    for hidden in [0, 32] {
        let config = ExitConfig { hidden, ..Default::default() };
        let rows = rows(&features, &targets, 64, 10);
        let head = same_for_all_threads(|| train_exit(&TrainDevice::cpu(), rows, &config, None).unwrap());
        assert_eq!(head.hidden, hidden);
        let found = accuracy(&head, &new_features, &new_labels);
        assert!(found > 0.9, "{found} with {hidden} hidden units");
    }
}

#[test]
fn exits_start_from_given_weights() {
    let (features, labels) = clouds(60, 8, 3, 1);
    let (weight, bias) = (noise(24, 3), noise(3, 4));
    let none = ExitConfig { epochs: 0, ..Default::default() };
    let targets = soft_labels(labels.iter().copied(), 3, 0.0);
    let rows = rows(&features, &targets, 8, 3);
    let head = train_exit(&TrainDevice::cpu(), rows, &none, Some((&weight, &bias))).unwrap();
    assert_eq!((&head.w2, &head.b2), (&weight, &bias));
    let row = &features[..8];
    let by_hand = |class: usize| bias[class] + (0..8).map(|i| weight[class * 8 + i] * row[i]).sum::<f32>();
    let mut logits = Vec::new();
    head.forward(row, &mut logits);
    logits.iter().enumerate().for_each(|(class, logit)| assert!((logit - by_hand(class)).abs() < 1e-5));

    let one = ExitConfig { epochs: 1, ..Default::default() };
    let moved = train_exit(&TrainDevice::cpu(), rows, &one, Some((&weight, &bias))).unwrap();
    // One step of Adam moves each value by about the learning rate.
    assert!(moved.w2.iter().zip(&weight).all(|(a, b)| (a - b).abs() < 0.011) && moved.w2 != weight);
}

#[test]
fn exits_refuse_bad_data() {
    let (mut features, labels) = clouds(6, 8, 3, 1);
    let mut targets = soft_labels(labels.iter().copied(), 3, 0.0);
    let run = |features: &[f32], targets: &[f32]| {
        train_exit(&TrainDevice::cpu(), rows(features, targets, 8, 3), &ExitConfig::default(), None)
    };
    assert!(matches!(run(&features[1..], &targets), Err(TrainError::Length { .. })));
    assert!(matches!(run(&features, &targets[1..]), Err(TrainError::Length { .. })));
    assert!(matches!(run(&[], &[]), Err(TrainError::Empty { .. })));
    features[9] = f32::NAN;
    assert!(matches!(run(&features, &targets), Err(TrainError::Value { index: 9, .. })));
    (features[9], targets[4]) = (0.0, 1.5);
    assert!(matches!(run(&features, &targets), Err(TrainError::Value { index: 4, .. })));
}

const INPUTS: usize = 6;
const OUTPUTS: usize = 4;

/// True probabilities of error: a bump in one feature, which no linear function has, and slopes in the others.
fn truth(row: &[f32]) -> [f32; OUTPUTS] {
    std::array::from_fn(|o| {
        let z = -1.0 + 3.0 * row[0].abs() - 2.0 * row[1] * o as f32 / 3.0 + row[2 + o % 4];
        1.0 / (1.0 + (-z).exp())
    })
}

struct Rows {
    features: Vec<f32>,
    targets: Vec<f32>,
}

impl Rows {
    /// Soft targets.
    fn soft(count: usize, seed: u64) -> Self {
        let features: Vec<f32> = noise(count * INPUTS, seed).iter().map(|x| 1.7 * x).collect();
        let targets = features.chunks_exact(INPUTS).flat_map(truth).collect();
        Self { features, targets }
    }

    /// Outcomes 0 and 1 drawn from the soft targets.
    fn drawn(count: usize, seed: u64) -> Self {
        let mut rows = Self::soft(count, seed);
        let draws = noise(rows.targets.len(), seed + 1000);
        rows.targets.iter_mut().zip(draws).for_each(|(t, draw)| *t = f32::from(u8::from((draw + 1.0) / 2.0 < *t)));
        rows
    }

    fn view(&self) -> GateRows<'_> {
        GateRows { inputs: INPUTS, outputs: OUTPUTS, features: &self.features, targets: &self.targets }
    }
}

fn loss_of(members: Vec<Mlp>, rows: &Rows) -> f64 {
    let ensemble = Ensemble { members };
    ensemble.check(INPUTS, OUTPUTS).unwrap();
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for row in rows.features.chunks_exact(INPUTS) {
        ensemble.probabilities(row, &mut one);
        all.extend_from_slice(&one);
    }
    log_loss(&all, &rows.targets)
}

fn networks(members: &[GateMember]) -> Vec<Mlp> {
    members.iter().map(|m| m.network.clone()).collect()
}

/// Log loss of answering every output with its mean.
fn base_rate_loss(rows: &Rows) -> f64 {
    let n = (rows.targets.len() / OUTPUTS) as f32;
    let rates: Vec<f32> = (0..OUTPUTS).map(|o| rows.targets.iter().skip(o).step_by(OUTPUTS).sum::<f32>() / n).collect();
    log_loss(&rates.repeat(rows.targets.len() / OUTPUTS), &rows.targets)
}

#[test]
fn gates_learn_a_known_function() {
    let (held_out, test) = (Rows::drawn(300, 2), Rows::drawn(3000, 3));
    let ideal = log_loss(&Rows::soft(3000, 3).targets, &test.targets);
    let base = base_rate_loss(&test);
    assert!(base - ideal > 0.15, "there is something to learn: {base} {ideal}");
    for train in [Rows::soft(2000, 1), Rows::drawn(2000, 1)] {
        let run = |config: &GateConfig| train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), config).unwrap();
        let ensemble = same_for_all_threads(|| run(&GateConfig::default()));
        let linear = run(&GateConfig { hidden: 0, ..Default::default() });
        assert!(linear.iter().all(|m| m.network.w1.is_empty() && m.network.w2.len() == INPUTS * OUTPUTS));
        let (found, linear) = (loss_of(networks(&ensemble), &test), loss_of(networks(&linear), &test));
        assert!(found < base - 0.7 * (base - ideal), "{found} between {ideal} and {base}");
        assert!(linear < base - 0.1 * (base - ideal) && found < linear - 0.03, "{linear} between {found} and {base}");
    }
}

#[test]
fn the_network_of_the_best_epoch_is_returned() {
    // Few rows and no decay: networks soon learn them by heart.
    let (train, held_out) = (Rows::drawn(100, 1), Rows::drawn(300, 2));
    let settings = GateConfig { weight_decay: 0.0, patience: 6, learning_rate: 0.03, ..Default::default() };
    let members = train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), &settings).unwrap();
    for (index, member) in members.iter().enumerate() {
        assert!(member.epoch > 0 && member.epoch < settings.max_epochs - settings.patience, "epoch {}", member.epoch);
        let again = loss_of(vec![member.network.clone()], &held_out);
        assert!((again - member.log_loss).abs() < 1e-6, "{again} {}", member.log_loss);
        let ended = GateConfig { max_epochs: member.epoch, ..settings.clone() };
        assert_eq!(train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), &ended).unwrap()[index], *member);
        let later = GateConfig { max_epochs: member.epoch + settings.patience, ..settings.clone() };
        assert_eq!(train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), &later).unwrap()[index], *member);
    }
}

#[test]
fn members_differ_from_each_other_but_not_by_their_number() {
    let (train, held_out) = (Rows::soft(200, 1), Rows::drawn(100, 2));
    let run = |members, seed| {
        let settings = GateConfig { members, seed, max_epochs: 5, ..Default::default() };
        train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), &settings).unwrap()
    };
    let three = run(3, 0);
    assert_eq!(run(1, 0)[0], three[0]);
    assert_ne!(three[0].network, three[1].network);
    assert_ne!(run(1, 1)[0].network, three[0].network);
}

#[test]
fn absent_targets_teach_nothing() {
    let held_out = Rows::drawn(300, 2);
    let settings = GateConfig { members: 1, max_epochs: 30, ..Default::default() };
    let run =
        |train: &Rows| train_gate(&TrainDevice::cpu(), train.view(), held_out.view(), &settings).unwrap().remove(0);
    // Output 1 is never known; output 2 only where the first feature is negative, where it is always an error.
    let mut train = Rows::soft(1000, 1);
    for row in 0..1000 {
        train.targets[row * OUTPUTS + 1] = f32::NAN;
        train.targets[row * OUTPUTS + 2] = if train.features[row * INPUTS] < 0.0 { 1.0 } else { f32::NAN };
    }
    let member = run(&train);
    assert_eq!(member.network.b2[1], 0.0);
    let mut logits = Vec::new();
    let test = Rows::soft(200, 3);
    for row in test.features.chunks_exact(INPUTS) {
        member.network.forward(row, &mut logits);
        assert!(logits[2] > 1.0, "all that is known of output 2 are errors: {logits:?}");
    }
    assert!(member.log_loss.is_finite());
}

#[test]
fn gates_refuse_bad_data() {
    let (train, held_out) = (Rows::soft(20, 1), Rows::drawn(10, 2));
    let run =
        |train: GateRows<'_>, config: &GateConfig| train_gate(&TrainDevice::cpu(), train, held_out.view(), config);
    let config = GateConfig::default();
    let missing = [f32::NAN; 20 * OUTPUTS];
    let none = GateRows { targets: &missing, ..train.view() };
    assert!(matches!(run(none, &config), Err(TrainError::Empty { .. })));
    let mut wrong = train.targets.clone();
    wrong[7] = 1.5;
    let outside = GateRows { targets: &wrong, ..train.view() };
    assert!(matches!(run(outside, &config), Err(TrainError::Value { index: 7, .. })));
    let short = GateRows { targets: &wrong[1..], ..train.view() };
    assert!(run(short, &config).is_err());
    let none = GateConfig { members: 0, ..GateConfig::default() };
    assert!(matches!(run(train.view(), &none), Err(TrainError::Setting { what: "members", .. })));
}
