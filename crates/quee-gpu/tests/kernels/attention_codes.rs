//! Attention in one dispatch: bit for bit what the dispatches give that it stands for.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use quee_backbone::{Attention, ExecError, Executor as _, QuantPlan};
use quee_gpu::debug::{fused_attentions, fuses_attention};
use quee_gpu::{Gpu, GpuEngine, GpuOptions};
use quee_quant::{ActQuant, ActQuantizer, LogSqrt2, SiteQuant, Twin, WeightQuantizer, Width};

use crate::support::{alone, devices, dynamic, random, values};

/// The kernels for discrete GPUs with fusion, with as much shared memory as the adapter has and with 16 KiB, and without it.
struct Devices {
    fused: Arc<Gpu>,
    small: Arc<Gpu>,
    apart: Arc<Gpu>,
}

fn fused_devices(test: &str) -> Option<&'static Devices> {
    static APART: OnceLock<Devices> = OnceLock::new();
    let shared = devices(test)?;
    Some(APART.get_or_init(|| {
        let options = GpuOptions { tiled: Some(true), fused_attention: false, ..GpuOptions::default() };
        let apart = Gpu::open(&options).unwrap();
        Devices { fused: Arc::clone(&shared.tiled), small: Arc::clone(&shared.small_tiled), apart }
    }))
}

fn attention(heads: usize, head_dim: usize) -> Attention {
    Attention { site: "attn".into(), heads, head_dim, scale: 0.4 / (head_dim as f32).sqrt() }
}

/// Groups of samples with the bits of their activations.
type Groups<'a> = &'a [(usize, u8)];

/// What a device answers, and how many dispatches it takes.
fn run(
    gpu: &Arc<Gpu>,
    plan: &Arc<QuantPlan>,
    groups: Groups<'_>,
    x: &[f32],
    attention: &Attention,
) -> (Result<Vec<f32>, ExecError>, u64) {
    let engine = GpuEngine::on(Arc::clone(plan), Arc::clone(gpu));
    let mut executor = engine.executor().unwrap();
    let groups: Vec<(usize, Width)> =
        groups.iter().map(|&(samples, bits)| (samples, bits.to_string().parse().unwrap())).collect();
    executor.set_groups(&groups).unwrap();
    let samples: usize = groups.iter().map(|(samples, _)| samples).sum();
    let features = 3 * attention.heads * attention.head_dim;
    let x = executor.input(&[samples, x.len() / samples / features, features], x).unwrap();
    let result = executor.attention(&x, attention).and_then(|out| executor.read(&out));
    (result, engine.counts().dispatches)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The outputs, the same on every device, unless there is no adapter. `fused` says whether one dispatch is enough without small limits.
fn compare(
    test: &str,
    plan: &Arc<QuantPlan>,
    groups: Groups<'_>,
    x: &[f32],
    attention: &Attention,
    fused: bool,
) -> Option<Vec<f32>> {
    let devices = fused_devices(test)?;
    let (apart, dispatches) = run(&devices.apart, plan, groups, x, attention);
    let apart = apart.unwrap();
    assert!(dispatches >= 6, "{test}: {dispatches} dispatches");
    let (together, dispatches) = run(&devices.fused, plan, groups, x, attention);
    assert_eq!(dispatches == 1, fused, "{test}: {dispatches} dispatches");
    let small = run(&devices.small, plan, groups, x, attention).0;
    for (device, outputs) in [("fused", together), ("small limits", small)] {
        let outputs = outputs.unwrap_or_else(|e| panic!("{test}, {device}: {e}"));
        let wrong = bits(&outputs).iter().zip(bits(&apart)).position(|(a, b)| *a != b);
        if let Some(at) = wrong {
            panic!("{test}, {device}: {} at {at}, not {}", outputs[at], apart[at]);
        }
    }
    Some(apart)
}

/// Fixed steps at all sites; values pass the ranges now and then.
fn fixed(size: f32) -> Arc<QuantPlan> {
    let mut plan = QuantPlan::new(WeightQuantizer::Absmax, ActQuantizer::Minmax);
    for bits in 2..=8 {
        for (site, from, to) in
            [("attn.q", -0.8, 0.7), ("attn.k", -0.5, 0.9), ("attn.v", -0.9, 0.6), ("attn.softmax", 0.0, 0.3)]
        {
            let size = if site == "attn.softmax" { 1.0 } else { size };
            plan.set_site(site, SiteQuant::Uniform(ActQuant::from_range(size * from, size * to, bits)));
        }
    }
    Arc::new(plan)
}

/// Some of the widths of heads that there are, and some that are no multiple of anything.
const DIMS: [usize; 10] = [1, 3, 8, 17, 32, 40, 63, 64, 65, 80];

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_dispatch_gives_the_bits_of_six(
        b in 1usize..4, t in prop_oneof![1usize..20, 60usize..70, 1usize..160], heads in 1usize..4, dim in 0..DIMS.len(), bits in 2u8..=8,
        is_fixed: bool, seed: u64,
    ) {
        let _alone = alone();
        let Some(devices) = fused_devices("attention_codes: shapes") else { return Ok(()) };
        let dim = DIMS[dim];
        let fits = fuses_attention(&devices.fused, t, dim);
        prop_assert!(fits || t * dim > 70 * 80, "{t} tokens of {dim}");
        let x = values(&mut random(seed), b * t * 3 * heads * dim, 3.0);
        let plan = if is_fixed { fixed(3.0) } else { dynamic() };
        compare("shapes", &plan, &[(b, bits)], &x, &attention(heads, dim), fits);
    }
}

/// Also those with blocks of more tokens than are worked on at a time.
#[test]
fn every_variant_gives_the_same_bits() {
    let _alone = alone();
    let Some(devices) = fused_devices("attention_codes: variants") else { return };
    let mut most = 0;
    for (b, t, heads, dim) in [(300, 65, 1, 8), (2, 33, 2, 17), (130, 80, 2, 4), (2, 65, 3, 64), (1, 64, 1, 6)] {
        let attention = attention(heads, dim);
        let x = values(&mut random(28), b * t * 3 * heads * dim, 2.0);
        let apart = run(&devices.apart, &dynamic(), &[(b, 8)], &x, &attention).0.unwrap();
        let mut executor = GpuEngine::on(dynamic(), Arc::clone(&devices.fused)).executor().unwrap();
        executor.set_width("w8a8".parse().unwrap()).unwrap();
        let x = executor.input(&[b, t, 3 * heads * dim], &x).unwrap();
        let all = fused_attentions(&mut executor, &x, &attention).unwrap();
        most = most.max(all.len());
        for (variant, out) in all {
            let out = executor.read(&out).unwrap();
            assert!(bits(&out) == bits(&apart), "variant {variant}, {t} tokens of {dim}");
        }
    }
    assert!(most > 0);
}

#[test]
fn long_heads_are_fused_while_they_fit() {
    let _alone = alone();
    let Some(devices) = fused_devices("attention_codes: long heads") else { return };
    let mut random = random(21);
    for (t, dim) in [(197, 32), (210, 40), (197, 64), (208, 64), (96, 128), (33, 160), (300, 64)] {
        let x = values(&mut random, 2 * t * 3 * 2 * dim, 2.0);
        let fits = fuses_attention(&devices.fused, t, dim);
        compare(&format!("{t} tokens of {dim}"), &dynamic(), &[(2, 8)], &x, &attention(2, dim), fits);
    }
}

#[test]
fn groups_have_widths_of_their_own_and_pictures_are_the_same_alone() {
    let _alone = alone();
    let mut random = random(22);
    let (t, heads, dim) = (65, 3, 64);
    let attention = attention(heads, dim);
    let groups = [(2, 3), (1, 8), (3, 5), (1, 2), (2, 7), (1, 4), (4, 6), (1, 8)];
    let samples: usize = groups.iter().map(|(samples, _)| samples).sum();
    let x = values(&mut random, samples * t * 3 * heads * dim, 2.0);
    for plan in [dynamic(), fixed(2.0)] {
        let Some(mixed) = compare("groups", &plan, &groups, &x, &attention, true) else { return };
        let widths = groups.iter().flat_map(|&(samples, bits)| std::iter::repeat_n(bits, samples));
        let (x, out) = (x.chunks(t * 3 * heads * dim), mixed.chunks(t * heads * dim));
        for (at, ((x, out), width)) in x.zip(out).zip(widths).enumerate() {
            let alone = run(&fused_devices("groups").unwrap().fused, &plan, &[(1, width)], x, &attention);
            assert_eq!(alone.1, 1);
            assert!(bits(&alone.0.unwrap()) == bits(out), "picture {at} at {width} bits");
        }
    }
}

/// A picture is the same whether its heads are shared out among workgroups or not.
#[test]
fn a_large_batch_changes_no_picture() {
    let _alone = alone();
    let (t, heads, dim) = (37, 2, 8);
    let attention = attention(heads, dim);
    let samples = 300;
    let x = values(&mut random(23), samples * t * 3 * heads * dim, 2.0);
    let Some(together) = compare("large batch", &dynamic(), &[(samples, 8)], &x, &attention, true) else { return };
    for at in [0, 150, 299] {
        let x = &x[at * t * 3 * heads * dim..][..t * 3 * heads * dim];
        let alone = run(&fused_devices("large batch").unwrap().fused, &dynamic(), &[(1, 8)], x, &attention).0.unwrap();
        assert!(bits(&alone) == bits(&together[at * t * heads * dim..][..t * heads * dim]), "picture {at}");
    }
}

#[test]
fn extreme_values_give_the_same_bits() {
    let _alone = alone();
    let mut random = random(24);
    let (t, heads, dim) = (21, 2, 12);
    let stride = 3 * heads * dim;
    for (size, far) in
        [(1e-30, 1e-3), (1e-42, 0.0), (1.0, 1e15), (1e16, -1e17), (0.0, 0.0), (0.0, -2.0), (100.0, 100.0)]
    {
        let mut x = values(&mut random, t * stride, 1.0);
        x.iter_mut().for_each(|v| *v *= size);
        for row in x.chunks_mut(stride).step_by(3) {
            row[5] = far;
            row[heads * dim + 3] = -far;
            row[2 * heads * dim + 7] = far;
        }
        // A row of one sign.
        x[..stride].iter_mut().for_each(|v| *v = v.abs() + size);
        for plan in [dynamic(), fixed(1.0), fixed(1e-20)] {
            compare(&format!("{size} and {far}"), &plan, &[(1, 8)], &x, &attention(heads, dim), true);
        }
    }
}

#[test]
fn uneven_codes_are_not_fused() {
    let _alone = alone();
    let (t, heads, dim) = (17, 2, 16);
    let x = values(&mut random(25), 2 * t * 3 * heads * dim, 2.0);
    for quant in [
        SiteQuant::Twin(Twin { bits: 6, small: 0.002, shift: 4, signed: false }),
        SiteQuant::LogSqrt2(LogSqrt2 { bits: 6, scale: 1.0 }),
    ] {
        let mut plan = Arc::unwrap_or_clone(fixed(2.0));
        plan.set_site("attn.softmax", quant);
        compare("uneven", &Arc::new(plan), &[(2, 6)], &x, &attention(heads, dim), false);
    }
}

#[test]
fn values_that_are_not_finite_are_found_at_every_place() {
    let _alone = alone();
    let Some(devices) = fused_devices("attention_codes: values that are not finite") else { return };
    for (t, heads, dim) in [(5, 2, 3), (3, 1, 72), (67, 1, 4)] {
        let stride = 3 * heads * dim;
        let attention = attention(heads, dim);
        let x = values(&mut random(26), t * stride, 1.0);
        for at in (0..t * stride).step_by(if t > 5 { 7 } else { 1 }) {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = x.clone();
                x[at] = bad;
                let (result, dispatches) = run(&devices.fused, &dynamic(), &[(1, 8)], &x, &attention);
                assert_eq!(dispatches, 1);
                let want = ["attn.q", "attn.k", "attn.v"][at % stride / (heads * dim)];
                let found = matches!(&result, Err(ExecError::NotFinite { site }) if site == want);
                assert!(found, "{bad} at {at}: {result:?}");
            }
        }
        // And what is finite goes through again.
        run(&devices.fused, &dynamic(), &[(1, 8)], &x, &attention).0.unwrap();
    }
}

/// Queries and keys that are finite, and whose product is not.
#[test]
fn scores_that_are_not_finite_are_found() {
    let _alone = alone();
    let Some(devices) = fused_devices("attention_codes: scores that are not finite") else { return };
    let (t, heads, dim) = (19, 2, 8);
    let stride = 3 * heads * dim;
    for token in 0..t {
        let mut x = values(&mut random(27), t * stride, 1.0);
        x[token * stride] = 1e30;
        x[(t - 1 - token) * stride + heads * dim] = 1e30;
        for gpu in [&devices.fused, &devices.apart] {
            let result = run(gpu, &dynamic(), &[(1, 8)], &x, &attention(heads, dim)).0;
            let found = matches!(&result, Err(ExecError::NotFinite { site }) if site == "attn.softmax");
            assert!(found, "token {token}: {result:?}");
        }
    }
}
