//! Quantizing rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use quee_backbone::{ExecError, Executor as _, Norm, QuantPlan};
use quee_gpu::GpuEngine;
use quee_gpu::debug::{Before, Quantized, quantized_rows};
use quee_quant::activation::quantize_row;
use quee_quant::site::quantize_row_plane;
use quee_quant::{ActQuantizer, LogSqrt2, RangeObserver, SiteQuant, Twin, WeightQuantizer, quantize_row_dynamic};

use crate::support::{alone, devices, dynamic, everywhere, norm, random, values};

/// A sum in sixteen partial sums that are added in a fixed tree.
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0; 16];
    for (at, &value) in row.iter().enumerate() {
        partial[at % 16] += term(value);
    }
    for half in [8, 4, 2, 1] {
        for at in 0..half {
            partial[at] += partial[at + half];
        }
    }
    partial[0]
}

fn normalised(row: &[f32], norm: &Norm) -> Vec<f32> {
    let count = row.len() as f32;
    let mean = sum(row, |v| v) / count;
    let factor = 1.0 / (sum(row, |v| (v - mean) * (v - mean)) / count + norm.eps).sqrt();
    let gains = norm.weight.data.iter().zip(&*norm.bias.data);
    row.iter().zip(gains).map(|(v, (gain, offset))| (v - mean) * factor * gain + offset).collect()
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let factor = 1.0 / sum(row, |v| (v - top).exp());
    row.iter().map(|v| (v - top).exp() * factor).collect()
}

/// Rows after what happens before they are quantized.
fn prepared(x: &[f32], d: usize, before: Before<'_>) -> Vec<f32> {
    let rows = x.chunks(d);
    match before {
        Before::Nothing => x.to_vec(),
        Before::Norm(norm) | Before::Replaced(norm) => rows.flat_map(|row| normalised(row, norm)).collect(),
        Before::Softmax => rows.flat_map(softmax).collect(),
    }
}

fn on_devices(
    test: &str,
    bits: u8,
    plan: &Arc<QuantPlan>,
    [b, t, d]: [usize; 3],
    x: &[f32],
    before: Before<'_>,
) -> Option<Quantized> {
    everywhere(test, &bits.to_string(), plan, |executor| {
        let x = executor.input(&[b, t, d], x)?;
        quantized_rows(executor, &x, before, "layer", 0)
    })
}

/// Codes that differ from the scalar quantizer's; by more than one step is an error.
fn differences(got: &Quantized, values: &[f32], d: usize, bits: u8) -> usize {
    let mut count = 0;
    for (at, row) in values.chunks(d).enumerate() {
        let mut want = vec![0; d];
        let (quant, _) = quantize_row_dynamic(row, bits, &mut want);
        let codes = &got.codes[at * d..(at + 1) * d];
        assert_eq!(got.sums[at], codes.iter().map(|&code| i32::from(code)).sum::<i32>(), "sum of row {at}");
        assert!((got.scales[at] / quant.scale - 1.0).abs() < 1e-5, "scale of row {at}");
        assert!((got.zeros[at] - quant.zero).abs() <= 1, "zero point of row {at}");
        for (&code, &want) in codes.iter().zip(&want) {
            assert!(code.abs_diff(want) <= 1, "row {at}: {code}, not {want}");
            count += usize::from(code != want);
        }
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A single multiplication comes before whole numbers, so that no adapter may differ.
    #[test]
    fn uneven_numbers_are_the_scalar_quantizer_s(
        t in 1usize..40, d in 1usize..70, bits in 2u8..=8, small in 1e-3f32..0.05, shift in 0u8..9, kind in 0..3, seed: u64,
    ) {
        let _alone = alone();
        let quant = match kind {
            0 => SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: 20.0 * small }),
            kind => SiteQuant::Twin(Twin { bits, small, shift, signed: kind == 1 }),
        };
        let mut plan = QuantPlan::new(WeightQuantizer::Absmax, ActQuantizer::Ptq4vit);
        plan.set_site("layer", quant);
        let plan = Arc::new(plan);
        let x = values(&mut random(seed), t * d, 1.0);
        // One plane more than there are: it holds zeros, which weigh nothing.
        for p in 0..=quant.planes() {
            let got = everywhere("uneven", &bits.to_string(), &plan, |executor| {
                let x = executor.input(&[1, t, d], &x)?;
                quantized_rows(executor, &x, Before::Nothing, "layer", p)
            });
            let Some(got) = got else { return Ok(()) };
            if p == quant.planes() {
                prop_assert!(got.scales.iter().all(|&scale| scale == 0.0) && got.codes.iter().all(|&code| code == 0));
                continue;
            }
            let plane = quant.plane(p);
            for (at, row) in x.chunks(d).enumerate() {
                let mut want = vec![0; d];
                let sum = quantize_row_plane(row, &quant, p, &mut want);
                prop_assert_eq!(&got.codes[at * d..(at + 1) * d], &want[..], "plane {} of {:?}", p, quant);
                prop_assert_eq!((got.scales[at], got.zeros[at], got.sums[at]), (plane.scale, plane.zero, sum));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn codes_are_the_scalar_quantizer_s(b in 1usize..4, t in 1usize..70, d in 1usize..200, bits in 2u8..=8, seed: u64) {
        let _alone = alone();
        let mut random = random(seed);
        let mut x = values(&mut random, b * t * d, 4.0);
        // A row of zeros, and one that is all on one side.
        x[..d].fill(0.0);
        let last = x.len() - d;
        x[last..].iter_mut().for_each(|v| *v = v.abs() + 1.0);
        let norm = norm(&mut random, d);
        for before in [Before::Nothing, Before::Norm(&norm), Before::Softmax] {
            let Some(got) = on_devices("rows_codes", bits, &dynamic(), [b, t, d], &x, before) else { return Ok(()) };
            let wrong = differences(&got, &prepared(&x, d, before), d, bits);
            // The rate is measured below; here a row or two with a zero point at an edge are no error.
            prop_assert!(wrong <= 2 * d, "{before:?}: {wrong} of {}", x.len());
        }
    }
}

#[test]
fn differences_from_the_scalar_quantizer_are_rare() {
    let _alone = alone();
    let mut random = random(11);
    let [b, t, d] = [12, 65, 192];
    let x = values(&mut random, b * t * d, 4.0);
    let norm = norm(&mut random, d);
    for before in [Before::Nothing, Before::Norm(&norm), Before::Softmax] {
        for bits in [3, 8] {
            let Some(got) = on_devices("rows_codes", bits, &dynamic(), [b, t, d], &x, before) else { return };
            let wrong = differences(&got, &prepared(&x, d, before), d, bits);
            assert!(wrong * 1000 < x.len(), "{before:?} at {bits} bits: {wrong} of {}", x.len());
        }
    }
}

#[test]
fn static_ranges_clamp_what_lies_outside() {
    let _alone = alone();
    let mut random = random(12);
    let [b, t, d] = [3, 9, 77];
    let mut observer = RangeObserver::default();
    observer.observe(&values(&mut random, 1000, 1.0));
    let observers = BTreeMap::from([("layer".to_owned(), observer.clone())]);
    let width = "w4a5".parse().unwrap();
    let plan = Arc::new(QuantPlan::calibrated(WeightQuantizer::Absmax, ActQuantizer::Minmax, &observers, &[width]));
    let mut x = values(&mut random, b * t * d, 1.5);
    x[5] = 1e30;
    x[6] = -1e30;
    let Some(got) = on_devices("rows_codes", 5, &plan, [b, t, d], &x, Before::Nothing) else { return };
    let quant = observer.quant(ActQuantizer::Minmax, 5);
    for (row, codes) in x.chunks(d).zip(got.codes.chunks(d)) {
        let mut want = vec![0; d];
        quantize_row(row, &quant, &mut want);
        assert_eq!(codes, want);
    }
    assert!(got.scales.iter().all(|&scale| scale == quant.scale) && got.zeros.iter().all(|&zero| zero == quant.zero));
}

#[test]
fn groups_of_samples_have_widths_of_their_own() {
    let _alone = alone();
    let mut random = random(13);
    // Enough rows for several dispatches under small limits.
    let [b, t, d] = [9, 65, 500];
    let x = values(&mut random, b * t * d, 2.0);
    let groups = [(2, 3), (1, 8), (4, 5), (2, 2)];
    let mixed = everywhere("groups", "w8a8", &dynamic(), |executor| {
        executor
            .set_groups(&groups.map(|(samples, bits): (usize, u8)| (samples, bits.to_string().parse().unwrap())))?;
        let x = executor.input(&[b, t, d], &x)?;
        quantized_rows(executor, &x, Before::Nothing, "layer", 0)
    });
    let Some(mixed) = mixed else { return };
    let mut first = 0;
    for (samples, bits) in groups {
        let part = &x[first * t * d..(first + samples) * t * d];
        let alone = on_devices("groups", bits, &dynamic(), [samples, t, d], part, Before::Nothing).unwrap();
        assert!(mixed.codes[first * t * d..(first + samples) * t * d] == alone.codes, "{bits} bits");
        assert_eq!(mixed.zeros[first * t..(first + samples) * t], alone.zeros);
        first += samples;
    }
}

#[test]
fn values_that_are_not_finite_are_found_at_every_place() {
    let _alone = alone();
    let Some(devices) = devices("rows_codes: values that are not finite") else { return };
    let mut random = random(14);
    let [b, t, d] = [1, 35, 37];
    let norm = norm(&mut random, d);
    let x = values(&mut random, b * t * d, 2.0);
    for (device, gpu) in [("direct", &devices.direct), ("tiled", &devices.tiled)] {
        let mut executor = GpuEngine::on(dynamic(), Arc::clone(gpu)).executor().unwrap();
        executor.set_width("w8a8".parse().unwrap()).unwrap();
        for before in [Before::Nothing, Before::Norm(&norm), Before::Softmax] {
            for place in 0..d {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = x.clone();
                    x[(place * 11) % t * d + place] = bad;
                    let input = executor.input(&[b, t, d], &x).unwrap();
                    let result = quantized_rows(&mut executor, &input, before, "here", 0);
                    let found = matches!(&result, Err(ExecError::NotFinite { site }) if site == "here");
                    assert!(found, "{bad} at {place} on {device}, {before:?}");
                }
            }
            // And what is finite goes through again.
            let input = executor.input(&[b, t, d], &x).unwrap();
            quantized_rows(&mut executor, &input, before, "here", 0).unwrap();
        }
    }
}
