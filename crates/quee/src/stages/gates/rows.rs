//! What gates see of the pictures of a split, and what trained gates say of it.

use quee_heads::{FeatureSpec, GatePaths, GatePredictor};
use quee_policy::tree::PathTree;
use rayon::prelude::*;

use super::Gate;
use crate::stages::answers::rows_of;
use crate::stages::said::TreeSaid;

/// What a gate sees of the pictures of a split.
pub struct GateRows {
    /// Features `[prefix][picture][dim]`; prefixes are the tree's nodes of this depth, in order.
    pub features: Vec<f32>,
    /// Number of features.
    pub dim: usize,
    /// Outcomes `[prefix]`, each `[place][picture]`: 0 right, 1 wrong.
    pub wrong: Vec<Vec<u8>>,
}

/// What is said of a split, or of some of its pictures.
#[derive(Clone, Copy)]
pub struct GateInput<'a> {
    /// What is said of all pictures of the split.
    pub said: &'a TreeSaid,
    /// The true classes of all pictures of the split.
    pub labels: &'a [u16],
    /// Places of the pictures that count, where these are not all.
    pub pictures: Option<&'a [usize]>,
}

impl<'a> GateInput<'a> {
    /// Number of pictures that count.
    pub fn samples(&self) -> usize {
        self.pictures.map_or(self.labels.len(), <[usize]>::len)
    }

    /// Of the pictures that count, those at places `chosen`.
    pub fn choose(self, chosen: &[usize]) -> Chosen<'a> {
        let place = |&at: &usize| self.pictures.map_or(at, |pictures| pictures[at]);
        Chosen { of: self, pictures: chosen.iter().map(place).collect() }
    }
}

/// Some pictures of a split.
pub struct Chosen<'a> {
    of: GateInput<'a>,
    pictures: Vec<usize>,
}

impl Chosen<'_> {
    /// What gates see of them.
    pub fn input(&self) -> GateInput<'_> {
        GateInput { pictures: Some(&self.pictures), ..self.of }
    }
}

/// Features and outcomes at gate `gate` (0 to segments − 1).
pub fn rows(tree: &PathTree, spec: &FeatureSpec, gate: usize, input: GateInput) -> GateRows {
    let GateInput { said, labels, pictures } = input;
    let dim = spec.dim(gate);
    let mut features = Vec::new();
    tree.level(gate).for_each(|node| features.extend_from_slice(&rows_of(&said.gate_features[node], dim, pictures)));
    let labels = rows_of(labels, 1, pictures);
    let outcomes = |node: usize| {
        let mut wrong = Vec::with_capacity(tree.places(node) * labels.len());
        for way in tree.continuations(node) {
            let answers = rows_of(&said.answers[way.end], 1, pictures);
            wrong.extend(answers.iter().zip(labels.iter()).map(|(answer, label)| u8::from(answer != label)));
        }
        wrong
    };
    GateRows { features, dim, wrong: tree.level(gate).map(outcomes).collect() }
}

/// Predicted probabilities of error at one gate: per node of its level `[picture][place]`.
pub fn predict(tree: &PathTree, predictor: &GatePredictor, rows: &GateRows, samples: usize) -> Vec<Vec<f32>> {
    let nodes: Vec<usize> = tree.level(predictor.gate()).collect();
    nodes
        .par_iter()
        .enumerate()
        .map(|(row, &node)| {
            let prefix = tree.prefix_index(node);
            let mut all = Vec::with_capacity(samples * tree.places(node));
            let mut out = Vec::new();
            for sample in 0..samples {
                let start = (row * samples + sample) * rows.dim;
                predictor.predict(&rows.features[start..start + rows.dim], prefix, &mut out);
                all.extend_from_slice(&out);
            }
            all
        })
        .collect()
}

/// Features as the gate's predictor sees them, `[prefix][picture][dim]`.
pub fn standardised(gate: &Gate, rows: &GateRows) -> Vec<f32> {
    let mut standard = rows.features.clone();
    gate.predictor.standardizer().apply(&mut standard);
    standard
}

/// The cell of every picture at every node of a gate's level, `[node][picture]`, from its [`standardised`] features.
pub fn assign_cells(gate: &Gate, rows: &GateRows, standard: &[f32], spec: &FeatureSpec) -> Vec<u16> {
    let cells = gate.cells.assign_all(&without_widths(standard, rows.dim, spec.cell_dim()));
    cells.into_iter().map(|cell| cell as u16).collect()
}

/// The paths of gate `gate` (0 to segments − 1), prefixes and places in the order of the tree.
///
/// # Panics
/// When the tree has no such gate.
pub fn paths(tree: &PathTree, gate: usize) -> GatePaths {
    let prefixes = tree.level(gate).map(|node| tree.widths_of(node)).collect();
    let ways = |node: usize| tree.continuations(node).iter().map(|way| tree.widths_between(node, way.end)).collect();
    GatePaths::new(prefixes, tree.level(gate).map(ways).collect()).expect("a tree names every path once")
}

/// Rows without their last features, the widths so far.
pub(super) fn without_widths(rows: &[f32], dim: usize, keep: usize) -> Vec<f32> {
    rows.chunks_exact(dim).flat_map(|row| &row[..keep]).copied().collect()
}
