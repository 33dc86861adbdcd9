//! Where the elements of a tensor lie in a file.

use std::sync::Arc;

use super::CheckpointError;
use super::dtype::Dtype;
use super::source::Source;

/// A run of elements of one type in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    /// First byte.
    pub position: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// Elements of a storage in the order of a shape.
#[derive(Clone, Debug)]
pub(super) struct View {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Elements between neighbours along each axis; `None` when they follow each other in row-major order.
    strides: Option<Vec<usize>>,
    /// First byte of the first element.
    position: u64,
    /// Bytes from the first byte of the first element to the last byte of the last one.
    span: u64,
    count: usize,
}

impl View {
    /// A tensor whose first element is the one at `offset`, in elements. All of it must lie in the storage; `Err` says
    /// what does not fit.
    pub fn new(
        dtype: Dtype,
        storage: Storage,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, String> {
        let beyond = || format!("of shape {shape:?} and strides {strides:?} reaches beyond its storage");
        if shape.len() != strides.len() {
            return Err(format!("has shape {shape:?} but strides {strides:?}"));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(beyond)?;
        let last = shape.iter().zip(&strides).try_fold(0u64, |sum, (&d, &stride)| {
            (d.saturating_sub(1) as u64).checked_mul(stride as u64)?.checked_add(sum)
        });
        let elements = if count == 0 { Some(0) } else { last.and_then(|last| last.checked_add(1)) };
        let span = elements.and_then(|n| n.checked_mul(dtype.size())).ok_or_else(beyond)?;
        let start = offset.checked_mul(dtype.size()).ok_or_else(beyond)?;
        if start.checked_add(span).is_none_or(|end| end > storage.bytes) {
            return Err(beyond());
        }
        let mut expected = 1usize;
        let row_major = shape.iter().zip(&strides).rev().all(|(&d, &stride)| {
            let fits = d <= 1 || stride == expected;
            expected = expected.saturating_mul(d);
            fits
        });
        let strides = if row_major || count == 0 { None } else { Some(strides) };
        Ok(Self { dtype, shape, strides, position: storage.position + start, span, count })
    }

    /// A tensor that fills its storage in row-major order.
    pub fn row_major(dtype: Dtype, storage: Storage, shape: Vec<usize>) -> Result<Self, String> {
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Self::new(dtype, storage, 0, shape, strides)
    }

    /// A tensor of a type that does not convert, of which only the shape is known.
    pub fn opaque(dtype: Dtype, shape: Vec<usize>) -> Self {
        Self { dtype, shape, strides: None, position: 0, span: 0, count: 0 }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements, repeated ones counted as often as they occur.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The elements as 32-bit floats in row-major order.
    ///
    /// # Panics
    /// When the type does not convert.
    pub fn load(&self, source: &Source) -> Result<Arc<[f32]>, CheckpointError> {
        let bytes = source.bytes(self.position, self.span)?;
        let walk = self.strides.as_ref().map(|strides| Walk {
            shape: &self.shape,
            strides,
            at: vec![0; strides.len()],
            index: 0,
            count: self.count,
        });
        Ok(self.dtype.decode(&bytes, walk))
    }

    /// The elements of a tensor of 32-bit unsigned integers in row-major order, as they lie.
    pub fn load_words(&self, source: &Source) -> Result<Vec<u32>, CheckpointError> {
        assert!(self.dtype == Dtype::U32 && self.strides.is_none(), "safetensors are row-major");
        let bytes = source.bytes(self.position, self.span)?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
    }
}

/// Steps through the elements of a strided tensor in row-major order.
pub(super) struct Walk<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    /// Current place along each axis.
    at: Vec<usize>,
    index: usize,
    /// Number of elements.
    pub count: usize,
}

impl Walk<'_> {
    /// Position of the next element, counted from the first one. To be called `count` times at most.
    pub fn step(&mut self) -> usize {
        let here = self.index;
        for axis in (0..self.at.len()).rev() {
            if self.at[axis] + 1 < self.shape[axis] {
                self.at[axis] += 1;
                self.index += self.strides[axis];
                break;
            }
            self.index -= self.at[axis] * self.strides[axis];
            self.at[axis] = 0;
        }
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let bytes: Vec<u8> = (0..12).flat_map(|x| (x as f32).to_le_bytes()).collect();
        Source::memory(&bytes, "test")
    }

    fn view(offset: u64, shape: &[usize], strides: &[usize]) -> Result<View, String> {
        View::new(Dtype::F32, Storage { position: 0, bytes: 48 }, offset, shape.to_vec(), strides.to_vec())
    }

    #[test]
    fn strides_and_offsets() {
        let load = |offset, shape: &[usize], strides: &[usize]| {
            view(offset, shape, strides).unwrap().load(&source()).unwrap().to_vec()
        };
        assert_eq!(load(2, &[2, 3], &[3, 1]), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(load(0, &[3, 2], &[1, 3]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(load(11, &[3], &[0]), [11.0; 3]);
        assert_eq!(load(4, &[], &[]), [4.0]);
        assert!(load(12, &[0, 5], &[5, 1]).is_empty());
        assert_eq!(load(1, &[2, 1, 2], &[6, 99, 2]), [1.0, 3.0, 7.0, 9.0]);
    }

    #[test]
    fn what_reaches_beyond_is_refused() {
        for (offset, shape, strides) in [
            (0, &[13usize][..], &[1usize][..]),
            (12, &[1], &[1]),
            (0, &[2, 2], &[11, 1]),
            (0, &[2], &[usize::MAX]),
            (u64::MAX, &[1], &[1]),
            (0, &[usize::MAX, 2], &[0, 0]),
            (13, &[0], &[1]),
            (0, &[2], &[1, 1]),
        ] {
            assert!(view(offset, shape, strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }
}
