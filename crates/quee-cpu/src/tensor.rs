//! Tensors of the CPU executor, and the pool that their memory comes from.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use quee_backbone::Value;

use crate::aligned::Aligned;

/// Most axes of a tensor.
pub(crate) const MOST_AXES: usize = 6;

/// Lengths of a tensor's axes, at most [`MOST_AXES`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    axes: [usize; MOST_AXES],
    count: usize,
}

impl Shape {
    /// # Panics
    /// When there are too many.
    pub fn new(axes: &[usize]) -> Self {
        let mut shape = Self { axes: [1; MOST_AXES], count: axes.len() };
        shape.axes[..axes.len()].copy_from_slice(axes);
        shape
    }

    /// The same axes but the last one, which is `last` long.
    pub fn with_last(mut self, last: usize) -> Self {
        if let Some(axis) = self.last_mut() {
            *axis = last;
        }
        self
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.axes[..self.count]
    }
}

impl DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.axes[..self.count]
    }
}

/// A row-major tensor of floats.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub shape: Shape,
    pub data: Aligned<f32>,
}

/// A tensor that nobody else sees yet.
pub(crate) struct New(Arc<Tensor>);

impl Deref for New {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl DerefMut for New {
    fn deref_mut(&mut self) -> &mut Tensor {
        Arc::get_mut(&mut self.0).expect("it is shared when it is done")
    }
}

/// Tensors kept for reuse, those in use among them.
const KEPT: usize = 24;

/// Tensors that were given out; those that only the pool holds are used again.
#[derive(Debug, Default)]
pub(crate) struct Pool(Vec<Arc<Tensor>>);

impl Pool {
    /// A tensor with arbitrary content.
    pub fn take(&mut self, shape: Shape) -> New {
        let len = shape.iter().product();
        // The smallest that holds it and is not much too large.
        let mut best: Option<(usize, usize)> = None;
        for (index, kept) in self.0.iter_mut().enumerate() {
            let capacity = kept.data.capacity();
            let fits = capacity >= len && capacity / 4 <= len.max(16);
            if fits && best.is_none_or(|(least, _)| capacity < least) && Arc::get_mut(kept).is_some() {
                best = Some((capacity, index));
            }
        }
        let free = best.map(|(_, index)| self.0.swap_remove(index));
        let mut new = New(free.unwrap_or_else(|| Arc::new(Tensor { shape, data: Aligned::default() })));
        new.shape = shape;
        new.data.resize(len);
        new
    }

    /// Gives a tensor out.
    pub fn share(&mut self, New(tensor): New) -> Value {
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(Arc::clone(&tensor));
        Value::shared(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_it_is_free_and_bounded() {
        let mut pool = Pool::default();
        let first = pool.take(Shape::new(&[10, 100]));
        let at = first.data.as_ptr();
        let first = pool.share(first);
        let second = pool.take(Shape::new(&[900]));
        assert_ne!(second.data.as_ptr(), at, "the first is in use");
        drop(first);
        let third = pool.take(Shape::new(&[900]));
        assert_eq!((third.data.as_ptr(), third.data.len(), &third.shape[..]), (at, 900, &[900][..]));
        drop(pool.share(third));
        assert_ne!(pool.take(Shape::new(&[10])).data.as_ptr(), at, "far too large a buffer is not taken");
        for _ in 0..40 {
            let tensor = pool.take(Shape::new(&[5000]));
            std::mem::forget(pool.share(tensor));
        }
        assert!(pool.0.len() <= KEPT);
    }
}
