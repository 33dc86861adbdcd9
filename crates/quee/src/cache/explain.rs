//! `quee run --explain`: which stages would run, and why.

use std::fmt::Write;

use anyhow::Result;
use quee_backbone::cost::BackboneCost;
use quee_store::{Key, Lookup, Store};

use super::Cache;
use super::keys::Keys;
use crate::recipe::{CostModel, Part, Recipe, Shard};
use crate::stages::costs::Counted;

/// Most differences shown of a stage.
const SHOWN: usize = 4;

/// A line for every stage of `recipe`.
///
/// # Errors
/// When a key has too many parts.
pub fn explain(cache: &Cache, keys: &Keys, recipe: &Recipe, cost: &BackboneCost) -> Result<String> {
    let counted =
        |model| Counted::new(model, cost, &recipe.paths.segments, None).relative_segments(&recipe.quant.widths);
    let costs = (recipe.policy.cost != CostModel::Latency).then(|| counted(recipe.policy.cost));
    let mut stages = vec![("calibrate quantizers".to_owned(), keys.quantizers()?)];
    let part = |part: Part| Ok((format!("run part {part} on paths"), keys.part_of_runs(part)?));
    match recipe.paths.shard {
        Shard::Whole => {}
        Shard::One(one) => {
            stages.push(part(one)?);
            return Ok(lines(cache, stages));
        }
        Shard::Joined(of) => stages.extend(Part::all(of).map(part).collect::<Result<Vec<_>>>()?),
    }
    stages.push(("run backbone on paths".to_owned(), keys.runs()?));
    if recipe.timing.measure {
        stages.push(("measure times".to_owned(), keys.times()?));
    }
    for &seed in &recipe.seeds {
        stages.push((format!("train exits, seed {seed}"), keys.exits(seed)?));
        if let Some(costs) = &costs {
            stages.push((format!("train gates, seed {seed}"), keys.gates(seed, costs)?));
        }
    }
    let mut text = lines(cache, stages);
    if costs.is_none() {
        let _ = writeln!(text, "{:24} stored if they were trained at the times above", "train gates");
    }
    let _ = writeln!(text, "{:24} stored if everything above is and they ran with it", "policies and baselines");
    let _ = writeln!(text, "{:24} runs always", "bootstrap, report");
    Ok(text)
}

fn lines(cache: &Cache, stages: Vec<(String, Key)>) -> String {
    let mut text = String::new();
    for (name, key) in stages {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:24} {}", state(cache.store(), &key));
    }
    text
}

fn state(store: Option<&Store>, key: &Key) -> String {
    let Some(store) = store else { return "runs: there is no cache".into() };
    match store.get(key) {
        Lookup::Found(found) => format!("stored ({:.1} MB)", found.length() as f64 / 1e6),
        Lookup::Damaged(damaged) => format!("runs: {damaged}"),
        Lookup::Missing => match store.closest(key) {
            Ok(Some((_, differences))) if !differences.is_empty() => {
                let shown: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
                let more = match differences.len().saturating_sub(SHOWN) {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                format!("runs: {}{more}", shown.join(", "))
            }
            _ => "runs: nothing like it is stored".into(),
        },
    }
}
