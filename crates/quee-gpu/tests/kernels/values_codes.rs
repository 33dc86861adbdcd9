//! Quantizing the values of attention.

use std::sync::Arc;

use proptest::prelude::*;
use quee_backbone::{Attention, ExecError, Executor as _};
use quee_gpu::GpuEngine;
use quee_gpu::debug::quantized_values;
use quee_quant::quantize_row_dynamic;

use crate::support::{alone, devices, dynamic, everywhere, random, values};

fn attention(heads: usize, head_dim: usize) -> Attention {
    Attention { site: "attn".into(), heads, head_dim, scale: 0.5 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_head_has_its_own_range(
        b in 1usize..4, t in 1usize..80, heads in 1usize..4, dim in 1usize..70, bits in 2u8..=8, seed: u64,
    ) {
        let _alone = alone();
        let mut random = random(seed);
        let stride = 3 * heads * dim;
        let x = values(&mut random, b * t * stride, 3.0);
        let got = everywhere("values_codes", &bits.to_string(), &dynamic(), |executor| {
            let x = executor.input(&[b, t, stride], &x)?;
            quantized_values(executor, &x, &attention(heads, dim))
        });
        let Some(got) = got else { return Ok(()) };
        let mut wrong = 0;
        for matrix in 0..b * heads {
            let (sample, head) = (matrix / heads, matrix % heads);
            let value = |feature: usize, token: usize| x[(sample * t + token) * stride + (2 * heads + head) * dim + feature];
            let all: Vec<f32> = (0..dim * t).map(|at| value(at / t, at % t)).collect();
            let mut want = vec![0; dim * t];
            let (quant, _) = quantize_row_dynamic(&all, bits, &mut want);
            let codes = &got.codes[matrix * dim * t..(matrix + 1) * dim * t];
            for (&code, &want) in codes.iter().zip(&want) {
                prop_assert!(code.abs_diff(want) <= 1, "{code}, not {want}");
                wrong += usize::from(code != want);
            }
            for feature in 0..dim {
                let at = matrix * dim + feature;
                let sum: i32 = codes[feature * t..(feature + 1) * t].iter().map(|&code| i32::from(code)).sum();
                prop_assert_eq!(got.sums[at], sum);
                prop_assert_eq!(got.zeros[at], quant.zero);
                prop_assert!((got.scales[at] / quant.scale - 1.0).abs() < 1e-6);
            }
        }
        prop_assert!(wrong * 1000 <= got.codes.len(), "{wrong} of {}", got.codes.len());
    }
}

#[test]
fn values_that_are_not_finite_are_found_at_every_place() {
    let _alone = alone();
    let Some(devices) = devices("values_codes: values that are not finite") else { return };
    let (t, heads, dim) = (5, 2, 3);
    let stride = 3 * heads * dim;
    for gpu in [&devices.direct, &devices.tiled] {
        let mut executor = GpuEngine::on(dynamic(), Arc::clone(gpu)).executor().unwrap();
        executor.set_width("w8a8".parse().unwrap()).unwrap();
        for at in 0..t * stride {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![0.25; t * stride];
                x[at] = bad;
                let input = executor.input(&[1, t, stride], &x).unwrap();
                let result = quantized_values(&mut executor, &input, &attention(heads, dim));
                // Queries and keys are no business of this kernel.
                let is_value = at % stride >= 2 * heads * dim;
                let found = matches!(&result, Err(ExecError::NotFinite { site }) if site == "attn.v");
                assert_eq!(found, is_value, "{bad} at {at}: {result:?}");
            }
        }
    }
}
