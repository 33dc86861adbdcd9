//! The loops around register tiles, and tiles in plain Rust.

use super::panels::Panels;

/// Rows of a full tile.
pub(crate) const ROWS: usize = 6;
/// Columns of the widest tile of any instruction set.
const MOST_COLUMNS: usize = 64;

/// What a tile multiplies: `rows` rows of A, `stride` groups apart, and one panel of B.
pub(crate) struct TileInput<'a, G, S> {
    pub groups: usize,
    pub a: &'a [G],
    pub stride: usize,
    pub b: &'a [G],
    /// What the sums of each row start from.
    pub start: &'a [S],
}

/// A register tile: `out[i, j] = start[i] + Σ_g dot(a[i, g], b[g, j])`.
pub(crate) trait Tile {
    /// One group of A or B.
    type Group: Copy + Default;
    /// A sum.
    type Sum: Copy + Default;
    /// Columns of one vector.
    const LANES: usize;
    /// Vectors of a full panel.
    const VECTORS: usize;

    /// Computes a tile of `input.start.len()` rows (at most [`ROWS`]) and `vectors` vectors into `out`, rows `stride` apart.
    fn run(&self, vectors: usize, input: &TileInput<Self::Group, Self::Sum>, out: &mut [Self::Sum], stride: usize);
}

/// Multiplies all rows of A by all panels of B. `start` has one element per row; `out` is `[m, n]`.
pub(crate) fn multiply<T: Tile>(
    tile: &T,
    a: &[T::Group],
    stride: usize,
    start: &[T::Sum],
    b: &Panels<T::Group>,
    out: &mut [T::Sum],
) {
    let (n, groups) = (b.n(), b.groups());
    let mut edge = [T::Sum::default(); ROWS * MOST_COLUMNS];
    for panel in b.iter() {
        let columns = panel.vectors * T::LANES;
        for row in (0..start.len()).step_by(ROWS) {
            let rows = ROWS.min(start.len() - row);
            let start = &start[row..row + rows];
            let input = TileInput { groups, a: &a[row * stride..], stride, b: panel.data, start };
            if panel.column + columns <= n {
                tile.run(panel.vectors, &input, &mut out[row * n + panel.column..], n);
            } else {
                tile.run(panel.vectors, &input, &mut edge, columns);
                for (i, sums) in edge.chunks_exact(columns).take(rows).enumerate() {
                    let at = (row + i) * n;
                    out[at + panel.column..at + n].copy_from_slice(&sums[..n - panel.column]);
                }
            }
        }
    }
}

/// Picks the instance of a tile function that is generic over rows and vectors.
macro_rules! by_size {
    ($rows:expr, $vectors:expr, [$($v:literal)*], $f:ident, $args:tt) => {
        match ($rows, $vectors) {
            $(
                (1, $v) => $crate::gemm::tile::by_size!(@call $f, 1, $v, $args),
                (2, $v) => $crate::gemm::tile::by_size!(@call $f, 2, $v, $args),
                (3, $v) => $crate::gemm::tile::by_size!(@call $f, 3, $v, $args),
                (4, $v) => $crate::gemm::tile::by_size!(@call $f, 4, $v, $args),
                (5, $v) => $crate::gemm::tile::by_size!(@call $f, 5, $v, $args),
                (6, $v) => $crate::gemm::tile::by_size!(@call $f, 6, $v, $args),
            )*
            (rows, vectors) => unreachable!("no tile of {rows} rows and {vectors} vectors"),
        }
    };
    (@call $f:ident, $r:literal, $v:literal, ($($arg:expr),*)) => { $f::<$r, $v>($($arg),*) };
}
pub(crate) use by_size;

/// The product of two groups, added to a sum: what one lane of an instruction does.
pub(crate) trait Lane {
    type Group: Copy + Default;
    type Sum: Copy + Default;
    fn add_product(sum: Self::Sum, a: Self::Group, b: Self::Group) -> Self::Sum;
}

/// One float per group, without fused multiply-add.
pub(crate) struct Single;

impl Lane for Single {
    type Group = f32;
    type Sum = f32;
    #[inline(always)]
    fn add_product(sum: f32, a: f32, b: f32) -> f32 {
        sum + a * b
    }
}

/// A tile in plain Rust: `L` says what a group is, `COLUMNS` how many columns a vector has, `VECTORS` how many a panel has.
pub(crate) struct Plain<L, const COLUMNS: usize, const VECTORS: usize>(pub L);

impl<L: Lane, const COLUMNS: usize, const VECTORS: usize> Tile for Plain<L, COLUMNS, VECTORS> {
    type Group = L::Group;
    type Sum = L::Sum;
    const LANES: usize = COLUMNS;
    const VECTORS: usize = VECTORS;

    fn run(&self, vectors: usize, input: &TileInput<L::Group, L::Sum>, out: &mut [L::Sum], stride: usize) {
        for v in 0..vectors {
            plain_rows::<L, COLUMNS>(vectors, v, input, &mut out[v * COLUMNS..], stride);
        }
    }
}

fn plain_rows<L: Lane, const COLUMNS: usize>(
    vectors: usize,
    vector: usize,
    input: &TileInput<L::Group, L::Sum>,
    out: &mut [L::Sum],
    stride: usize,
) {
    // Three rows at a time: the sums of six would not fit the registers of a baseline x86-64.
    let mut row = 0;
    while row < input.start.len() {
        let rows = (input.start.len() - row).min(3);
        let (width, out) = (vectors * COLUMNS, &mut out[row * stride..]);
        let args = TileInput { a: &input.a[row * input.stride..], start: &input.start[row..row + rows], ..*input };
        match rows {
            1 => plain::<L, COLUMNS, 1>(width, vector, &args, out, stride),
            2 => plain::<L, COLUMNS, 2>(width, vector, &args, out, stride),
            _ => plain::<L, COLUMNS, 3>(width, vector, &args, out, stride),
        }
        row += rows;
    }
}

fn plain<L: Lane, const COLUMNS: usize, const R: usize>(
    width: usize,
    vector: usize,
    input: &TileInput<L::Group, L::Sum>,
    out: &mut [L::Sum],
    stride: usize,
) {
    let rows: [&[L::Group]; R] = std::array::from_fn(|i| &input.a[i * input.stride..][..input.groups]);
    let mut sums: [[L::Sum; COLUMNS]; R] = std::array::from_fn(|i| [input.start[i]; COLUMNS]);
    for (g, b) in input.b.chunks_exact(width).enumerate() {
        let b: &[L::Group; COLUMNS] = b[vector * COLUMNS..].first_chunk().expect("a panel has whole vectors");
        for i in 0..R {
            let a = rows[i][g];
            for j in 0..COLUMNS {
                sums[i][j] = L::add_product(sums[i][j], a, b[j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        out[i * stride..][..COLUMNS].copy_from_slice(sums);
    }
}

/// A tile of sign-extended codes in plain Rust: one column, one code per group. A sum along k is the form that compilers
/// know to turn into 16-bit multiply-add instructions.
pub(crate) struct Dots;

impl Tile for Dots {
    type Group = i16;
    type Sum = i32;
    const LANES: usize = 1;
    const VECTORS: usize = 1;

    fn run(&self, _vectors: usize, input: &TileInput<i16, i32>, out: &mut [i32], stride: usize) {
        let column = &input.b[..input.groups];
        let mut row = 0;
        while row < input.start.len() {
            let (a, start, out) = (&input.a[row * input.stride..], &input.start[row..], &mut out[row * stride..]);
            row += match start.len() {
                1 => dots::<1>(column, a, input.stride, start, out, stride),
                2 => dots::<2>(column, a, input.stride, start, out, stride),
                _ => dots::<3>(column, a, input.stride, start, out, stride),
            };
        }
    }
}

/// Sums of `R` rows with one column; returns `R`.
fn dots<const R: usize>(
    column: &[i16],
    a: &[i16],
    a_stride: usize,
    start: &[i32],
    out: &mut [i32],
    out_stride: usize,
) -> usize {
    let rows: [&[i16]; R] = std::array::from_fn(|i| &a[i * a_stride..][..column.len()]);
    let mut sums = [0i32; R];
    for (l, &b) in column.iter().enumerate() {
        for i in 0..R {
            sums[i] = sums[i].wrapping_add(i32::from(rows[i][l]) * i32::from(b));
        }
    }
    for i in 0..R {
        out[i * out_stride] = start[i].wrapping_add(sums[i]);
    }
    R
}
