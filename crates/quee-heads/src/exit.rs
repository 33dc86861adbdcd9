//! The classifier of an exit.

use serde::{Deserialize, Serialize};

use crate::error::expect_len;
use crate::{HeadsError, Mlp};

/// Probabilities of the exit before are kept above this before their logarithm is taken.
const LEAST_PROBABILITY: f32 = 1e-6;

/// A linear layer, or a small network, on the features behind a segment (the class token after the backbone's final normalisation).
///
/// In a *cascade* (as in Zero Time Waste, arXiv 2106.05409) it also reads what the exit before it said: the logarithms of its class
/// probabilities, after the features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitHead {
    /// Features.
    pub dim: usize,
    /// From features, and the logarithms of a cascade, to one logit per class.
    pub network: Mlp,
}

impl ExitHead {
    /// A linear layer: weights `[classes, dim]`, biases `[classes]`.
    pub fn linear(dim: usize, weight: Vec<f32>, bias: Vec<f32>) -> Self {
        let (w1, b1) = (Vec::new(), Vec::new());
        Self { dim, network: Mlp { inputs: dim, hidden: 0, outputs: bias.len(), w1, b1, w2: weight, b2: bias } }
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.network.outputs
    }

    /// Whether it reads what the exit before it said.
    pub fn is_cascade(&self) -> bool {
        self.network.inputs > self.dim
    }

    /// Checks a head that was read.
    ///
    /// # Errors
    /// When a length does not fit or a value is not finite.
    pub fn check(&self) -> Result<(), HeadsError> {
        let cascade = if self.is_cascade() { self.classes() } else { 0 };
        expect_len("inputs of an exit", self.dim + cascade, self.network.inputs)?;
        self.network.check()
    }

    /// Appends to `row`, which holds features, what a cascade reads besides: logarithms of the class probabilities `previous`.
    pub fn push_previous(row: &mut Vec<f32>, previous: &[f32]) {
        row.extend(previous.iter().map(|p| p.max(LEAST_PROBABILITY).ln()));
    }

    /// Logits `[classes]` of features `[dim]`, written over `out`. `previous` are the class probabilities of the exit before, which only a
    /// cascade reads.
    ///
    /// # Panics
    /// When the number of features does not fit, or a cascade gets nothing to read.
    pub fn logits(&self, features: &[f32], previous: Option<&[f32]>, out: &mut Vec<f32>) {
        assert_eq!(features.len(), self.dim, "features of an exit");
        if !self.is_cascade() {
            return self.network.forward(features, out);
        }
        let mut row = features.to_vec();
        Self::push_previous(&mut row, previous.expect("a cascade stands behind another exit"));
        self.network.forward(&row, out);
    }

    /// Multiply-accumulates of one evaluation.
    pub fn macs(&self) -> u64 {
        self.network.macs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_products_plus_bias() {
        let head = ExitHead::linear(2, vec![1.0, 2.0, -1.0, 0.5], vec![0.25, -1.0]);
        let mut out = vec![9.0];
        head.logits(&[3.0, -2.0], None, &mut out);
        assert_eq!(out, [-0.75, -5.0]);
        assert_eq!((head.classes(), head.macs(), head.is_cascade()), (2, 4, false));
    }

    #[test]
    fn a_cascade_reads_logarithms_after_the_features() {
        let network = Mlp {
            inputs: 3,
            hidden: 0,
            outputs: 2,
            w1: vec![],
            b1: vec![],
            w2: vec![1.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            b2: vec![0.0; 2],
        };
        let head = ExitHead { dim: 1, network };
        assert!(head.check().is_ok() && head.is_cascade());
        let mut out = Vec::new();
        head.logits(&[5.0], Some(&[1.0, 0.0]), &mut out);
        assert_eq!(out, [5.0, LEAST_PROBABILITY.ln()]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let head = ExitHead::linear(2, vec![0.0; 3], vec![0.0; 2]);
        assert!(head.check().is_err());
        let head = ExitHead { dim: 1, ..ExitHead::linear(2, vec![0.0; 8], vec![0.0; 4]) };
        assert!(head.check().is_err(), "a cascade reads all classes");
    }
}
