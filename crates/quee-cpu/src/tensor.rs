//! Tensors of the CPU executor, and the pool that their memory comes from.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use crate::aligned::Aligned;

/// Buffers kept for reuse.
const KEPT: usize = 16;

/// Memory of dropped tensors, for the tensors to come.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Aligned<f32>>>);

impl Pool {
    /// A buffer of `len` floats with arbitrary content.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that holds it and is not much too large.
        let fitting = kept.iter().enumerate().filter(|(_, b)| b.capacity() >= len && b.capacity() / 4 <= len);
        let best = fitting.min_by_key(|(_, b)| b.capacity()).map(|(index, _)| index);
        let mut data = best.map(|index| kept.swap_remove(index)).unwrap_or_default();
        drop(kept);
        data.resize(len);
        Buffer { data, pool: Arc::clone(self) }
    }
}

/// Floats that go back to their pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    data: Aligned<f32>,
    pool: Arc<Pool>,
}

impl Buffer {
    pub fn as_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(std::mem::take(&mut self.data));
    }
}

/// A row-major tensor of floats.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub data: Buffer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000);
        let at = first.as_ptr();
        drop(first);
        let second = pool.take(900);
        assert_eq!((second.as_ptr(), second.len()), (at, 900));
        drop(second);
        assert_ne!(pool.take(10).as_ptr(), at, "far too large a buffer is not taken");
        let many: Vec<Buffer> = (0..40).map(|_| pool.take(5000)).collect();
        drop(many);
        assert!(pool.0.lock().unwrap().len() <= KEPT);
    }
}
