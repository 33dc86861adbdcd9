//! `quee tune`: measures which tile computes each product fastest, and keeps the answers for the GPU backend.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use quee_backbone::cost::{BackboneCost, OpCost, OpKind, PartCost};
use quee_backbone::presets::{self, Preset};
use quee_backbone::{Backbone, QuantPlan};
use quee_gpu::bench::{Bench, Effort, Fastest};
use quee_gpu::tiles::{Operands, Shape};
use quee_gpu::tuning::{Tuning, file_name};
use quee_gpu::{Gpu, GpuEngine, GpuOptions};
use quee_quant::WeightQuantizer;

use crate::bench_command::SOFTWARE;
use crate::cancel::Cancel;
use crate::folders;
use crate::output::write_whole;
use crate::progress::Stage;
use crate::recipe;

/// What to measure.
#[derive(Args)]
pub struct TuneArgs {
    /// Recipe, or name of a preset, whose products are measured [default: those of every preset]
    #[arg(value_name = "RECIPE|PRESET")]
    what: Option<String>,
    /// Variant of the recipe, a table [profile.NAME] in it
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Adapter: part of its name [default: the most powerful]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Pictures per batch, e.g. 1,32 [default: 1 and the recipe's paths.batch; 1, 8 and 64 without a recipe]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    batches: Vec<u32>,
    /// Short runs: the choices are less certain
    #[arg(long)]
    quick: bool,
    /// Print what would be kept, and keep nothing
    #[arg(long)]
    dry_run: bool,
}

/// Enough to tell tiles apart that differ by a few percent.
const EFFORT: Effort = Effort { seconds: 0.02, runs: 5, small: false };

/// Measures and keeps the choices; the text to print.
///
/// # Errors
/// When something from outside is missing or wrong, the adapter fails, or a wish to stop.
pub fn run(args: &TuneArgs, cancel: &Cancel) -> Result<String> {
    let Subjects { backbones, batch } = subjects(args)?;
    let folder = if args.dry_run { None } else { Some(writable_folder()?) };
    // Without the choices of earlier times: what they are compared with is what is taken without any.
    let gpu = Gpu::open(&GpuOptions { adapter: args.adapter.clone(), ..GpuOptions::default() })?;
    let info = gpu.info();
    let batches: Vec<usize> = match (args.batches.as_slice(), batch) {
        ([], Some(batch)) => vec![1, batch],
        ([], None) => vec![1, 8, 64],
        (given, _) => given.iter().map(|&batch| batch as usize).collect(),
    };
    let shapes = shapes(&backbones, &batches)?;
    let engine = GpuEngine::on(QuantPlan::dynamic(WeightQuantizer::Absmax).into(), gpu.clone());
    let mut bench = Bench::new(&engine, if args.quick { Effort::QUICK } else { EFFORT })?;
    let mut found = Vec::new();
    let mut left_out = 0;
    let stage = Stage::start("products", shapes.len());
    for shape in shapes {
        cancel.check()?;
        if bench.holds(shape) {
            found.push(bench.fastest(shape)?);
        } else {
            left_out += 1;
        }
        stage.advance(1);
    }
    stage.finish(&format!("{} products by {}", found.len(), bench.clock()));

    let mut text = if info.is_software() { format!("WARNING: {SOFTWARE}\n") } else { String::new() };
    writeln!(text, "adapter: {}, driver {}", info.name, info.driver)?;
    text += &table(&found);
    if left_out > 0 {
        writeln!(text, "{left_out} products are larger than a binding of this adapter and were left out")?;
    }
    match folder {
        None => text += "nothing was kept (--dry-run)\n",
        Some(folder) => {
            // Choices of other recipes stay; a file that cannot be used is replaced.
            let known = Tuning::read(&folder, info).ok().flatten();
            let mut tuning = known.unwrap_or_else(|| Tuning::new(info));
            found.into_iter().for_each(|fastest| tuning.set(fastest.choice));
            let path = folder.join(file_name(info));
            write_whole(&path, tuning.encode().as_bytes())
                .with_context(|| format!("{}: cannot write", path.display()))?;
            writeln!(text, "{}: {} choices", path.display(), tuning.choices().len())?;
        }
    }
    Ok(text)
}

/// What is tuned for.
struct Subjects {
    /// Without values: their shapes are all that counts.
    backbones: Vec<Box<dyn Backbone>>,
    /// The recipe's pictures per batch.
    batch: Option<usize>,
}

fn subjects(args: &TuneArgs) -> Result<Subjects> {
    let skeleton = |preset: &Preset| preset.skeleton(if preset.architecture.image_shape()[1] < 64 { 10 } else { 1000 });
    let Some(what) = &args.what else {
        return Ok(Subjects { backbones: presets::all().iter().map(skeleton).collect(), batch: None });
    };
    // A preset wins over a file of the same name: `./NAME` is always the file.
    match presets::find(what) {
        Ok(preset) => Ok(Subjects { backbones: vec![skeleton(&preset)], batch: None }),
        Err(unknown) => {
            let path = Path::new(what);
            if !path.exists() && path.extension().is_none() {
                return Err(unknown.into());
            }
            let recipe = recipe::load(path, args.profile.as_deref(), &[])?;
            let preset = presets::find(&recipe.backbone.preset)?.varied(&recipe.backbone.variant())?;
            Ok(Subjects { backbones: vec![skeleton(&preset)], batch: Some(recipe.paths.batch) })
        }
    }
}

/// The folder of tuning files, where a file can be written.
fn writable_folder() -> Result<PathBuf> {
    let folder =
        folders::tuning().context("there is no folder for the caches of programs; hint: --dry-run prints only")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot create the folder", folder.display()))?;
    Ok(folder)
}

/// One product of each class, of codes and of floats.
fn shapes(backbones: &[Box<dyn Backbone>], batches: &[usize]) -> Result<Vec<Shape>> {
    let mut seen = HashSet::new();
    let mut shapes = Vec::new();
    for backbone in backbones {
        let cost = BackboneCost::count(backbone.as_ref())?;
        let parts: Vec<&PartCost> = std::iter::once(&cost.stem).chain(&cost.blocks).chain([&cost.head]).collect();
        for &batch in batches {
            for op in parts.iter().flat_map(|part| &part.ops) {
                let Some(shape) = product(op, batch) else { continue };
                for operands in [Operands::Codes, Operands::Floats] {
                    let shape = Shape { operands, ..shape };
                    if seen.insert(shape.class()) {
                        shapes.push(shape);
                    }
                }
            }
        }
    }
    Ok(shapes)
}

/// The product that an operation of `samples` samples is, as the executor asks for it.
fn product(op: &OpCost, samples: usize) -> Option<Shape> {
    let operands = Operands::Codes;
    match (op.kind, op.input.as_slice(), op.output.as_slice()) {
        (OpKind::Linear, [.., k], [rows @ .., n]) => {
            let m = samples * rows.iter().product::<usize>();
            Some(Shape { operands, m, n: *n, k: *k, batch: 1 })
        }
        (OpKind::Product, [_, width], &[heads, m, n]) => {
            Some(Shape { operands, m, n, k: width / (3 * heads), batch: samples * heads })
        }
        (OpKind::Product, &[heads, m, k], [_, features]) => {
            Some(Shape { operands, m, n: features / heads, k, batch: samples * heads })
        }
        _ => None,
    }
}

fn table(found: &[Fastest]) -> String {
    let mut text = format!(
        "\n{:22} {:7} {:16} {:>10}  {:16} {:>10} {:>6}\n",
        "product", "of", "usual tile", "us", "fastest tile", "us", "gain"
    );
    for fastest in found {
        let operands = if fastest.shape.operands == Operands::Codes { "codes" } else { "floats" };
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{:22} {operands:7} {:16} {:10.1}  {:16} {:10.1} {:6.2}",
            fastest.shape.to_string(),
            fastest.usual.name,
            fastest.usual_seconds * 1e6,
            fastest.choice.tile.name,
            fastest.choice.seconds * 1e6,
            fastest.usual_seconds / fastest.choice.seconds,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_that_the_executor_asks_for() {
        let preset = presets::find("vit_d7_w192_p4_32").unwrap();
        let shapes = shapes(&[preset.skeleton(10)], &[2]).unwrap();
        let has = |batch, m, n, k| {
            let of = |operands| shapes.contains(&Shape { operands, m, n, k, batch });
            of(Operands::Codes) && of(Operands::Floats)
        };
        assert!(has(1, 128, 192, 48), "patches: {shapes:?}");
        assert!(has(1, 130, 576, 192) && has(1, 130, 192, 192), "projections: {shapes:?}");
        assert!(has(1, 2, 10, 192), "classifier: {shapes:?}");
        let heads = shapes.iter().filter(|shape| shape.batch > 1).count();
        assert_eq!(heads, 4, "scores and values, of codes and floats: {shapes:?}");
        assert!(shapes.iter().all(|shape| shape.m > 0 && shape.n > 0 && shape.k > 0));
    }
}
