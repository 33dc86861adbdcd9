//! Shapes that operations accept, and the errors when they do not fit.

use quee_backbone::{Attention, ExecError, Norm};

use crate::tensor::Tensor;

pub(crate) fn mismatch(op: &str, expected: &str, got: &[usize]) -> ExecError {
    ExecError::Shape { op: op.to_owned(), expected: expected.to_owned(), got: got.to_vec() }
}

pub(crate) fn not_finite(site: &str) -> ExecError {
    ExecError::NotFinite { site: site.to_owned() }
}

/// B, T and D of `[B, T, D]`.
pub(crate) fn three(op: &str, x: &Tensor) -> Result<[usize; 3], ExecError> {
    <[usize; 3]>::try_from(&*x.shape).map_err(|_| mismatch(op, "[B, T, D]", &x.shape))
}

pub(crate) fn check_norm(x: &Tensor, norm: &Norm) -> Result<(), ExecError> {
    let d = norm.weight.data.len();
    if x.shape.last() == Some(&d) && norm.bias.data.len() == d {
        Ok(())
    } else {
        Err(mismatch(&norm.site, &format!("[.., {d}]"), &x.shape))
    }
}

/// B and T of `[B, T, 3·H·d]`.
pub(crate) fn attention_shape(qkv: &Tensor, attention: &Attention) -> Result<[usize; 2], ExecError> {
    let features = 3 * attention.heads * attention.head_dim;
    match *qkv.shape {
        [b, t, f] if f == features => Ok([b, t]),
        _ => Err(mismatch(&attention.site, &format!("[B, T, {features}]"), &qkv.shape)),
    }
}
