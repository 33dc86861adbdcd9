//! What a gate says of its continuations, pooled: one surprise per picture instead of one prediction per continuation.
//!
//! A policy takes the best of many continuations, so it takes the luckiest of many noisy predictions. Two things of a
//! picture are told well by a gate: how likely it is wrong now, and whether going on helps it more or less than other
//! pictures as hard. Which of several similar continuations helps it most is mostly noise. Hence, with `p0` the predicted
//! error of answering here and `pj` that of continuation `j`,
//!
//! ```text
//! typical  tj(p0) = aj + bj·p0      least squares of pj on p0 over fit, at this gate behind this prefix
//! surprise d      = mean over j of pj − tj(p0)
//! believed        = tj(p0) + trust·d
//! ```
//!
//! The mean is over all continuations of the tree, whichever compete. A trust of 1 takes the surprise in full, 0 knows the
//! picture by `p0` alone, which makes the policy a threshold per gate. Gates that learned from `n` pictures are trusted by
//! `n / (n + half)`: what their training leaves to chance has a variance of about one over `n`, and this is how far a mean
//! is pulled where the variance between pictures is that of the noise at `half` pictures. A choice of this project, not of
//! the source.

use serde::{Deserialize, Serialize};

use crate::open_loop::PredictionTable;
use crate::ridge::{Gram, add_scaled};
use crate::table::{TableError, check_shape};
use crate::tree::{NodeId, PathTree};

/// Penalty on a slope, as a share of the variance of what it multiplies: too small to matter.
const RIDGE: f64 = 1e-6;

/// Largest constant or slope of a line that was read: sums of as many as a tree can have stay finite.
const LARGEST: f32 = 1e6;

/// How predictions are pooled at every gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pooling {
    trust: f32,
    /// `[gate node − 1][place − 1]`: constant and slope of the typical predicted error.
    lines: Vec<Vec<[f32; 2]>>,
}

impl Pooling {
    /// Fits the lines to predictions on *fit*, those of pictures that a gate has not learned from where there are folds.
    /// With `half` pictures the trust is a half, with more it is larger.
    ///
    /// # Errors
    /// If `half` is negative or not a number, or the predictions belong to another tree.
    pub fn fit(tree: &PathTree, predictions: &PredictionTable, half: f64) -> Result<Self, TableError> {
        predictions.check_tree(tree)?;
        let pictures = predictions.samples() as f64;
        let pooling = Self {
            trust: (pictures / (pictures + half)) as f32,
            lines: tree.gate_nodes().map(|node| lines(predictions, node, tree.places(node))).collect(),
        };
        pooling.check(tree)?;
        Ok(pooling)
    }

    /// Share of the surprise that is believed.
    pub fn trust(&self) -> f32 {
        self.trust
    }

    /// Checks what was read against the tree.
    ///
    /// # Errors
    /// If lines are missing or beyond ±1e6, or the trust is not between 0 and 1.
    pub fn check(&self, tree: &PathTree) -> Result<(), TableError> {
        if !(0.0..=1.0).contains(&self.trust) {
            return Err(TableError::Value { what: "trust", row: 0, sample: 0, range: "0 to 1" });
        }
        check_shape("lines: gate nodes", self.lines.len(), tree.gate_nodes().count(), 1)?;
        for (node, lines) in tree.gate_nodes().zip(&self.lines) {
            check_shape("lines: continuations", lines.len(), tree.places(node) - 1, 1)?;
            let far = |line: &[f32; 2]| line.iter().any(|value| !(-LARGEST..=LARGEST).contains(value));
            if let Some(place) = lines.iter().position(far) {
                return Err(TableError::Value { what: "lines", row: node - 1, sample: place, range: "-1e6 to 1e6" });
            }
        }
        Ok(())
    }

    /// Pools the predictions `[place]` of one picture at a gate node; the first, of answering here, stays.
    ///
    /// # Panics
    /// For the root, a node at the last exit, or another number of predictions.
    pub fn apply(&self, node: NodeId, predictions: &mut [f32]) {
        let lines = &self.lines[node - 1];
        let (here, others) = predictions.split_first_mut().expect("answering here is a way to go on");
        assert_eq!(lines.len(), others.len(), "predictions at gate node {node}");
        let typical = |[constant, slope]: &[f32; 2]| constant + *here * slope;
        let surprises = lines.iter().zip(others.iter()).map(|(line, said)| said - typical(line));
        let shift = self.trust * surprises.sum::<f32>() / lines.len() as f32;
        for (line, believed) in lines.iter().zip(others) {
            *believed = (typical(line) + shift).clamp(0.0, 1.0);
        }
    }

    /// The same for all pictures at all gates with features; what gate 0 sees of a picture stays.
    ///
    /// # Panics
    /// If the predictions belong to another tree.
    #[must_use]
    pub fn table(&self, mut predictions: PredictionTable) -> PredictionTable {
        for node in 1..=self.lines.len() {
            predictions.rows_mut(node).for_each(|row| self.apply(node, row));
        }
        predictions
    }

    /// Multiply-accumulates of one picture at the gate of `depth`, behind the prefix with the most ways to go on.
    pub fn macs(tree: &PathTree, depth: usize) -> u64 {
        tree.level(depth).map(|node| tree.places(node) as u64 - 1).max().unwrap_or(0)
    }
}

/// Least squares of every continuation's prediction on that of answering here.
fn lines(predictions: &PredictionTable, node: NodeId, places: usize) -> Vec<[f32; 2]> {
    let mut gram = Gram::new(2);
    let mut products = vec![[0.0; 2]; places - 1];
    for sample in 0..predictions.samples() {
        let said = predictions.get(node, sample);
        let row = [1.0, f64::from(said[0])];
        gram.add_row(&row);
        for (sums, said) in products.iter_mut().zip(&said[1..]) {
            add_scaled(sums, f64::from(*said), &row);
        }
    }
    let factor = gram.factor(RIDGE);
    let line = |sums: &[f64; 2]| {
        let weights = factor.solve(sums);
        [weights[0] as f32, weights[1] as f32]
    };
    products.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Monotone;

    fn tree() -> PathTree {
        PathTree::new(2, 2, Monotone::Free, 100).unwrap()
    }

    /// Errors of answering here from 0 to 1; continuations on lines of it, `noise` at the places.
    fn predictions(tree: &PathTree, noise: impl Fn(usize, usize) -> f32) -> PredictionTable {
        PredictionTable::from_fn(tree, 21, |node, sample, place| {
            let here = sample as f32 / 20.0;
            match place {
                0 => here,
                1 => 0.1 + 0.5 * here + noise(sample, 0),
                _ => 0.05 * node as f32 + 0.3 * here + noise(sample, 1),
            }
        })
    }

    #[test]
    fn what_follows_the_lines_stays() {
        let tree = tree();
        let exact = predictions(&tree, |_, _| 0.0);
        for half in [0.0, 21.0, f64::INFINITY] {
            let pooled = Pooling::fit(&tree, &exact, half).unwrap().table(exact.clone());
            for (node, sample) in tree.gate_nodes().flat_map(|node| (0..21).map(move |sample| (node, sample))) {
                for (got, want) in pooled.get(node, sample).iter().zip(exact.get(node, sample)) {
                    assert!((got - want).abs() < 1e-4, "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_share_of_the_mean_surprise_is_believed() {
        let tree = tree();
        let fitted = |half| Pooling::fit(&tree, &predictions(&tree, |_, _| 0.0), half).unwrap();
        let said = [0.4, 0.3 + 0.12, 0.05 + 0.12 + 0.04];
        for (half, shift) in [(f64::INFINITY, 0.0), (21.0, 0.04), (7.0, 0.06), (0.0, 0.08)] {
            let mut believed = said;
            fitted(half).apply(1, &mut believed);
            // Surprises are 0.12 and 0.04, their mean 0.08: how they differ is forgotten.
            let want = [0.4, 0.3 + shift, 0.05 + 0.12 + shift];
            believed.iter().zip(want).for_each(|(got, want)| assert!((got - want).abs() < 1e-4, "{believed:?}"));
        }
    }

    #[test]
    fn the_luckiest_of_equal_continuations_wins_no_more() {
        let tree = tree();
        let noise = |sample: usize, which: usize| if (sample + which).is_multiple_of(2) { 0.08 } else { -0.08 };
        let noisy = predictions(&tree, noise);
        let pooled = Pooling::fit(&tree, &noisy, 0.0).unwrap().table(noisy.clone());
        let orders = |table: &PredictionTable| {
            (0..12).map(|sample| table.get(2, sample)[1] < table.get(2, sample)[2]).collect::<Vec<_>>()
        };
        assert!(orders(&noisy).windows(2).any(|pair| pair[0] != pair[1]), "noise decides");
        assert!(orders(&pooled).iter().all(|first| !first), "the better continuation on average is the second");
    }

    #[test]
    fn predictions_that_do_not_vary_get_a_constant() {
        let tree = tree();
        let flat = PredictionTable::from_fn(&tree, 5, |_, _, place| [0.5, 0.4, 0.2][place]);
        let pooled = Pooling::fit(&tree, &flat, 5.0).unwrap().table(flat.clone());
        pooled.get(1, 3).iter().zip([0.5, 0.4, 0.2]).for_each(|(got, want)| assert!((got - want).abs() < 1e-5));
    }

    #[test]
    fn reads_back_and_refuses_what_does_not_fit() {
        let tree = tree();
        let pooling = Pooling::fit(&tree, &predictions(&tree, |_, _| 0.0), 7.0).unwrap();
        let text = serde_json::to_string(&pooling).unwrap();
        let read: Pooling = serde_json::from_str(&text).unwrap();
        assert_eq!((read.trust(), &read), (0.75, &pooling));
        assert!(read.check(&PathTree::new(3, 2, Monotone::Free, 100).unwrap()).is_err());
        let far: Pooling = serde_json::from_str(&text.replace("0.75", "1.75")).unwrap();
        assert!(far.check(&tree).is_err());
        for half in [-1.0, f64::NAN] {
            assert!(Pooling::fit(&tree, &predictions(&tree, |_, _| 0.0), half).is_err());
        }
        assert_eq!(Pooling::macs(&tree, 1), 2);
    }
}
