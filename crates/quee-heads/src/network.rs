//! Small fully connected networks, inference only.

use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::error::{expect_finite, expect_len};

/// One hidden layer with ReLU, or none: then it is logistic regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mlp {
    /// Number of inputs.
    pub inputs: usize,
    /// Hidden units; 0 for a single linear layer.
    pub hidden: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// Weights of the hidden layer, `[hidden, inputs]`; empty without one.
    pub w1: Vec<f32>,
    /// Biases of the hidden layer, `[hidden]`.
    pub b1: Vec<f32>,
    /// Weights of the output layer, `[outputs, hidden]`, or `[outputs, inputs]` without a hidden layer.
    pub w2: Vec<f32>,
    /// Biases of the output layer, `[outputs]`.
    pub b2: Vec<f32>,
}

impl Mlp {
    /// Checks the lengths and values of a network that was trained or read elsewhere.
    ///
    /// # Errors
    /// When an array does not have the length its documentation says, or a value is not finite.
    pub fn check(&self) -> Result<(), HeadsError> {
        expect_len("hidden weights", self.hidden.saturating_mul(self.inputs), self.w1.len())?;
        expect_len("hidden biases", self.hidden, self.b1.len())?;
        expect_len("output weights", self.outputs.saturating_mul(self.last_inputs()), self.w2.len())?;
        expect_len("output biases", self.outputs, self.b2.len())?;
        for (what, values) in [
            ("hidden weights", &self.w1),
            ("hidden biases", &self.b1),
            ("output weights", &self.w2),
            ("output biases", &self.b2),
        ] {
            expect_finite(what, values)?;
        }
        Ok(())
    }

    /// Logits `[outputs]` of one `row` `[inputs]`, written over `out`.
    ///
    /// # Panics
    /// When the row has another length, or the network fails [`check`](Self::check).
    pub fn forward(&self, row: &[f32], out: &mut Vec<f32>) {
        assert_eq!(row.len(), self.inputs, "inputs of the network");
        if self.hidden == 0 {
            linear(row, &self.w2, &self.b2, out);
            return;
        }
        let mut hidden = Vec::with_capacity(self.hidden);
        linear(row, &self.w1, &self.b1, &mut hidden);
        for value in &mut hidden {
            *value = value.max(0.0);
        }
        linear(&hidden, &self.w2, &self.b2, out);
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        self.w1.len() + self.b1.len() + self.w2.len() + self.b2.len()
    }

    /// Multiply-accumulates of one evaluation.
    pub fn macs(&self) -> u64 {
        (self.w1.len() + self.w2.len()) as u64
    }

    /// Inputs of the output layer.
    pub fn last_inputs(&self) -> usize {
        if self.hidden == 0 { self.inputs } else { self.hidden }
    }
}

/// Several networks whose probabilities are averaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Networks with the same inputs and outputs; at least one.
    pub members: Vec<Mlp>,
}

impl Ensemble {
    /// Checks that there are members, each sound, with `inputs` inputs and `outputs` outputs.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check(&self, inputs: usize, outputs: usize) -> Result<(), HeadsError> {
        if self.members.is_empty() {
            return Err(HeadsError::Empty { what: "networks of the ensemble" });
        }
        for member in &self.members {
            expect_len("inputs of a network", inputs, member.inputs)?;
            expect_len("outputs of a network", outputs, member.outputs)?;
            member.check()?;
        }
        Ok(())
    }

    /// Probabilities `[outputs]` of one `row` `[inputs]`: the mean of the members' sigmoids, written over `out`.
    ///
    /// # Panics
    /// When the row has another length or the ensemble fails [`check`](Self::check).
    pub fn probabilities(&self, row: &[f32], out: &mut Vec<f32>) {
        out.clear();
        let mut logits = Vec::new();
        for member in &self.members {
            member.forward(row, &mut logits);
            out.resize(logits.len(), 0.0);
            out.iter_mut().zip(&logits).for_each(|(sum, &z)| *sum += sigmoid(z));
        }
        let n = self.members.len() as f32;
        out.iter_mut().for_each(|p| *p /= n);
    }

    /// Number of weights and biases of all members.
    pub fn parameters(&self) -> usize {
        self.members.iter().map(Mlp::parameters).sum()
    }

    /// Multiply-accumulates of one evaluation of all members.
    pub fn macs(&self) -> u64 {
        self.members.iter().map(Mlp::macs).sum()
    }
}

/// `1 / (1 + e^−z)` without overflow.
fn sigmoid(z: f32) -> f32 {
    let e = (-z.abs()).exp();
    if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `out[o] = bias[o] + Σ_i weight[o, i] · row[i]`.
fn linear(row: &[f32], weight: &[f32], bias: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend(bias.iter().enumerate().map(|(o, &b)| {
        let weights = &weight[o * row.len()..(o + 1) * row.len()];
        b + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f32>()
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_layers() -> Mlp {
        let w1 = vec![1.0, -1.0, 0.5, 2.0, -3.0, 0.0];
        Mlp { inputs: 2, hidden: 3, outputs: 1, w1, b1: vec![0.0, -1.0, 1.0], w2: vec![2.0, 3.0, 5.0], b2: vec![0.25] }
    }

    fn one_layer() -> Mlp {
        Mlp { inputs: 2, hidden: 0, outputs: 1, w1: vec![], b1: vec![], w2: vec![1.0, -2.0], b2: vec![0.5] }
    }

    #[test]
    fn logits_worked_by_hand() {
        let mut out = vec![9.0; 7];
        // Hidden before ReLU: 1 − 2, 0.5 + 4 − 1, −3 + 1, so only the second unit speaks.
        two_layers().forward(&[1.0, 2.0], &mut out);
        assert_eq!(out, [0.25 + 3.0 * 3.5]);
        one_layer().forward(&[3.0, 1.0], &mut out);
        assert_eq!(out, [1.5]);
        assert_eq!((two_layers().macs(), two_layers().parameters()), (9, 13));
        assert_eq!((one_layer().macs(), one_layer().parameters()), (2, 3));
    }

    #[test]
    fn an_ensemble_averages_probabilities_not_logits() {
        let mut strong = one_layer();
        strong.w2 = vec![200.0, 0.0];
        let ensemble = Ensemble { members: vec![one_layer(), strong] };
        assert!(ensemble.check(2, 1).is_ok());
        let mut out = Vec::new();
        ensemble.probabilities(&[3.0, 1.0], &mut out);
        assert!((out[0] - (0.817_574_5 + 1.0) / 2.0).abs() < 1e-6, "{out:?}");
        ensemble.probabilities(&[-3.0, -1.75], &mut out);
        assert!((out[0] - (0.731_058_6 + 0.0) / 2.0).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn broken_networks_are_refused() {
        let mut short = two_layers();
        short.w2.pop();
        assert!(short.check().is_err());
        let mut diverged = two_layers();
        diverged.b1[1] = f32::NAN;
        assert!(diverged.check().unwrap_err().to_string().contains("hidden biases: value 1"));
        assert!(Ensemble { members: vec![] }.check(2, 1).is_err());
        assert!(Ensemble { members: vec![one_layer()] }.check(3, 1).is_err());
        assert!(Ensemble { members: vec![one_layer()] }.check(2, 2).is_err());
    }
}
