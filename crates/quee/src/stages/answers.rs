//! Exits at work: from features to class probabilities and answers.

use std::borrow::Cow;

use anyhow::Result;
use quee_backbone::Linear;
use quee_heads::{ExitHead, FeatureSpec, softmax};
use quee_policy::scores::{FitScores, Scores};
use quee_policy::table::RunOutcomes;
use serde::{Deserialize, Serialize};

use super::tables::Lists;

/// The exits of a seed, one per segment; the last is the backbone's own classifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExitHeads(pub Vec<ExitHead>);

/// The backbone's own classifier as an exit.
pub fn own_head(head: &Linear) -> ExitHead {
    let bias = head.bias.as_ref().map_or_else(|| vec![0.0; head.outputs], |bias| bias.data.to_vec());
    ExitHead::linear(head.inputs, head.weight.data.to_vec(), bias)
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
    ///
    /// # Panics
    /// When the head is part of a cascade.
    pub fn compute(head: &ExitHead, features: &[f32]) -> Self {
        Self::compute_after(head, features, None)
    }

    /// Applies `head` to features `[picture][dim]`; a cascade also reads what the exit `before` said of the same pictures.
    ///
    /// # Panics
    /// When a cascade gets nothing to read.
    pub fn compute_after(head: &ExitHead, features: &[f32], before: Option<&Self>) -> Self {
        Self::compute_each(|_| head, features, head.dim, before)
    }

    /// As [`compute_after`](Self::compute_after), with a head for each picture.
    ///
    /// # Panics
    /// When a cascade gets nothing to read.
    pub fn compute_each<'h>(
        head: impl Fn(usize) -> &'h ExitHead,
        features: &[f32],
        dim: usize,
        before: Option<&Self>,
    ) -> Self {
        let pictures = features.len() / dim.max(1);
        let mut all = Self {
            probabilities: Vec::with_capacity(if pictures > 0 { pictures * head(0).classes() } else { 0 }),
            answers: Vec::with_capacity(pictures),
            confidence: Vec::with_capacity(pictures),
        };
        let mut logits = Vec::new();
        for (picture, token) in features.chunks_exact(dim).enumerate() {
            let head = head(picture);
            let classes = head.classes();
            let previous = before.map(|said| &said.probabilities[picture * classes..(picture + 1) * classes]);
            head.logits(token, previous, &mut logits);
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

    /// What is said of the pictures `chosen`, of `classes` classes.
    #[must_use]
    pub fn of(&self, chosen: &[usize], classes: usize) -> Self {
        Self {
            probabilities: rows_of(&self.probabilities, classes, Some(chosen)).into_owned(),
            answers: rows_of(&self.answers, 1, Some(chosen)).into_owned(),
            confidence: rows_of(&self.confidence, 1, Some(chosen)).into_owned(),
        }
    }
}

/// Rows `[picture][dim]` of the pictures `chosen`, where these are not all. Of no rows, those of a node that says nothing, there are none.
pub fn rows_of<'a, T: Copy>(rows: &'a [T], dim: usize, chosen: Option<&[usize]>) -> Cow<'a, [T]> {
    match chosen {
        None => Cow::Borrowed(rows),
        Some(_) if rows.is_empty() => Cow::Borrowed(rows),
        Some(chosen) => {
            let mut taken = Vec::with_capacity(chosen.len() * dim);
            chosen.iter().for_each(|&picture| taken.extend_from_slice(&rows[picture * dim..(picture + 1) * dim]));
            Cow::Owned(taken)
        }
    }
}

/// Answers at every exit of a single path, with the exits that `heads` names for a picture.
///
/// # Errors
/// When the file of the features cannot be read.
pub fn run_answers<'h>(heads: impl Fn(usize) -> &'h ExitHeads, features: Lists) -> Result<Vec<NodeAnswers>> {
    let mut all: Vec<NodeAnswers> = Vec::new();
    for exit in 0..features.len() {
        let dim = heads(0).0[exit].dim;
        let head = |picture| &heads(picture).0[exit];
        let said = NodeAnswers::compute_each(head, &features.get(exit)?, dim, all.last());
        all.push(said);
    }
    Ok(all)
}

/// Answers at every exit of a single path, as policies read them.
pub fn run_outcomes(exits: &[NodeAnswers]) -> RunOutcomes {
    RunOutcomes {
        answers: exits.iter().flat_map(|exit| &exit.answers).copied().collect(),
        confidence: exits.iter().flat_map(|exit| &exit.confidence).copied().collect(),
    }
}

/// Scores at every exit of a single path, beside the largest probability: those that gates read, too.
pub fn run_scores(exits: &[NodeAnswers], classes: usize) -> Scores {
    let spec = FeatureSpec {
        classes,
        widths: Vec::new(),
        segments: exits.len(),
        projection: 0,
        token_dim: 0,
        projection_seed: 0,
    };
    let names = spec.names(0);
    let place = |name: &str| names.iter().position(|other| other == name).expect("a summary of every gate");
    let (margin, entropy, entropy_of_squares) = (place("margin"), place("entropy"), place("entropy_of_squares"));
    let mut all = Scores::default();
    let mut row = Vec::new();
    for probabilities in exits.iter().flat_map(|exit| exit.probabilities.chunks_exact(classes)) {
        row.clear();
        spec.write(0, probabilities, None, &[], &[], &mut row);
        all.margin.push(row[margin]);
        all.entropy.push(row[entropy]);
        all.entropy_of_squares.push(row[entropy_of_squares]);
    }
    all
}

/// The same on *fit*, with the probability of the true class.
pub fn fit_scores(exits: &[NodeAnswers], classes: usize, labels: &[u16]) -> FitScores {
    let (mut confidence, mut true_class) = (Vec::new(), Vec::new());
    for exit in exits {
        confidence.extend_from_slice(&exit.confidence);
        let rows = exit.probabilities.chunks_exact(classes).zip(labels);
        true_class.extend(rows.map(|(probabilities, label)| probabilities[usize::from(*label)]));
    }
    FitScores { confidence, scores: run_scores(exits, classes), true_class }
}
