use std::sync::Arc;

use quee_backbone::QuantPlan;
use quee_quant::WeightQuantizer;

use super::*;
use crate::{GpuError, GpuOptions};

/// An engine, unless there is no adapter.
fn engine() -> Option<Arc<GpuEngine>> {
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax));
    match GpuEngine::new(plan, &GpuOptions::default()) {
        Ok(engine) => Some(engine),
        Err(error @ (GpuError::NoLoader | GpuError::NoAdapter { .. })) => {
            // Written past the test harness, which shows no output of tests that pass.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {error}\n"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What a kernel of chains leaves, by invocation.
fn sums(executor: &mut GpuExecutor, record: fn(&mut GpuExecutor, usize, usize) -> Result<(), ExecError>) -> Vec<f32> {
    record(executor, 128, 3).unwrap();
    executor.wait().unwrap();
    // The pool hands the same memory out again, with what the kernel has left in it.
    let memory = executor.memory(4 * 128).unwrap();
    executor.read_buffer(memory.buffer(), 128).unwrap()
}

#[test]
fn peak_kernels_compute_what_they_say() {
    let Some(engine) = engine() else { return };
    let mut executor = engine.executor().unwrap();
    let chains = |i: usize| (0..8).map(move |c| i + c);
    let found = sums(&mut executor, peaks::record_dot);
    for (i, found) in found.iter().enumerate() {
        let weights = [1i32, -1, 2, -3];
        let step = |s: i32| {
            let dot = s.to_le_bytes().iter().zip(weights).map(|(&byte, w)| i32::from(byte as i8) * w).sum();
            s.wrapping_add(dot)
        };
        let expected = chains(i).map(|n| (0..24).fold(n as i32, |s, _| step(s))).fold(0, i32::wrapping_add);
        assert_eq!(found.to_bits() as i32, expected, "dot, invocation {i}");
    }
    let found = sums(&mut executor, peaks::record_fma);
    for (i, &found) in found.iter().enumerate() {
        let expected: f32 = chains(i % 64).map(|n| (0..24).fold(n as f32, |s, _| s.mul_add(0.5, 0.25))).sum();
        // Eight sums near 1/2, each rounded.
        assert!((found - expected).abs() < 1e-5, "fma, invocation {i}: {found} {expected}");
    }
    let data: Vec<f32> = Noise(7).floats(1000);
    let (x, y) = (executor.input(&[1000], &data).unwrap(), executor.memory(4000).unwrap());
    let x: &crate::memory::Tensor = x.get().unwrap();
    peaks::record_copy(&mut executor, x.data.buffer(), y.buffer(), 250).unwrap();
    assert_eq!(executor.read_buffer(y.buffer(), 1000).unwrap(), data);
}

#[test]
fn every_case_is_one_dispatch_and_takes_time() {
    let Some(engine) = engine() else { return };
    let mut bench = Bench::new(&engine, Effort { seconds: 1e-4, ..Effort::QUICK }).unwrap();
    let peaks = bench.peaks().unwrap();
    assert!(peaks.dot.rate > 0.0 && peaks.fma.rate > 0.0 && peaks.copy.rate > 0.0, "{peaks:?}");
    let cases = bench.cases().unwrap();
    for kernel in ["matmul_codes", "matmul_float", "rows_codes", "values_codes", "rows_float", "unfold", "gelu", "add"]
    {
        assert!(cases.iter().any(|case| case.kernel == kernel), "{kernel}");
    }
    for case in &cases {
        let before = engine.counts();
        bench.time_as_called(case, 3).unwrap();
        assert_eq!((engine.counts() - before).dispatches, 3, "{} {}", case.kernel, case.variant);
        let figure = bench.time(case).unwrap();
        assert!(
            figure.seconds > 0.0 && figure.share(case, &peaks) > 0.0,
            "{} {}: {figure:?}",
            case.kernel,
            case.variant
        );
    }
}

#[test]
fn runs_are_as_long_as_asked() {
    assert_eq!(chain(0.1, 0.01), 10);
    assert_eq!(chain(0.1, 5.0), 2);
    assert_eq!(chain(0.1, 0.0), DISPATCHES / 2);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
}
