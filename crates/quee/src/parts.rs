//! Runs on paths in [parts](crate::stages::shards), each by a process of its own, on one machine or several that share a cache.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use quee_gpu::Counts;
use serde::Serialize;

use crate::cache::keys::Keys;
use crate::cache::{Cache, Checkpoint, from_postcard, to_postcard};
use crate::cancel::Cancel;
use crate::experiment::Runner;
use crate::output::RunFolder;
use crate::ready::{Calibrated, Ready, told};
use crate::recipe::{Part, Recipe, Shard};
use crate::results::{json, write_origin};
use crate::run::{Options, program};
use crate::stages::backbone_runs::{self, BackboneRuns};
use crate::stages::shards::{ShardReader, ShardWriter, Shards};
use crate::stages::tables::Scratch;
use crate::stages::walk::{Drive, Share};

/// `summary.json` of a part.
#[derive(Serialize)]
struct PartFile {
    recipe: String,
    dataset: String,
    backbone: String,
    /// Which part of the runs on paths.
    part: String,
    /// Batches that it holds, of all passes together.
    batches: usize,
    seconds_by_stage: Vec<(String, f64)>,
}

/// Computes one part, which stays in the cache, and returns the folder that says so.
///
/// # Errors
/// When something from outside is missing or wrong, the part cannot be kept, or on a wish to stop.
pub async fn run(
    recipe: Arc<Recipe>,
    part: Part,
    options: &Options,
    folder: RunFolder,
    mut runner: Runner,
    cancel: &Cancel,
) -> Result<PathBuf> {
    let hint = "hint: name a folder with --cache that this process may write to";
    ensure!(
        runner.cache.store().is_some(),
        "paths.shard = \"{part}\": a part is kept in the cache, but there is none; {hint}"
    );
    let Calibrated { ready, engine, environment, .. } =
        Calibrated::compute(&recipe, options, &mut runner, cancel).await?;
    let Ready { prepared, tree, keys, .. } = ready;
    let inputs = (Arc::clone(&recipe), Arc::clone(&prepared), cancel.clone(), Arc::clone(&runner.cache));
    let steps = backbone_runs::steps(&recipe, &prepared).div_ceil(part.of());
    let name = format!("run part {part} on paths");
    let batches = runner.stage(&name, steps, move |stage| {
        let (recipe, prepared, cancel, cache) = &inputs;
        let (key, program) = (keys.part_of_runs(part)?, program(recipe, prepared));
        let scratch = Arc::new(cache.scratch());
        let compute = |kept: &Checkpoint| {
            let writer = ShardWriter::new(part, &scratch);
            let drive = Drive::new(engine.as_ref(), recipe.paths.batch, cancel, stage).keeping(kept);
            BackboneRuns::compute(recipe, prepared, &program, &tree, &drive.sharing(Share::Part(&writer)))?;
            Ok(Made { batches: writer.batches(), work: engine.counts(), writer: Some(writer) })
        };
        let read = |from: &mut dyn Read| {
            let (batches, work) = from_postcard(from)?;
            Ok(Made { batches, work, writer: None })
        };
        let write = |made: &Made, out: &mut dyn Write| {
            to_postcard(&(made.batches, made.work), out)?;
            made.writer.as_ref().map_or(Ok(()), |writer| writer.encode(out))
        };
        let (made, stored) = cache.stage_in_form(&key, cancel, &|text| stage.say(text), (&read, &write), compute)?;
        let kept = stored || cache.stored(&key, |_| Ok(()))?.is_some();
        ensure!(kept, "part {part} of the runs on paths could not be kept in the cache; {hint}");
        Ok((made.batches, told(format!("{} batches", made.batches), stored)))
    });
    let batches = batches.await?;
    let file = PartFile {
        recipe: recipe.name.clone(),
        dataset: prepared.data.name.clone(),
        backbone: prepared.backbone.name().to_owned(),
        part: part.to_string(),
        batches,
        seconds_by_stage: runner.records.iter().map(|record| (record.stage.clone(), record.seconds)).collect(),
    };
    write_origin(&folder, &recipe, &environment, &runner.records)?;
    folder.write("summary.json", &json(&file)?)?;
    folder.finish()
}

/// A part that was computed or found.
struct Made {
    batches: usize,
    work: Option<Counts>,
    /// None where it was found.
    writer: Option<ShardWriter>,
}

/// The stored parts that a recipe joins, and what a device was asked to do for them; none where it joins none. `say` gets what is missing.
///
/// # Errors
/// When a part that is stored cannot be read.
pub fn stored(
    recipe: &Recipe,
    cache: &Cache,
    keys: &Keys,
    scratch: &Scratch,
    say: &dyn Fn(&str),
) -> Result<Option<(Shards, Vec<Counts>)>> {
    let Shard::Joined(of) = recipe.paths.shard else { return Ok(None) };
    let (mut parts, mut work) = (Vec::new(), Vec::new());
    for part in Part::all(of) {
        let read = |from: &mut dyn Read| {
            let (_, work): (usize, Option<Counts>) = from_postcard(from)?;
            Ok((work, ShardReader::decode(from, scratch)?))
        };
        let found = cache.stored(&keys.part_of_runs(part)?, read)?;
        if found.is_none() {
            say(&format!("part {part} is not in the cache; its batches are computed here"));
        }
        let (counts, reader) = found.map_or((None, None), |(counts, reader)| (counts, Some(reader)));
        work.extend(counts);
        parts.push((part, reader));
    }
    Ok(Some((Shards::new(parts), work)))
}
