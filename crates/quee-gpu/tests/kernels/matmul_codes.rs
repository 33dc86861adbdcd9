//! Products of codes: exact sums against the scalar reference for every tile, and whole linear layers and attention products through the
//! executor.

use proptest::prelude::*;
use quee_backbone::{Attention, Executor as _};
use quee_gpu::debug::{Before, Quantized, code_sums, quantized_rows, quantized_values};
use quee_gpu::tiles::{self, Operands, Shape};
use quee_quant::{ActQuant, QuantWeight, WeightQuantizer, Width, reference};

use crate::support::{alone, assert_near, codes, devices, dynamic, everywhere, linear, random, values};

fn check_sums(test: &str, shape: Shape, a: &[i8], b: &[i8]) {
    let Some(devices) = devices(test) else { return };
    let Shape { m, n, k, batch, .. } = shape;
    let want: Vec<i32> = (0..batch)
        .flat_map(|at| {
            reference::matmul_codes(m, n, k, &a[at * m * k..(at + 1) * m * k], &b[at * n * k..(at + 1) * n * k])
        })
        .collect();
    for tile in tiles::all(Operands::Codes) {
        for (device, gpu) in devices.all() {
            // Limits change how a product is cut, the kernels for one kind of device are the same on the other.
            if device.starts_with("direct") || !tile.can(shape, gpu.abilities()) {
                continue;
            }
            let got = code_sums(gpu, shape, a, b, tile).unwrap();
            assert!(got == want, "{} on {device}: {shape:?}", tile.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_exact(
        m in 1usize..130, n in 1usize..200, k in 1usize..300, batch in 1usize..4, bits in 2u8..=8, weight_bits in 2u8..=8, seed: u64,
    ) {
        let _alone = alone();
        let mut random = random(seed);
        let (a, b) = (codes(&mut random, batch * m * k, bits), codes(&mut random, batch * n * k, weight_bits));
        check_sums("sums_are_exact", Shape { operands: Operands::Codes, m, n, k, batch }, &a, &b);
    }
}

/// Sums beyond what floats hold exactly: 2^24 is passed after 1,024 products of −128 · −128.
#[test]
fn sums_of_extreme_codes_are_exact() {
    let _alone = alone();
    for (k, a, b) in [(1100, -128, -128), (1100, 127, -128), (2049, 127, 127), (3072, -128, 127), (1024, -128, -128)] {
        let shape = Shape { operands: Operands::Codes, m: 9, n: 37, k, batch: 1 };
        // Not all alike, so that exchanged rows or columns would show.
        let fill = |rows: usize, code: i8| -> Vec<i8> {
            (0..rows * k).map(|at| if at % k < at / k { code / 2 } else { code }).collect()
        };
        check_sums("sums_of_extreme_codes_are_exact", shape, &fill(9, a), &fill(37, b));
    }
}

/// Linear layers on the device's own codes: what is left to differ is the rounding of the epilogue.
#[test]
fn layers_scale_the_sums_as_the_reference_does() {
    let _alone = alone();
    let mut random = random(31);
    for ([b, t, d], n, width) in [
        ([1, 1, 1], 1, "w2a2"),
        ([3, 7, 20], 33, "w3a5"),
        ([2, 3, 1200], 40, "w8a8"),
        ([9, 65, 96], 130, "w4a8"),
        ([1, 9, 64], 5000, "w6a7"),
        ([80, 65, 70], 9, "w7a3"),
    ] {
        let layer = linear(&mut random, n, d);
        let (x, residual) = (values(&mut random, b * t * d, 1.0), values(&mut random, b * t * n, 1.0));
        let outputs = everywhere("layers", width, &dynamic(), |executor| {
            let x = executor.input(&[b, t, d], &x)?;
            let residual = executor.input(&[b, t, n], &residual)?;
            let coded = quantized_rows(executor, &x, Before::Nothing, "layer", 0)?;
            let plain = executor.linear(&x, &layer)?;
            let added = executor.linear_add(&x, &layer, &residual)?;
            Ok((coded, executor.read(&plain)?, executor.read(&added)?))
        });
        let Some((coded, plain, added)) = outputs else { return };
        let width: Width = width.parse().unwrap();
        let weight = QuantWeight::quantize(&layer.weight.data, n, d, width.weight_bits(), WeightQuantizer::Absmax);
        let want = reference::linear(
            b * t,
            &coded.codes,
            &quants(&coded, width.act_bits()),
            &weight,
            layer.bias.as_ref().map(|bias| &*bias.data),
        );
        let want: Vec<f64> = want.into_iter().map(f64::from).collect();
        assert_near(&plain, &want, 1e-6, "linear");
        let want: Vec<f64> = want.iter().zip(&residual).map(|(y, &r)| y + f64::from(r)).collect();
        assert_near(&added, &want, 1e-6, "linear_add");
    }
}

fn quants(coded: &Quantized, bits: u8) -> Vec<ActQuant> {
    coded.scales.iter().zip(&coded.zeros).map(|(&scale, &zero)| ActQuant::new(scale, zero, bits)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attention_products_remove_both_zero_points(
        b in 1usize..4, t in 1usize..80, heads in 1usize..4, dim in 1usize..40, bits in 2u8..=8, seed: u64,
    ) {
        let _alone = alone();
        check_attention([b, t, heads, dim], bits, seed);
    }
}

/// Under small limits, one sample's scores take more than a binding.
#[test]
fn samples_may_be_larger_than_a_binding() {
    let _alone = alone();
    check_attention([2, 210, 7, 11], 8, 1);
}

fn check_attention([b, t, heads, dim]: [usize; 4], bits: u8, seed: u64) {
    let attention = Attention { site: "attn".into(), heads, head_dim: dim, scale: 0.3 };
    let stride = 3 * heads * dim;
    let mut random = random(seed);
    let (x, p) = (values(&mut random, b * t * stride, 2.0), values(&mut random, b * heads * t * t, 1.0));
    let outputs = everywhere("attention", &bits.to_string(), &dynamic(), |executor| {
        let x = executor.input(&[b, t, stride], &x)?;
        let p = executor.input(&[b, heads, t, t], &p)?;
        let mut rows = Vec::new();
        for head in 0..2 * heads {
            let part = executor.slice_features(&x, head * dim, dim)?;
            rows.push(quantized_rows(executor, &part, Before::Nothing, "part", 0)?);
        }
        let flat = executor.reshape(&p, &[heads * t, t])?;
        let probabilities = quantized_rows(executor, &flat, Before::Nothing, "part", 0)?;
        let columns = quantized_values(executor, &x, &attention)?;
        let scores = executor.attention_scores(&x, &attention)?;
        let mixed = executor.attention_values(&p, &x, &attention)?;
        Ok((rows, probabilities, columns, executor.read(&scores)?, executor.read(&mixed)?))
    });
    let Some((rows, probabilities, columns, scores, mixed)) = outputs else { return };
    let (mut want_scores, mut want_mixed) = (Vec::new(), vec![0.0; mixed.len()]);
    for (sample, head) in (0..b * heads).map(|matrix| (matrix / heads, matrix % heads)) {
        let matrix = sample * heads + head;
        for token in 0..t {
            let (queries, keys) = (&rows[head], &rows[heads + head]);
            want_scores
                .extend((0..t).map(|key| product(queries, sample * t + token, keys, sample * t + key, dim, 0.3)));
            for i in 0..dim {
                want_mixed[((sample * t + token) * heads + head) * dim + i] =
                    product(&probabilities, matrix * t + token, &columns, matrix * dim + i, t, 1.0);
            }
        }
    }
    assert_near(&scores, &want_scores, 1e-6, "scores");
    assert_near(&mixed, &want_mixed, 1e-6, "values");
}

/// The product of a row and a column of `k` codes.
fn product(a: &Quantized, i: usize, b: &Quantized, j: usize, k: usize, factor: f32) -> f64 {
    let codes = a.codes[i * k..][..k].iter().zip(&b.codes[j * k..][..k]);
    let sum = codes.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
    let sum = reference::product_sum(sum, k, a.zeros[i], a.sums[i], b.zeros[j], b.sums[j]);
    f64::from(sum as f32 * (a.scales[i] * b.scales[j] * factor))
}
