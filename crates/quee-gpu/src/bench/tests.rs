use std::sync::Arc;

use quee_backbone::QuantPlan;
use quee_quant::WeightQuantizer;

use super::*;
use crate::tiles::candidates;
use crate::tuning::{Choice, Tuning, file_name};
use crate::{Gpu, GpuError, GpuOptions};

/// An engine, unless there is no adapter.
fn engine() -> Option<Arc<GpuEngine>> {
    engine_with(&GpuOptions::default())
}

fn engine_with(options: &GpuOptions) -> Option<Arc<GpuEngine>> {
    let plan = Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax));
    match GpuEngine::new(plan, options) {
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
    if engine.gpu().abilities().matrix_units {
        // Eight chains of 24 steps.
        assert_eq!(sums(&mut executor, peaks::record_matrix), [192.0; 128]);
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
        // What runs on rows of discrete GPUs has a name of its own.
        let is_it = |case: &Case| case.kernel.strip_suffix("_wide").unwrap_or(case.kernel) == kernel;
        assert!(cases.iter().any(is_it), "{kernel}");
    }
    for case in &cases {
        assert_is_one_dispatch(&engine, &mut bench, case);
        let figure = bench.time(case).unwrap();
        assert!(
            figure.seconds > 0.0 && figure.share(case, &peaks) > 0.0,
            "{} {}: {figure:?}",
            case.kernel,
            case.variant
        );
    }
}

fn assert_is_one_dispatch(engine: &GpuEngine, bench: &mut Bench, case: &Case) {
    let before = engine.counts();
    bench.time_as_called(case, 3).unwrap();
    assert_eq!((engine.counts() - before).dispatches, 3, "{} {}", case.kernel, case.variant);
}

#[test]
fn discrete_gpus_have_cases_of_their_own() {
    let Some(engine) = engine_with(&GpuOptions { tiled: Some(true), ..GpuOptions::default() }) else { return };
    let mut bench = Bench::new(&engine, Effort { seconds: 1e-4, ..Effort::QUICK }).unwrap();
    let cases = bench.cases().unwrap();
    for kernel in ["rows_codes_wide", "rows_float_wide", "attention_codes"] {
        let case = cases.iter().find(|case| case.kernel == kernel).unwrap_or_else(|| panic!("{kernel}"));
        assert_is_one_dispatch(&engine, &mut bench, case);
        assert!(bench.time(case).unwrap().seconds > 0.0, "{kernel}");
    }
}

#[test]
fn the_fastest_tile_is_not_slower_than_the_usual_one() {
    let Some(engine) = engine() else { return };
    let mut bench = Bench::new(&engine, Effort { seconds: 1e-4, ..Effort::QUICK }).unwrap();
    for operands in [Operands::Codes, Operands::Floats] {
        let shape = Shape { operands, m: 20, n: 24, k: 16, batch: 2 };
        assert!(bench.holds(shape));
        assert!(!bench.holds(Shape { m: 1 << 26, ..shape }));
        let fastest = bench.fastest(shape).unwrap();
        assert!(fastest.choice.seconds <= fastest.usual_seconds && fastest.choice.seconds > 0.0, "{fastest:?}");
        assert_eq!(fastest.choice.class, shape.class());
    }
}

#[test]
fn a_device_uses_what_is_in_its_file() {
    let Some(engine) = engine() else { return };
    let info = engine.gpu().info().clone();
    let shape = Shape { operands: Operands::Codes, m: 100, n: 24, k: 16, batch: 1 };
    let usual = engine.gpu().tile(shape);
    let tile = candidates(shape, engine.gpu().abilities()).find(|tile| *tile != usual).unwrap();
    let mut tuning = Tuning::new(&info);
    tuning.set(Choice { class: shape.class(), tile, seconds: 1e-6 });

    let folder = std::env::temp_dir().join(format!("quee-device-tuning-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let open = |content: &str| {
        std::fs::write(folder.join(file_name(&info)), content).unwrap();
        let gpu = Gpu::open(&GpuOptions { tuning: Some(folder.clone()), ..GpuOptions::default() }).unwrap();
        (gpu.chosen(), gpu.tile(shape).name)
    };
    let (good, damaged) = (open(&tuning.encode()), open("{\"format\": "));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(good, (1, tile.name));
    assert_eq!(damaged, (0, usual.name));
}

#[test]
fn runs_are_as_long_as_asked() {
    assert_eq!(chain(0.1, 0.01), 10);
    assert_eq!(chain(0.1, 5.0), 2);
    assert_eq!(chain(0.1, 0.0), DISPATCHES / 2);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
}
