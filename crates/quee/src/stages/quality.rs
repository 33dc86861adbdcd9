//! How well the gates of one seed predict.

use quee_heads::quality::{self, ReliabilityBin};
use quee_heads::{FourWay, PredictorRow, suffix_name};
use rayon::prelude::*;

use super::gates::{self, GateRows};
use super::study::Shared;
use super::trained::Predictions;

/// How well one gate predicts, on *test*.
pub struct GateQuality {
    /// Gate.
    pub gate: usize,
    /// One row per continuation, over all prefixes.
    pub rows: Vec<PredictorRow>,
    /// All continuations together.
    pub reliability: Vec<ReliabilityBin>,
    /// Right or wrong now and at full depth and largest width, over all prefixes.
    pub four_way: FourWay,
}

/// Quality of the predictions on *test*.
pub fn quality(shared: Shared, predictions: &Predictions, seed: u64) -> Vec<GateQuality> {
    let Shared { recipe, prepared, tree, .. } = shared;
    let samples = prepared.splits.test.len();
    let largest = recipe
        .quant
        .widths
        .iter()
        .enumerate()
        .max_by_key(|(_, w)| (w.weight_bits(), w.act_bits()))
        .map_or(0, |(i, _)| i);
    let of_gate = |(index, rows): (usize, &GateRows)| {
        let gate = index + 1;
        let paths = gates::paths(tree, gate);
        // Place of a suffix behind every node where it is one.
        let behind = |suffix: usize| -> Vec<(usize, usize)> {
            let nodes = tree.level(gate).enumerate();
            nodes.filter_map(|(row, node)| Some((node, paths.places(row).binary_search(&suffix).ok()?))).collect()
        };
        let outcomes = |node: usize, place: usize| {
            let wrong = &rows.wrong[tree.prefix_index(node)];
            &wrong[place * samples..(place + 1) * samples]
        };
        // Predictions and outcomes of one suffix over all prefixes.
        let pairs = |suffix: usize| -> (Vec<f32>, Vec<u8>) {
            let of_node = |(node, place): (usize, usize)| {
                let predicted = (0..samples).map(move |sample| predictions.predicted.test.get(node, sample)[place]);
                predicted.zip(outcomes(node, place).iter().copied())
            };
            behind(suffix).into_iter().flat_map(of_node).unzip()
        };
        let row = |suffix: usize| {
            let (p, y) = pairs(suffix);
            PredictorRow::compute(gate, suffix_name(&paths.suffixes()[suffix], &recipe.quant.widths), &p, &y, seed)
        };
        let (mut p, mut y) = (Vec::new(), Vec::new());
        for suffix in 0..paths.suffixes().len() {
            let (some_p, some_y) = pairs(suffix);
            p.extend(some_p);
            y.extend(some_y);
        }
        // Here and at full depth, behind the prefixes that can go there at the largest width.
        let full = paths.suffixes().iter().position(|path| *path == vec![largest; tree.segments() - gate]);
        let whole = full.map_or_else(Vec::new, behind);
        let here: Vec<u8> = whole.iter().flat_map(|&(node, _)| outcomes(node, 0)).copied().collect();
        let later: Vec<u8> = whole.iter().flat_map(|&(node, place)| outcomes(node, place)).copied().collect();
        GateQuality {
            gate,
            rows: (0..paths.suffixes().len()).into_par_iter().filter_map(row).collect(),
            reliability: quality::reliability(&p, &y, quality::ECE_BINS),
            four_way: FourWay::count(&here, &later),
        }
    };
    predictions.test_rows.iter().enumerate().map(of_gate).collect()
}
