//! The classifier of an exit.

use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::error::{expect_finite, expect_len};

/// One linear layer on the features behind a segment (the class token after the backbone's final normalisation).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitHead {
    /// Features.
    pub dim: usize,
    /// Classes.
    pub classes: usize,
    /// Weights `[classes, dim]`.
    pub weight: Vec<f32>,
    /// Biases `[classes]`.
    pub bias: Vec<f32>,
}

impl ExitHead {
    /// Checks a head that was read.
    ///
    /// # Errors
    /// When a length does not fit or a value is not finite.
    pub fn check(&self) -> Result<(), HeadsError> {
        expect_len("weights of an exit", self.classes.saturating_mul(self.dim), self.weight.len())?;
        expect_len("biases of an exit", self.classes, self.bias.len())?;
        expect_finite("weights of an exit", &self.weight)?;
        expect_finite("biases of an exit", &self.bias)
    }

    /// Logits `[classes]` of features `[dim]`, written over `out`.
    ///
    /// # Panics
    /// When the number of features does not fit.
    pub fn logits(&self, features: &[f32], out: &mut Vec<f32>) {
        assert_eq!(features.len(), self.dim, "features of an exit");
        out.clear();
        let dot = |row: &[f32]| row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>();
        out.extend(self.weight.chunks_exact(self.dim).zip(&self.bias).map(|(row, bias)| dot(row) + bias));
    }

    /// Multiply-accumulates of one evaluation.
    pub fn macs(&self) -> u64 {
        (self.classes * self.dim) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_products_plus_bias() {
        let head = ExitHead { dim: 2, classes: 2, weight: vec![1.0, 2.0, -1.0, 0.5], bias: vec![0.25, -1.0] };
        let mut out = vec![9.0];
        head.logits(&[3.0, -2.0], &mut out);
        assert_eq!(out, [-0.75, -5.0]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let head = ExitHead { dim: 2, classes: 2, weight: vec![0.0; 3], bias: vec![0.0; 2] };
        assert!(head.check().is_err());
    }
}
