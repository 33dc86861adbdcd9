//! Exits at work: from features to class probabilities and answers.

use anyhow::Result;
use quee_backbone::Linear;
use quee_heads::{ExitHead, FeatureSpec, softmax};
use quee_policy::scores::{FitScores, Scores};
use quee_policy::table::{Outcomes, RunOutcomes};
use quee_policy::tree::PathTree;
use rayon::prelude::*;

/// The exits of a seed, one per segment; the last is the backbone's own classifier.
#[derive(Clone, Debug)]
pub struct ExitHeads(pub Vec<ExitHead>);

/// The backbone's own classifier as an exit.
pub fn own_head(head: &Linear) -> ExitHead {
    ExitHead {
        dim: head.inputs,
        classes: head.outputs,
        weight: head.weight.data.to_vec(),
        bias: head.bias.as_ref().map_or_else(|| vec![0.0; head.outputs], |bias| bias.data.to_vec()),
    }
}

/// What one exit says about the pictures of a split.
#[derive(Clone, Debug, Default)]
pub struct NodeAnswers {
    /// Class probabilities `[picture][class]`.
    pub probabilities: Vec<f32>,
    /// Class with the largest probability `[picture]`.
    pub answers: Vec<u16>,
    /// That probability `[picture]`.
    pub confidence: Vec<f32>,
}

impl NodeAnswers {
    /// Applies `head` to features `[picture][dim]`.
    pub fn compute(head: &ExitHead, features: &[f32]) -> Self {
        let mut all = Self::default();
        let mut logits = Vec::new();
        for token in features.chunks_exact(head.dim) {
            head.logits(token, &mut logits);
            let probabilities = softmax(&logits);
            let mut best = 0;
            for (class, p) in probabilities.iter().enumerate() {
                if *p > probabilities[best] {
                    best = class;
                }
            }
            all.answers.push(best as u16);
            all.confidence.push(probabilities[best]);
            all.probabilities.extend(probabilities);
        }
        all
    }
}

/// Answers at every node of the tree; the root's entry is empty.
pub fn tree_answers(tree: &PathTree, heads: &ExitHeads, features: &[Vec<f32>]) -> Vec<NodeAnswers> {
    let answer = |node: usize| match tree.node(node).depth {
        0 => NodeAnswers::default(),
        depth => NodeAnswers::compute(&heads.0[depth - 1], &features[node]),
    };
    (0..tree.node_count()).into_par_iter().map(answer).collect()
}

/// Answers at every exit of a single path, as policies read them.
pub fn run_outcomes(heads: &ExitHeads, features: &[Vec<f32>]) -> RunOutcomes {
    let mut all = RunOutcomes { answers: Vec::new(), confidence: Vec::new() };
    for (head, features) in heads.0.iter().zip(features) {
        let exit = NodeAnswers::compute(head, features);
        all.answers.extend(exit.answers);
        all.confidence.extend(exit.confidence);
    }
    all
}

/// Scores at every exit of a single path, beside the largest probability: those that gates read, too.
pub fn run_scores(heads: &ExitHeads, features: &[Vec<f32>]) -> Scores {
    let mut all = Scores::default();
    let mut row = Vec::new();
    for (head, features) in heads.0.iter().zip(features) {
        let spec = FeatureSpec {
            classes: head.classes,
            widths: Vec::new(),
            segments: heads.0.len(),
            projection: 0,
            token_dim: head.dim,
            projection_seed: 0,
        };
        let names = spec.names(0);
        let place = |name: &str| names.iter().position(|other| other == name).expect("a summary of every gate");
        let (margin, entropy) = (place("margin"), place("entropy"));
        let entropy_of_squares = place("entropy_of_squares");
        for probabilities in NodeAnswers::compute(head, features).probabilities.chunks_exact(head.classes) {
            row.clear();
            spec.write(0, probabilities, None, &[], &[], &mut row);
            all.margin.push(row[margin]);
            all.entropy.push(row[entropy]);
            all.entropy_of_squares.push(row[entropy_of_squares]);
        }
    }
    all
}

/// The same on *fit*, with the probability of the true class.
pub fn fit_scores(heads: &ExitHeads, features: &[Vec<f32>], labels: &[u16]) -> FitScores {
    let (mut confidence, mut true_class) = (Vec::new(), Vec::new());
    for (head, features) in heads.0.iter().zip(features) {
        let exit = NodeAnswers::compute(head, features);
        confidence.extend(exit.confidence);
        let rows = exit.probabilities.chunks_exact(head.classes).zip(labels);
        true_class.extend(rows.map(|(probabilities, label)| probabilities[usize::from(*label)]));
    }
    FitScores { confidence, scores: run_scores(heads, features), true_class }
}

/// The answers of a tree as policies read them.
///
/// # Errors
/// When there are no pictures or a probability is not finite.
pub fn outcomes(tree: &PathTree, nodes: &[NodeAnswers], labels: &[u16]) -> Result<Outcomes> {
    let answers = nodes.iter().flat_map(|node| &node.answers).copied().collect();
    let confidence = nodes.iter().flat_map(|node| &node.confidence).copied().collect();
    Ok(Outcomes::new(tree, answers, confidence, labels.to_vec())?)
}
