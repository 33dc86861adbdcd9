//! Products of floats.

use std::sync::Arc;

use proptest::prelude::*;
use quee_backbone::Executor as _;
use quee_gpu::GpuEngine;
use quee_gpu::tiles::{self, Operands, Shape};

use crate::support::{alone, assert_near, devices, dynamic, floats, gelu, linear, norm, random, values};

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tile_gives_the_same_bits(m in 1usize..130, n in 1usize..200, k in 1usize..300, seed: u64) {
        let _alone = alone();
        let Some(devices) = devices("matmul_float") else { return Ok(()) };
        let mut random = random(seed);
        let (layer, x) = (linear(&mut random, n, k), values(&mut random, m * k, 1.0));
        let exact = |at: usize| {
            let (row, column) = (&x[at / n * k..][..k], &layer.weight.data[at % n * k..][..k]);
            let sum: f64 = row.iter().zip(column).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            sum + f64::from(layer.bias.as_ref().unwrap().data[at % n])
        };
        let exact: Vec<f64> = (0..m * n).map(exact).collect();
        let mut first: Option<Vec<f32>> = None;
        for (device, gpu) in devices.all() {
            for tile in tiles::all(Operands::Floats) {
                gpu.set_tile(Shape { operands: Operands::Floats, m, n, k, batch: 1 }, tile);
                let mut executor = GpuEngine::on(dynamic(), Arc::clone(gpu)).executor().unwrap();
                let x = executor.input(&[1, m, k], &x).unwrap();
                let y = executor.linear(&x, &layer).unwrap();
                let y = executor.read(&y).unwrap();
                assert_near(&y, &exact, 2e-5, tile.name);
                prop_assert!(first.get_or_insert_with(|| y.clone()) == &y, "{} on {device}", tile.name);
            }
        }
    }
}

#[test]
fn layers_are_followed_by_gelu_or_a_residual() {
    let _alone = alone();
    let mut random = random(21);
    for ([b, t, d], n) in [([1, 1, 1], 1), ([3, 7, 20], 33), ([9, 65, 96], 130), ([2, 9, 64], 5000)] {
        let (layer, norm) = (linear(&mut random, n, d), norm(&mut random, d));
        let x = values(&mut random, b * t * d, 1.0);
        let residual = values(&mut random, b * t * n, 1.0);
        let bias = &layer.bias.as_ref().unwrap().data;
        let products = |x: &[f32]| -> Vec<f64> {
            let product = |at: usize| {
                let (row, column) = (&x[at / n * d..][..d], &layer.weight.data[at % n * d..][..d]);
                row.iter().zip(column).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
                    + f64::from(bias[at % n])
            };
            (0..b * t * n).map(product).collect()
        };
        let Some(sum) = floats("linear_add", &[b, t, d], &x, |executor, x| {
            let residual = executor.input(&[b, t, n], &residual)?;
            executor.linear_add(x, &layer, &residual)
        }) else {
            return;
        };
        let want: Vec<f64> = products(&x).iter().zip(&residual).map(|(y, &r)| y + f64::from(r)).collect();
        assert_near(&sum, &want, 2e-5, "linear_add");
        let normed = floats("layer_norm", &[b, t, d], &x, |executor, x| executor.layer_norm(x, &norm)).unwrap();
        let hidden =
            floats("norm_linear_gelu", &[b, t, d], &x, |executor, x| executor.norm_linear_gelu(x, &norm, &layer));
        let want: Vec<f64> = products(&normed).iter().map(|&y| gelu(y)).collect();
        assert_near(&hidden.unwrap(), &want, 5e-5, "norm_linear_gelu");
    }
}
