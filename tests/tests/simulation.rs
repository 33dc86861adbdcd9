//! Integer execution against the simulation of quantization in floats, on the test split of the digits.

use std::sync::Arc;

use quee::backend::Device;
use quee::cancel::Cancel;
use quee::quantize;
use quee::recipe::{self, Backend, ExitTokens};
use quee::stages::prepare::{Prepared, prepare};
use quee::stages::walk::Program;
use quee_backbone::architecture;
use quee_backbone::calibrate::Calibrator;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::families::mixer::MixerConfig;
use quee_backbone::{Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_policy::tree::{Monotone, PathTree};
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use quee_tests::{DIGITS, workspace};
use quee_train::{BurnExecutor, flex_device};

fn digits() -> Prepared {
    let recipe = recipe::load(&workspace().join(DIGITS), None, &[]).unwrap();
    prepare(&recipe, None, None).unwrap()
}

/// Logits of the whole backbone, stem included, at one width.
fn logits(prepared: &Prepared, executor: &mut dyn Executor, indices: &[usize], width: Width) -> Vec<f32> {
    let pixels = prepared.images(indices).unwrap();
    let input = executor.input(&[indices.len(), 1, 8, 8], &pixels).unwrap();
    executor.set_width(width).unwrap();
    let tokens = prepared.backbone.body(executor, &input).unwrap();
    executor.set_width(Width::FLOAT).unwrap();
    let features = prepared.backbone.features(executor, &tokens).unwrap();
    let logits = executor.linear(&features, prepared.backbone.head()).unwrap();
    executor.read(&logits).unwrap()
}

fn answers(logits: &[f32]) -> Vec<usize> {
    let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    logits.chunks(10).map(best).collect()
}

fn static_plan(prepared: &Prepared, activations: ActQuantizer, widths: &[Width]) -> QuantPlan {
    let engine = CpuEngine::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Mse)), Isa::best());
    let mut executor = engine.executor();
    let mut calibrator = Calibrator::new(&mut executor).unwrap();
    let chosen = &prepared.splits.exit_train[..64];
    let input = calibrator.input(&[64, 1, 8, 8], &prepared.images(chosen).unwrap()).unwrap();
    prepared.backbone.forward(&mut calibrator, &input).unwrap();
    QuantPlan::calibrated(WeightQuantizer::Mse, activations, &calibrator.finish(), widths)
}

/// Share of equal answers and the largest difference of logits, relative to the largest logit.
fn compare(prepared: &Prepared, plan: QuantPlan, width: Width) -> (f64, f32) {
    let plan = Arc::new(plan);
    let engine = CpuEngine::new(Arc::clone(&plan), Isa::best());
    let mut simulation = BurnExecutor::new(flex_device(), plan);
    let test = &prepared.splits.test;
    let integer = logits(prepared, &mut engine.executor(), test, width);
    let float = logits(prepared, &mut simulation, test, width);
    let same = answers(&integer).iter().zip(answers(&float)).filter(|(a, b)| **a == *b).count();
    let largest = integer.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let difference = integer.iter().zip(&float).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    let result = (same as f64 / test.len() as f64, difference / largest);
    eprintln!(
        "{width} {:?}: same answer {:.4}, largest difference {:.5} of the largest logit",
        engine.plan().activations,
        result.0,
        result.1
    );
    result
}

#[test]
fn eight_bits_agree_for_every_quantizer() {
    let prepared = digits();
    let width = Width::new(8, 8).unwrap();
    for activations in [ActQuantizer::DynamicToken, ActQuantizer::Minmax, ActQuantizer::Percentile, ActQuantizer::Mse] {
        let plan = match activations {
            ActQuantizer::DynamicToken => QuantPlan::dynamic(WeightQuantizer::Mse),
            _ => static_plan(&prepared, activations, &[width]),
        };
        let (same, difference) = compare(&prepared, plan, width);
        assert!(same >= 0.995, "{activations:?}: same answer for {same}");
        // A code that falls on the other side of an edge moves logits by about one step; 8 bits have 255 of them.
        assert!(difference <= 0.02, "{activations:?}: logits differ by {difference}");
    }
}

/// The plan of a recipe that says so.
fn recipe_plan(prepared: &Prepared, settings: &[&str], width: Width) -> QuantPlan {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let recipe = recipe::load(&workspace().join(DIGITS), None, &settings).unwrap();
    let device = Device::open(Backend::Cpu, &recipe.gpu).unwrap();
    let request =
        quantize::Request { backbone: prepared.backbone.as_ref(), quant: &recipe.quant, widths: &[width], batch: 32 };
    let pictures = prepared.images(&prepared.splits.exit_train[..64]).unwrap();
    quantize::calibrate(request, &device, &pictures, &Cancel::default(), &|_| ()).unwrap().0
}

/// Uneven codes, changed normalisations, fitted weights and biases mean the same in integers and in the simulation.
#[test]
fn searched_quantizers_agree_at_every_width() {
    let prepared = digits();
    let fitted = ["quant.rounding=gptq", "quant.bias_correction=true", "quant.wider=[\"*.softmax\"]"];
    for activations in ["ptq4vit", "repq", "combined"] {
        for (bits, least) in [(8, 0.99), (6, 0.99), (4, 0.97), (3, 0.95)] {
            let width = Width::new(bits, bits).unwrap();
            let setting = format!("quant.activations={activations}");
            let mut settings = vec![setting.as_str()];
            if bits == 4 {
                settings.extend(fitted);
            }
            // Less is asked at 8 bits than of uniform codes: neighbouring powers of the root of two are 41% apart, however many there are, and
            // a probability at the edge between two of them moves more than a step of 8 uniform bits.
            let (same, _) = compare(&prepared, recipe_plan(&prepared, &settings, width), width);
            assert!(same >= least, "{activations} at {width}: same answer for {same}");
        }
    }
}

#[test]
fn lower_widths_agree_for_most_pictures() {
    let prepared = digits();
    for (weight, act, least) in [(6, 6, 0.99), (4, 8, 0.99), (4, 4, 0.97), (3, 3, 0.95)] {
        let width = Width::new(weight, act).unwrap();
        let (same, _) = compare(&prepared, QuantPlan::dynamic(WeightQuantizer::Mse), width);
        assert!(same >= least, "{width}: same answer for {same}");
    }
}

/// The run of a study, on a backbone without attention and class token.
#[test]
fn a_mixer_runs_the_tree_of_paths_in_integers() {
    let folder = workspace().join("tests/fixtures/golden");
    let config = MixerConfig { image: 20, channels: 3, patch: 4, dim: 24, depth: 2, token_hidden: 12, hidden: 48 };
    let weights = Checkpoint::read(&folder.join("mixer_micro.safetensors")).unwrap();
    let backbone = architecture::load(&config, "mixer_micro", weights, false).unwrap();
    let mut expected = Checkpoint::read(&folder.join("mixer_micro.expected.safetensors")).unwrap();
    let images = expected.take("input", &[2, 3, 20, 20]).unwrap();

    let widths = [Width::new(4, 8).unwrap(), Width::new(8, 8).unwrap()];
    let tree = PathTree::new(2, widths.len(), Monotone::Free, 100).unwrap();
    let program =
        Program { backbone: backbone.as_ref(), segments: &[1, 1], stem: widths[1], tokens: ExitTokens::Class };
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Mse));
    let run = |executor: &mut dyn Executor| {
        let mut nodes = vec![Vec::new(); tree.node_count()];
        program.run_tree(executor, &images, &tree, &widths, &mut |node, features| nodes[node] = features).unwrap();
        nodes
    };
    let integer = run(&mut CpuEngine::new(Arc::clone(&plan), Isa::best()).executor());
    let simulated = run(&mut BurnExecutor::new(flex_device(), plan));
    let float = program.run_path(&mut BurnExecutor::float(flex_device()), &images, &[Width::FLOAT; 2]).unwrap();
    let largest = float[1].iter().fold(0f32, |m, x| m.max(x.abs()));
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
    for (node, (a, b)) in integer.iter().zip(&simulated).enumerate().skip(1) {
        assert_eq!(a.len(), 2 * 24);
        assert!(off(a, b) <= 0.02, "node {node}: integers and simulation differ by {}", off(a, b));
    }
    let of_path = |width: usize| tree.child(tree.child(0, width).unwrap(), width).unwrap();
    let (coarse, fine) = (off(&integer[of_path(0)], &float[1]), off(&integer[of_path(1)], &float[1]));
    assert!(fine < 0.05 && fine < coarse, "8 bits are off by {fine}, 4-bit weights by {coarse}");
}
