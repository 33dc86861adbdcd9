//! The right operand of a product, packed, and the register tiles over it.

use std::arch::x86_64::*;

use super::LANES;
use super::amx::{self, Tiles};
use crate::isa::Isa;

/// Rows of a full tile.
pub(crate) const ROWS: usize = 6;
/// Vectors of a full panel.
pub(crate) const VECTORS: usize = 4;
/// Groups of a turn of the inner loop.
const UNROLL: usize = 4;
/// Codes of a column that one instruction multiplies and adds.
pub(crate) const GROUP: usize = 4;

/// A vector of bytes in memory: 16 columns of four codes each.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [i8; 64]);

/// A matrix of `n` columns of `k` codes.
///
/// Panels of 64 columns follow each other; the last one has as many vectors as its columns need, up to five. Inside a panel: `[groups][vectors]` lines.
/// Columns beyond `n` and codes beyond `k` are 0.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    n: usize,
    k: usize,
    /// Whether products are on AMX where they are large enough.
    tiles: bool,
    lines: Vec<Line>,
}

/// Columns of one panel.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// The first column.
    pub column: usize,
    /// Vectors.
    pub vectors: usize,
    pub lines: &'a [Line],
    /// As in [`Matrix`].
    pub tiles: bool,
}

/// Vectors of the panels of `n` columns: four each, but five in the last where one would be left alone.
pub(crate) fn widths(n: usize) -> impl Iterator<Item = usize> {
    let mut left = n.div_ceil(LANES);
    std::iter::from_fn(move || {
        let width = if left == VECTORS + 1 { left } else { left.min(VECTORS) };
        left -= width;
        (width > 0).then_some(width)
    })
}

impl Matrix {
    /// An empty matrix for products on `isa`. The default one is for products without AMX.
    pub fn on(isa: Isa) -> Self {
        Self { tiles: isa == Isa::Amx, ..Self::default() }
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn k(&self) -> usize {
        self.k
    }

    pub fn groups(&self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Columns with those that fill the last vector.
    pub fn padded(&self) -> usize {
        self.n.next_multiple_of(LANES)
    }

    /// Makes room for `n` columns of `k` codes; what is in it is arbitrary. Memory is kept.
    pub fn resize(&mut self, n: usize, k: usize) {
        (self.n, self.k) = (n, k);
        self.lines.resize(n.div_ceil(LANES) * k.div_ceil(GROUP), Line([0; 64]));
    }

    /// Replaces the content by `codes`, `[n, k]`.
    pub fn pack(&mut self, n: usize, k: usize, codes: &[i8]) {
        assert_eq!(codes.len(), n * k, "codes of {n} x {k}");
        self.clear(n, k);
        let groups = self.groups();
        for (column, vectors, lines) in panels_mut(n, groups, &mut self.lines) {
            let columns = codes[column * k..].chunks_exact(k.max(1)).take(vectors * LANES);
            for (i, codes) in columns.enumerate() {
                let (vector, at) = (i / LANES, i % LANES * GROUP);
                let (whole, tail) = codes.as_chunks::<GROUP>();
                let mut lines = lines.iter_mut().skip(vector).step_by(vectors);
                for (group, line) in whole.iter().zip(lines.by_ref()) {
                    line.0[at..at + GROUP].copy_from_slice(group);
                }
                if let (Some(line), false) = (lines.next(), tail.is_empty()) {
                    line.0[at..at + tail.len()].copy_from_slice(tail);
                }
            }
        }
    }

    /// Replaces the content by the transpose of `codes`, `[k, n]`.
    pub fn pack_transposed(&mut self, n: usize, k: usize, codes: &[i8]) {
        assert_eq!(codes.len(), n * k, "codes of {k} x {n}");
        self.clear(n, k);
        let groups = self.groups();
        for (column, vectors, lines) in panels_mut(n, groups, &mut self.lines) {
            for (g, lines) in lines.chunks_exact_mut(vectors).enumerate() {
                for i in 0..GROUP.min(k - g * GROUP) {
                    let row = &codes[(g * GROUP + i) * n + column..(g * GROUP + i + 1) * n];
                    for (line, codes) in lines.iter_mut().zip(row.chunks(LANES)) {
                        for (lane, &code) in codes.iter().enumerate() {
                            line.0[lane * GROUP + i] = code;
                        }
                    }
                }
            }
        }
    }

    /// Zeros for `n` columns of `k` codes.
    fn clear(&mut self, n: usize, k: usize) {
        self.resize(n, k);
        self.lines.fill(Line([0; 64]));
    }

    /// Sum of every column, `[padded]`.
    pub fn sums(&self, sums: &mut Vec<i32>) {
        sums.clear();
        for panel in self.panels() {
            let at = sums.len();
            sums.resize(at + panel.vectors * LANES, 0);
            for lines in panel.lines.chunks_exact(panel.vectors) {
                for (line, sums) in lines.iter().zip(sums[at..].chunks_exact_mut(LANES)) {
                    for (group, sum) in line.0.chunks_exact(GROUP).zip(sums) {
                        *sum += group.iter().map(|&code| i32::from(code)).sum::<i32>();
                    }
                }
            }
        }
    }

    /// The panels in the order of their columns.
    pub fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        let (mut column, mut line) = (0, 0);
        widths(self.n).map(move |vectors| {
            let lines = &self.lines[line..line + vectors * self.groups()];
            let panel = Panel { column, vectors, lines, tiles: self.tiles };
            column += vectors * LANES;
            line += lines.len();
            panel
        })
    }

    /// All lines, panel by panel.
    pub fn lines_mut(&mut self) -> &mut [Line] {
        &mut self.lines
    }
}

/// First column, vectors and lines of each panel.
fn panels_mut(n: usize, groups: usize, mut lines: &mut [Line]) -> impl Iterator<Item = (usize, usize, &mut [Line])> {
    let mut column = 0;
    widths(n).map(move |vectors| {
        let (panel, rest) = std::mem::take(&mut lines).split_at_mut(vectors * groups);
        lines = rest;
        let first = column;
        column += vectors * LANES;
        (first, vectors, panel)
    })
}

/// Rows of bytes, each a code with 128 added. A row is followed by as many readable bytes as fill its last group; what they are does not
/// matter.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
    rows: usize,
    /// The number that an epilogue knows the first row by.
    first: usize,
}

impl<'a> Rows<'a> {
    /// The rows from `first` on, known to an epilogue by their numbers.
    pub fn part(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows);
        Self { bytes: &self.bytes[first * self.stride..], rows, first: self.first + first, ..self }
    }

    /// `rows` rows of `k` codes, `stride` apart.
    pub fn new(bytes: &'a [u8], stride: usize, rows: usize, k: usize) -> Self {
        let needed = k.next_multiple_of(GROUP);
        assert!(rows == 0 || bytes.len() >= (rows - 1) * stride + needed, "{rows} rows of {k} codes");
        Self { bytes, stride, rows, first: 0 }
    }

    pub fn rows(self) -> usize {
        self.rows
    }

    pub fn stride(self) -> usize {
        self.stride
    }

    /// The number that an epilogue knows row `row` by.
    pub fn number(self, row: usize) -> usize {
        self.first + row
    }

    /// The bytes from row `row` on.
    pub fn row(self, row: usize) -> *const u8 {
        self.bytes[row * self.stride..].as_ptr()
    }

    /// Asks for the first `len` bytes of rows that are read soon.
    pub fn fetch(self, rows: std::ops::Range<usize>, len: usize) {
        fetch(self.bytes, self.stride, rows, len);
    }
}

/// What happens to the sums of a row of a tile.
pub(crate) trait Epilogue {
    /// Whether sums go to memory as they are. Registers that are filled with what sums start from, and stored as soon as the last product is added, hold the
    /// next tile up: such sums start from 0, and the rest is added at the end. Where more is done to them, that would be an operation too many.
    const STORES_SUMS: bool = false;

    /// Takes the sums of `V` vectors of columns, from `column` on, of row `row`.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and VNNI.
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, sums: [__m512i; V]);
}

/// `sums[i, j] = start[j] + Σ_k (a[i, k] + 128) · b[j, k]` of all rows and columns, handed to `epilogue` tile by tile.
///
/// `start` has an element for each padded column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn multiply<E: Epilogue>(a: Rows, b: &Matrix, start: &[i32], epilogue: &mut E) {
    assert!(start.len() >= b.padded());
    let tiles = Tiles::where_faster(b.tiles, a.rows, b.groups());
    for panel in b.panels() {
        panel_by(tiles.as_ref(), a, b.groups(), &panel, start, epilogue);
    }
}

/// Asks for the bytes of rows that are read soon: `rows` of `len` bytes, `stride` apart.
#[inline]
pub(crate) fn fetch<T>(memory: &[T], stride: usize, rows: std::ops::Range<usize>, len: usize) {
    const LINE: usize = 64;
    for row in rows {
        for at in (0..len).step_by(LINE) {
            // Nothing is read, and the address may be one behind the memory.
            let from = memory.as_ptr().cast::<i8>().wrapping_add(row * stride + at);
            // SAFETY: a hint to the processor, which every x86-64 has.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from) };
        }
    }
}

/// [`multiply`] with the columns of one panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn multiply_panel<E: Epilogue>(a: Rows, groups: usize, panel: &Panel, start: &[i32], epilogue: &mut E) {
    let tiles = Tiles::where_faster(panel.tiles, a.rows, groups);
    panel_by(tiles.as_ref(), a, groups, panel, start, epilogue);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn panel_by<E: Epilogue>(
    tiles: Option<&Tiles>,
    a: Rows,
    groups: usize,
    panel: &Panel,
    start: &[i32],
    epilogue: &mut E,
) {
    match panel.vectors {
        1 => panel_tiles::<1, E>(tiles, a, groups, panel, start, epilogue),
        2 => panel_tiles::<2, E>(tiles, a, groups, panel, start, epilogue),
        3 => panel_tiles::<3, E>(tiles, a, groups, panel, start, epilogue),
        4 => panel_tiles::<4, E>(tiles, a, groups, panel, start, epilogue),
        _ => panel_tiles::<5, E>(tiles, a, groups, panel, start, epilogue),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn panel_tiles<const V: usize, E: Epilogue>(
    tiles: Option<&Tiles>,
    a: Rows,
    groups: usize,
    panel: &Panel,
    start: &[i32],
    epilogue: &mut E,
) {
    if let Some(tiles) = tiles {
        return amx::panel_tiles::<V, E>(tiles, a, groups, panel, start, epilogue);
    }
    let start = &start[panel.column..panel.column + V * LANES];
    assert!(panel.lines.len() == groups * V);
    let (lines, column) = (panel.lines.as_ptr(), panel.column);
    let most = if V > VECTORS { ROWS - 1 } else { ROWS };
    let mut row = 0;
    while row < a.rows {
        let left = a.rows - row;
        // Two halves are better than a full tile and a small rest.
        let rows = if left > most && left < 2 * most { left.div_ceil(2) } else { left.min(most) };
        if column == 0 {
            // Rows are read for the first time: those of the next tile are fetched meanwhile.
            a.fetch(row + rows..a.rows.min(row + 2 * rows), groups * GROUP);
        }
        // SAFETY: `Rows` holds the bytes of `rows` rows from `row` on with whole groups; `lines` are groups · V; `start` is V vectors.
        unsafe {
            let (bytes, number) = (a.row(row), a.number(row));
            match rows {
                1 => tile::<1, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
                2 => tile::<2, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
                3 => tile::<3, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
                4 => tile::<4, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
                5 => tile::<5, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
                _ => tile::<6, V, E>(bytes, a.stride, groups, lines, start.as_ptr(), number, column, epilogue),
            }
        }
        row += rows;
    }
}

/// # Safety
/// `a` has `R` rows of `groups` groups, `stride` bytes apart; `b` has `groups · V` lines; `start` has `V` vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<const R: usize, const V: usize, E: Epilogue>(
    a: *const u8,
    stride: usize,
    groups: usize,
    b: *const Line,
    start: *const i32,
    row: usize,
    column: usize,
    epilogue: &mut E,
) {
    // SAFETY: `start` has V vectors.
    let starts = |v: usize| unsafe { _mm512_loadu_si512(start.add(v * LANES).cast()) };
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    if !E::STORES_SUMS {
        for v in 0..V {
            let start = starts(v);
            sums.iter_mut().for_each(|sums| sums[v] = start);
        }
    }
    let mut g = 0;
    // A few groups at a time: the end of a short loop is foreseen better.
    while g + UNROLL <= groups {
        for u in 0..UNROLL {
            // SAFETY: g + u < groups.
            unsafe { step(&mut sums, a.add((g + u) * GROUP), stride, b.add((g + u) * V)) };
        }
        g += UNROLL;
    }
    while g < groups {
        // SAFETY: g < groups.
        unsafe { step(&mut sums, a.add(g * GROUP), stride, b.add(g * V)) };
        g += 1;
    }
    for (i, mut sums) in sums.into_iter().enumerate() {
        if E::STORES_SUMS {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_add_epi32(*sum, starts(v));
            }
        }
        // SAFETY: the features of `Epilogue::row` are enabled here.
        unsafe { epilogue.row(row + i, column, sums) };
    }
}

/// One group of `R` rows and `V` vectors of columns.
///
/// # Safety
/// `a` has `R` groups, `stride` bytes apart; `b` has `V` lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn step<const R: usize, const V: usize>(
    sums: &mut [[__m512i; V]; R],
    a: *const u8,
    stride: usize,
    b: *const Line,
) {
    let mut columns = [_mm512_setzero_si512(); V];
    for (v, column) in columns.iter_mut().enumerate() {
        // SAFETY: `b` has V lines.
        *column = unsafe { _mm512_load_si512(b.add(v).cast()) };
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: row i < R has four bytes.
        let group = _mm512_set1_epi32(unsafe { a.add(i * stride).cast::<i32>().read_unaligned() });
        for v in 0..V {
            sums[v] = _mm512_dpbusd_epi32(sums[v], group, columns[v]);
        }
    }
}
