//! The path tree: which widths may follow which, and how paths, prefixes and continuations are numbered.

use std::collections::BTreeSet;
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
    pub(crate) fn allowed(self, before: Option<usize>, widths: usize) -> Range<usize> {
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
        "{segments} segments at {widths} widths make {count} paths, more than the limit of {limit}. Four ways out: \
         fewer segments; fewer widths; monotone = \"non-increasing\" or \"non-decreasing\" ({monotone} paths); \
         sample = 100, to draw that many"
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
    /// A listed path that cannot be.
    #[error("path {path:?}: expected 1 to {segments} widths, each below {widths}, that obey the rule")]
    Path {
        /// The path, as indices of widths.
        path: Vec<usize>,
        /// Segments of the tree.
        segments: usize,
        /// Widths of the tree.
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
    /// `[node]`: all ways to go on.
    continuations: Vec<Vec<Continuation>>,
}

/// One way to go on from a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Position among all ways to go on from the gate's node, "exit here" being 0: where its prediction stands. The root cannot
    /// exit, and its first way has position 1.
    pub place: usize,
    /// Node at which the continuation answers; the gate's own node for "exit here".
    pub end: NodeId,
    /// First node on the way there; `None` for "exit here".
    pub first: Option<NodeId>,
}

impl PathTree {
    /// Builds the tree of all paths of 1 to `segments` segments.
    ///
    /// # Errors
    /// Without segments or widths, or with more than `limit` paths (found without building them).
    pub fn new(segments: usize, widths: usize, monotone: Monotone, limit: usize) -> Result<Self, TreeError> {
        let count = Self::count(segments, widths, monotone);
        if count > limit as u128 {
            let monotone = Self::count(segments, widths, Monotone::NonDecreasing);
            return Err(TreeError::TooManyPaths { count, limit, segments, widths, monotone });
        }
        Self::grow(segments, widths, monotone, |_, width, before| monotone.allowed(before, widths).contains(&width))
    }

    /// Builds the tree of `paths`, each a list of widths, and all their prefixes. Order and repetitions do not matter.
    ///
    /// # Errors
    /// Without segments or widths, or when a path is too long, empty, or breaks the rule.
    pub fn of_paths(
        segments: usize,
        widths: usize,
        monotone: Monotone,
        paths: &[Vec<usize>],
    ) -> Result<Self, TreeError> {
        let mut known = BTreeSet::new();
        for path in paths {
            let mut before = None;
            let fits = (1..=segments).contains(&path.len())
                && path.iter().all(|&width| monotone.allowed(before.replace(width), widths).contains(&width));
            if !fits {
                return Err(TreeError::Path { path: path.clone(), segments, widths });
            }
            known.extend((1..=path.len()).map(|length| path[..length].to_vec()));
        }
        Self::grow(segments, widths, monotone, |so_far, width, _| known.contains(&[so_far, &[width]].concat()))
    }

    /// Grows the tree level by level; `keeps(widths so far, next width, last width)` says which children there are.
    fn grow(
        segments: usize,
        widths: usize,
        monotone: Monotone,
        keeps: impl Fn(&[usize], usize, Option<usize>) -> bool,
    ) -> Result<Self, TreeError> {
        if segments == 0 || widths == 0 {
            return Err(TreeError::Empty { segments, widths });
        }
        let mut nodes = vec![Node { parent: None, depth: 0, width: None, children: 0..0 }];
        let mut levels = vec![0, 1];
        let mut so_far = vec![Vec::new()];
        for depth in 1..=segments {
            for parent in levels[depth - 1]..levels[depth] {
                let first = nodes.len();
                for width in 0..widths {
                    if keeps(&so_far[parent], width, nodes[parent].width) {
                        nodes.push(Node { parent: Some(parent), depth, width: Some(width), children: 0..0 });
                        let mut path = so_far[parent].clone();
                        path.push(width);
                        so_far.push(path);
                    }
                }
                nodes[parent].children = first..nodes.len();
            }
            levels.push(nodes.len());
        }
        let continuations = (0..nodes.len()).map(|node| continuations(&nodes, node)).collect();
        Ok(Self { segments, widths, monotone, nodes, levels, continuations })
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

    /// Number of paths of the tree from which these are: all that its rule allows.
    pub fn count_in_all(&self) -> u128 {
        Self::count(self.segments, self.widths, self.monotone)
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

    /// Position of a node among those of its depth: the number of its prefix.
    pub fn prefix_index(&self, node: NodeId) -> usize {
        node - self.levels[self.nodes[node].depth]
    }

    /// All ways to go on from a node, ascending by length, then by the first width in which they differ. The first is "exit here",
    /// which is missing at the root.
    pub fn continuations(&self, node: NodeId) -> &[Continuation] {
        &self.continuations[node]
    }

    /// Number of predictions at a node: one per way to go on, by [`Continuation::place`]. The root counts one that is never read, in
    /// place of "exit here".
    pub fn places(&self, node: NodeId) -> usize {
        self.continuations[node].len() + usize::from(node == ROOT)
    }

    /// The way from `node` to `end`, if `end` lies behind it or is `node` itself.
    pub fn way(&self, node: NodeId, end: NodeId) -> Option<Continuation> {
        let ways = &self.continuations[node];
        // Nodes are numbered by depth, then in the order of their widths: the order of the list.
        ways.binary_search_by_key(&end, |way| way.end).ok().map(|at| ways[at])
    }

    /// Widths of the segments on the way from `node` to `end`, which lies behind it.
    pub fn widths_between(&self, node: NodeId, end: NodeId) -> Vec<usize> {
        self.widths_of(end).split_off(self.nodes[node].depth)
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

/// All ways to go on from `node`, shortest first.
fn continuations(nodes: &[Node], node: NodeId) -> Vec<Continuation> {
    let mut ways = vec![Continuation { place: 0, end: node, first: None }];
    let mut next = 0;
    while let Some(&Continuation { end, first, .. }) = ways.get(next) {
        for child in nodes[end].children.clone() {
            ways.push(Continuation { place: ways.len(), end: child, first: first.or(Some(child)) });
        }
        next += 1;
    }
    if node == ROOT {
        ways.remove(0);
    }
    ways
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
        assert_eq!((tree.places(1), tree.places(ROOT)), (7, 15));
        assert_eq!(tree.way(2, 13), Some(Continuation { place: 5, end: 13, first: Some(6) }));
        assert_eq!(tree.widths_between(2, 13), [1, 0]);
        assert_eq!(tree.way(1, 13), None);
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
        for way in ["fewer segments", "fewer widths", "non-increasing", "sample"] {
            assert!(text.contains(way), "{text}");
        }
        assert!(PathTree::new(12, 4, Monotone::NonDecreasing, DEFAULT_LIMIT).is_ok());
        assert!(matches!(PathTree::new(300, 9, Monotone::Free, 9), Err(TreeError::TooManyPaths { .. })));
        assert!(matches!(PathTree::new(0, 2, Monotone::Free, 9), Err(TreeError::Empty { .. })));
    }

    #[test]
    fn listed_paths_make_a_tree_of_their_prefixes() {
        let paths = [vec![0, 0, 0], vec![0, 1], vec![1, 1, 0], vec![0, 1]];
        let tree = PathTree::of_paths(3, 2, Monotone::Free, &paths).unwrap();
        let all: Vec<_> = tree.nodes().map(|node| tree.widths_of(node)).collect();
        assert_eq!(all, [vec![], vec![0], vec![1], vec![0, 0], vec![0, 1], vec![1, 1], vec![0, 0, 0], vec![1, 1, 0]]);
        let ends = |node| tree.continuations(node).iter().map(|way| (way.place, way.end)).collect::<Vec<_>>();
        assert_eq!(ends(ROOT), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]);
        assert_eq!((ends(1), ends(2)), (vec![(0, 1), (1, 3), (2, 4), (3, 6)], vec![(0, 2), (1, 5), (2, 7)]));
        for wrong in [vec![], vec![0; 4], vec![2]] {
            assert!(matches!(PathTree::of_paths(3, 2, Monotone::Free, &[wrong]), Err(TreeError::Path { .. })));
        }
        assert!(PathTree::of_paths(3, 2, Monotone::NonDecreasing, &paths).is_err());
    }

    proptest! {
        #[test]
        fn numbering_is_consistent(segments in 1usize..5, widths in 1usize..4, rule in 0usize..3) {
            let tree = PathTree::new(segments, widths, RULES[rule], DEFAULT_LIMIT).unwrap();
            prop_assert_eq!(tree.paths().len() as u128, PathTree::count(segments, widths, RULES[rule]));
            let all: Vec<Vec<usize>> = tree.paths().map(|node| tree.widths_of(node)).collect();
            prop_assert_eq!(&PathTree::of_paths(segments, widths, RULES[rule], &all).unwrap(), &tree);
            for node in tree.nodes() {
                let so_far = tree.widths_of(node);
                prop_assert_eq!(tree.find(&so_far), Some(node));
                let depth = tree.node(node).depth;
                prop_assert_eq!(tree.level(depth).start + tree.prefix_index(node), node);
                if RULES[rule] == Monotone::Free {
                    let number = so_far.iter().fold(0, |number, width| number * widths + width);
                    prop_assert_eq!(tree.prefix_index(node), number);
                }
                let behind = |end: &NodeId| *end != ROOT && tree.widths_of(*end).starts_with(&so_far);
                let ends: Vec<NodeId> = tree.nodes().filter(behind).collect();
                let ways = tree.continuations(node);
                prop_assert_eq!(&ways.iter().map(|way| way.end).collect::<Vec<_>>(), &ends);
                prop_assert_eq!(ways.last().map_or(0, |way| way.place + 1), tree.places(node));
                for way in ways {
                    prop_assert_eq!(way.first.map(|first| tree.node(first).parent), way.first.map(|_| Some(node)));
                    prop_assert_eq!(tree.way(node, way.end), Some(*way));
                    let whole = [so_far.clone(), tree.widths_between(node, way.end)].concat();
                    prop_assert_eq!(tree.find(&whole), Some(way.end));
                }
            }
        }
    }
}
