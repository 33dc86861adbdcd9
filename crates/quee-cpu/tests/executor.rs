//! The executor as a whole, against the scalar reference and against itself.

mod common;

use std::sync::Arc;

use common::{Small, numbers, pictures, plans, record, t2t, vit, widths};
use proptest::prelude::*;
use quee_backbone::vit::Pool;
use quee_backbone::{ExecError, Executor, Linear, Param, QuantPlan, Value, Window};
use quee_cpu::{CpuEngine, CpuExecutor, Isa};
use quee_quant::{ActQuantizer, QuantWeight, WeightQuantizer, Width, quantize_row_dynamic, reference};

fn param(id: usize, shape: &[usize], data: Vec<f32>) -> Param {
    Param { id, name: format!("param {id}"), shape: shape.to_vec(), data: data.into(), frozen: false }
}

fn dynamic() -> Arc<QuantPlan> {
    Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax))
}

#[test]
fn integer_runs_equal_the_scalar_reference_on_every_instruction_set() {
    for backbone in [vit(Pool::ClassToken, true), vit(Pool::Mean, false)] {
        for plan in plans(&*backbone) {
            let mut slow = Small::new(CpuExecutor::new(plan.clone(), Isa::Portable), Some(plan.clone()));
            let mut fast: Vec<_> =
                Isa::available().into_iter().map(|isa| CpuExecutor::new(plan.clone(), isa)).collect();
            for width in widths() {
                slow.set_width(width).unwrap();
                let want = record(&*backbone, &mut slow, &pictures(&*backbone, 2)).unwrap();
                assert!(want.iter().flatten().all(|x| x.is_finite()));
                for cpu in &mut fast {
                    cpu.set_width(width).unwrap();
                    let got = record(&*backbone, cpu, &pictures(&*backbone, 2)).unwrap();
                    assert!(got == want, "{} at {width}, {:?}", cpu.name(), plan.activations);
                }
            }
        }
    }
}

#[test]
fn integer_layers_around_a_performer_equal_the_scalar_reference() {
    // The performer's own products are floats, so the reference runs them on the same instruction set.
    let backbone = t2t();
    for (plan, isa) in
        plans(&*backbone).into_iter().flat_map(|p| Isa::available().into_iter().map(move |i| (p.clone(), i)))
    {
        let mut slow = Small::new(CpuExecutor::new(plan.clone(), isa), Some(plan.clone()));
        let mut fast = CpuExecutor::new(plan, isa);
        for width in widths() {
            slow.set_width(width).unwrap();
            fast.set_width(width).unwrap();
            let want = record(&*backbone, &mut slow, &pictures(&*backbone, 2)).unwrap();
            assert!(want.iter().flatten().all(|x| x.is_finite()));
            let got = record(&*backbone, &mut fast, &pictures(&*backbone, 2)).unwrap();
            assert!(got == want, "{isa} at {width}");
        }
    }
}

#[test]
fn fused_and_separate_operations_give_the_same_bits() {
    for backbone in [vit(Pool::ClassToken, true), t2t()] {
        for plan in plans(&*backbone) {
            for isa in Isa::available() {
                let engine = CpuEngine::new(plan.clone(), isa);
                for width in widths().into_iter().chain([Width::FLOAT]) {
                    let (mut fused, mut small) = (engine.executor(), Small::new(engine.executor(), None));
                    fused.set_width(width).unwrap();
                    small.set_width(width).unwrap();
                    let want = record(&*backbone, &mut small, &pictures(&*backbone, 2)).unwrap();
                    assert!(
                        record(&*backbone, &mut fused, &pictures(&*backbone, 2)).unwrap() == want,
                        "{isa} at {width}"
                    );
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
            for isa in Isa::available() {
                let mut cpu = CpuExecutor::new(plan.clone(), isa);
                for width in widths().into_iter().chain([Width::FLOAT]) {
                    cpu.set_width(width).unwrap();
                    let batch = pictures(&*backbone, 5);
                    let together = record(&*backbone, &mut cpu, &batch).unwrap();
                    for (index, picture) in batch.chunks(size).enumerate() {
                        let alone = record(&*backbone, &mut cpu, picture).unwrap();
                        for (alone, together) in alone.iter().zip(&together) {
                            let part = &together[index * alone.len()..(index + 1) * alone.len()];
                            assert!(alone == part, "picture {index}, {isa} at {width}");
                        }
                    }
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
        for isa in Isa::available() {
            let mut cpu = CpuExecutor::new(dynamic(), isa);
            cpu.set_width(Width::new(wb, ab).unwrap()).unwrap();
            let x = cpu.input(&[m, k], &x).unwrap();
            let y = cpu.linear(&x, &linear).unwrap();
            prop_assert_eq!(cpu.shape(&y).unwrap(), vec![m, n]);
            prop_assert!(cpu.read(&y).unwrap() == want, "{}", isa);
        }
    }
}

#[test]
fn threads_that_share_packed_weights_agree() {
    let backbone = vit(Pool::ClassToken, true);
    let engine = CpuEngine::new(dynamic(), Isa::best());
    let run = || {
        let mut cpu = engine.executor();
        cpu.set_width("w4a6".parse().unwrap()).unwrap();
        record(&*backbone, &mut cpu, &pictures(&*backbone, 2)).unwrap()
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn values_that_are_not_finite_are_named_by_the_place_where_they_are_quantized() {
    let backbone = vit(Pool::ClassToken, true);
    for plan in plans(&*backbone) {
        let mut cpu = CpuExecutor::new(plan, Isa::best());
        cpu.set_width("w8a8".parse().unwrap()).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut images = pictures(&*backbone, 2);
            images[1000] = bad;
            let error = record(&*backbone, &mut cpu, &images).unwrap_err();
            assert_eq!(error, ExecError::NotFinite { site: "patch_embed.proj".into() });
        }
        let block = backbone_attention();
        let mut qkv = numbers(2 * 5 * 60, 1.0, 3);
        for (place, operand) in [(300 + 7, "q"), (300 + 20 + 7, "k"), (300 + 40 + 7, "v")] {
            let keep = std::mem::replace(&mut qkv[place], f32::NAN);
            let x = cpu.input(&[2, 5, 60], &qkv).unwrap();
            let error = cpu.attention(&x, &block).err().unwrap();
            assert_eq!(error, ExecError::NotFinite { site: format!("blocks.0.attn.{operand}") });
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
    let mut cpu = CpuExecutor::new(dynamic(), Isa::best());
    assert!(matches!(cpu.read(&Value::new(3u8)), Err(ExecError::ForeignValue)));
    assert!(matches!(cpu.input(&[2, 3], &[0.0; 5]), Err(ExecError::Shape { .. })));
    let x = cpu.input(&[2, 3, 19], &[0.0; 114]).unwrap();
    let error = cpu.linear(&x, backbone.head()).err().unwrap();
    assert!(error.to_string().contains("head") && error.to_string().contains("[2, 3, 19]"), "{error}");
    assert!(matches!(cpu.attention(&x, &backbone_attention()), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.select_samples(&x, &[2]), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.unfold(&x, &Window::patch(2)), Err(ExecError::Shape { .. })));
    let picture = cpu.input(&[1, 1, 3, 3], &[0.0; 9]).unwrap();
    for window in [Window::patch(4), Window::patch(0), Window { kernel: 2, stride: 0, padding: 1 }] {
        assert!(matches!(cpu.unfold(&picture, &window), Err(ExecError::Shape { .. })), "{window:?}");
    }
    assert!(matches!(cpu.reshape(&x, &[3, 18]), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.transpose(&picture), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.slice_features(&x, 18, 2), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.slice_features(&x, usize::MAX, 2), Err(ExecError::Shape { .. })));
    assert!(matches!(cpu.first_tokens(&x, 4), Err(ExecError::Shape { .. })));
    let flat = cpu.input(&[6, 19], &[0.0; 114]).unwrap();
    assert!(matches!(cpu.add(&x, &flat), Err(ExecError::Shape { .. })));

    // Another weight under a known id.
    let layer = |id, value| Linear {
        site: "exit".into(),
        inputs: 19,
        outputs: 2,
        weight: param(id, &[2, 19], vec![value; 38]),
        bias: None,
    };
    cpu.linear(&x, &layer(5, 1.0)).unwrap();
    let error = cpu.linear(&x, &layer(5, 2.0)).err().unwrap().to_string();
    assert!(error.contains("parameter id 5"), "{error}");

    let uncalibrated = QuantPlan::calibrated(WeightQuantizer::Mse, ActQuantizer::Mse, &Default::default(), &[]);
    let mut cpu = CpuExecutor::new(Arc::new(uncalibrated), Isa::best());
    cpu.linear(&x, &layer(5, 1.0)).unwrap();
    cpu.set_width("w4a4".parse().unwrap()).unwrap();
    let error = cpu.linear(&x, &layer(5, 1.0)).err().unwrap();
    assert_eq!(error, ExecError::NotCalibrated { site: "exit".into(), bits: 4 });
}

#[test]
fn values_are_moved_as_the_operations_say() {
    let mut cpu = CpuExecutor::new(dynamic(), Isa::best());
    let data: Vec<f32> = (0..2 * 20 * 19).map(|i| i as f32).collect();
    let x = cpu.input(&[2, 20, 19], &data).unwrap();
    let turned = cpu.transpose(&x).unwrap();
    assert_eq!(cpu.shape(&turned).unwrap(), [2, 19, 20]);
    let turned = cpu.read(&turned).unwrap();
    for (i, &value) in turned.iter().enumerate() {
        let (b, n, m) = (i / 380, i / 20 % 19, i % 20);
        assert_eq!(value, data[(b * 20 + m) * 19 + n]);
    }
    let shaped = cpu.reshape(&x, &[4, 5, 19]).unwrap();
    assert_eq!((cpu.shape(&shaped).unwrap(), cpu.read(&shaped).unwrap()), (vec![2, 4, 5, 19], data.clone()));
    let sliced = cpu.slice_features(&x, 17, 2).unwrap();
    assert_eq!(
        (cpu.shape(&sliced).unwrap(), cpu.read(&sliced).unwrap()[2..4].to_vec()),
        (vec![2, 20, 2], vec![36.0, 37.0])
    );
    let first = cpu.first_tokens(&x, 2).unwrap();
    assert_eq!(cpu.read(&first).unwrap(), [&data[..38], &data[380..418]].concat());
}

#[test]
fn samples_can_be_picked_and_no_sample_is_no_error() {
    let backbone = vit(Pool::ClassToken, true);
    for isa in Isa::available() {
        let mut cpu = CpuExecutor::new(dynamic(), isa);
        for width in ["w4a4".parse().unwrap(), Width::FLOAT] {
            cpu.set_width(width).unwrap();
            let images = cpu.input(&[3, 3, 24, 24], &pictures(&*backbone, 3)).unwrap();
            let all = backbone.forward(&mut cpu, &images).unwrap();
            let all = cpu.read(&all).unwrap();
            let two = cpu.select_samples(&images, &[2, 0]).unwrap();
            let two = backbone.forward(&mut cpu, &two).unwrap();
            assert_eq!(cpu.read(&two).unwrap(), [&all[14..21], &all[..7]].concat());
            let none = cpu.select_samples(&images, &[]).unwrap();
            let none = backbone.forward(&mut cpu, &none).unwrap();
            assert_eq!(cpu.shape(&none).unwrap(), [0, 7]);
        }
    }
}
