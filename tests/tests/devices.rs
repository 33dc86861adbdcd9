//! Every device as a whole, against the scalar reference and against itself. Where a device may differ, [`quee_tests::devices::Device`] says how
//! and why.

use std::sync::Arc;

use proptest::prelude::*;
use quee_backbone::vit::Pool;
use quee_backbone::{ExecError, Executor, Linear, Param, QuantPlan, Value, Window};
use quee_cpu::{CpuExecutor, Isa};
use quee_quant::{ActQuantizer, QuantWeight, WeightQuantizer, Width, quantize_row_dynamic, reference};
use quee_tests::devices::devices;
use quee_tests::random::{numbers, pictures, plans, record, t2t, vit, widths};
use quee_tests::small::Small;

fn param(id: usize, shape: &[usize], data: Vec<f32>) -> Param {
    Param { id, name: format!("param {id}"), shape: shape.to_vec(), data: data.into(), frozen: false }
}

fn dynamic() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}

#[test]
fn integer_runs_equal_the_scalar_reference() {
    let devices = devices();
    for backbone in [vit(Pool::ClassToken, true), vit(Pool::Mean, false)] {
        for plan in plans(&*backbone) {
            let portable = CpuExecutor::new(Arc::clone(&plan), Isa::Portable);
            let mut slow = Small::new(Box::new(portable), Some(Arc::clone(&plan)));
            let mut fast: Vec<_> = devices.iter().map(|device| (device, device.executor(&plan))).collect();
            for width in widths() {
                slow.set_width(width).unwrap();
                let want = record(&*backbone, &mut slow, &pictures(&*backbone, 2)).unwrap();
                assert!(want.iter().flatten().all(|x| x.is_finite()));
                for (device, executor) in &mut fast {
                    executor.set_width(width).unwrap();
                    let got = record(&*backbone, executor.as_mut(), &pictures(&*backbone, 2)).unwrap();
                    for (got, want) in got.iter().zip(&want) {
                        assert!(device.agrees(got, want), "{} at {width}, {:?}", device.name, plan.activations);
                    }
                }
            }
        }
    }
}

#[test]
fn integer_layers_around_a_performer_equal_the_scalar_reference() {
    // The performer's own products are floats, so the reference runs them on the same device.
    let backbone = t2t();
    let devices = devices();
    for plan in plans(&*backbone) {
        for device in &devices {
            let mut slow = Small::new(device.executor(&plan), Some(Arc::clone(&plan)));
            let mut fast = device.executor(&plan);
            for width in widths() {
                slow.set_width(width).unwrap();
                fast.set_width(width).unwrap();
                let want = record(&*backbone, &mut slow, &pictures(&*backbone, 2)).unwrap();
                assert!(want.iter().flatten().all(|x| x.is_finite()));
                let got = record(&*backbone, fast.as_mut(), &pictures(&*backbone, 2)).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    assert!(device.agrees(got, want), "{} at {width}", device.name);
                }
            }
        }
    }
}

#[test]
fn fused_and_separate_operations_give_the_same_bits() {
    for backbone in [vit(Pool::ClassToken, true), t2t()] {
        // A changed normalisation belongs to the layer behind it, and so to the fused operation alone.
        for plan in plans(&*backbone).into_iter().filter(|plan| plan.layers().next().is_none()) {
            for device in devices() {
                let engine = device.engine(&plan);
                for width in widths().into_iter().chain([Width::FLOAT]) {
                    let (mut fused, mut small) = (engine(), Small::new(engine(), None));
                    fused.set_width(width).unwrap();
                    small.set_width(width).unwrap();
                    let want = record(&*backbone, &mut small, &pictures(&*backbone, 2)).unwrap();
                    let got = record(&*backbone, fused.as_mut(), &pictures(&*backbone, 2)).unwrap();
                    assert!(got == want, "{} at {width}", device.name);
                }
            }
        }
    }
}

#[test]
fn a_picture_gives_the_same_bits_alone_and_in_a_batch() {
    for backbone in [vit(Pool::Mean, true), t2t()] {
        let size = backbone.image_shape().iter().product();
        for plan in plans(&*backbone) {
            for device in devices() {
                let mut executor = device.executor(&plan);
                for width in widths().into_iter().chain([Width::FLOAT]) {
                    executor.set_width(width).unwrap();
                    let batch = pictures(&*backbone, 5);
                    let together = record(&*backbone, executor.as_mut(), &batch).unwrap();
                    for (index, picture) in batch.chunks(size).enumerate() {
                        let alone = record(&*backbone, executor.as_mut(), picture).unwrap();
                        for (alone, together) in alone.iter().zip(&together) {
                            let part = &together[index * alone.len()..(index + 1) * alone.len()];
                            assert!(alone == part, "picture {index}, {} at {width}", device.name);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_of_mixed_widths_gives_every_picture_the_bits_that_it_gets_alone() {
    let groups: Vec<(usize, Width)> = [(2, "w2a4"), (1, "w4a4"), (3, "w4a8"), (0, "w2a2"), (1, "w8a6"), (2, "w2a4")]
        .map(|(samples, width)| (samples, width.parse().unwrap()))
        .to_vec();
    let each: Vec<Width> = groups.iter().flat_map(|&(samples, width)| vec![width; samples]).collect();
    for backbone in [vit(Pool::ClassToken, true), vit(Pool::Mean, false)] {
        let size: usize = backbone.image_shape().iter().product();
        let batch = pictures(&*backbone, each.len());
        // Static ranges exist for the widths of the list only.
        let plan = dynamic();
        for device in devices() {
            let mut executor = device.executor(&plan);
            executor.set_groups(&groups).unwrap();
            let together = record(&*backbone, executor.as_mut(), &batch).unwrap();
            for (index, (picture, width)) in batch.chunks(size).zip(&each).enumerate() {
                executor.set_width(*width).unwrap();
                let alone = record(&*backbone, executor.as_mut(), picture).unwrap();
                for (alone, together) in alone.iter().zip(&together) {
                    let part = &together[index * alone.len()..(index + 1) * alone.len()];
                    assert!(alone == part, "picture {index} at {width}, {}", device.name);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn quantized_linear_layers_equal_the_reference(
        m in 1usize..=130, n in 1usize..40, k in 1usize..50, wb in 2u8..=8, ab in 2u8..=8, has_bias: bool, seed: u64,
    ) {
        let mut x = numbers(m * k, 3.0, seed);
        // Rows of zeros; rows with all values on one side of 0, whose zero point is an end of the range.
        for (i, row) in x.chunks_mut(k).enumerate() {
            match i % 5 {
                1 => row.fill(0.0),
                2 => row.iter_mut().for_each(|x| *x = x.abs()),
                3 => row.iter_mut().for_each(|x| *x = -x.abs()),
                _ => {}
            }
        }
        let mut w = numbers(n * k, 1.0, seed ^ 1);
        w[..k].fill(0.0);
        let bias = has_bias.then(|| numbers(n, 1.0, seed ^ 2));
        let weight = QuantWeight::quantize(&w, n, k, wb, WeightQuantizer::Absmax);
        let mut codes = vec![0; m * k];
        let quants: Vec<_> =
            x.chunks(k).zip(codes.chunks_mut(k)).map(|(row, codes)| quantize_row_dynamic(row, ab, codes).0).collect();
        let want = reference::linear(m, &codes, &quants, &weight, bias.as_deref());
        let linear = Linear {
            site: "layer".into(),
            inputs: k,
            outputs: n,
            weight: param(0, &[n, k], w),
            bias: bias.map(|bias| param(1, &[n], bias)),
        };
        for device in devices() {
            let mut executor = device.executor(&dynamic());
            executor.set_width(Width::new(wb, ab).unwrap()).unwrap();
            let x = executor.input(&[m, k], &x).unwrap();
            let y = executor.linear(&x, &linear).unwrap();
            prop_assert_eq!(executor.shape(&y).unwrap(), vec![m, n]);
            prop_assert!(device.agrees(&executor.read(&y).unwrap(), &want), "{}", device.name);
        }
    }
}

#[test]
fn threads_that_share_packed_weights_agree() {
    let backbone = vit(Pool::ClassToken, true);
    for device in devices() {
        let engine = device.engine(&dynamic());
        let run = || {
            let mut executor = engine();
            executor.set_width("w4a6".parse().unwrap()).unwrap();
            record(&*backbone, executor.as_mut(), &pictures(&*backbone, 2)).unwrap()
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(results.iter().all(|result| *result == results[0]), "{}", device.name);
    }
}

#[test]
fn values_that_are_not_finite_are_named_by_the_place_where_they_are_quantized() {
    let backbone = vit(Pool::ClassToken, true);
    for (plan, device) in
        plans(&*backbone).into_iter().flat_map(|plan| devices().into_iter().map(move |d| (plan.clone(), d)))
    {
        let mut executor = device.executor(&plan);
        let width = "w8a8".parse().unwrap();
        executor.set_width(width).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut images = pictures(&*backbone, 2);
            let fine = record(&*backbone, executor.as_mut(), &images).unwrap();
            let keep = std::mem::replace(&mut images[1000], bad);
            let error = record(&*backbone, executor.as_mut(), &images).unwrap_err();
            assert_eq!(error, ExecError::NotFinite { site: "patch_embed.proj".into() }, "{}", device.name);
            // What was found once is not found again.
            images[1000] = keep;
            assert!(record(&*backbone, executor.as_mut(), &images).unwrap() == fine);
        }
        let block = backbone_attention();
        let mut qkv = numbers(2 * 5 * 60, 1.0, 3);
        for (place, operand) in [(300 + 7, "q"), (300 + 20 + 7, "k"), (300 + 40 + 7, "v")] {
            let keep = std::mem::replace(&mut qkv[place], f32::NAN);
            let x = executor.input(&[2, 5, 60], &qkv).unwrap();
            let error = match executor.attention(&x, &block) {
                Ok(mixed) if !device.immediate => executor.read(&mixed).unwrap_err(),
                other => other.err().unwrap(),
            };
            assert_eq!(error, ExecError::NotFinite { site: format!("blocks.0.attn.{operand}") }, "{}", device.name);
            qkv[place] = keep;
        }
    }
}

fn backbone_attention() -> quee_backbone::Attention {
    quee_backbone::Attention { site: "blocks.0.attn".into(), heads: 4, head_dim: 5, scale: 0.4 }
}

#[test]
fn misuse_is_reported() {
    let backbone = vit(Pool::ClassToken, true);
    let is_shape = |result: Result<Value, ExecError>| matches!(result, Err(ExecError::Shape { .. }));
    for device in devices() {
        let mut executor = device.executor(&dynamic());
        let executor = executor.as_mut();
        assert!(matches!(executor.read(&Value::new(3u8)), Err(ExecError::ForeignValue)));
        assert!(is_shape(executor.input(&[2, 3], &[0.0; 5])));
        let x = executor.input(&[2, 3, 19], &[0.0; 114]).unwrap();
        let error = executor.linear(&x, backbone.head()).err().unwrap();
        assert!(error.to_string().contains("head") && error.to_string().contains("[2, 3, 19]"), "{error}");
        assert!(is_shape(executor.attention(&x, &backbone_attention())));
        assert!(is_shape(executor.select_samples(&x, &[2])));
        assert!(is_shape(executor.unfold(&x, &Window::patch(2))));
        let picture = executor.input(&[1, 1, 3, 3], &[0.0; 9]).unwrap();
        for window in [Window::patch(4), Window::patch(0), Window { kernel: 2, stride: 0, padding: 1 }] {
            assert!(is_shape(executor.unfold(&picture, &window)), "{window:?}");
        }
        assert!(is_shape(executor.reshape(&x, &[3, 18])));
        assert!(is_shape(executor.transpose(&picture)));
        assert!(is_shape(executor.slice_features(&x, 18, 2)));
        assert!(is_shape(executor.slice_features(&x, usize::MAX, 2)));
        assert!(is_shape(executor.first_tokens(&x, 4)));
        assert!(is_shape(executor.mean_tokens(&x, 3)));
        let flat = executor.input(&[6, 19], &[0.0; 114]).unwrap();
        assert!(is_shape(executor.add(&x, &flat)));

        // Another weight under a known id.
        let layer = |id, value| Linear {
            site: "exit".into(),
            inputs: 19,
            outputs: 2,
            weight: param(id, &[2, 19], vec![value; 38]),
            bias: None,
        };
        executor.linear(&x, &layer(5, 1.0)).unwrap();
        let error = executor.linear(&x, &layer(5, 2.0)).err().unwrap().to_string();
        assert!(error.contains("parameter id 5"), "{error}");

        let uncalibrated = QuantPlan::calibrated(WeightQuantizer::Mse, ActQuantizer::Mse, &Default::default(), &[]);
        let mut executor = device.executor(&Arc::new(uncalibrated));
        let x = executor.input(&[2, 3, 19], &[0.0; 114]).unwrap();
        executor.linear(&x, &layer(5, 1.0)).unwrap();
        executor.set_width("w4a4".parse().unwrap()).unwrap();
        let error = executor.linear(&x, &layer(5, 1.0)).err().unwrap();
        assert_eq!(error, ExecError::NotCalibrated { site: "exit".into(), bits: 4 });
    }
}

#[test]
fn values_are_moved_as_the_operations_say() {
    for device in devices() {
        let mut executor = device.executor(&dynamic());
        let data: Vec<f32> = (0..2 * 20 * 19).map(|i| i as f32).collect();
        let x = executor.input(&[2, 20, 19], &data).unwrap();
        let turned = executor.transpose(&x).unwrap();
        assert_eq!(executor.shape(&turned).unwrap(), [2, 19, 20]);
        let turned = executor.read(&turned).unwrap();
        for (i, &value) in turned.iter().enumerate() {
            let (b, n, m) = (i / 380, i / 20 % 19, i % 20);
            assert_eq!(value, data[(b * 20 + m) * 19 + n]);
        }
        let shaped = executor.reshape(&x, &[4, 5, 19]).unwrap();
        assert_eq!(executor.shape(&shaped).unwrap(), [2, 4, 5, 19]);
        assert_eq!(executor.read(&shaped).unwrap(), data);
        let sliced = executor.slice_features(&x, 17, 2).unwrap();
        assert_eq!(executor.shape(&sliced).unwrap(), [2, 20, 2]);
        assert_eq!(executor.read(&sliced).unwrap()[2..4], [36.0, 37.0]);
        let first = executor.first_tokens(&x, 2).unwrap();
        assert_eq!(executor.read(&first).unwrap(), [&data[..38], &data[380..418]].concat());
    }
}

#[test]
fn samples_can_be_picked_and_no_sample_is_no_error() {
    let backbone = vit(Pool::ClassToken, true);
    for device in devices() {
        let mut executor = device.executor(&dynamic());
        let executor = executor.as_mut();
        for width in ["w4a4".parse().unwrap(), Width::FLOAT] {
            executor.set_width(width).unwrap();
            let images = executor.input(&[3, 3, 24, 24], &pictures(&*backbone, 3)).unwrap();
            let all = backbone.forward(executor, &images).unwrap();
            let all = executor.read(&all).unwrap();
            let two = executor.select_samples(&images, &[2, 0]).unwrap();
            let two = backbone.forward(executor, &two).unwrap();
            assert_eq!(executor.read(&two).unwrap(), [&all[14..21], &all[..7]].concat());
            let none = executor.select_samples(&images, &[]).unwrap();
            let none = backbone.forward(executor, &none).unwrap();
            assert_eq!(executor.shape(&none).unwrap(), [0, 7]);
            assert!(executor.read(&none).unwrap().is_empty());
        }
    }
}
