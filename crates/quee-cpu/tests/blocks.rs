//! Encoder blocks at once against their operations one by one, bit for bit.

mod common;
mod outputs;

use std::sync::Arc;

use common::{backbone, dynamic, input, numbers, pictures, plan, widths};
use outputs::{logits, tokens};
use quee_backbone::{Attention, ExecError, Executor, Linear, Value, Wider, forward_plain_operations};
use quee_cpu::{CpuEngine, CpuExecutor, Isa};
use quee_quant::Width;

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
        let pictures = pictures(backbone, 2);
        for plan in [plan(backbone), dynamic()] {
            let activations = plan.activations;
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
                    let what = format!("{} {activations:?} {side} {width}", executor.name());
                    assert!(tokens(backbone, executor, &pictures) == want, "{what}");
                    assert_eq!(logits(backbone, executor, &pictures), want_logits, "{what}");
                    let images = input(backbone, executor, &pictures);
                    let all = backbone.forward(executor, &images).unwrap();
                    assert_eq!(executor.read(&all).unwrap(), want_logits, "{what}, the last block in full");
                }
            }
        }
    }
}

#[test]
fn places_of_other_widths_are_quantized_as_they_say() {
    let backbone = &*backbone(5, 64, false, 1.0);
    let mut plan = (*dynamic()).clone();
    let [wide, _, narrow] = widths()[..] else { unreachable!() };
    let mut wider = Wider::default();
    for place in ["attn.qkv", "attn.q", "attn.softmax", "mlp.fc2"] {
        wider.set(&format!("blocks.1.{place}"), narrow, wide);
    }
    plan.set_wider(wider);
    let (plan, pictures) = (Arc::new(plan), pictures(backbone, 2));
    let mut one_by_one = OneByOne(CpuExecutor::new(Arc::clone(&plan), Isa::Portable));
    let mut at_once = CpuExecutor::new(plan, Isa::best());
    let mut narrow_alone = CpuExecutor::new(dynamic(), Isa::best());
    for executor in [&mut one_by_one as &mut dyn Executor, &mut at_once, &mut narrow_alone] {
        executor.set_width(narrow).unwrap();
    }
    let want = tokens(backbone, &mut one_by_one, &pictures);
    assert!(tokens(backbone, &mut at_once, &pictures) == want);
    assert!(tokens(backbone, &mut narrow_alone, &pictures) != want, "the places count");
}

#[test]
fn blocks_run_at_once_where_the_processor_can() {
    let backbone = &*backbone(4, 64, false, 1.0);
    for plan in [plan(backbone), dynamic()] {
        let mut executor = CpuExecutor::new(plan, Isa::best());
        executor.set_width(widths()[0]).unwrap();
        executor.profile(true);
        tokens(backbone, &mut executor, &pictures(backbone, 1));
        let at_once = executor.profiled().iter().any(|row| row.operation == "scores, softmax, values");
        assert_eq!(at_once, Isa::best().has_avx512(), "{:?}", executor.profiled());
    }
}

#[test]
fn batches_of_several_widths_equal_their_samples_alone() {
    let backbone = &*backbone(8, 128, false, 1.0);
    let pictures = pictures(backbone, 4);
    let size = pictures.len() / 4;
    let [a, b, c] = widths()[..] else { unreachable!() };
    for (plan, widths) in [(plan(backbone), [a, b, c]), (dynamic(), [c, a, b]), (dynamic(), [a, Width::FLOAT, b])] {
        let mut executor = CpuExecutor::new(plan, Isa::best());
        let [a, b, c] = widths;
        executor.set_groups(&[(1, a), (2, b), (1, c)]).unwrap();
        let together = tokens(backbone, &mut executor, &pictures);
        for (i, width) in [a, b, b, c].into_iter().enumerate() {
            executor.set_width(width).unwrap();
            let alone = tokens(backbone, &mut executor, &pictures[i * size..(i + 1) * size]);
            assert!(alone == together[i * alone.len()..(i + 1) * alone.len()], "sample {i}");
        }
    }
}

#[test]
fn what_is_not_finite_is_refused_with_its_place() {
    let backbone = &*backbone(4, 64, false, 1.0);
    for plan in [plan(backbone), dynamic()] {
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
}

#[test]
fn extreme_numbers_give_what_their_operations_give() {
    // Weights so large that outputs, scores or sums overflow, at one place or another; and so small that a scale has no reciprocal.
    let x = numbers(2 * 17 * 128, 1.0, 3);
    let mut refused = 0;
    for size in [1e-42, 1e-38, 1e-20, 1e8, 1e18, 1e19, 1e30, 1e37] {
        let backbone = &*backbone(4, 64, false, size);
        for width in widths() {
            let mut executor = CpuExecutor::new(dynamic(), Isa::best());
            executor.set_width(width).unwrap();
            let tokens = executor.input(&[2, 17, 128], &x).unwrap();
            let at_once = backbone.block(0, &mut executor, &tokens).and_then(|y| executor.read(&y));
            let mut one_by_one = OneByOne(executor);
            let separate = backbone.block(0, &mut one_by_one, &tokens).and_then(|y| one_by_one.read(&y));
            // Where several values are not finite, the order of the operations says which is met first.
            match (at_once, separate) {
                (Err(ExecError::NotFinite { .. }), Err(ExecError::NotFinite { .. })) => refused += 1,
                (at_once, separate) => assert_eq!(at_once, separate, "{size} {width}"),
            }
        }
    }
    assert!(refused > 0, "no size is large enough");
}
