//! Which kernel runs: the tiles that there are for products and the one to take for a shape, and the kernels over rows.
//!
//! All tiles give the same bits, so a choice is about time only. [`Gpu::tile`](crate::Gpu::tile) answers with the tile that
//! [`Gpu::set_tile`](crate::Gpu::set_tile) has set for a class of shapes, or with [`usual`].

use crate::kernels::{self, Source};

/// What decides which kernels a device can run, and which suit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether kernels for discrete GPUs suit it, rather than those for software adapters.
    pub tiled: bool,
    /// Whether it has matrix units that the kernels can use.
    pub matrix_units: bool,
}

/// What a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// Integer codes.
    Codes,
    /// 32-bit floats.
    Floats,
}

/// Sizes of `batch` independent products `[m, k] · [k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What is multiplied.
    pub operands: Operands,
    /// Rows of the left operand.
    pub m: usize,
    /// Columns of the right operand.
    pub n: usize,
    /// The summed axis.
    pub k: usize,
    /// Independent products.
    pub batch: usize,
}

impl Shape {
    /// The shapes that share a choice: rows and products change with the batch, so they are rounded up to a power of two.
    #[must_use]
    pub fn class(self) -> Self {
        Self { m: self.m.next_power_of_two(), batch: self.batch.next_power_of_two(), ..self }
    }
}

/// A kernel with its constants, and what one of its workgroups computes.
#[derive(Debug)]
pub struct Tile {
    /// Kernel and rows × columns of a workgroup, e.g. `tiled 64x64`.
    pub name: &'static str,
    /// Rows of a workgroup.
    pub rows: usize,
    /// Columns of a workgroup.
    pub columns: usize,
    pub(crate) source: &'static Source,
    pub(crate) constants: &'static [(&'static str, f64)],
}

impl PartialEq for Tile {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.source.name) == (other.name, other.source.name)
    }
}

impl Tile {
    /// File of the kernel, without its ending.
    pub fn kernel(&self) -> &'static str {
        self.source.name
    }

    /// Whether invocations load their operands themselves, without shared memory.
    pub(crate) fn is_direct(&self) -> bool {
        [&kernels::MATMUL_CODES, &kernels::MATMUL_FLOAT].iter().any(|direct| direct.name == self.source.name)
    }

    /// Whether it needs matrix units.
    pub fn is_matrix(&self) -> bool {
        self.source.name == kernels::MATMUL_CODES_MATRIX.name
    }

    /// Whether a device with these abilities computes the product with it, exactly.
    pub fn can(&self, shape: Shape, abilities: Abilities) -> bool {
        !self.is_matrix() || (abilities.matrix_units && shape.k <= MATRIX_K)
    }

    fn workgroups(&self, shape: Shape) -> usize {
        shape.m.div_ceil(self.rows) * shape.n.div_ceil(self.columns) * shape.batch
    }

    /// Whether its workgroups compute at most a quarter more outputs, many of them outside the product, than those of the smallest tile.
    fn fits(&self, shape: Shape) -> bool {
        let computed = |rows, columns| shape.m.next_multiple_of(rows) * shape.n.next_multiple_of(columns);
        4 * computed(self.rows, self.columns) <= 5 * computed(32, 32)
    }
}

type Constants = &'static [(&'static str, f64)];

const fn blocks(size: [u8; 2], blocks: [u8; 2], step: u8) -> [(&'static str, f64); 5] {
    [
        ("SIZE_X", size[0] as f64),
        ("SIZE_Y", size[1] as f64),
        ("ROW_BLOCKS", blocks[0] as f64),
        ("COLUMN_BLOCKS", blocks[1] as f64),
        ("STEP", step as f64),
    ]
}

/// Constants of the tiled kernels, as the heads of their files list them.
const TILED: [(&str, usize, usize, Constants); 5] = [
    ("tiled 128x128", 128, 128, &blocks([16, 16], [2, 2], 4)),
    ("tiled 64x128", 64, 128, &blocks([16, 16], [1, 2], 4)),
    ("tiled 64x64", 64, 64, &blocks([16, 16], [1, 1], 8)),
    ("tiled 32x64", 32, 64, &blocks([16, 8], [1, 1], 8)),
    ("tiled 32x32", 32, 32, &blocks([8, 8], [1, 1], 8)),
];

/// The longest sums that matrix units add up without rounding: 1,024 products of 8-bit codes stay within 2^24.
const MATRIX_K: usize = 1024;

const fn groups(m: u8, n: u8) -> [(&'static str, f64); 2] {
    [("GROUPS_M", m as f64), ("GROUPS_N", n as f64)]
}

const fn matrix(name: &'static str, rows: usize, columns: usize, constants: Constants) -> Tile {
    Tile { name, rows, columns, source: &kernels::MATMUL_CODES_MATRIX, constants }
}

const fn tiled(at: usize, source: &'static Source) -> Tile {
    let (name, rows, columns, constants) = TILED[at];
    Tile { name, rows, columns, source, constants }
}

const fn dot(name: &'static str, columns: usize, constants: Constants) -> Tile {
    Tile { name, rows: 4, columns, source: &kernels::MATMUL_CODES_DOT, constants }
}

const fn direct(source: &'static Source) -> Tile {
    Tile { name: "direct 8x32", rows: 8, columns: 32, source, constants: &[] }
}

/// Tiles of products of codes: for software adapters, for few rows, then from large to small, on matrix units and without.
static CODES: [Tile; 13] = [
    direct(&kernels::MATMUL_CODES),
    Tile { name: "direct 16x32", rows: 16, columns: 32, source: &kernels::MATMUL_CODES, constants: &[("TALL", 1.0)] },
    dot("dot 4x32", 32, &[("COLUMNS", 32.0), ("PARTS", 8.0)]),
    dot("dot 4x64", 64, &[("COLUMNS", 64.0), ("PARTS", 4.0)]),
    matrix("matrix 128x128", 128, 128, &groups(4, 4)),
    matrix("matrix 64x128", 64, 128, &groups(2, 4)),
    matrix("matrix 64x64", 64, 64, &groups(2, 2)),
    matrix("matrix 32x64", 32, 64, &groups(1, 2)),
    tiled(0, &kernels::MATMUL_CODES_TILED),
    tiled(1, &kernels::MATMUL_CODES_TILED),
    tiled(2, &kernels::MATMUL_CODES_TILED),
    tiled(3, &kernels::MATMUL_CODES_TILED),
    tiled(4, &kernels::MATMUL_CODES_TILED),
];

/// The same for products of floats.
static FLOATS: [Tile; 6] = [
    direct(&kernels::MATMUL_FLOAT),
    tiled(0, &kernels::MATMUL_FLOAT_TILED),
    tiled(1, &kernels::MATMUL_FLOAT_TILED),
    tiled(2, &kernels::MATMUL_FLOAT_TILED),
    tiled(3, &kernels::MATMUL_FLOAT_TILED),
    tiled(4, &kernels::MATMUL_FLOAT_TILED),
];

/// Every tile for products of these operands, on whatever device.
pub fn all(operands: Operands) -> &'static [Tile] {
    match operands {
        Operands::Codes => &CODES,
        Operands::Floats => &FLOATS,
    }
}

/// The tiles with which a device can compute a product.
pub fn candidates(shape: Shape, abilities: Abilities) -> impl Iterator<Item = &'static Tile> {
    all(shape.operands).iter().filter(move |tile| tile.can(shape, abilities))
}

/// The tile of that name.
pub fn named(operands: Operands, name: &str) -> Option<&'static Tile> {
    all(operands).iter().find(|tile| tile.name == name)
}

/// Where the kernels for few rows begin among those of codes.
const DOT: usize = 2;
/// Where those of matrix units begin, and how many there are.
const MATRIX: usize = 4;
const MATRICES: usize = 4;

/// Up to so many rows, a tile would be mostly empty.
const FEW_ROWS: usize = 8;
/// Workgroups that keep a large GPU busy: about two for each of its multiprocessors.
const ENOUGH: usize = 256;

/// The tile to take where nothing was measured: on software adapters the kernel without shared memory; otherwise the largest tile that fits
/// the product and leaves enough workgroups, or else the smallest, on matrix units where there are some.
pub fn usual(shape: Shape, abilities: Abilities) -> &'static Tile {
    let all = all(shape.operands);
    let direct = || all.iter().filter(|tile| tile.is_direct());
    if !abilities.tiled {
        // A taller tile unpacks columns less often, but rows beyond the last are computed in vain.
        let computed = |tile: &Tile| shape.m.next_multiple_of(tile.rows);
        let good = |tile: &&Tile| 10 * computed(tile) <= 11 * computed(&all[0]);
        return direct().rfind(good).expect("the first one is");
    }
    let tiles = match shape.operands {
        Operands::Codes if shape.m <= FEW_ROWS => return &all[DOT],
        Operands::Floats if shape.m <= FEW_ROWS => return &all[0],
        // Larger tiles of matrix units win by little where they do, and lose more elsewhere; in the small products of attention all of them lose.
        Operands::Codes if shape.batch == 1 && all[MATRIX].can(shape, abilities) => &all[MATRIX + 2..MATRIX + MATRICES],
        _ => &all[all.len() - TILED.len()..],
    };
    let good = |tile: &&Tile| tile.fits(shape) && tile.workgroups(shape) >= ENOUGH;
    tiles.iter().find(good).unwrap_or(&tiles[tiles.len() - 1])
}

/// What a kernel does with each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOperation {
    Quantize,
    Normalise,
    Features,
}

/// The kernel for an operation on rows, and the rows of one of its workgroups. It depends on the device alone: how a driver fuses float
/// operations may differ from kernel to kernel, and a row must not depend on those beside it.
pub(crate) fn row_kernel(operation: RowOperation, is_tiled: bool) -> (&'static Source, usize) {
    match (operation, is_tiled) {
        (RowOperation::Quantize, false) => (&kernels::ROWS_CODES, 32),
        (RowOperation::Quantize, true) => (&kernels::ROWS_CODES_WIDE, 16),
        (RowOperation::Normalise, false) => (&kernels::ROWS_FLOAT, 32),
        (RowOperation::Normalise, true) => (&kernels::ROWS_FLOAT_WIDE, 16),
        (RowOperation::Features, false) => (&kernels::PERFORMER_FEATURES, 32),
        (RowOperation::Features, true) => (&kernels::PERFORMER_FEATURES_WIDE, 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_a_variant_that_the_build_has_checked() {
        for tile in CODES.iter().chain(&FLOATS) {
            assert!(tile.source.variants.iter().any(|known| known.constants == tile.constants), "{tile:?}");
            assert!(tile.name.ends_with(&format!(" {}x{}", tile.rows, tile.columns)), "{tile:?}");
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for operands in [Operands::Codes, Operands::Floats] {
            for (at, tile) in all(operands).iter().enumerate() {
                assert!(std::ptr::eq(named(operands, tile.name).unwrap(), &all(operands)[at]));
            }
        }
        assert_eq!(named(Operands::Floats, "dot 4x32"), None);
    }

    #[test]
    fn few_workgroups_get_smaller_tiles() {
        let discrete = Abilities { tiled: true, matrix_units: false };
        let name = |operands, m, n, batch| usual(Shape { operands, m, n, k: 768, batch }, discrete).name;
        assert_eq!(name(Operands::Codes, 64 * 197, 768, 1), "tiled 128x128");
        assert_eq!(name(Operands::Codes, 8 * 197, 768, 1), "tiled 64x64");
        assert_eq!(name(Operands::Codes, 197, 768, 1), "tiled 32x32");
        assert_eq!(name(Operands::Codes, 1, 1000, 1), "dot 4x32");
        assert_eq!(name(Operands::Floats, 1, 1000, 1), "direct 8x32");
        assert_eq!(name(Operands::Codes, 197, 64, 768), "tiled 64x64");
    }

    #[test]
    fn matrix_units_are_used_where_their_sums_are_exact() {
        let abilities = Abilities { tiled: true, matrix_units: true };
        let of = |operands, m, k| usual(Shape { operands, m, n: 768, k, batch: 1 }, abilities);
        assert!(of(Operands::Codes, 64 * 197, 1024).is_matrix());
        assert!(of(Operands::Codes, 197, 768).is_matrix());
        assert!(!of(Operands::Codes, 64 * 197, 1025).is_matrix());
        assert!(!of(Operands::Codes, 8, 768).is_matrix());
        let heads = Shape { operands: Operands::Codes, m: 65, n: 65, k: 64, batch: 192 };
        assert!(!usual(heads, abilities).is_matrix());
        assert!(!of(Operands::Floats, 64 * 197, 768).is_matrix());
        assert!(all(Operands::Codes)[MATRIX..][..MATRICES].iter().all(Tile::is_matrix));
        assert_eq!(all(Operands::Codes).iter().filter(|tile| tile.is_matrix()).count(), MATRICES);
    }

    #[test]
    fn software_adapters_get_taller_tiles_for_many_rows() {
        let software = Abilities { tiled: false, matrix_units: false };
        let name = |operands, m| usual(Shape { operands, m, n: 999, k: 9, batch: 9 }, software).name;
        assert_eq!(name(Operands::Codes, 999), "direct 16x32");
        assert_eq!(name(Operands::Codes, 65), "direct 8x32");
        assert_eq!(name(Operands::Floats, 999), "direct 8x32");
    }

    #[test]
    fn batches_of_similar_size_are_one_class() {
        let of = |m| Shape { operands: Operands::Codes, m, n: 100, k: 60, batch: 3 }.class();
        assert_eq!(of(129), of(256));
        assert_ne!(of(129), of(128));
        assert_eq!((of(1).n, of(1).k, of(1).batch), (100, 60, 4));
    }
}
