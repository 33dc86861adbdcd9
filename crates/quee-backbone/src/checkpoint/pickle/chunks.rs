//! A vector that grows without copying.

/// Values in pieces of equal length, so that a growing list takes no more memory than its values and one piece.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    pieces: Vec<Vec<T>>,
    length: usize,
}

/// Values per piece.
const PIECE: usize = 256;

impl<T> Chunks<T> {
    /// Without values.
    pub fn new() -> Self {
        Self { pieces: Vec::new(), length: 0 }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Appends a value.
    pub fn push(&mut self, value: T) {
        if self.length.is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(value);
            self.length += 1;
        }
    }

    /// The value at a position.
    pub fn get(&self, index: usize) -> Option<&T> {
        self.pieces.get(index / PIECE)?.get(index % PIECE)
    }

    /// As [`get`](Self::get).
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pieces.get_mut(index / PIECE)?.get_mut(index % PIECE)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_positions() {
        let mut chunks = Chunks::new();
        (0..1000).for_each(|i| chunks.push(i));
        *chunks.get_mut(512).unwrap() = -1;
        assert_eq!((chunks.len(), chunks.get(999), chunks.get(1000)), (1000, Some(&999), None));
        assert!(chunks.iter().enumerate().all(|(i, &x)| x == if i == 512 { -1 } else { i as i32 }));
    }
}
