use quee_backbone::vit::{Pool, Vit, VitConfig};
use quee_train::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;
use std::time::Instant;

fn env(k: &str, d: usize) -> usize {
    std::env::var(k).ok().and_then(|v| v.parse().ok()).unwrap_or(d)
}

#[test]
fn pretraining() {
    let bytes = std::fs::read("../../assets/digits/digits.bin").unwrap();
    let mut images = vec![];
    let mut labels = vec![];
    for rec in bytes[28..].chunks_exact(65) {
        labels.push(u16::from(rec[0]));
        images.extend(rec[1..].iter().map(|&p| (f32::from(p) / 16.0 - 0.305) / 0.376));
    }
    let patch = env("PATCH", 2);
    let config = VitConfig {
        image: 8,
        channels: 1,
        patch,
        dim: 64,
        depth: 6,
        heads: 4,
        hidden: 128,
        classes: 10,
        qkv_bias: true,
        pool: Pool::ClassToken,
    };
    let vit = Vit::load("v", config.clone(), init_vit(&config, 0)).unwrap();
    let n = 800;
    let train = Pictures { images: &images[..n * 64], labels: &labels[..n] };
    let val = Pictures { images: &images[n * 64..(n + 200) * 64], labels: &labels[n..n + 200] };
    let cfg =
        PretrainConfig { epochs: env("EPOCHS", 4), batch: env("BATCH", 128), warmup_epochs: 2, ..Default::default() };
    let t = Instant::now();
    let out = pretrain(&vit, train, val, &cfg, &|p, _| p.to_vec(), &mut |r| {
        if r.epoch % env("EVERY", 1) == 0 {
            println!("{:?} {:.1}s", r, t.elapsed().as_secs_f32());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    println!("sum {}", out.iter().flat_map(|t| &t.2).map(|x| f64::from(*x)).sum::<f64>());
}

#[test]
fn exits() {
    let (n, dim, classes) = (36_000, 192, 10);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let centres: Vec<f32> = (0..classes * dim).map(|_| rng.random::<f32>() - 0.5).collect();
    let labels: Vec<u16> = (0..n).map(|i| (i % classes) as u16).collect();
    let x: Vec<f32> = labels
        .iter()
        .flat_map(|&l| {
            (0..dim).map(|d| centres[usize::from(l) * dim + d] + 3.0 * (rng.random::<f32>() - 0.5)).collect::<Vec<_>>()
        })
        .collect();
    let t = Instant::now();
    let head = train_exit(&x, &labels, dim, classes, &ExitConfig::default(), None).unwrap();
    println!("exit {:.2}s", t.elapsed().as_secs_f32());
    let lg = head.logits(&x);
    let right = lg
        .chunks(classes)
        .zip(&labels)
        .filter(|(r, l)| (0..classes).max_by(|&a, &b| r[a].total_cmp(&r[b])).unwrap() == usize::from(**l))
        .count();
    println!("acc {}", right as f64 / n as f64);
}

#[test]
fn gates() {
    for (n, outputs) in [(1000, 13), (10_000, 13), (10_000, 40)] {
        let inputs = 25;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let w: Vec<f32> = (0..inputs * outputs).map(|_| rng.random::<f32>() - 0.5).collect();
        let mut make = |n: usize| {
            let x: Vec<f32> = (0..n * inputs).map(|_| 3.4 * (rng.random::<f32>() - 0.5)).collect();
            let t: Vec<f32> = x
                .chunks(inputs)
                .flat_map(|r| {
                    (0..outputs)
                        .map(|o| {
                            let z: f32 =
                                -1.0 + r.iter().zip(&w[o * inputs..]).map(|(a, b)| a * b).sum::<f32>() + r[0].abs();
                            1.0 / (1.0 + (-z).exp())
                        })
                        .collect::<Vec<_>>()
                })
                .map(|p| if rng.random::<f32>() < p { 1.0 } else { 0.0 })
                .collect();
            (x, t)
        };
        let (x, t) = make(n);
        let (hx, ht) = make(n / 9);
        let cfg = GateConfig {
            members: 9,
            batch: env("BATCH", 512),
            learning_rate: env("LR1000", 10) as f64 / 1000.0,
            patience: env("PATIENCE", 8),
            ..Default::default()
        };
        let time = Instant::now();
        let m = train_gate(
            GateRows { inputs, outputs, features: &x, targets: &t },
            GateRows { inputs, outputs, features: &hx, targets: &ht },
            &cfg,
        )
        .unwrap();
        println!(
            "{n}x{outputs}: 9 members {:.2}s epochs {:?} losses {:?}",
            time.elapsed().as_secs_f32(),
            m.iter().map(|m| m.epoch).collect::<Vec<_>>(),
            m.iter().map(|m| (m.log_loss * 1e4).round() / 1e4).collect::<Vec<_>>()
        );
    }
}
