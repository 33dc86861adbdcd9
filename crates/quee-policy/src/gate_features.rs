//! What gates see of the samples of a split.

use crate::table::{TableError, check_shape};
use crate::tree::{NodeId, PathTree};

/// Features of every sample at every gate node of one split.
#[derive(Clone, Debug, PartialEq)]
pub struct GateFeatures {
    samples: usize,
    /// Number of features by gate, gate `s` at `s - 1`.
    dims: Vec<usize>,
    /// `[gate node - 1]`, each `[sample][feature]`.
    rows: Vec<Vec<f32>>,
}

impl GateFeatures {
    /// One list per node of [`PathTree::gate_nodes`], in that order, each `[sample][feature]`, with the same number of
    /// features at all nodes of a gate. Features should be standardised on *fit*, and tell nodes of a gate apart (the
    /// widths so far): all prefixes of a gate share one regression.
    ///
    /// # Errors
    /// If there are no samples, a list has the wrong length, or a value is not finite.
    pub fn new(tree: &PathTree, samples: usize, rows: Vec<Vec<f32>>) -> Result<Self, TableError> {
        check_shape("features: gate nodes", rows.len(), tree.gate_nodes().count(), 1)?;
        if samples == 0 {
            return Err(TableError::Empty { what: "features" });
        }
        let dims: Vec<usize> =
            (1..tree.segments()).map(|depth| rows[tree.level(depth).start - 1].len() / samples).collect();
        for (row, node) in rows.iter().zip(tree.gate_nodes()) {
            let dim = dims[tree.node(node).depth - 1];
            check_shape("features", row.len(), dim, samples)?;
            if let Some(at) = row.iter().position(|value| !value.is_finite()) {
                let (row, sample) = (node - 1, at / dim);
                return Err(TableError::Value { what: "features", row, sample, range: "the finite numbers" });
            }
        }
        Ok(Self { samples, dims, rows })
    }

    /// The features of the samples `chosen` alone.
    ///
    /// # Panics
    /// If nothing is chosen, or a sample is unknown.
    pub fn subset(&self, chosen: &[usize]) -> Self {
        assert!(!chosen.is_empty(), "features need samples");
        let of_node = |row: &Vec<f32>| {
            let dim = row.len() / self.samples;
            chosen.iter().flat_map(|sample| &row[sample * dim..(sample + 1) * dim]).copied().collect()
        };
        Self { samples: chosen.len(), dims: self.dims.clone(), rows: self.rows.iter().map(of_node).collect() }
    }

    /// The features with those of the samples of `other` behind them.
    ///
    /// # Panics
    /// If they belong to different trees or differ in number.
    pub fn with(&self, other: &Self) -> Self {
        assert!(self.dims == other.dims && self.rows.len() == other.rows.len(), "features of one tree");
        let rows = self.rows.iter().zip(&other.rows).map(|(a, b)| [a.as_slice(), b].concat()).collect();
        Self { samples: self.samples + other.samples, dims: self.dims.clone(), rows }
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of features by gate, gate `s` at `s - 1`.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Features of one sample at one gate node.
    ///
    /// # Panics
    /// For the root, a node at the last exit, or an unknown sample.
    pub fn get(&self, tree: &PathTree, node: NodeId, sample: usize) -> &[f32] {
        let dim = self.dims[tree.node(node).depth - 1];
        &self.rows[node - 1][sample * dim..(sample + 1) * dim]
    }

    /// Whether there is one list for every gate node, and as many features at every gate as in `dims`.
    pub(crate) fn check_like(&self, tree: &PathTree, dims: &[usize]) -> Result<(), TableError> {
        check_shape("features: gate nodes", self.rows.len(), tree.gate_nodes().count(), 1)?;
        check_shape("features: gates", self.dims.len(), dims.len(), 1)?;
        self.dims.iter().zip(dims).try_for_each(|(got, want)| check_shape("features of a gate", *got, *want, 1))
    }
}
