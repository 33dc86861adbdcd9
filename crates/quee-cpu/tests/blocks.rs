//! Encoder blocks at once against their operations one by one, bit for bit.

mod common;

use std::sync::Arc;

use common::{backbone, input, numbers, pictures, plan, widths};
use quee_backbone::{Attention, Backbone, ExecError, Executor, Linear, QuantPlan, Value, forward_plain_operations};
use quee_cpu::{CpuEngine, CpuExecutor, Isa};
use quee_quant::{WeightQuantizer, Width};

/// Hands operations on one by one, so that nothing is fused.
struct OneByOne(CpuExecutor);

impl Executor for OneByOne {
    forward_plain_operations!(0);

    fn name(&self) -> String {
        self.0.name()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.0.set_width(width)
    }

    fn set_groups(&mut self, groups: &[(usize, Width)]) -> Result<(), ExecError> {
        self.0.set_groups(groups)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        self.0.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.0.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.0.attention_values(p, qkv, attention)
    }
}

fn tokens(backbone: &dyn Backbone, executor: &mut dyn Executor, pictures: &[f32]) -> Vec<f32> {
    let images = input(backbone, executor, pictures);
    let tokens = backbone.body(executor, &images).unwrap();
    executor.read(&tokens).unwrap()
}

fn logits(backbone: &dyn Backbone, executor: &mut dyn Executor, pictures: &[f32]) -> Vec<f32> {
    let images = input(backbone, executor, pictures);
    let logits = backbone.logits(executor, &images).unwrap();
    executor.read(&logits).unwrap()
}

#[test]
fn blocks_at_once_equal_their_operations() {
    // 10, 17, 26, 65, 82 and 145 tokens: every number of vectors in the last panel of keys.
    for (side, hidden, distilled) in [
        (3, 128, false),
        (4, 64, false),
        (5, 192, false),
        (8, 320, false),
        (9, 128, false),
        (12, 64, false),
        (8, 128, true),
    ] {
        let backbone = &*backbone(side, hidden, distilled, 1.0);
        let plan = plan(backbone);
        let pictures = pictures(backbone, 2);
        let mut executors: Vec<CpuExecutor> =
            Isa::available().into_iter().map(|isa| CpuEngine::new(Arc::clone(&plan), isa).executor()).collect();
        let mut one_by_one = OneByOne(CpuExecutor::new(plan, Isa::Portable));
        for width in widths() {
            one_by_one.set_width(width).unwrap();
            let want = tokens(backbone, &mut one_by_one, &pictures);
            let want_logits = logits(backbone, &mut one_by_one, &pictures);
            assert!(want.iter().any(|x| *x != want[0]));
            for executor in &mut executors {
                executor.set_width(width).unwrap();
                assert!(tokens(backbone, executor, &pictures) == want, "{} {side} {width}", executor.name());
                assert_eq!(logits(backbone, executor, &pictures), want_logits, "{} {side} {width}", executor.name());
                let images = input(backbone, executor, &pictures);
                let all = backbone.forward(executor, &images).unwrap();
                assert_eq!(executor.read(&all).unwrap(), want_logits, "the last block in full");
            }
        }
    }
}

#[test]
fn blocks_run_at_once_where_the_processor_can() {
    let backbone = &*backbone(4, 64, false, 1.0);
    let mut executor = CpuExecutor::new(plan(backbone), Isa::best());
    executor.set_width(widths()[0]).unwrap();
    executor.profile(true);
    tokens(backbone, &mut executor, &pictures(backbone, 1));
    let at_once = executor.profiled().iter().any(|row| row.operation == "scores, softmax, values");
    assert_eq!(at_once, Isa::best() == Isa::Avx512Vnni, "{:?}", executor.profiled());
}

#[test]
fn threads_change_nothing() {
    let backbone = &*backbone(8, 128, false, 1.0);
    let pictures = pictures(backbone, 5);
    let size = pictures.len() / 5;
    let dynamic = Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax));
    for plan in [plan(backbone), dynamic] {
        for (isa, width) in Isa::available().into_iter().flat_map(|isa| [(isa, widths()[0]), (isa, Width::FLOAT)]) {
            let mut one = CpuExecutor::new(Arc::clone(&plan), isa);
            one.set_width(width).unwrap();
            for threads in 2..=4 {
                let mut several = one.engine().executor();
                several.set_threads(threads);
                several.set_width(width).unwrap();
                for count in [1, 2, 5] {
                    let pictures = &pictures[..count * size];
                    let same = tokens(backbone, &mut one, pictures) == tokens(backbone, &mut several, pictures);
                    assert!(same, "{isa} {width}, {threads} threads, {count} pictures");
                    let want = logits(backbone, &mut one, pictures);
                    assert_eq!(logits(backbone, &mut several, pictures), want, "{isa} {width}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn batches_of_several_widths_equal_their_samples_alone() {
    let backbone = &*backbone(8, 128, false, 1.0);
    let plan = plan(backbone);
    let pictures = pictures(backbone, 4);
    let size = pictures.len() / 4;
    let [a, b, c] = widths()[..] else { unreachable!() };
    let mut executor = CpuExecutor::new(plan, Isa::best());
    executor.set_groups(&[(1, a), (2, b), (1, c)]).unwrap();
    let together = tokens(backbone, &mut executor, &pictures);
    for (i, width) in [a, b, b, c].into_iter().enumerate() {
        executor.set_width(width).unwrap();
        let alone = tokens(backbone, &mut executor, &pictures[i * size..(i + 1) * size]);
        assert!(alone == together[i * alone.len()..(i + 1) * alone.len()], "sample {i}");
    }
}

#[test]
fn what_is_not_finite_is_refused_with_its_place() {
    let backbone = &*backbone(4, 64, false, 1.0);
    let plan = plan(backbone);
    let mut executor = CpuExecutor::new(plan, Isa::best());
    executor.set_width(widths()[0]).unwrap();
    let mut x = numbers(2 * 17 * 128, 1.0, 3);
    for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
        x[17 * 128 + 5] = bad;
        x[17 * 128 + 6] = if bad == f32::MAX { bad } else { 0.0 };
        let tokens = executor.input(&[2, 17, 128], &x).unwrap();
        let at_once = backbone.block(0, &mut executor, &tokens).map(|_| ());
        let mut one_by_one = OneByOne(executor);
        let separate = backbone.block(0, &mut one_by_one, &tokens).map(|_| ());
        executor = one_by_one.0;
        assert_eq!(at_once, separate, "{bad}");
        assert!(matches!(at_once, Err(ExecError::NotFinite { .. })), "{bad}: {at_once:?}");
    }
}
