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

    /// Weights and biases of the first layer.
    fn first(&self) -> (&[f32], &[f32]) {
        if self.hidden == 0 { (&self.w2, &self.b2) } else { (&self.w1, &self.b1) }
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

    /// Like [`probabilities`](Self::probabilities), and how far the members disagree: the (population) standard
    /// deviation `[outputs]` of their probabilities, written over `spread`; 0 for a single member.
    ///
    /// # Panics
    /// As [`probabilities`](Self::probabilities).
    pub fn probabilities_with_spread(&self, row: &[f32], out: &mut Vec<f32>, spread: &mut Vec<f32>) {
        self.probabilities(row, out);
        spread.clear();
        spread.resize(out.len(), 0.0);
        let mut logits = Vec::new();
        for member in &self.members {
            member.forward(row, &mut logits);
            let deviations = logits.iter().zip(out.iter()).map(|(&z, mean)| sigmoid(z) - mean);
            spread.iter_mut().zip(deviations).for_each(|(sum, d)| *sum += d * d);
        }
        let n = self.members.len() as f32;
        spread.iter_mut().for_each(|s| *s = (*s / n).sqrt());
    }

    /// Probabilities `[n, outputs]` of `n` rows that all begin with `common` and go on with a row of `own`
    /// `[n, inputs − common]`, written over `out`. The first layer's product with `common` is computed once.
    ///
    /// They differ from [`probabilities`](Self::probabilities) by rounding alone: sums run in another order.
    ///
    /// # Panics
    /// When `common` is not shorter than the inputs, the last row of `own` is incomplete, or the ensemble fails
    /// [`check`](Self::check).
    pub fn probabilities_of_many(&self, common: &[f32], own: &[f32], out: &mut Vec<f32>) {
        out.clear();
        let (mut sums, mut hidden, mut logits) = (Vec::new(), Vec::new(), Vec::new());
        for member in &self.members {
            assert!(common.len() < member.inputs, "{} common inputs of {}", common.len(), member.inputs);
            let rest = member.inputs - common.len();
            assert_eq!(own.len() % rest, 0, "rows of {rest} inputs");
            let (weights, biases) = member.first();
            sums.clear();
            sums.extend(biases.iter().zip(weights.chunks_exact(member.inputs)).map(|(b, w)| b + dot(w, common)));
            out.resize(own.len() / rest * member.outputs, 0.0);
            for (row, out) in own.chunks_exact(rest).zip(out.chunks_exact_mut(member.outputs)) {
                let rows = weights.chunks_exact(member.inputs);
                hidden.clear();
                hidden.extend(sums.iter().zip(rows).map(|(sum, w)| sum + dot(&w[common.len()..], row)));
                if member.hidden > 0 {
                    hidden.iter_mut().for_each(|h| *h = h.max(0.0));
                    linear(&hidden, &member.w2, &member.b2, &mut logits);
                } else {
                    std::mem::swap(&mut hidden, &mut logits);
                }
                out.iter_mut().zip(&logits).for_each(|(sum, &z)| *sum += sigmoid(z));
            }
        }
        let n = self.members.len() as f32;
        out.iter_mut().for_each(|p| *p /= n);
    }

    /// Multiply-accumulates of [`probabilities_of_many`](Self::probabilities_of_many) with `common` common inputs and
    /// `n` rows.
    pub fn macs_of_many(&self, common: usize, n: usize) -> u64 {
        let of = |member: &Mlp| {
            let once = (member.first().1.len() * common) as u64;
            once + n as u64 * (member.macs() - once)
        };
        self.members.iter().map(of).sum()
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
pub(crate) fn sigmoid(z: f32) -> f32 {
    let e = (-z.abs()).exp();
    if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `out[o] = bias[o] + Σ_i weight[o, i] · row[i]`.
fn linear(row: &[f32], weight: &[f32], bias: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend(bias.iter().enumerate().map(|(o, &b)| {
        let weights = &weight[o * row.len()..(o + 1) * row.len()];
        b + dot(weights, row)
    }));
}

/// Partial sums of an inner product: element i belongs to sum i % 16, so that vectors of any width give the same bits and no addition waits
/// for the one before it.
pub(crate) const LANES: usize = 16;

/// Partial sums, added in a fixed tree.
pub(crate) fn total(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            partial[i] += partial[i + width];
        }
        width /= 2;
    }
    partial[0]
}

/// Inner product over the length of the shorter operand.
fn dot(weights: &[f32], values: &[f32]) -> f32 {
    let length = weights.len().min(values.len());
    let (weights, weights_rest) = weights[..length].as_chunks::<LANES>();
    let (values, values_rest) = values[..length].as_chunks::<LANES>();
    let mut partial = [0.0; LANES];
    for (weights, values) in weights.iter().zip(values) {
        for i in 0..LANES {
            partial[i] += weights[i] * values[i];
        }
    }
    for ((sum, w), x) in partial.iter_mut().zip(weights_rest).zip(values_rest) {
        *sum += w * x;
    }
    total(partial)
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
    fn the_spread_is_the_deviation_of_members() {
        let mut other = one_layer();
        other.b2 = vec![-1.5];
        let ensemble = Ensemble { members: vec![one_layer(), other] };
        let (mut mean, mut plain, mut spread) = (Vec::new(), Vec::new(), vec![7.0; 4]);
        ensemble.probabilities_with_spread(&[1.0, 0.5], &mut mean, &mut spread);
        ensemble.probabilities(&[1.0, 0.5], &mut plain);
        assert_eq!(mean, plain);
        // Logits 0.5 and −1.5.
        assert!((spread[0] - (0.622_459_3 - 0.182_425_5) / 2.0).abs() < 1e-6, "{spread:?}");
        let alone = Ensemble { members: vec![two_layers()] };
        alone.probabilities_with_spread(&[1.0, 2.0], &mut mean, &mut spread);
        assert_eq!(spread, [0.0]);
    }

    #[test]
    fn rows_with_a_common_beginning_are_computed_as_if_alone() {
        for network in [two_layers(), one_layer()] {
            let mut other = network.clone();
            other.w2.iter_mut().for_each(|w| *w *= -0.5);
            let ensemble = Ensemble { members: vec![network, other] };
            let own = [2.0, -1.0, 0.25];
            let (mut many, mut one) = (vec![3.0; 9], Vec::new());
            ensemble.probabilities_of_many(&[0.5], &own, &mut many);
            assert_eq!(many.len(), 3);
            for (&found, own) in many.iter().zip(own) {
                ensemble.probabilities(&[0.5, own], &mut one);
                assert!((found - one[0]).abs() < 1e-6, "{found}, expected {}", one[0]);
            }
        }
        let pair = |network: Mlp| Ensemble { members: vec![network.clone(), network] };
        // Three hidden units: once 3·1, and per row 3·1 + 3.
        assert_eq!(pair(two_layers()).macs_of_many(1, 5), 2 * (3 + 5 * (3 + 3)));
        assert_eq!(pair(one_layer()).macs_of_many(1, 5), 2 * (1 + 5));
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
