//! Peaks of the adapter, and single kernels beside them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use quee_backbone::QuantPlan;
use quee_gpu::bench::{Bench, Effort, Peaks};
use quee_gpu::{Gpu, GpuEngine};
use quee_quant::WeightQuantizer;

use super::Row;
use crate::cancel::Cancel;
use crate::progress::Stage;

/// Peaks, and single kernels whose names contain `only`; the peaks and what times are taken by.
pub fn measure(
    gpu: &Arc<Gpu>,
    effort: Effort,
    only: Option<&str>,
    cancel: &Cancel,
    rows: &mut Vec<Row>,
) -> Result<(Peaks, &'static str)> {
    let engine = GpuEngine::on(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Arc::clone(gpu));
    let mut bench = Bench::new(&engine, effort)?;
    let clock = bench.clock();
    let stage = Stage::start("peaks", 0);
    let peaks = bench.peaks()?;
    stage.finish(&format!("by {clock}"));
    let peak = |name: &str, operations, bytes, invocations: usize| Row {
        section: "peaks",
        name: name.into(),
        shape: format!("{invocations} invocations"),
        clock,
        runs: effort.runs,
        operations,
        bytes,
        ..Row::default()
    };
    rows.push(peak("dot4I8Packed", Some(peaks.dot.rate), None, peaks.dot.invocations));
    rows.push(peak("fma", Some(peaks.fma.rate), None, peaks.fma.invocations));
    if let Some(matrix) = peaks.matrix {
        rows.push(peak("matrix units", Some(matrix.rate), None, matrix.invocations));
    }
    rows.push(peak("copy", None, Some(peaks.copy.rate), peaks.copy.invocations));

    let mut cases = bench.cases()?;
    cases.retain(|case| only.is_none_or(|text| case.kernel.contains(text)));
    ensure!(
        !cases.is_empty(),
        "--kernel {}: no kernel has such a name; hint: names are those of files in `shaders`, e.g. matmul",
        only.unwrap_or_default()
    );
    let stage = Stage::start("kernels", cases.len());
    for case in &cases {
        cancel.check()?;
        let figure = bench.time(case)?;
        let arithmetic = case.operations > 0.0;
        rows.push(Row {
            section: "kernels",
            name: case.kernel.into(),
            variant: case.variant.clone(),
            shape: case.shape.clone(),
            clock,
            runs: figure.runs,
            seconds: Some(figure.seconds),
            operations: arithmetic.then(|| figure.operations(case)),
            bytes: Some(figure.bytes(case)),
            share: Some(figure.share(case, &peaks)),
            ..Row::default()
        });
        stage.advance(1);
    }
    stage.finish(&format!("{} kernels and shapes", cases.len()));
    Ok((peaks, clock))
}

/// What the share of the peak means.
pub fn peaks_text(peaks: &Peaks) -> String {
    format!(
        "share_of_peak: of products of codes, the part of {:.1} Gop/s (the fastest of dot4I8Packed, fma and matrix units, measured here); of products of floats, of \
         {:.1} Gop/s (fma); of all others, of {:.1} GB/s (a copy larger than most caches: what stays in a cache may pass it)\n",
        peaks.codes() / 1e9,
        peaks.fma.rate / 1e9,
        peaks.copy.rate / 1e9
    )
}
