//! How well the gates of one seed predict.

use quee_heads::quality::{self, ReliabilityBin};
use quee_heads::{ABSENT, FourWay, PredictorRow};
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
    let numbering = gates::numbering(tree).expect("the tree was numbered before");
    let largest = recipe
        .quant
        .widths
        .iter()
        .enumerate()
        .max_by_key(|(_, w)| (w.weight_bits(), w.act_bits()))
        .map_or(0, |(i, _)| i);
    let of_gate = |(index, rows): (usize, &GateRows)| {
        let gate = index + 1;
        let suffixes = tree.suffix_count(gate);
        let nodes: Vec<usize> = tree.level(gate).collect();
        // Predictions and outcomes of one suffix over all prefixes.
        let pairs = |suffix: usize| -> (Vec<f32>, Vec<u8>) {
            let of_node = |&node: &usize| {
                let start = (tree.prefix_index(node) * suffixes + suffix) * samples;
                let outcome = &rows.wrong[start..start + samples];
                (0..samples).map(move |sample| (predictions.predicted.test.get(node, sample)[suffix], outcome[sample]))
            };
            nodes.iter().flat_map(of_node).unzip()
        };
        let row = |suffix: usize| {
            let (p, y) = pairs(suffix);
            PredictorRow::compute(gate, numbering.suffix_name(suffix, &recipe.quant.widths), &p, &y, seed)
        };
        let (mut p, mut y) = (Vec::new(), Vec::new());
        for suffix in 0..suffixes {
            let (some_p, some_y) = pairs(suffix);
            for (p_i, y_i) in some_p.into_iter().zip(some_y).filter(|(_, y)| *y != ABSENT) {
                p.push(p_i);
                y.push(y_i);
            }
        }
        let full = numbering.suffix_index(&vec![largest; tree.segments() - gate]);
        GateQuality {
            gate,
            rows: (0..suffixes).into_par_iter().filter_map(row).collect(),
            reliability: quality::reliability(&p, &y, quality::ECE_BINS),
            four_way: FourWay::count(&pairs(0).1, &pairs(full).1),
        }
    };
    predictions.test_rows.iter().enumerate().map(of_gate).collect()
}
