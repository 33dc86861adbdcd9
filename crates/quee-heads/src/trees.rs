//! Gradient-boosted decision trees, inference only, in arrays of our own.

use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::error::{expect_finite, expect_len};
use crate::network::sigmoid;

/// Trees whose leaves add up to one logit.
///
/// Nodes of all trees stand in one list, parents before their children. Node `i` is a leaf if `child[i]` is 0;
/// otherwise a row goes on to `child[i]` if its input number `feature[i]` is below `value[i]`, else to `child[i] + 1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trees {
    /// Number of inputs.
    pub inputs: usize,
    /// Logit before the first tree.
    pub base: f32,
    /// First node of each tree, `[trees]`; may be empty.
    pub roots: Vec<u32>,
    /// Input that a node looks at, `[nodes]`; 0 at leaves.
    pub feature: Vec<u32>,
    /// Threshold of an inner node, logit of a leaf, `[nodes]`.
    pub value: Vec<f32>,
    /// Left child, the right one being next to it, `[nodes]`; 0 at leaves.
    pub child: Vec<u32>,
}

impl Trees {
    /// Checks trees that were read: after it, no row of `inputs` finite numbers makes
    /// [`probability`](Self::probability) panic or run forever.
    ///
    /// # Errors
    /// When there are not `inputs` inputs, arrays differ in length, a node or input does not exist, a child does not
    /// come after its parent, or a value is not finite.
    pub fn check(&self, inputs: usize) -> Result<(), HeadsError> {
        let nodes = self.child.len();
        expect_len("inputs of the trees", inputs, self.inputs)?;
        expect_len("inputs of the nodes", nodes, self.feature.len())?;
        expect_len("values of the nodes", nodes, self.value.len())?;
        expect_finite("values of the nodes", &self.value)?;
        expect_finite("first logit of the trees", &[self.base])?;
        let broken = |what, value: u32, hint| Err(HeadsError::Setting { what, value: value.to_string(), hint });
        if let Some(&root) = self.roots.iter().find(|&&root| root as usize >= nodes) {
            return broken("root of a tree", root, "it is the number of a node");
        }
        for (node, (&child, &feature)) in self.child.iter().zip(&self.feature).enumerate() {
            if child != 0 && (child as usize <= node || child as usize + 1 >= nodes) {
                return broken("child of a node", child, "both children are nodes behind their parent");
            }
            if child != 0 && feature as usize >= inputs {
                return broken("input of a node", feature, "there are not so many inputs");
            }
        }
        Ok(())
    }

    /// The sum of base and leaves for one `row` `[inputs]`.
    ///
    /// # Panics
    /// When the row has another length or the trees fail [`check`](Self::check).
    pub fn logit(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.inputs, "inputs of the trees");
        let leaf = |&root: &u32| {
            let mut node = root as usize;
            while self.child[node] != 0 {
                let right = row[self.feature[node] as usize] >= self.value[node];
                node = self.child[node] as usize + usize::from(right);
            }
            f64::from(self.value[node])
        };
        self.roots.iter().map(leaf).fold(f64::from(self.base), |sum, leaf| sum + leaf)
    }

    /// Probability for one `row` `[inputs]`: the sigmoid of [`logit`](Self::logit).
    ///
    /// # Panics
    /// As [`logit`](Self::logit).
    pub fn probability(&self, row: &[f32]) -> f32 {
        sigmoid(self.logit(row) as f32)
    }

    /// Number of trees.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Whether there is no tree, and every row gets the same probability.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Number of stored parameters: a threshold, an input and a child per inner node, a logit per leaf, and the base.
    pub fn parameters(&self) -> usize {
        1 + self.child.iter().map(|&child| if child == 0 { 1 } else { 3 }).sum::<usize>()
    }

    /// Cost of one evaluation: every comparison on the longest path of each tree counts as one multiply-accumulate (a
    /// choice of this project, and the most that a row can cost); additions of leaves count nothing.
    pub fn macs(&self) -> u64 {
        // Children come after their parents, so that heights are known bottom-up in one sweep.
        let mut height = vec![0u64; self.child.len()];
        for node in (0..self.child.len()).rev() {
            if let Some(child) = Some(self.child[node] as usize).filter(|&child| child != 0) {
                height[node] = 1 + height[child].max(height[child + 1]);
            }
        }
        self.roots.iter().map(|&root| height[root as usize]).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stump on input 1 at 0.5, and a tree that looks at input 0 at −1 and then at input 1 at 2.
    pub(crate) fn small() -> Trees {
        Trees {
            inputs: 2,
            base: 0.25,
            roots: vec![0, 3],
            feature: vec![1, 0, 0, 0, 0, 1, 0, 0],
            value: vec![0.5, -1.0, 1.0, -1.0, 4.0, 2.0, 8.0, 16.0],
            child: vec![1, 0, 0, 4, 0, 6, 0, 0],
        }
    }

    #[test]
    fn rows_reach_their_leaves() {
        let trees = small();
        assert!(trees.check(2).is_ok());
        // A value that equals the threshold goes right.
        for (row, logit) in [([-2.0, 0.0], 3.25), ([-1.0, 0.5], 9.25), ([5.0, 2.0], 17.25), ([0.0, 0.4], 7.25)] {
            assert_eq!(trees.logit(&row), logit, "{row:?}");
        }
        assert!((trees.probability(&[-2.0, 0.0]) - 0.962_673).abs() < 1e-6);
        assert_eq!((trees.len(), trees.macs(), trees.parameters()), (2, 3, 1 + 3 * 3 + 5));
    }

    #[test]
    fn no_trees_are_a_constant() {
        let none = Trees { roots: vec![], feature: vec![], value: vec![], child: vec![], ..small() };
        assert!(none.check(2).is_ok() && none.is_empty());
        assert_eq!((none.logit(&[1.0, 2.0]), none.macs()), (0.25, 0));
    }

    #[test]
    fn broken_trees_are_refused() {
        assert!(small().check(3).is_err());
        for (what, broken) in [
            ("a root beyond the nodes", Trees { roots: vec![8], ..small() }),
            ("a cycle", Trees { child: vec![1, 0, 0, 4, 0, 3, 0, 0], ..small() }),
            ("a right child beyond the nodes", Trees { child: vec![1, 0, 0, 4, 0, 7, 0, 0], ..small() }),
            ("an input beyond the row", Trees { feature: vec![2, 0, 0, 0, 0, 1, 0, 0], ..small() }),
            ("a threshold that is not finite", Trees { value: vec![f32::NAN; 8], ..small() }),
            ("a missing value", Trees { value: vec![0.0; 7], ..small() }),
        ] {
            assert!(broken.check(2).is_err(), "{what}");
        }
    }
}
