//! Paths drawn from a tree that is too large to be run whole.
//!
//! A tree of 7 segments and 4 widths has 21,844 paths, and as many segment runs per sample. A policy does not need all of them: most
//! change the width at nearly every segment, and nearly equal paths are nearly equally good. So some full-depth paths are drawn, and
//! everything that is run, predicted, chosen and compared lies on them and their prefixes. The scheme is a choice of this project.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

use crate::tree::{Monotone, PathTree, TreeError};

/// Draws in vain, per path asked for, after which there are taken to be no more.
const PATIENCE: usize = 1_000;

/// How paths are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathDraw {
    /// Full-depth paths.
    pub paths: usize,
    /// Probability that a segment runs at another width than the one before it. Small, so that prefixes are shared and the tree
    /// still branches behind its first gates.
    pub turn: f64,
    /// Seed.
    pub seed: u64,
}

impl PathDraw {
    /// The tree of the drawn paths and their prefixes: every width at full depth, then paths that begin at a width drawn uniformly,
    /// and at each later segment turn to another width, drawn uniformly from those that `monotone` allows, with probability `turn`. What
    /// was drawn before is drawn again; if that goes on for long, the tree has fewer paths.
    ///
    /// # Errors
    /// Without segments or widths.
    pub fn tree(&self, segments: usize, widths: usize, monotone: Monotone) -> Result<PathTree, TreeError> {
        let mut paths: BTreeSet<Vec<usize>> = (0..widths).map(|width| vec![width; segments]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut in_vain = 0;
        while widths > 0 && paths.len() < self.paths && in_vain < PATIENCE * self.paths {
            let mut path = Vec::with_capacity(segments);
            for segment in 0..segments {
                let before: Option<usize> = path.last().copied();
                let others: Vec<usize> =
                    monotone.allowed(before, widths).filter(|&width| Some(width) != before).collect();
                let turns = segment > 0 && rng.random_bool(self.turn);
                match before {
                    Some(before) if !turns || others.is_empty() => path.push(before),
                    _ => path.push(others[rng.random_range(0..others.len())]),
                }
            }
            in_vain = if paths.insert(path) { 0 } else { in_vain + 1 };
        }
        let paths: Vec<Vec<usize>> = paths.into_iter().filter(|path| !path.is_empty()).collect();
        PathTree::of_paths(segments, widths, monotone, &paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(paths: usize, turn: f64, seed: u64) -> PathDraw {
        PathDraw { paths, turn, seed }
    }

    #[test]
    fn a_large_tree_is_cut_down_to_the_drawn_paths() {
        let tree = draw(64, 0.25, 0).tree(7, 4, Monotone::Free).unwrap();
        assert_eq!(tree.level(7).len(), 64);
        assert!((0..4).all(|width| tree.find(&[width; 7]).is_some()), "every width at full depth");
        let full = tree.level(6).end;
        assert!((1..full).all(|node| !tree.node(node).children.is_empty()), "every prefix goes on to full depth");
        let turns: usize =
            tree.level(7).map(|node| tree.widths_of(node).windows(2).filter(|w| w[0] != w[1]).count()).sum();
        // 60 drawn paths with 6 segments that may turn, each with probability 1/4; repetitions of those without a turn are dropped.
        assert!((60..=150).contains(&turns), "{turns}");
        let at = |depth| tree.level(depth).filter(|&node| tree.node(node).children.len() > 1).count();
        assert!((1..7).all(|depth| at(depth) > 0), "the tree branches at every gate");
        assert_eq!(draw(64, 0.25, 0).tree(7, 4, Monotone::Free).unwrap(), tree);
        assert_ne!(draw(64, 0.25, 1).tree(7, 4, Monotone::Free).unwrap(), tree);
    }

    #[test]
    fn a_small_tree_is_drawn_whole_and_rules_are_obeyed() {
        for rule in [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing] {
            let whole = PathTree::new(3, 3, rule, 100).unwrap();
            assert_eq!(draw(1_000, 0.5, 3).tree(3, 3, rule).unwrap(), whole);
        }
        let straight = draw(1_000, 0.0, 3).tree(3, 3, Monotone::Free).unwrap();
        assert_eq!(straight.paths().len(), 9, "without turns there are the widths alone");
        assert!(
            draw(5, 0.5, 0).tree(0, 3, Monotone::Free).is_err() && draw(5, 0.5, 0).tree(3, 0, Monotone::Free).is_err()
        );
    }
}
