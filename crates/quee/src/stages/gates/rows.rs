//! What gates see of the pictures of a split, and what trained gates say of it.

use std::borrow::Cow;

use anyhow::Result;
use quee_heads::{FeatureSpec, GatePaths, GatePredictor};
use quee_policy::tree::{PathTree, ROOT};
use rayon::prelude::*;

use super::Gate;
use crate::stages::answers::NodeAnswers;
use crate::stages::tables::Table;

/// What a gate sees of the pictures of a split.
pub struct GateRows {
    /// Features `[prefix][picture][dim]`; prefixes are the tree's nodes of this depth, in order.
    pub features: Vec<f32>,
    /// Number of features.
    pub dim: usize,
    /// Outcomes `[prefix]`, each `[place][picture]`: 0 right, 1 wrong.
    pub wrong: Vec<Vec<u8>>,
}

/// The split's answers and what gates need besides them.
#[derive(Clone, Copy)]
pub struct GateInput<'a> {
    /// Answers at every node.
    pub nodes: &'a [NodeAnswers],
    /// What the probe behind the stem says.
    pub stem: &'a NodeAnswers,
    /// Class tokens at every node, the mean token at the root.
    pub tokens: Tokens<'a>,
    /// True classes.
    pub labels: &'a [u16],
}

/// Tokens of the pictures of a split, or of some of them.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// By node `[picture][dim]`, at the root `[picture][root_dim]`.
    pub table: &'a Table,
    /// Numbers at the root, at most as many as elsewhere.
    pub root_dim: usize,
    /// Places of the pictures in it, where these are not all.
    pub pictures: Option<&'a [usize]>,
}

impl Tokens<'_> {
    /// Where in the table a picture is.
    fn place(&self, picture: usize) -> usize {
        self.pictures.map_or(picture, |pictures| pictures[picture])
    }
}

/// Some pictures of a split.
pub struct Chosen<'a> {
    nodes: Vec<NodeAnswers>,
    stem: NodeAnswers,
    tokens: &'a Table,
    root_dim: usize,
    pictures: Vec<usize>,
    labels: Vec<u16>,
}

impl<'a> Chosen<'a> {
    /// The pictures `chosen`.
    pub fn of(whole: GateInput<'a>, chosen: &[usize], spec: &FeatureSpec) -> Self {
        Self {
            nodes: whole.nodes.iter().map(|node| node.of(chosen, spec.classes)).collect(),
            stem: whole.stem.of(chosen, spec.classes),
            tokens: whole.tokens.table,
            root_dim: whole.tokens.root_dim,
            pictures: chosen.iter().map(|&picture| whole.tokens.place(picture)).collect(),
            labels: chosen.iter().map(|&picture| whole.labels[picture]).collect(),
        }
    }

    /// What gates see of them.
    pub fn input(&self) -> GateInput<'_> {
        let tokens = Tokens { table: self.tokens, root_dim: self.root_dim, pictures: Some(&self.pictures) };
        GateInput { nodes: &self.nodes, stem: &self.stem, tokens, labels: &self.labels }
    }
}

/// Features and outcomes at gate `gate` (0 to segments − 1). Tokens are read where a projection looks at them.
///
/// # Errors
/// When the file of the tokens cannot be read.
pub fn rows(tree: &PathTree, spec: &FeatureSpec, gate: usize, input: GateInput) -> Result<GateRows> {
    let samples = input.labels.len();
    let mut features = Vec::new();
    for node in tree.level(gate) {
        let so_far = tree.widths_of(node);
        let parent = tree.node(node).parent.filter(|&parent| parent != ROOT);
        let at = |node: usize, sample: usize| {
            let said = if node == ROOT { input.stem } else { &input.nodes[node] };
            &said.probabilities[sample * spec.classes..(sample + 1) * spec.classes]
        };
        let tokens = match spec.projection {
            0 => Cow::default(),
            _ => input.tokens.table.list(node)?,
        };
        // What is missing at the root is 0: to a projection, that is nothing.
        let dim = if node == ROOT { input.tokens.root_dim } else { spec.token_dim };
        let mut token = vec![0.0; if spec.projection == 0 { 0 } else { spec.token_dim }];
        for sample in 0..samples {
            if spec.projection > 0 {
                token[..dim].copy_from_slice(&tokens[input.tokens.place(sample) * dim..][..dim]);
            }
            spec.write(gate, at(node, sample), parent.map(|p| at(p, sample)), &so_far, &token, &mut features);
        }
    }
    let outcomes = |node: usize| {
        let answers = tree.continuations(node).iter().map(|way| &input.nodes[way.end].answers);
        answers.flat_map(|answers| answers.iter().zip(input.labels).map(|(a, label)| u8::from(a != label))).collect()
    };
    Ok(GateRows { features, dim: spec.dim(gate), wrong: tree.level(gate).map(outcomes).collect() })
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
