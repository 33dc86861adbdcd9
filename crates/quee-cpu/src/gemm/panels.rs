//! B, packed for tiles.

/// Bytes of a cache line; panels start at a multiple of it.
const LINE: usize = 64;

/// A matrix of `n` columns and `groups` groups, packed in panels.
///
/// Panels follow each other. Each has `vectors · lanes` columns, `max_vectors` vectors but for the last panel, which has as many as its
/// columns need; columns beyond `n` are zero. Inside a panel: `[groups][columns]`.
#[derive(Debug)]
pub(crate) struct Panels<T> {
    n: usize,
    groups: usize,
    lanes: usize,
    max_vectors: usize,
    /// Storage, with room to begin at a cache line.
    data: Vec<T>,
    start: usize,
}

/// One panel.
pub(crate) struct Panel<'a, T> {
    /// First column.
    pub column: usize,
    /// Vectors of `lanes` columns.
    pub vectors: usize,
    /// Groups `[groups][vectors · lanes]`.
    pub data: &'a [T],
}

impl<T: Copy + Default> Panels<T> {
    /// Panels for tiles of up to `max_vectors` vectors of `lanes` columns; empty until filled.
    pub fn new(lanes: usize, max_vectors: usize) -> Self {
        Self { n: 0, groups: 0, lanes, max_vectors, data: Vec::new(), start: 0 }
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Groups of a column.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Replaces the content. `column(c, out, stride)` is called for every column c and writes its groups to
    /// `out[0]`, `out[stride]`, `out[2 · stride]`, …
    pub fn fill(&mut self, n: usize, groups: usize, mut column: impl FnMut(usize, &mut [T], usize)) {
        (self.n, self.groups) = (n, groups);
        let padded = n.next_multiple_of(self.lanes);
        self.data.clear();
        self.data.resize(padded * groups + LINE / size_of::<T>(), T::default());
        let skip = self.data.as_ptr().align_offset(LINE);
        self.start = if skip < LINE / size_of::<T>() { skip } else { 0 };
        if groups == 0 {
            return;
        }
        let panel_columns = self.lanes * self.max_vectors;
        let data = &mut self.data[self.start..];
        for c in 0..n {
            let first = c / panel_columns * panel_columns;
            let width = panel_columns.min(padded - first);
            column(c, &mut data[first * groups + c - first..(first + width) * groups], width);
        }
    }

    /// The panels in the order of their columns.
    pub fn iter(&self) -> impl Iterator<Item = Panel<'_, T>> {
        let padded = self.n.next_multiple_of(self.lanes);
        let panel_columns = self.lanes * self.max_vectors;
        (0..padded).step_by(panel_columns).map(move |column| {
            let width = panel_columns.min(padded - column);
            let at = self.start + column * self.groups;
            Panel { column, vectors: width / self.lanes, data: &self.data[at..at + width * self.groups] }
        })
    }
}
