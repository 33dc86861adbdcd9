//! Exact products of integer codes with 32-bit sums.

#[cfg(target_arch = "aarch64")]
use super::arm::{ADDED, NeonCodes as CodesOfFour};
use super::panels::Panels;
use super::tile::{Dots, Tile, multiply};
#[cfg(target_arch = "x86_64")]
use super::x86::{ADDED, Avx2Codes, AvxVnniCodes as CodesOfFour};
#[cfg(target_arch = "x86_64")]
use crate::avx512::{
    matrix::Matrix,
    signed::{SignedRows, SignedScratch, multiply_to_sums},
};
use crate::isa::{Cpu, Isa};

/// Longest K: 2^31 / 128².
const MOST_K: usize = 131_071;

/// The matrix B of a product, codes packed for one instruction set.
#[derive(Debug)]
pub struct PackedB {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    cpu: Cpu,
    k: usize,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    /// Sign-extended codes one by one.
    Singles(Panels<i16>),
    /// Pairs of sign-extended codes.
    #[cfg(target_arch = "x86_64")]
    Pairs(Panels<[i16; 2]>),
    /// Groups of four codes.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Fours(Panels<[i8; 4]>),
    /// Vectors of groups of four, and what the sums of each column start from: −128 · Σ codes.
    #[cfg(target_arch = "x86_64")]
    Quads(Matrix, Vec<i32>),
}

/// How `N` codes become one group of B. Codes beyond K are given as 0.
trait Grouped<const N: usize>: Copy + Default {
    fn of_b(codes: [i8; N]) -> Self;
    fn of_a(codes: [i8; N]) -> Self;
}

impl Grouped<1> for i16 {
    fn of_b([code]: [i8; 1]) -> Self {
        i16::from(code)
    }
    fn of_a([code]: [i8; 1]) -> Self {
        i16::from(code)
    }
}

#[cfg(target_arch = "x86_64")]
impl Grouped<2> for [i16; 2] {
    fn of_b(codes: [i8; 2]) -> Self {
        codes.map(i16::from)
    }
    fn of_a(codes: [i8; 2]) -> Self {
        codes.map(i16::from)
    }
}

/// Where the instruction multiplies signed by unsigned codes, those of B have 128 added; see [`row_starts`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Grouped<4> for [i8; 4] {
    fn of_b(codes: [i8; 4]) -> Self {
        codes.map(|code| code ^ ADDED)
    }
    fn of_a(codes: [i8; 4]) -> Self {
        codes
    }
}

/// Packs B given as rows of codes, `[n, k]`.
fn pack_rows<const N: usize, G: Grouped<N>>(panels: &mut Panels<G>, n: usize, k: usize, codes: &[i8]) {
    panels.fill(n, k.div_ceil(N), |column, out, stride| {
        let (groups, tail) = codes[column * k..][..k].as_chunks::<N>();
        let mut out = out.iter_mut().step_by(stride);
        // The groups come first in `zip`: at their end no place of `out` is skipped.
        for (group, to) in groups.iter().zip(out.by_ref()) {
            *to = G::of_b(*group);
        }
        if let (Some(to), false) = (out.next(), tail.is_empty()) {
            let mut group = [0; N];
            group[..tail.len()].copy_from_slice(tail);
            *to = G::of_b(group);
        }
    });
}

/// Packs B given by its transpose, `[k, n]`.
fn pack_columns<const N: usize, G: Grouped<N>>(panels: &mut Panels<G>, n: usize, k: usize, codes: &[i8]) {
    panels.fill(n, k.div_ceil(N), |column, out, stride| {
        for (g, to) in out.iter_mut().step_by(stride).enumerate() {
            let at = |i: usize| if g * N + i < k { codes[(g * N + i) * n + column] } else { 0 };
            *to = G::of_b(std::array::from_fn(at));
        }
    });
}

/// Codes of A as groups, rows padded to whole groups.
fn group_rows<const N: usize, G: Grouped<N>>(m: usize, k: usize, a: &[i8], stride: usize, out: &mut Vec<G>) {
    out.clear();
    for row in 0..m {
        let (groups, tail) = a[row * stride..][..k].as_chunks::<N>();
        out.extend(groups.iter().map(|group| G::of_a(*group)));
        if !tail.is_empty() {
            let mut group = [0; N];
            group[..tail.len()].copy_from_slice(tail);
            out.push(G::of_a(group));
        }
    }
}

impl PackedB {
    /// An empty matrix for `isa`, to be filled by [`pack`](Self::pack) or [`pack_transposed`](Self::pack_transposed).
    ///
    /// # Panics
    /// When this machine does not have `isa`.
    pub fn new(isa: Isa) -> Self {
        Self::on(Cpu::new(isa))
    }

    pub(crate) fn on(cpu: Cpu) -> Self {
        let packed = match cpu.isa() {
            Isa::Portable => Packed::Singles(Panels::new(Dots::LANES, Dots::VECTORS)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Packed::Pairs(Panels::new(Avx2Codes::LANES, Avx2Codes::VECTORS)),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Isa::AvxVnni | Isa::NeonDot => Packed::Fours(Panels::new(CodesOfFour::LANES, CodesOfFour::VECTORS)),
            #[cfg(target_arch = "x86_64")]
            isa @ (Isa::Avx512Vnni | Isa::Amx) => Packed::Quads(Matrix::on(isa), Vec::new()),
            #[cfg(not(target_arch = "x86_64"))]
            isa => unreachable!("no processor of this architecture has {isa}"),
        };
        Self {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            cpu,
            k: 0,
            packed,
        }
    }

    /// Replaces the content by `codes`, `[n, k]` row-major. Memory is kept for the next time.
    ///
    /// # Panics
    /// When `codes.len() != n * k`, or k is above 131,071 (sums might leave 32 bits).
    pub fn pack(&mut self, n: usize, k: usize, codes: &[i8]) {
        self.check(n, k, codes);
        match &mut self.packed {
            Packed::Singles(panels) => pack_rows(panels, n, k, codes),
            #[cfg(target_arch = "x86_64")]
            Packed::Pairs(panels) => pack_rows(panels, n, k, codes),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Packed::Fours(panels) => pack_rows(panels, n, k, codes),
            #[cfg(target_arch = "x86_64")]
            Packed::Quads(matrix, start) => {
                matrix.pack(n, k, codes);
                starts(matrix, start);
            }
        }
    }

    /// Replaces the content by the transpose of `codes`, `[k, n]` row-major.
    ///
    /// # Panics
    /// As [`pack`](Self::pack).
    pub fn pack_transposed(&mut self, n: usize, k: usize, codes: &[i8]) {
        self.check(n, k, codes);
        match &mut self.packed {
            Packed::Singles(panels) => pack_columns(panels, n, k, codes),
            #[cfg(target_arch = "x86_64")]
            Packed::Pairs(panels) => pack_columns(panels, n, k, codes),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Packed::Fours(panels) => pack_columns(panels, n, k, codes),
            #[cfg(target_arch = "x86_64")]
            Packed::Quads(matrix, start) => {
                matrix.pack_transposed(n, k, codes);
                starts(matrix, start);
            }
        }
    }

    fn check(&mut self, n: usize, k: usize, codes: &[i8]) {
        assert_eq!(codes.len(), n * k, "codes of {n} x {k}");
        assert!(k <= MOST_K, "K of {k}: sums of products might leave 32 bits");
        self.k = k;
    }

    /// Columns of B, which are rows of the codes that were packed.
    pub fn n(&self) -> usize {
        match &self.packed {
            Packed::Singles(panels) => panels.n(),
            #[cfg(target_arch = "x86_64")]
            Packed::Pairs(panels) => panels.n(),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Packed::Fours(panels) => panels.n(),
            #[cfg(target_arch = "x86_64")]
            Packed::Quads(matrix, _) => matrix.n(),
        }
    }

    /// Length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }
}

/// Memory that [`gemm_i8`] needs on the way; keep it from call to call.
#[derive(Debug, Default)]
pub struct GemmScratch {
    singles: Vec<i16>,
    #[cfg(target_arch = "x86_64")]
    pairs: Vec<[i16; 2]>,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fours: Vec<[i8; 4]>,
    #[cfg(target_arch = "x86_64")]
    signed: SignedScratch,
    start: Vec<i32>,
}

/// `out[i, j] = Σ_k a[i, k] · b[j, k]`, exact for all codes from −128 to 127 on both sides.
///
/// `a` holds m rows of K codes, `stride` apart; `out` is `[m, n]`. One thread. A is read in one go: give it rows by the hundred, so that they stay in cache.
/// It is faster where `out` begins at a cache line, and where n is a multiple of 64.
///
/// # Panics
/// When the lengths do not fit.
pub fn gemm_i8(m: usize, a: &[i8], stride: usize, b: &PackedB, out: &mut [i32], scratch: &mut GemmScratch) {
    let (n, k) = (b.n(), b.k);
    assert!(m == 0 || (stride >= k && a.len() >= (m - 1) * stride + k), "A of {m} x {k}, rows {stride} apart");
    assert_eq!(out.len(), m * n, "output of {m} x {n}");
    let start = &mut scratch.start;
    start.clear();
    match &b.packed {
        Packed::Singles(panels) => {
            group_rows(m, k, a, stride, &mut scratch.singles);
            start.resize(m, 0);
            multiply(&Dots, &scratch.singles, panels.groups(), start, panels, out);
        }
        #[cfg(target_arch = "x86_64")]
        Packed::Pairs(panels) => {
            let tile = Avx2Codes::on(b.cpu).expect("pairs are packed for AVX2 alone");
            group_rows(m, k, a, stride, &mut scratch.pairs);
            start.resize(m, 0);
            multiply(&tile, &scratch.pairs, panels.groups(), start, panels, out);
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        Packed::Fours(panels) => {
            let tile = CodesOfFour::on(b.cpu).expect("fours are packed for the processor that has their tile");
            group_rows(m, k, a, stride, &mut scratch.fours);
            row_starts(&scratch.fours, panels.groups(), m, start);
            multiply(&tile, &scratch.fours, panels.groups(), start, panels, out);
        }
        #[cfg(target_arch = "x86_64")]
        Packed::Quads(matrix, start) => {
            let rows = SignedRows { codes: a, stride, rows: m };
            multiply_to_sums(b.cpu, rows, matrix, start, out, &mut scratch.signed);
        }
    }
}

/// What the sums of each of the `m` rows start from: Σ a·(b + 128) = Σ a·b + 128·Σ a, or nothing where nothing is added to b.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn row_starts(rows: &[[i8; 4]], groups: usize, m: usize, starts: &mut Vec<i32>) {
    if ADDED != 0 {
        let sum = |row: &[[i8; 4]]| row.as_flattened().iter().map(|&code| i32::from(code)).sum::<i32>();
        starts.extend(rows.chunks_exact(groups.max(1)).map(|row| i32::from(ADDED) * sum(row)));
    }
    // Rows of no codes at all.
    starts.resize(m, 0);
}

/// Σ (a + 128)·b = Σ a·b + 128·Σ b.
#[cfg(target_arch = "x86_64")]
fn starts(matrix: &Matrix, start: &mut Vec<i32>) {
    matrix.sums(start);
    start.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(-128));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quee_quant::reference::matmul_codes;

    /// Codes of `bits` bits; half of them are the extremes.
    fn codes(bits: u8) -> impl Fn(u64) -> i8 {
        let (lo, hi) = (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1);
        move |seed| {
            let mixed = (seed.wrapping_add(0x9e37_79b9)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33;
            match mixed % 4 {
                0 => lo as i8,
                1 => hi as i8,
                _ => (lo + (mixed / 4) as i64 % (hi - lo + 1)) as i8,
            }
        }
    }

    fn check(m: usize, n: usize, k: usize, gap: usize, a_bits: u8, b_bits: u8, seed: u64) {
        let (of_a, of_b) = (codes(a_bits), codes(b_bits));
        let stride = k + gap;
        let padded: Vec<i8> = (0..(m * stride) as u64).map(|i| of_a(seed.wrapping_add(i))).collect();
        let a: Vec<i8> = (0..m).flat_map(|i| padded[i * stride..][..k].to_vec()).collect();
        let b: Vec<i8> = (0..(n * k) as u64).map(|i| of_b(seed.wrapping_mul(31).wrapping_add(i))).collect();
        let b_transposed: Vec<i8> = (0..k).flat_map(|l| (0..n).map(|j| b[j * k + l]).collect::<Vec<_>>()).collect();
        let want = matmul_codes(m, n, k, &a, &b);
        let mut scratch = GemmScratch::default();
        for isa in Isa::available() {
            let mut packed = PackedB::new(isa);
            // What an earlier use left behind must not matter.
            packed.pack(3, 5, &[77; 15]);
            for transposed in [false, true] {
                if transposed {
                    packed.pack_transposed(n, k, &b_transposed);
                } else {
                    packed.pack(n, k, &b);
                }
                let mut out = vec![i32::MIN; m * n];
                gemm_i8(m, &padded, stride, &packed, &mut out, &mut scratch);
                assert_eq!(out, want, "{isa}, {m} x {n} x {k}, transposed {transposed}");
            }
        }
    }

    /// Shapes around the tiles of AMX: fewer rows than it takes, one more than a tile, a last tile that begins before the one before it ends, five
    /// vectors in a panel, codes that fill no tile.
    #[test]
    fn shapes_around_tiles_equal_the_reference() {
        for (m, n, k) in
            [(9, 64, 192), (10, 16, 128), (17, 80, 130), (33, 65, 252), (65, 576, 192), (40, 33, 127), (72, 48, 321)]
        {
            check(m, n, k, 3, 8, 8, (m * n * k) as u64);
        }
    }

    /// The tile of AVX-VNNI, by whichever encoding of its instruction this machine has: with AVX-512 alone, `available` does not name it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn sums_of_four_products_equal_the_reference() {
        use crate::gemm::x86::Avx512Quads;
        let fast = Isa::Avx512Vnni.is_available().then(|| Cpu::new(Isa::Avx512Vnni));
        let Some(tile) = fast.and_then(Avx512Quads::on) else { return };
        let (of_a, of_b) = (codes(8), codes(8));
        for (m, n, k) in [(1, 1, 1), (5, 16, 4), (6, 17, 7), (13, 40, 192), (20, 33, 65)] {
            let a: Vec<i8> = (0..(m * k) as u64).map(&of_a).collect();
            let b: Vec<i8> = (0..(n * k) as u64).map(|i| of_b(i + 977)).collect();
            let mut panels: Panels<[i8; 4]> = Panels::new(CodesOfFour::LANES, CodesOfFour::VECTORS);
            pack_rows(&mut panels, n, k, &b);
            let (mut rows, mut start, mut out) = (Vec::new(), Vec::new(), vec![i32::MIN; m * n]);
            group_rows(m, k, &a, k, &mut rows);
            row_starts(&rows, panels.groups(), m, &mut start);
            multiply(&tile, &rows, panels.groups(), &start, &panels, &mut out);
            assert_eq!(out, matmul_codes(m, n, k, &a, &b), "{m} x {n} x {k}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn products_equal_the_reference(
            m in 1usize..=130, n in 1usize..150, k in 1usize..90, gap in 0usize..4, a_bits in 2u8..=8, b_bits in 2u8..=8, seed: u64,
        ) {
            check(m, n, k, gap, a_bits, b_bits, seed);
        }
    }

    #[test]
    fn every_remainder_of_a_tile_is_handled() {
        for m in 1..=13 {
            for n in (1..=70).step_by(3).chain([8, 16, 32, 48, 64, 128]) {
                check(m, n, 1 + (m * n) % 9, 0, 8, 8, (m * 1000 + n) as u64);
            }
        }
        check(0, 5, 3, 0, 8, 8, 1);
        check(2, 0, 3, 0, 8, 8, 1);
        check(2, 3, 0, 0, 8, 8, 1);
    }

    #[test]
    fn extreme_codes_over_a_long_sum_are_exact() {
        let k = MOST_K;
        for (x, y) in [(-128, -128), (-128, 127), (127, -128), (127, 127)] {
            let (a, b) = (vec![x; k], vec![y; k]);
            let want = matmul_codes(1, 1, k, &a, &b);
            for isa in Isa::available() {
                let mut packed = PackedB::new(isa);
                packed.pack(1, k, &b);
                let mut out = [0];
                gemm_i8(1, &a, k, &packed, &mut out, &mut GemmScratch::default());
                assert_eq!(out.to_vec(), want, "{isa}");
            }
        }
    }
}
