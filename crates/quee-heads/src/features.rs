//! What a gate sees of a sample: a short description of the exit's answer and of the way here.
//!
//! QuEE uses compact features; which ones is a choice of this project.

use quee_quant::Width;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::network::{LANES, total};

/// At most this many of the largest class probabilities are features.
const LARGEST: usize = 10;

/// Features besides the largest probabilities, the projection and the widths.
const SUMMARIES: usize = 6;

/// A float counts as this many bits, a step above 8: its error is near that of 8 bits, and 32 would stretch the axis.
const FLOAT_BITS: u8 = 10;

/// Which features a gate has, and how they are computed. The same for all gates of a backbone.
///
/// In order: the `k = min(10, classes)` largest class probabilities of the exit, descending · the largest · entropy
/// divided by `ln(classes)` · largest minus second largest · entropy, divided likewise, of the squared and
/// renormalised probabilities · whether the previous exit gave the same answer · by how much the probability of the
/// current answer grew since the previous exit (both 0 at the first exit) · `projection` sums of the class token with
/// random signs · per segment passed, weight bits / 8 and activation bits / 8 (float counts as 10 bits).
///
/// The widths come last, so that the first [`cell_dim`](Self::cell_dim) features describe the sample alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Number of classes, at least 2.
    pub classes: usize,
    /// Widths a segment may run at; `so_far` counts in this list.
    pub widths: Vec<Width>,
    /// Number of segments; gates are 1 to `segments − 1`.
    pub segments: usize,
    /// Number of random projections of the class token; 0 for none, 16 is typical.
    pub projection: usize,
    /// Length of the class token; used with `projection` only.
    pub token_dim: usize,
    /// Seed of the signs of the projection.
    pub projection_seed: u64,
}

impl FeatureSpec {
    /// Checks a specification that was read or put together by hand.
    ///
    /// # Errors
    /// When there are fewer than two classes, no widths, no segments, or a projection of an empty token.
    pub fn check(&self) -> Result<(), HeadsError> {
        let wrong = |what, value: usize, hint| Err(HeadsError::Setting { what, value: value.to_string(), hint });
        if self.classes < 2 {
            return wrong("classes", self.classes, "a classifier has at least two");
        }
        if self.widths.is_empty() {
            return wrong("number of widths", 0, "name at least one width");
        }
        if self.segments == 0 {
            return wrong("segments", 0, "there is at least one");
        }
        if self.projection > 0 && self.token_dim == 0 {
            return wrong("token_dim", 0, "a projection needs the length of the class token");
        }
        Ok(())
    }

    /// Number of features at `gate`.
    pub fn dim(&self, gate: usize) -> usize {
        self.cell_dim() + 2 * gate
    }

    /// Number of features without the widths so far; the same at every gate.
    pub fn cell_dim(&self) -> usize {
        self.largest() + SUMMARIES + self.projection
    }

    /// Multiply-accumulates spent on the features of one sample at a gate (additions of the projection).
    pub fn macs(&self) -> u64 {
        (self.projection * self.token_dim) as u64
    }

    /// Names of the features at `gate`, in order.
    pub fn names(&self, gate: usize) -> Vec<String> {
        let top = (1..=self.largest()).map(|i| format!("top_{i}"));
        let summaries = ["largest", "entropy", "margin", "entropy_of_squares", "same_answer", "answer_growth"];
        let projection = (1..=self.projection).map(|i| format!("projection_{i}"));
        let widths = (1..=gate).flat_map(|s| [format!("weight_bits_{s}"), format!("act_bits_{s}")]);
        top.chain(summaries.map(str::to_owned)).chain(projection).chain(widths).collect()
    }

    /// Appends the features of one sample at `gate` to `out`.
    ///
    /// `probs` `[classes]` are the class probabilities of the exit at this gate, `previous` those of the exit before
    /// (`None` at the first), `so_far` `[gate]` indices into [`widths`](Self::widths), `token` `[token_dim]` the
    /// class token (may be empty without a projection).
    ///
    /// # Panics
    /// When a length or a width index does not fit.
    pub fn write(
        &self,
        gate: usize,
        probs: &[f32],
        previous: Option<&[f32]>,
        so_far: &[usize],
        token: &[f32],
        out: &mut Vec<f32>,
    ) {
        assert_eq!(probs.len(), self.classes, "class probabilities");
        assert_eq!(so_far.len(), gate, "one width per segment passed");
        out.reserve(self.dim(gate));

        let start = out.len();
        push_largest(probs, self.largest(), out);
        let (largest, second) = (out[start], out[start + 1]);
        let [entropy, of_squares] = self.entropies(probs);
        out.push(largest);
        out.push(entropy);
        out.push(largest - second);
        out.push(of_squares);
        match previous {
            Some(previous) => {
                assert_eq!(previous.len(), self.classes, "class probabilities of the previous exit");
                let answer = argmax(probs);
                out.push(if argmax(previous) == answer { 1.0 } else { 0.0 });
                out.push(probs[answer] - previous[answer]);
            }
            None => out.extend([0.0, 0.0]),
        }
        if self.projection > 0 {
            self.push_projection(token, out);
        }
        for &index in so_far {
            out.extend(self.bits(index));
        }
    }

    /// Weight bits / 8 and activation bits / 8 of width number `index`.
    ///
    /// # Panics
    /// When there is no such width.
    pub(crate) fn bits(&self, index: usize) -> [f32; 2] {
        let width = self.widths[index];
        [width.weight_bits(), width.act_bits()].map(|bits| f32::from(bits.min(FLOAT_BITS)) / 8.0)
    }

    fn largest(&self) -> usize {
        LARGEST.min(self.classes)
    }

    /// Entropy of `p` and of its squares made to sum to 1, each as a share of that of the uniform distribution, 0 to 1.
    ///
    /// One logarithm for each class serves both: with S = Σ p², −Σ p²/S · ln(p²/S) = ln S − 2/S · Σ p² ln p.
    fn entropies(&self, probs: &[f32]) -> [f32; 2] {
        let (mut nats, mut weighted, mut squares) = (0.0, 0.0, 0.0);
        for &p in probs.iter().filter(|&&p| p > 0.0) {
            let (p, logarithm) = (f64::from(p), f64::from(p.ln()));
            let term = p * logarithm;
            nats -= term;
            weighted += p * term;
            squares += p * p;
        }
        let uniform = (self.classes as f64).ln();
        [nats, squares.ln() - 2.0 * weighted / squares].map(|entropy| (entropy / uniform).clamp(0.0, 1.0) as f32)
    }

    /// Random signs keep distances as well as random normals do (Achlioptas 2003), and one bit each is cheap enough to
    /// draw them anew for every sample, so that there is no matrix to store.
    fn push_projection(&self, token: &[f32], out: &mut Vec<f32>) {
        assert_eq!(token.len(), self.token_dim, "class token");
        let mut signs = ChaCha8Rng::seed_from_u64(self.projection_seed);
        let scale = (self.token_dim as f32).sqrt().recip();
        let (chunks, rest) = token.as_chunks::<64>();
        let mut last = [0.0; 64];
        last[..rest.len()].copy_from_slice(rest);
        let last = (!rest.is_empty()).then_some(&last);
        for _ in 0..self.projection {
            let mut partial = [0.0; LANES];
            for chunk in chunks.iter().chain(last) {
                add_signed(chunk, signs.next_u64(), &mut partial);
            }
            out.push(total(partial) * scale);
        }
    }
}

/// What the sign bits of four values are changed by where a bit is 0: entry `n` is for the four bits of `n`, the lowest first.
const FLIPS: [[u32; 4]; 16] = {
    let mut flips = [[0; 4]; 16];
    let mut at = 0;
    while at < 64 {
        if (at / 4) >> (at % 4) & 1 == 0 {
            flips[at / 4][at % 4] = 1 << 31;
        }
        at += 1;
    }
    flips
};

/// Adds value i to sum i % 16 where bit i is 1, and its negative where it is 0.
fn add_signed(values: &[f32; 64], bits: u64, partial: &mut [f32; LANES]) {
    for (block, four) in values.as_chunks::<4>().0.iter().enumerate() {
        let flips = FLIPS[(bits >> (4 * block) & 15) as usize];
        let sums = &mut partial[4 * block % LANES..][..4];
        for i in 0..4 {
            sums[i] += f32::from_bits(four[i].to_bits() ^ flips[i]);
        }
    }
}

/// Class probabilities of `logits`, which must be finite. Never overflows; the result sums to 1.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut probs: Vec<f32> = logits.iter().map(|&z| (z - largest).exp()).collect();
    let sum: f32 = probs.iter().sum();
    for p in &mut probs {
        *p /= sum;
    }
    probs
}

/// Index of the largest value; of several, the first.
fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Appends the `k` largest values, descending, by insertion: `k` is small.
fn push_largest(values: &[f32], k: usize, out: &mut Vec<f32>) {
    let start = out.len();
    for &value in values {
        // Most values of many are smaller than the k largest so far.
        if out.len() == start + k && out[start + k - 1] >= value {
            continue;
        }
        let rank = start + out[start..].partition_point(|&kept| kept >= value);
        if out.len() == start + k {
            out.pop();
        }
        out.insert(rank, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(classes: usize, projection: usize) -> FeatureSpec {
        let widths = vec![Width::new(4, 8).unwrap(), Width::FLOAT];
        FeatureSpec { classes, widths, segments: 4, projection, token_dim: 100, projection_seed: 3 }
    }

    fn features(spec: &FeatureSpec, probs: &[f32], previous: Option<&[f32]>, so_far: &[usize]) -> Vec<f32> {
        let token: Vec<f32> = (0..100).map(|i| (i as f32).sin()).collect();
        let mut out = Vec::new();
        spec.write(so_far.len(), probs, previous, so_far, &token, &mut out);
        out
    }

    #[test]
    fn features_of_a_known_sample() {
        let spec = spec(3, 0);
        let out = features(&spec, &[0.2, 0.5, 0.3], Some(&[0.1, 0.2, 0.7]), &[0, 1]);
        let entropy = |p: [f32; 3]| -p.iter().map(|p| p * p.ln()).sum::<f32>() / 3f32.ln();
        let squares = [0.04 / 0.38, 0.25 / 0.38, 0.09 / 0.38];
        let expected = [0.5, 0.3, 0.2, 0.5, entropy([0.2, 0.5, 0.3]), 0.2, entropy(squares), 0.0, 0.3];
        let expected: Vec<f32> = expected.into_iter().chain([0.5, 1.0, 1.25, 1.25]).collect();
        assert_eq!(out.len(), spec.dim(2));
        assert_eq!(spec.names(2).len(), spec.dim(2));
        for ((found, expected), name) in out.iter().zip(&expected).zip(spec.names(2)) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        }
    }

    #[test]
    fn the_first_exit_has_no_previous_answer() {
        let spec = spec(3, 0);
        let out = features(&spec, &[0.2, 0.5, 0.3], None, &[0]);
        assert_eq!(out[spec.cell_dim() - 2..spec.cell_dim()], [0.0, 0.0]);
        let same = features(&spec, &[0.2, 0.5, 0.3], Some(&[0.2, 0.5, 0.3]), &[0]);
        assert_eq!(same[spec.cell_dim() - 2..spec.cell_dim()], [1.0, 0.0]);
    }

    #[test]
    fn projection_depends_on_its_seed_alone_and_keeps_lengths() {
        let probs = vec![0.1; 10];
        let mut spec = spec(10, 64);
        let first = features(&spec, &probs, None, &[0]);
        assert_eq!(first, features(&spec, &probs, None, &[0]));
        let projected = &first[16..16 + 64];
        let mean_square = projected.iter().map(|v| v * v).sum::<f32>() / 64.0;
        // The expectation is |token|² / token_dim = 0.5; 64 squares of normals deviate by about a sixth.
        assert!((0.25..0.75).contains(&mean_square), "{mean_square}");
        spec.projection_seed = 4;
        assert_ne!(first, features(&spec, &probs, None, &[0]));
    }

    #[test]
    fn extremes_are_finite() {
        for classes in [2, 3, 10, 1000] {
            let spec = spec(classes, 4);
            let mut one_hot = vec![0.0; classes];
            one_hot[classes - 1] = 1.0;
            let uniform = vec![1.0 / classes as f32; classes];
            for (probs, previous) in [(&one_hot, &uniform), (&uniform, &one_hot), (&one_hot, &one_hot)] {
                let out = features(&spec, probs, Some(previous), &[1]);
                assert!(out.iter().all(|v| v.is_finite()), "{classes} classes: {out:?}");
            }
            let k = classes.min(10);
            assert_eq!(features(&spec, &one_hot, None, &[])[k..k + 4], [1.0, 0.0, 1.0, 0.0]);
            let flat = features(&spec, &uniform, None, &[]);
            assert!((flat[k + 1] - 1.0).abs() < 1e-5 && (flat[k + 3] - 1.0).abs() < 1e-5, "{flat:?}");
        }
    }

    #[test]
    fn specifications_that_cannot_work_are_refused() {
        let good = spec(10, 16);
        assert!(good.check().is_ok());
        assert!(FeatureSpec { classes: 1, ..good.clone() }.check().is_err());
        assert!(FeatureSpec { widths: vec![], ..good.clone() }.check().is_err());
        assert!(FeatureSpec { segments: 0, ..good.clone() }.check().is_err());
        assert!(FeatureSpec { token_dim: 0, ..good }.check().is_err());
    }

    #[test]
    fn softmax_survives_large_logits() {
        assert_eq!(softmax(&[1e30, 0.0, -1e30]), [1.0, 0.0, 0.0]);
        let probs = softmax(&[1.0, 2.0]);
        assert!((probs[1] - 0.731_058_6).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn the_largest_are_sorted_and_complete(logits in prop::collection::vec(-20f32..20.0, 2..40)) {
            let probs = softmax(&logits);
            prop_assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let k = probs.len().min(10);
            let out = features(&spec(probs.len(), 0), &probs, None, &[]);
            let mut sorted = probs.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(&out[..k], &sorted[..k]);
            prop_assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}
