//! What the exits of a seed say along all paths, as far as anything later reads it.
//!
//! The tree is walked depth first. Class probabilities of an exit live while what is behind it is walked, since the next exits and gates look
//! back at them; what stays is an answer, its probability and what the gate there sees, so that what is kept does not grow with the number of classes.

use anyhow::Result;
use quee_heads::{ExitHead, FeatureSpec};
use quee_policy::table::Outcomes;
use quee_policy::tree::{NodeId, PathTree, ROOT};
use rayon::prelude::*;

use super::answers::{ExitHeads, NodeAnswers, rows_of};
use super::tables::Table;

/// What is said of the pictures of a split at every node of the tree.
pub struct TreeSaid {
    /// Class with the largest probability, by node `[picture]`; the root's is empty.
    pub answers: Vec<Vec<u16>>,
    /// That probability, likewise.
    pub confidence: Vec<Vec<f32>>,
    /// What gates see, by node `[picture][feature]`: at the root of the probe behind the stem, at the last exits nothing.
    pub gate_features: Vec<Vec<f32>>,
    /// Class probabilities, by node `[picture][class]`, the root's empty; nothing where they are not to be kept.
    pub probabilities: Vec<Vec<f32>>,
}

/// What speaks, and what is kept of it. `H` and `P` name exits and probe for a picture.
pub struct Speakers<'a, H, P> {
    /// Paths.
    pub tree: &'a PathTree,
    /// What gates see.
    pub spec: &'a FeatureSpec,
    /// Exits of a picture.
    pub heads: H,
    /// Probe behind the stem, of a picture.
    pub probe: P,
    /// Whether class probabilities stay.
    pub keep_probabilities: bool,
}

/// What is said at one node.
struct Said {
    answers: Vec<u16>,
    confidence: Vec<f32>,
    gate_features: Vec<f32>,
    probabilities: Vec<f32>,
}

impl<'a, H, P> Speakers<'a, H, P>
where
    H: Fn(usize) -> &'a ExitHeads + Sync,
    P: Fn(usize) -> &'a ExitHead + Sync,
{
    /// What they say of features by node `[picture][dim]`, those behind the stem at the root.
    ///
    /// # Errors
    /// When the file of the features cannot be read.
    ///
    /// # Panics
    /// When exits have other classes than `spec`, or its projection is of fewer numbers than an exit or the probe reads.
    pub fn listen(&self, features: &Table) -> Result<TreeSaid> {
        let nodes = self.tree.node_count();
        let mut tree = TreeSaid {
            answers: vec![Vec::new(); nodes],
            confidence: vec![Vec::new(); nodes],
            gate_features: vec![Vec::new(); nodes],
            probabilities: vec![Vec::new(); nodes],
        };
        tree.gate_features[ROOT] = self.at_root(&features.list(ROOT)?);
        for (node, Said { answers, confidence, gate_features, probabilities }) in self.below(ROOT, None, features)? {
            tree.answers[node] = answers;
            tree.confidence[node] = confidence;
            tree.gate_features[node] = gate_features;
            tree.probabilities[node] = probabilities;
        }
        Ok(tree)
    }

    /// What gate 0 sees.
    fn at_root(&self, tokens: &[f32]) -> Vec<f32> {
        let dim = (self.probe)(0).dim;
        let said = NodeAnswers::compute_each(&self.probe, tokens, dim, None);
        self.seen(ROOT, &said, None, tokens, dim)
    }

    /// What is said behind `parent`; `before` is what is said there, if anything.
    fn below(&self, parent: NodeId, before: Option<&NodeAnswers>, features: &Table) -> Result<Vec<(NodeId, Said)>> {
        let visit = |node: NodeId| -> Result<Vec<(NodeId, Said)>> {
            let (said, gate_features) = self.at(node, before, &features.list(node)?);
            let mut all = self.below(node, Some(&said), features)?;
            let NodeAnswers { probabilities, answers, confidence } = said;
            let probabilities = if self.keep_probabilities { probabilities } else { Vec::new() };
            all.push((node, Said { answers, confidence, gate_features, probabilities }));
            Ok(all)
        };
        let children = self.tree.node(parent).children.clone();
        let each: Vec<Vec<(NodeId, Said)>> = children.into_par_iter().map(visit).collect::<Result<_>>()?;
        Ok(each.into_iter().flatten().collect())
    }

    /// What the exit at `node` says, and what the gate there sees, if there is one.
    fn at(&self, node: NodeId, before: Option<&NodeAnswers>, tokens: &[f32]) -> (NodeAnswers, Vec<f32>) {
        let depth = self.tree.node(node).depth;
        let dim = (self.heads)(0).0[depth - 1].dim;
        let said = NodeAnswers::compute_each(|picture| &(self.heads)(picture).0[depth - 1], tokens, dim, before);
        let gate_features = match depth < self.tree.segments() {
            true => self.seen(node, &said, before, tokens, dim),
            false => Vec::new(),
        };
        (said, gate_features)
    }

    /// What the gate at `node` sees; `tokens` `[picture][dim]` are for a projection.
    fn seen(
        &self,
        node: NodeId,
        said: &NodeAnswers,
        before: Option<&NodeAnswers>,
        tokens: &[f32],
        dim: usize,
    ) -> Vec<f32> {
        let (spec, gate) = (self.spec, self.tree.node(node).depth);
        let so_far = self.tree.widths_of(node);
        // What is missing at the root is 0: to a projection, that is nothing.
        let mut token = vec![0.0; if spec.projection == 0 { 0 } else { spec.token_dim }];
        let mut seen = Vec::with_capacity(said.answers.len() * spec.dim(gate));
        let mut previous = before.map(|before| before.probabilities.chunks_exact(spec.classes));
        for (picture, own) in said.probabilities.chunks_exact(spec.classes).enumerate() {
            if spec.projection > 0 {
                token[..dim].copy_from_slice(&tokens[picture * dim..(picture + 1) * dim]);
            }
            let previous = previous.as_mut().and_then(Iterator::next);
            spec.write(gate, own, previous, &so_far, &token, &mut seen);
        }
        seen
    }
}

impl TreeSaid {
    /// The answers as policies read them, of the pictures `chosen`, where these are not all; `labels` are those of the split.
    ///
    /// # Errors
    /// When there are no pictures or a probability is not finite.
    pub fn outcomes(&self, tree: &PathTree, chosen: Option<&[usize]>, labels: &[u16]) -> Result<Outcomes> {
        let answers = self.answers.iter().flat_map(|of_node| rows_of(of_node, 1, chosen).into_owned()).collect();
        let confidence = self.confidence.iter().flat_map(|of_node| rows_of(of_node, 1, chosen).into_owned()).collect();
        Ok(Outcomes::new(tree, answers, confidence, rows_of(labels, 1, chosen).into_owned())?)
    }
}

#[cfg(test)]
mod tests {
    use quee_policy::tree::Monotone;
    use quee_quant::Width;

    use super::*;
    use crate::stages::gates::{self, GateInput};
    use crate::stages::tables::Scratch;

    const PICTURES: usize = 3;
    const CLASSES: usize = 4;
    const DIM: usize = 5;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i + 17 * seed) as f32 * 0.7).sin()).collect()
    }

    #[test]
    fn every_node_hears_what_its_exit_says_and_its_gate_looks_back() {
        let tree = PathTree::new(3, 2, Monotone::Free, 100).unwrap();
        let widths = vec![Width::new(4, 4).unwrap(), Width::new(8, 8).unwrap()];
        let spec =
            FeatureSpec { classes: CLASSES, widths, segments: 3, projection: 2, token_dim: DIM, projection_seed: 1 };
        let linear = |dim, seed| ExitHead::linear(dim, numbers(CLASSES * dim, seed), numbers(CLASSES, seed + 1));
        // The second exit is one of a cascade, which reads what the first one said.
        let cascade = |seed| ExitHead { dim: DIM, ..linear(DIM + CLASSES, seed) };
        // Exits and probes of two folds: the second picture has its own.
        let exits = [1, 4].map(|at| ExitHeads(vec![linear(DIM, at), cascade(at + 1), linear(DIM, at + 2)]));
        let probes = [linear(2, 7), linear(2, 8)];
        let fold = |picture: usize| usize::from(picture == 1);
        let dims: Vec<usize> = tree.nodes().map(|node| if node == ROOT { 2 } else { DIM }).collect();
        let lists: Vec<Vec<f32>> = dims.iter().enumerate().map(|(i, dim)| numbers(PICTURES * dim, 20 + i)).collect();
        let writer = Scratch::default().table(&dims, PICTURES);
        writer.put(0, PICTURES, &lists).unwrap();
        let table = writer.finish().unwrap();

        let (heads, probe) = (|picture| &exits[fold(picture)], |picture| &probes[fold(picture)]);
        let speakers = Speakers { tree: &tree, spec: &spec, heads, probe, keep_probabilities: true };
        let said = speakers.listen(&table).unwrap();
        for picture in 0..PICTURES {
            // What is said at a node, one picture alone.
            let mut alone: Vec<NodeAnswers> = vec![NodeAnswers::default()];
            for node in tree.nodes() {
                let (depth, dim) = (tree.node(node).depth, dims[node]);
                let token = &lists[node][picture * dim..(picture + 1) * dim];
                let before = tree.node(node).parent.filter(|&parent| parent != ROOT).map(|parent| &alone[parent]);
                let own = match depth {
                    0 => NodeAnswers::compute(probe(picture), token),
                    _ => NodeAnswers::compute_after(&heads(picture).0[depth - 1], token, before),
                };
                let mut row = Vec::new();
                if depth < 3 {
                    let previous = before.map(|before| before.probabilities.as_slice());
                    let mut padded = token.to_vec();
                    padded.resize(DIM, 0.0);
                    spec.write(depth, &own.probabilities, previous, &tree.widths_of(node), &padded, &mut row);
                }
                let features = &said.gate_features[node];
                assert_eq!(features.len(), PICTURES * row.len());
                assert_eq!(features[picture * row.len()..(picture + 1) * row.len()], row, "{node}, picture {picture}");
                if node != ROOT {
                    assert_eq!(said.probabilities[node][picture * CLASSES..][..CLASSES], own.probabilities);
                    assert_eq!(
                        (said.answers[node][picture], said.confidence[node][picture]),
                        (own.answers[0], own.confidence[0])
                    );
                    alone.push(own);
                }
            }
        }

        let forgetful = Speakers { keep_probabilities: false, ..speakers }.listen(&table).unwrap();
        assert!(forgetful.probabilities.iter().all(Vec::is_empty));
        let rest = |said: &TreeSaid| (said.answers.clone(), said.confidence.clone(), said.gate_features.clone());
        assert_eq!(rest(&forgetful), rest(&said));

        let some = said.outcomes(&tree, Some(&[2, 0]), &[0, 1, 2]).unwrap();
        assert_eq!((some.samples(), some.labels()), (2, &[2, 0][..]));
        for node in tree.paths() {
            assert_eq!(some.correct(node, 0), said.answers[node][2] == 2);
            assert_eq!(some.correct(node, 1), said.answers[node][0] == 0);
        }
        // A choice of a choice: of the pictures 2 and 0, the second.
        let whole = GateInput { said: &said, labels: &[0, 1, 2], pictures: None };
        let two = whole.choose(&[2, 0]);
        let one = two.input().choose(&[1]);
        let rows = gates::rows(&tree, &spec, 1, one.input());
        assert_eq!((one.input().samples(), rows.dim), (1, spec.dim(1)));
        for (node, row) in tree.level(1).zip(rows.features.chunks_exact(rows.dim)) {
            assert_eq!(row, &said.gate_features[node][..rows.dim]);
        }
        for (node, wrong) in tree.level(1).zip(&rows.wrong) {
            let ends = tree.continuations(node).iter().map(|way| u8::from(said.answers[way.end][0] != 0));
            assert_eq!(*wrong, ends.collect::<Vec<_>>());
        }
    }
}
