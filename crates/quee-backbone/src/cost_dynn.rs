//! The operations that the *dynn* counter sees, for comparison with curves that were published with it.
//!
//! It counts the parameters of a linear layer once, however many tokens pass through it; 2.5 operations per element of
//! every layer normalisation and 4 per element of every GELU, of all tokens; and no product of activations. An exit is a
//! layer normalisation of all tokens and a linear layer. So most of what a transformer computes is missing: use it for
//! nothing else.

use crate::cost::{BackboneCost, OpCost, OpKind, PartCost};

/// Operations per element of a layer normalisation.
const NORM: f64 = 2.5;
/// Operations per element of a GELU.
const GELU: f64 = 4.0;

/// Operations of a part of a program, per picture.
pub fn part(cost: &PartCost) -> f64 {
    cost.ops.iter().map(operations).sum()
}

fn operations(op: &OpCost) -> f64 {
    match op.kind {
        OpKind::Linear => (op.weights + op.others) as f64,
        OpKind::Norm => NORM * op.outputs() as f64,
        OpKind::Gelu => GELU * op.outputs() as f64,
        OpKind::Product | OpKind::Float | OpKind::Elementwise | OpKind::Move => 0.0,
    }
}

/// Operations of an exit with `classes` classes behind block `block` (from 0), per picture.
///
/// # Panics
/// When there is no such block.
pub fn exit(cost: &BackboneCost, block: usize, classes: usize) -> f64 {
    let elements = cost.blocks[block].ops.last().map_or(0, OpCost::outputs);
    let norms = cost.head.ops.iter().filter(|op| op.kind == OpKind::Norm).count() as f64;
    let linear = cost.head.ops.iter().rfind(|op| op.kind == OpKind::Linear);
    let features = linear.and_then(|op| op.input.last()).copied().unwrap_or(0);
    NORM * norms * elements as f64 + ((features + 1) * classes) as f64
}

/// Operations of the backbone with its own head, for `classes` classes, per picture.
pub fn backbone(cost: &BackboneCost, classes: usize) -> f64 {
    let last = cost.blocks.len().checked_sub(1);
    part(&cost.stem) + cost.blocks.iter().map(part).sum::<f64>() + last.map_or(0.0, |last| exit(cost, last, classes))
}

/// As [`backbone`], with an exit behind every other block: the whole that published curves are drawn against.
pub fn with_exits(cost: &BackboneCost, classes: usize) -> f64 {
    let before_last = 0..cost.blocks.len().saturating_sub(1);
    backbone(cost, classes) + before_last.map(|block| exit(cost, block, classes)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    fn counted(name: &str) -> BackboneCost {
        BackboneCost::count(&*presets::find(name).unwrap().skeleton(10)).unwrap()
    }

    #[test]
    fn the_published_figures_come_out() {
        for (name, published) in [("t2t_vit_7", 13.4), ("t2t_vit_14", 45.7)] {
            let millions = with_exits(&counted(name), 10) / 1e6;
            // Published with one digit after the point.
            assert!((millions - published).abs() <= 0.05, "{name}: {millions}, published {published}");
        }
    }

    #[test]
    fn tokens_count_for_normalisation_alone() {
        let cost = counted("vit_d6_w80_p2_8");
        let block = part(&cost.blocks[0]);
        let (tokens, dim, hidden) = (17.0, 80.0, 160.0);
        let linears = 3.0 * dim * (dim + 1.0) + dim * (dim + 1.0) + hidden * (dim + 1.0) + dim * (hidden + 1.0);
        assert_eq!(block, linears + tokens * (2.0 * 2.5 * dim + 4.0 * hidden));
        assert_eq!(exit(&cost, 3, 10), 2.5 * tokens * dim + 10.0 * (dim + 1.0));
        assert_eq!(with_exits(&cost, 10) - backbone(&cost, 10), 5.0 * exit(&cost, 0, 10));
    }
}
