//! The burn executor against a plain one, operation by operation and as a whole.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Plain, load, noise, strong, t2t_config, vit};
use quee_backbone::calibrate::Calibrator;
use quee_backbone::vit::Pool;
use quee_backbone::{Architecture, Attention, Backbone, ExecError, Executor, Linear, QuantPlan, Value};
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use quee_train::{BurnExecutor, ParamStore, flex_device};

const WIDTHS: [(u8, u8); 4] = [(2, 2), (4, 4), (4, 8), (8, 8)];

fn logits(backbone: &dyn Backbone, executor: &mut dyn Executor, images: &[f32], count: usize) -> Vec<f32> {
    let [c, h, w] = backbone.image_shape();
    let images = executor.input(&[count, c, h, w], images).unwrap();
    let out = backbone.forward(executor, &images).unwrap();
    assert_eq!(executor.shape(&out).unwrap(), [count, backbone.classes()]);
    executor.read(&out).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn dynamic() -> QuantPlan {
    QuantPlan::dynamic(WeightQuantizer::Mse)
}

fn calibrated(backbone: &dyn Backbone) -> QuantPlan {
    let mut float = BurnExecutor::float(flex_device());
    let mut calibrator = Calibrator::new(&mut float).unwrap();
    logits(backbone, &mut calibrator, &noise(8 * 64, 5), 8);
    let widths = WIDTHS.map(|(w, a)| Width::new(w, a).unwrap());
    QuantPlan::calibrated(WeightQuantizer::Absmax, ActQuantizer::Minmax, &calibrator.finish(), &widths)
}

#[test]
fn float_equals_plain_arithmetic() {
    let backbones = [vit(Pool::ClassToken, 1), vit(Pool::Mean, 2), strong(&t2t_config(), 3)];
    for (seed, backbone) in (1..).zip(backbones) {
        let images = noise(6 * backbone.image_shape().iter().product::<usize>(), seed);
        let mut plain = Plain { plan: dynamic(), width: Width::FLOAT };
        let want = logits(&*backbone, &mut plain, &images, 6);
        let got = logits(&*backbone, &mut BurnExecutor::float(flex_device()), &images, 6);
        // Logits are of order 1; 1e-4 is a thousand roundings of 32-bit floats.
        assert!(largest_difference(&got, &want) < 1e-4, "{}", largest_difference(&got, &want));
        assert!(largest_difference(&want, &want.iter().rev().copied().collect::<Vec<_>>()) > 0.1, "logits differ");
    }
}

/// Runs one operation on both executors at every width with both kinds of ranges.
fn same_bits(op: &dyn Fn(&mut dyn Executor) -> Value) {
    let vit = vit(Pool::ClassToken, 3);
    for plan in [dynamic(), calibrated(&*vit)] {
        for (w, a) in WIDTHS {
            let width = Width::new(w, a).unwrap();
            let mut burn = BurnExecutor::new(flex_device(), Arc::new(plan.clone()));
            burn.set_width(width).unwrap();
            let mut plain = Plain { plan: plan.clone(), width };
            let (got, want) = (op(&mut burn), op(&mut plain));
            assert_eq!(burn.shape(&got).unwrap(), plain.shape(&want).unwrap());
            assert_eq!(burn.read(&got).unwrap(), plain.read(&want).unwrap(), "{width}, {:?}", plan.activations);
        }
    }
}

fn block_linears(vit: &dyn Backbone) -> Vec<Linear> {
    let param = |name: &str| vit.params().iter().find(|p| p.name == name).unwrap().clone();
    ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]
        .map(|site| {
            let weight = param(&format!("{site}.weight"));
            let (outputs, inputs) = (weight.shape[0], weight.shape[1]);
            let bias = (outputs == 48).then(|| param(&format!("{site}.bias")));
            Linear { site: site.into(), inputs, outputs, weight, bias }
        })
        .to_vec()
}

#[test]
fn quantized_linear_layers_equal_the_integers_bit_for_bit() {
    for linear in block_linears(&*vit(Pool::ClassToken, 3)) {
        for shape in [vec![2, 7, linear.inputs], vec![1, linear.inputs], vec![5, linear.inputs]] {
            let data = noise(shape.iter().product(), 11);
            same_bits(&|executor| {
                let x = executor.input(&shape, &data).unwrap();
                executor.linear(&x, &linear).unwrap()
            });
        }
    }
}

fn attention() -> Attention {
    Attention { site: "blocks.1.attn".into(), heads: 4, head_dim: 8, scale: 8f32.powf(-0.5) }
}

#[test]
fn quantized_attention_products_equal_the_integers_bit_for_bit() {
    let qkv: Vec<f32> = noise(2 * 9 * 96, 12).iter().map(|x| 3.0 * x).collect();
    let p: Vec<f32> = noise(2 * 4 * 9 * 9, 13).iter().map(|x| x.abs() / 9.0).collect();
    same_bits(&|executor| {
        let qkv = executor.input(&[2, 9, 96], &qkv).unwrap();
        executor.attention_scores(&qkv, &attention()).unwrap()
    });
    same_bits(&|executor| {
        let qkv = executor.input(&[2, 9, 96], &qkv).unwrap();
        let p = executor.input(&[2, 4, 9, 9], &p).unwrap();
        executor.attention_values(&p, &qkv, &attention()).unwrap()
    });
}

#[test]
fn whole_quantized_programs_agree_to_rounding() {
    let vit = vit(Pool::ClassToken, 4);
    let images = noise(8 * 64, 4);
    for plan in [dynamic(), calibrated(&*vit)] {
        let width = Width::new(8, 8).unwrap();
        let mut burn = BurnExecutor::new(flex_device(), Arc::new(plan.clone()));
        burn.set_width(width).unwrap();
        let got = logits(&*vit, &mut burn, &images, 8);
        let want = logits(&*vit, &mut Plain { plan, width }, &images, 8);
        let float = logits(&*vit, &mut BurnExecutor::float(flex_device()), &images, 8);
        // A value at the edge of two codes may fall on either side, which moves a logit by a fraction of a step; what
        // quantization itself changes is several times larger.
        let (apart, moved) = (largest_difference(&got, &want), largest_difference(&got, &float));
        assert!(apart < 0.02 && apart < moved, "{apart} against {moved}");
    }
}

#[test]
fn a_sample_alone_has_the_bits_it_has_in_a_batch() {
    for backbone in [vit(Pool::ClassToken, 5), strong(&t2t_config(), 5)] {
        let pixels: usize = backbone.image_shape().iter().product();
        let images = noise(11 * pixels, 6);
        for width in [Width::FLOAT, Width::new(4, 4).unwrap(), Width::new(8, 8).unwrap()] {
            let mut burn = BurnExecutor::new(flex_device(), Arc::new(dynamic()));
            burn.set_width(width).unwrap();
            let together = logits(&*backbone, &mut burn, &images, 11);
            for size in [1, 2, 3] {
                for (chunk, want) in images.chunks(size * pixels).zip(together.chunks(size * 5)) {
                    let alone = logits(&*backbone, &mut burn, chunk, chunk.len() / pixels);
                    assert_eq!(alone, want, "{width}, {size} at a time");
                }
            }
        }
    }
}

/// Checks the gradients of some parameters of `architecture` against central differences in 64-bit floats.
fn check_gradients(architecture: &dyn Architecture, names: &[&str]) {
    let backbone = strong(architecture, 7);
    let [c, h, w] = backbone.image_shape();
    let images = noise(3 * c * h * w, 8);
    let device = flex_device().autodiff();
    let params = ParamStore::new(&*backbone, &device);
    let mut executor = BurnExecutor::with_params(device, params.clone());
    let input = executor.input(&[3, c, h, w], &images).unwrap();
    let out = BurnExecutor::matrix(&backbone.forward(&mut executor, &input).unwrap()).unwrap();
    let gradients = (out.clone() * out).sum().backward();

    // The same function with one value of a parameter moved.
    let function = |name: &str, index: usize, step: f64| -> f64 {
        let tensors = backbone.params().iter().map(|p| {
            let mut data = p.data.to_vec();
            if p.name == name {
                data[index] += step as f32;
            }
            (p.name.clone(), p.shape.clone(), data)
        });
        let moved = load(architecture, quee_backbone::checkpoint::Checkpoint::from_tensors("moved", tensors));
        let mut plain = Plain { plan: dynamic(), width: Width::FLOAT };
        logits(&*moved, &mut plain, &images, 3).iter().map(|&x| f64::from(x).powi(2)).sum()
    };
    for name in names {
        let param = backbone.params().iter().find(|p| p.name == *name).unwrap();
        let gradient: Vec<f32> = params.get(param.id).unwrap().grad(&gradients).unwrap().try_into_vec_as().unwrap();
        let size = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        assert!(size > 1e-3, "{name} matters");
        for index in [0, gradient.len() / 2, gradient.len() - 1] {
            let slope = (function(name, index, 0.01) - function(name, index, -0.01)) / 0.02;
            // Central differences of step 0.01 are off by their third derivative: about 1%.
            let apart = (slope - f64::from(gradient[index])).abs();
            assert!(apart < 0.02 * f64::from(size), "{name}[{index}]: {slope} {}", gradient[index]);
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let of_vit = [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.1.norm2.weight",
        "head.bias",
    ];
    check_gradients(&common::config(Pool::ClassToken), &of_vit);
    let of_t2t = [
        "tokens_to_token.attention1.kqv.weight",
        "tokens_to_token.attention1.mlp.0.weight",
        "tokens_to_token.attention2.norm1.weight",
        "tokens_to_token.attention2.proj.weight",
        "tokens_to_token.project.weight",
    ];
    check_gradients(&t2t_config(), &of_t2t);
}

#[test]
fn trained_parameters_take_the_place_of_the_programs() {
    let (a, b) = (vit(Pool::ClassToken, 1), vit(Pool::ClassToken, 2));
    let images = noise(64, 1);
    let store = ParamStore::new(&*b, &flex_device());
    let mut executor = BurnExecutor::with_params(flex_device(), store);
    let want = logits(&*b, &mut BurnExecutor::float(flex_device()), &images, 1);
    // Products with a transposed view sum in another order than those with the cached transpose.
    assert!(largest_difference(&logits(&*a, &mut executor, &images, 1), &want) < 1e-5);
    assert!(executor.set_width(Width::new(4, 4).unwrap()).is_err());
}

#[test]
fn backbones_that_share_an_executor_keep_their_weights() {
    let mut shared = BurnExecutor::new(flex_device(), Arc::new(dynamic()));
    shared.set_width(Width::new(4, 4).unwrap()).unwrap();
    for seed in [1, 2, 1] {
        let backbone = vit(Pool::ClassToken, seed);
        let mut own = BurnExecutor::new(flex_device(), Arc::new(dynamic()));
        own.set_width(Width::new(4, 4).unwrap()).unwrap();
        let images = noise(64, 1);
        assert_eq!(logits(&*backbone, &mut shared, &images, 1), logits(&*backbone, &mut own, &images, 1));
    }
}

#[test]
fn samples_are_selected_in_order() {
    let mut burn = BurnExecutor::float(flex_device());
    let x = burn.input(&[3, 1, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let picked = burn.select_samples(&x, &[2, 0, 2]).unwrap();
    assert_eq!(burn.read(&picked).unwrap(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
    let none = burn.select_samples(&x, &[]).unwrap();
    assert_eq!((burn.shape(&none).unwrap(), burn.read(&none).unwrap()), (vec![0, 1, 2], vec![]));
    assert!(burn.select_samples(&x, &[3]).is_err());
}

#[test]
fn errors_name_the_operation() {
    let vit = vit(Pool::ClassToken, 1);
    let linear = &block_linears(&*vit)[0];
    let mut burn = BurnExecutor::new(flex_device(), Arc::new(dynamic()));
    assert!(matches!(burn.input(&[2, 3], &[0.0; 5]), Err(ExecError::Shape { .. })));
    assert!(matches!(burn.input(&[usize::MAX, 3], &[0.0; 5]), Err(ExecError::Shape { .. })));
    let wrong = burn.input(&[2, 31], &[0.0; 62]).unwrap();
    let Err(ExecError::Shape { op, .. }) = burn.linear(&wrong, linear) else { panic!("31 features for 32") };
    assert_eq!(op, "blocks.1.mlp.fc1");
    assert_eq!(burn.gelu(&Value::new(1u8)).err(), Some(ExecError::ForeignValue));

    burn.set_width(Width::new(8, 8).unwrap()).unwrap();
    let mut data = noise(64, 1);
    data[40] = f32::NAN;
    let x = burn.input(&[2, 32], &data).unwrap();
    assert_eq!(burn.linear(&x, linear).err(), Some(ExecError::NotFinite { site: "blocks.1.mlp.fc1".into() }));
    let mut data = noise(2 * 9 * 96, 1);
    data[9 * 96 + 70] = f32::INFINITY;
    let qkv = burn.input(&[2, 9, 96], &data).unwrap();
    assert!(burn.attention_scores(&qkv, &attention()).is_ok(), "only a value is infinite");
    let p = burn.input(&[2, 4, 9, 9], &noise(2 * 4 * 81, 1)).unwrap();
    let error = burn.attention_values(&p, &qkv, &attention()).err();
    assert_eq!(error, Some(ExecError::NotFinite { site: "blocks.1.attn.v".into() }));

    let empty = QuantPlan::calibrated(WeightQuantizer::Mse, ActQuantizer::Mse, &BTreeMap::new(), &[]);
    let mut burn = BurnExecutor::new(flex_device(), Arc::new(empty));
    burn.set_width(Width::new(8, 8).unwrap()).unwrap();
    let x = burn.input(&[1, 32], &noise(32, 1)).unwrap();
    assert!(matches!(burn.linear(&x, linear), Err(ExecError::NotCalibrated { bits: 8, .. })));
}
