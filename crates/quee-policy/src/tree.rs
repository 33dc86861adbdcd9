//! The path tree: which widths may follow which, and how paths, prefixes and continuations are numbered.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Number of a node of a [`PathTree`]; nodes are numbered breadth first from [`ROOT`].
pub type NodeId = usize;

/// The node at which nothing has been run.
pub const ROOT: NodeId = 0;

/// Largest number of paths that [`PathTree::new`] is usually given as its limit.
pub const DEFAULT_LIMIT: usize = 2_000;

/// Which width may follow which along a path. Widths are compared by index, so list them in ascending order of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Monotone {
    /// Any width may follow any other.
    #[default]
    Free,
    /// A later segment never runs at a higher width than an earlier one.
    NonIncreasing,
    /// A later segment never runs at a lower width than an earlier one.
    NonDecreasing,
}

impl Monotone {
    /// Widths allowed after `before` (`None`: nothing has been run).
    fn allowed(self, before: Option<usize>, widths: usize) -> Range<usize> {
        match (self, before) {
            (Monotone::NonIncreasing, Some(width)) => 0..width + 1,
            (Monotone::NonDecreasing, Some(width)) => width..widths,
            _ => 0..widths,
        }
    }
}

/// Why a tree was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// No segments or no widths.
    #[error("a path tree needs at least one segment and one width, got {segments} segments and {widths} widths")]
    Empty {
        /// Segments asked for.
        segments: usize,
        /// Widths asked for.
        widths: usize,
    },
    /// More paths than the limit.
    #[error(
        "{segments} segments at {widths} widths make {count} paths, more than the limit of {limit}. Three ways out: \
         fewer segments; fewer widths; monotone = \"non-increasing\" or \"non-decreasing\" ({monotone} paths)"
    )]
    TooManyPaths {
        /// Number of paths of the tree (saturating).
        count: u128,
        /// The limit it exceeds.
        limit: usize,
        /// Segments asked for.
        segments: usize,
        /// Widths asked for.
        widths: usize,
        /// Number of paths of the monotone tree of the same size (saturating).
        monotone: u128,
    },
    /// Continuations are numbered in the free tree, whatever the monotone rule, and that number must fit 32 bits.
    #[error("{segments} segments at {widths} widths have too many continuations to number: use fewer of either")]
    Numbering {
        /// Segments asked for.
        segments: usize,
        /// Widths asked for.
        widths: usize,
    },
}

/// One node: a prefix of widths, and (but for the root) the path that answers right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node before the last segment; `None` for the root.
    pub parent: Option<NodeId>,
    /// Segments run: 0 for the root. Also the exit at which the path answers.
    pub depth: usize,
    /// Width index of the last segment; `None` for the root.
    pub width: Option<usize>,
    /// Children, in ascending order of their width.
    pub children: Range<NodeId>,
}

/// All paths of a recipe, as a tree of prefixes numbered breadth first, widths ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTree {
    segments: usize,
    widths: usize,
    monotone: Monotone,
    nodes: Vec<Node>,
    /// First node of every depth, and the number of nodes at the end.
    levels: Vec<NodeId>,
}

/// One way to go on from a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Number of the suffix in the free tree, see [`PathTree::suffix_count`].
    pub suffix: usize,
    /// Node at which the continuation answers; the gate's own node for "exit here".
    pub end: NodeId,
    /// First node on the way there; `None` for "exit here".
    pub first: Option<NodeId>,
}

impl PathTree {
    /// Builds the tree of all paths of 1 to `segments` segments.
    ///
    /// # Errors
    /// Without segments or widths, with more than `limit` paths (found without building them), or when the
    /// continuations cannot be numbered in 32 bits.
    pub fn new(segments: usize, widths: usize, monotone: Monotone, limit: usize) -> Result<Self, TreeError> {
        if segments == 0 || widths == 0 {
            return Err(TreeError::Empty { segments, widths });
        }
        let count = Self::count(segments, widths, monotone);
        if count > limit as u128 {
            let monotone = Self::count(segments, widths, Monotone::NonDecreasing);
            return Err(TreeError::TooManyPaths { count, limit, segments, widths, monotone });
        }
        if Self::count(segments, widths, Monotone::Free) >= u128::from(u32::MAX) {
            return Err(TreeError::Numbering { segments, widths });
        }
        let mut nodes = vec![Node { parent: None, depth: 0, width: None, children: 0..0 }];
        let mut levels = vec![0, 1];
        for depth in 1..=segments {
            for parent in levels[depth - 1]..levels[depth] {
                let first = nodes.len();
                for width in monotone.allowed(nodes[parent].width, widths) {
                    nodes.push(Node { parent: Some(parent), depth, width: Some(width), children: 0..0 });
                }
                nodes[parent].children = first..nodes.len();
            }
            levels.push(nodes.len());
        }
        Ok(Self { segments, widths, monotone, nodes, levels })
    }

    /// Number of paths of a tree, without building it; saturates at `u128::MAX`.
    pub fn count(segments: usize, widths: usize, monotone: Monotone) -> u128 {
        let mut by_last = vec![1u128; widths];
        let mut total = 0u128;
        for _ in 0..segments {
            total = by_last.iter().fold(total, |sum, n| sum.saturating_add(*n));
            let mut next = vec![0u128; widths];
            for (last, n) in by_last.iter().enumerate() {
                for width in monotone.allowed(Some(last), widths) {
                    next[width] = next[width].saturating_add(*n);
                }
            }
            by_last = next;
        }
        total
    }

    /// Number of segments `S`.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Number of widths `B`.
    pub fn widths(&self) -> usize {
        self.widths
    }

    /// The rule on successive widths.
    pub fn monotone(&self) -> Monotone {
        self.monotone
    }

    /// Number of nodes, root included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, root included.
    pub fn nodes(&self) -> Range<NodeId> {
        0..self.nodes.len()
    }

    /// All paths: every node but the root.
    pub fn paths(&self) -> Range<NodeId> {
        1..self.nodes.len()
    }

    /// Nodes of one depth.
    ///
    /// # Panics
    /// If `depth` is larger than the number of segments.
    pub fn level(&self, depth: usize) -> Range<NodeId> {
        self.levels[depth]..self.levels[depth + 1]
    }

    /// Nodes at a gate with features, depths 1 to `S - 1`: the first rows of every table by path.
    pub fn gate_nodes(&self) -> RangeInclusive<NodeId> {
        1..=self.levels[self.segments] - 1
    }

    /// One node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node]
    }

    /// The child of `node` whose last segment runs at `width`; `None` at the last exit or where the rule forbids it.
    pub fn child(&self, node: NodeId, width: usize) -> Option<NodeId> {
        self.nodes[node].children.clone().find(|child| self.nodes[*child].width == Some(width))
    }

    /// Widths a node can go on at, ascending, with the child each leads to; none at the last exit.
    pub fn steps(&self, node: NodeId) -> impl Iterator<Item = (usize, NodeId)> + '_ {
        self.nodes[node].children.clone().filter_map(|child| self.nodes[child].width.map(|width| (width, child)))
    }

    /// Widths from the root to `node`.
    pub fn widths_of(&self, node: NodeId) -> Vec<usize> {
        let mut widths = Vec::with_capacity(self.nodes[node].depth);
        let mut at = &self.nodes[node];
        while let (Some(parent), Some(width)) = (at.parent, at.width) {
            widths.push(width);
            at = &self.nodes[parent];
        }
        widths.reverse();
        widths
    }

    /// Node of a list of widths; `None` if it is too long, has an unknown width or breaks the rule.
    pub fn find(&self, widths: &[usize]) -> Option<NodeId> {
        widths.iter().try_fold(ROOT, |node, width| self.child(node, *width))
    }

    /// Number of a prefix among the `B^depth` prefixes of its length in the free tree, first width most significant.
    pub fn prefix_index(&self, node: NodeId) -> usize {
        self.widths_of(node).iter().fold(0, |index, width| index * self.widths + width)
    }

    /// Number of continuations at a gate in the free tree: `1 + B + … + B^(S - depth)`.
    ///
    /// Suffix 0 is "exit here" (at the root a place holder: there is no exit 0). Suffixes are numbered by length, then
    /// with the first width most significant.
    ///
    /// # Panics
    /// If `depth` is larger than the number of segments.
    pub fn suffix_count(&self, depth: usize) -> usize {
        self.suffix_offset(self.segments - depth + 1)
    }

    /// Number of suffixes shorter than `length`.
    fn suffix_offset(&self, length: usize) -> usize {
        (0..length).fold(0, |sum, _| sum * self.widths + 1)
    }

    /// Number of a suffix, the inverse of [`PathTree::suffix_path`].
    pub fn suffix_index(&self, suffix: &[usize]) -> usize {
        self.suffix_offset(suffix.len()) + suffix.iter().fold(0, |index, width| index * self.widths + width)
    }

    /// Widths of a suffix at a gate of the given depth.
    ///
    /// # Panics
    /// If `suffix` is not less than [`PathTree::suffix_count`].
    pub fn suffix_path(&self, depth: usize, suffix: usize) -> Vec<usize> {
        let count = self.suffix_count(depth);
        assert!(suffix < count, "suffix {suffix} of {count} at depth {depth}");
        let length = (0..=self.segments - depth).rfind(|length| self.suffix_offset(*length) <= suffix).unwrap_or(0);
        let mut rest = suffix - self.suffix_offset(length);
        let mut widths = vec![0; length];
        for width in widths.iter_mut().rev() {
            *width = rest % self.widths;
            rest /= self.widths;
        }
        widths
    }

    /// Node at which `suffix` ends when taken from `node`; `None` where the monotone rule forbids it.
    ///
    /// # Panics
    /// If `suffix` is not less than the suffix count at the node's depth.
    pub fn join(&self, node: NodeId, suffix: usize) -> Option<NodeId> {
        self.suffix_path(self.nodes[node].depth, suffix)
            .into_iter()
            .try_fold(node, |node, width| self.child(node, width))
    }

    /// All allowed continuations of a node in ascending order of suffix; "exit here" is missing at the root.
    pub fn continuations(&self, node: NodeId) -> Vec<Continuation> {
        let mut all = vec![Continuation { suffix: 0, end: node, first: None }];
        let (mut level, mut length) = (vec![(node, 0usize, None)], 0);
        while !level.is_empty() {
            length += 1;
            let offset = self.suffix_offset(length);
            let mut next = Vec::new();
            for (at, index, first) in level {
                for child in self.nodes[at].children.clone() {
                    let index = index * self.widths + self.nodes[child].width.unwrap_or(0);
                    let first = first.or(Some(child));
                    all.push(Continuation { suffix: offset + index, end: child, first });
                    next.push((child, index, first));
                }
            }
            level = next;
        }
        if node == ROOT {
            all.remove(0);
        }
        all
    }

    /// A path as people read it, such as `w4a4 > w8a8 | exit 2`; `start` for the root.
    ///
    /// # Panics
    /// If `names` has fewer entries than there are widths.
    pub fn label<N: AsRef<str>>(&self, node: NodeId, names: &[N]) -> String {
        let widths: Vec<&str> = self.widths_of(node).into_iter().map(|width| names[width].as_ref()).collect();
        if node == ROOT { "start".to_owned() } else { format!("{} | exit {}", widths.join(" > "), widths.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: [Monotone; 3] = [Monotone::Free, Monotone::NonIncreasing, Monotone::NonDecreasing];

    #[test]
    fn breadth_first_layout_of_the_free_tree() {
        let tree = PathTree::new(3, 2, Monotone::Free, DEFAULT_LIMIT).unwrap();
        assert_eq!(tree.node_count(), 15);
        assert_eq!(tree.level(2), 3..7);
        assert_eq!(tree.gate_nodes(), 1..=6);
        assert_eq!(tree.node(4), &Node { parent: Some(1), depth: 2, width: Some(1), children: 9..11 });
        assert_eq!(tree.widths_of(13), [1, 1, 0]);
        assert_eq!(tree.label(5, &["w4a4", "w8a8"]), "w8a8 > w4a4 | exit 2");
        assert_eq!(tree.suffix_count(1), 7);
        assert_eq!(tree.suffix_path(1, 5), [1, 0]);
    }

    #[test]
    fn monotone_trees_forbid_what_they_should() {
        let down = PathTree::new(2, 3, Monotone::NonIncreasing, DEFAULT_LIMIT).unwrap();
        assert_eq!(down.find(&[1, 2]), None);
        assert!(down.find(&[2, 1]).is_some());
        let up = PathTree::new(2, 3, Monotone::NonDecreasing, DEFAULT_LIMIT).unwrap();
        assert_eq!(up.find(&[2, 1]), None);
        assert_eq!(up.node_count(), 1 + 3 + 6);
    }

    #[test]
    fn refuses_a_large_tree_with_count_and_ways_out() {
        let error = PathTree::new(12, 4, Monotone::Free, DEFAULT_LIMIT).unwrap_err();
        let TreeError::TooManyPaths { count, monotone, .. } = &error else { panic!("{error}") };
        assert_eq!(*count, (4u128.pow(13) - 4) / 3);
        assert_eq!(*monotone, 1819);
        let text = error.to_string();
        for way in ["fewer segments", "fewer widths", "non-increasing"] {
            assert!(text.contains(way), "{text}");
        }
        assert!(PathTree::new(12, 4, Monotone::NonDecreasing, DEFAULT_LIMIT).is_ok());
        assert!(matches!(PathTree::new(300, 9, Monotone::Free, 9), Err(TreeError::TooManyPaths { .. })));
        assert!(matches!(PathTree::new(0, 2, Monotone::Free, 9), Err(TreeError::Empty { .. })));
    }

    proptest! {
        #[test]
        fn numbering_is_consistent(segments in 1usize..5, widths in 1usize..4, rule in 0usize..3) {
            let tree = PathTree::new(segments, widths, RULES[rule], DEFAULT_LIMIT).unwrap();
            prop_assert_eq!(tree.paths().len() as u128, PathTree::count(segments, widths, RULES[rule]));
            for node in tree.nodes() {
                prop_assert_eq!(tree.find(&tree.widths_of(node)), Some(node));
                let depth = tree.node(node).depth;
                prop_assert!(tree.prefix_index(node) < widths.pow(depth as u32));
                if RULES[rule] == Monotone::Free {
                    prop_assert_eq!(tree.level(depth).start + tree.prefix_index(node), node);
                }
                let mut joined = Vec::new();
                for suffix in 0..tree.suffix_count(depth) {
                    let path = tree.suffix_path(depth, suffix);
                    prop_assert_eq!(tree.suffix_index(&path), suffix);
                    if let Some(end) = tree.join(node, suffix) {
                        prop_assert_eq!(tree.node(end).depth, depth + path.len());
                        if end != ROOT {
                            joined.push((suffix, end));
                        }
                    }
                }
                let listed: Vec<_> = tree.continuations(node).iter().map(|c| (c.suffix, c.end)).collect();
                prop_assert_eq!(joined, listed);
                for c in tree.continuations(node) {
                    prop_assert_eq!(c.first.map(|first| tree.node(first).parent), c.first.map(|_| Some(node)));
                }
            }
        }
    }
}
