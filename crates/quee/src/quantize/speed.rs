//! What quantizers cost at run time: the whole backbone with each of them, in turns.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use quee_backbone::Executor;
use quee_gpu::bench::median;
use quee_quant::{ActQuantizer, Width};

use super::{Request, calibrate, widths};
use crate::backend::{Device, Engine};
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::{Quant, Recipe};
use crate::run::{Options, calibration_pictures, program};
use crate::stages::prepare::prepare;

/// Rounds whose median counts.
const ROUNDS: usize = 7;

/// Measures, and gives the text to print.
///
/// # Errors
/// When something from outside is missing or wrong, or on a wish to stop.
pub fn measure(
    recipe: &Recipe,
    options: &Options,
    quantizers: &[ActQuantizer],
    csv: bool,
    cancel: &Cancel,
) -> Result<String> {
    let prepared = prepare(recipe, options.data.as_deref(), options.weights.as_deref())?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let backbone = prepared.backbone.as_ref();
    let pictures = prepared.images(calibration_pictures(recipe, &prepared))?;
    let all = widths(&recipe.quant);
    let mut measured = recipe.quant.widths.clone();
    measured.retain(|width| !width.is_float());
    let stage = Stage::start("measure speed", 0);
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    for quantizer in quantizers {
        let quant = Quant { activations: *quantizer, ..recipe.quant.clone() };
        let request = Request { backbone, quant: &quant, widths: &all, batch: recipe.paths.batch };
        let (plan, _) = calibrate(request, &device, &pictures, cancel, &|text| stage.say(text))?;
        engines.push(device.engine(Arc::new(plan)));
    }
    let count = recipe.paths.batch.min(prepared.splits.exit_train.len());
    let images = prepared.images(&prepared.splits.exit_train[..count])?;
    let program = program(recipe, &prepared);
    let mut seconds = vec![vec![Vec::new(); measured.len()]; engines.len()];
    let mut executors = engines.iter().map(|engine| engine.executor()).collect::<Result<Vec<_>, _>>()?;
    // The first round warms up.
    for round in 0..=ROUNDS {
        for (at, executor) in executors.iter_mut().enumerate() {
            for (width_at, &width) in measured.iter().enumerate() {
                cancel.check()?;
                let executor: &mut dyn Executor = executor.as_mut();
                let start = Instant::now();
                program.run_path(executor, &images, &vec![width; recipe.paths.segments.len()])?;
                executor.wait()?;
                if round > 0 {
                    seconds[at][width_at].push(start.elapsed().as_secs_f64());
                }
            }
        }
    }
    stage.finish(&format!("{} quantizers, batches of {count}, {ROUNDS} rounds", quantizers.len()));
    let first: Vec<f64> = seconds.first().context("a quantizer at least")?.iter().cloned().map(median).collect();
    let mut rows: Vec<(&'static str, Width, f64, f64)> = Vec::new();
    for (quantizer, seconds) in quantizers.iter().zip(seconds) {
        for ((&width, seconds), &reference) in measured.iter().zip(seconds).zip(&first) {
            let seconds = median(seconds);
            rows.push((quantizer.name(), width, count as f64 / seconds, reference / seconds));
        }
    }
    if csv {
        let line = |(name, width, images, ratio): &(&'static str, Width, f64, f64)| {
            format!("{name},{width},{images},{ratio}\n")
        };
        return Ok(
            "quantizer,width,images_per_s,speed_over_first\n".to_owned() + &rows.iter().map(line).collect::<String>()
        );
    }
    let mut out = format!(
        "{}, backend {}: one batch of {count} at a time, exits behind every segment, in turns, medians of {ROUNDS}{}\n\n  quantizer      width   images/s  speed over {}\n",
        backbone.name(),
        device.describe(),
        device.caveat().map_or(String::new(), |caveat| format!("; {caveat}")),
        quantizers[0].name()
    );
    for (name, width, images, ratio) in rows {
        out += &format!("  {name:13}  {:6}  {images:9.1}  {ratio:10.3}\n", width.to_string());
    }
    Ok(out)
}
