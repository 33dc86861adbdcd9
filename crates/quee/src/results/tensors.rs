//! `paths.safetensors`: the path table, for other programs.

use std::collections::BTreeMap;

use anyhow::Result;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_policy::table::Outcomes;

use super::Study;
use crate::stages::walk::exit_dim;

/// The bytes of the file. Per seed and split: `seed0.fit.answers` `[path, picture]` u16, `seed0.fit.confidence`
/// `[path, picture]` f32; per split `fit.labels` `[picture]` u16 and `fit.indices` `[picture]` u32 (positions in the data
/// set); with `paths.store_tokens` also `fit.tokens` `[path, picture, dim]` f32, zeros behind what the last exit does not see. The note `paths` names the paths, one per
/// line.
///
/// # Errors
/// When the file of the tokens cannot be read.
pub fn paths(study: &Study) -> Result<Vec<u8>> {
    let paths = study.tree.paths().len();
    let mut tensors = Vec::new();
    for (at, seed) in study.seeds.iter().enumerate() {
        let tables = &seed.trained.outcomes;
        let parts = [("fit", &tables.fit), ("cal_a", &tables.cal_a), ("cal_b", &tables.cal_b), ("test", &tables.test)];
        for (split, table) in parts {
            let shape = || vec![paths, table.samples()];
            let answers = study.tree.paths().flat_map(|node| table.answers(node)).copied();
            let confidence = study.tree.paths().flat_map(|node| table.confidence(node)).copied();
            tensors.push(TensorData::u16(format!("seed{}.{split}.answers", seed.seed), shape(), answers));
            tensors.push(TensorData::f32(format!("seed{}.{split}.confidence", seed.seed), shape(), confidence));
            if at == 0 {
                tensors.extend(of_split(study, split, table)?);
            }
        }
    }
    let names: Vec<String> = study.recipe.quant.widths.iter().map(ToString::to_string).collect();
    let labels: Vec<String> = study.tree.paths().map(|node| study.tree.label(node, &names)).collect();
    let notes = BTreeMap::from([
        ("format".to_owned(), "quee path table 1".to_owned()),
        ("paths".to_owned(), labels.join("\n")),
        ("dataset".to_owned(), study.prepared.data.name.clone()),
    ]);
    Ok(encode(&tensors, &notes))
}

fn of_split(study: &Study, split: &str, table: &Outcomes) -> Result<Vec<TensorData>> {
    let (splits, runs) = (&study.prepared.splits, &study.runs.tree);
    let (indices, tokens) = match split {
        "fit" => (study.prepared.fit(), &runs.fit),
        "cal_a" => (splits.cal_a.as_slice(), &runs.cal_a),
        "cal_b" => (splits.cal_b.as_slice(), &runs.cal_b),
        _ => (splits.test.as_slice(), &runs.test),
    };
    // A share of fit leaves pictures out; the same ones for every seed.
    let chosen = study.seeds[0].trained.fit_pictures.as_ref().filter(|_| split == "fit");
    let places: Vec<usize> = chosen.map_or_else(|| (0..indices.len()).collect(), Clone::clone);
    let samples = table.samples();
    let mut all = vec![
        TensorData::u16(format!("{split}.labels"), vec![samples], table.labels().iter().copied()),
        TensorData::u32(format!("{split}.indices"), vec![samples], places.iter().map(|&at| indices[at] as u32)),
    ];
    if study.recipe.paths.store_tokens {
        let dim_of = |index: usize| exit_dim(study.prepared.backbone.as_ref(), &study.recipe, index);
        let longest = dim_of(0);
        let shape = vec![study.tree.paths().len(), samples, longest];
        let mut values = Vec::with_capacity(shape.iter().product());
        for node in study.tree.paths() {
            let (tokens, dim) = (tokens.list(node)?, dim_of(study.tree.node(node).depth - 1));
            for &at in &places {
                values.extend_from_slice(&tokens[at * dim..(at + 1) * dim]);
                values.extend(std::iter::repeat_n(0.0, longest - dim));
            }
        }
        all.push(TensorData::f32(format!("{split}.tokens"), shape, values));
    }
    Ok(all)
}
