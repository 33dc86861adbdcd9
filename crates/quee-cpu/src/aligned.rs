//! Memory that begins at a cache line, so that no vector of it lies in two.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers that any bytes are a value of.
///
/// # Safety
/// Every pattern of bits is a value, and the alignment divides 64.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}

/// A vector whose memory begins at a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, of: PhantomData }
    }
}

impl<T: Plain> Aligned<T> {
    /// Makes it `len` numbers long. What they are is arbitrary; memory is kept.
    pub fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(64);
        // Shrinking would cost zeros when it grows again.
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }

    pub fn as_mut(&mut self) -> &mut [T] {
        self
    }

    /// Numbers that there is memory for.
    pub fn capacity(&self) -> usize {
        self.lines.len() * 64 / size_of::<T>()
    }
}

impl<T: Plain> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::default();
        aligned.resize(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `lines` holds at least `len` numbers, all initialised, and any bytes are one.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_at_a_line_and_is_kept() {
        let mut numbers = Aligned::from(&[1, 2, 3][..]);
        assert_eq!(numbers[..], [1, 2, 3]);
        for len in [0, 1, 16, 17, 1000, 5] {
            numbers.resize(len);
            assert_eq!((numbers.len(), numbers.as_ptr().align_offset(64)), (len, 0));
        }
        assert!(numbers.capacity() >= 1000);
        assert_eq!(numbers[..3], [1, 2, 3]);
    }
}
