//! Register tiles for x86-64.

use std::arch::x86_64::*;

use super::register::register_tile;
use super::tile::{ROWS, Tile, TileInput, by_size};
use crate::isa::{Cpu, Isa};

/// What is added to the codes of B of a tile of four codes per group: its instruction multiplies signed by unsigned ones.
pub(crate) const ADDED: i8 = i8::MIN;

register_tile! {
    /// Two sign-extended codes per group, so that no product saturates.
    Avx2Codes in avx2_codes: features "avx2", on Isa::Avx2, 2 of [1 2] vectors,
    vector __m256i = 8 x [i16; 2] => i32,
    load |at: *const [i16; 2]| _mm256_loadu_si256(at.cast()),
    splat |[low, high]: [i16; 2]| _mm256_set1_epi32(i32::from(low as u16) | i32::from(high) << 16),
    splat_sum _mm256_set1_epi32,
    dot |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)),
    store |to: *mut i32, sums| _mm256_storeu_si256(to.cast(), sums)
}

/// A tile of four codes per group: those of A signed, those of B with 128 added. The instruction has two encodings.
macro_rules! quad_tile {
    ($(#[$doc:meta])* $name:ident in $module:ident: features $features:literal, on $isa:pat, dot $dot:ident) => {
        register_tile! {
            $(#[$doc])*
            $name in $module: features $features, on $isa, 2 of [1 2] vectors,
            vector __m256i = 8 x [i8; 4] => i32,
            load |at: *const [i8; 4]| _mm256_loadu_si256(at.cast()),
            splat |group: [i8; 4]| _mm256_set1_epi32(i32::from_ne_bytes(group.map(|code| code as u8))),
            splat_sum _mm256_set1_epi32,
            dot |sum, a, b| $dot(sum, b, a),
            store |to: *mut i32, sums| _mm256_storeu_si256(to.cast(), sums)
        }
    };
}

quad_tile! {
    /// For processors that have AVX-VNNI.
    AvxVnniCodes in avx_vnni_codes: features "avx2,avxvnni", on Isa::AvxVnni, dot _mm256_dpbusd_avx_epi32
}

#[cfg(test)]
quad_tile! {
    /// The same tile for tests on processors that have only the encoding of AVX-512.
    Avx512Quads in avx512_quads: features "avx2,avx512f,avx512vl,avx512vnni", on Isa::Avx512Vnni, dot _mm256_dpbusd_epi32
}

register_tile! {
    /// One float per group; fused multiply-add.
    Avx2Floats in avx2_floats: features "avx2,fma", on Isa::Avx2 | Isa::AvxVnni, 2 of [1 2] vectors,
    vector __m256 = 8 x f32 => f32,
    load |at: *const f32| _mm256_loadu_ps(at),
    splat _mm256_set1_ps,
    splat_sum _mm256_set1_ps,
    dot |sum, a, b| _mm256_fmadd_ps(a, b, sum),
    store |to: *mut f32, sums| _mm256_storeu_ps(to, sums)
}

register_tile! {
    /// The same in wide vectors; every sum has the same bits.
    Avx512Floats in avx512_floats: features "avx512f", on Isa::Avx512Vnni | Isa::Amx, 4 of [1 2 3 4] vectors,
    vector __m512 = 16 x f32 => f32,
    load |at: *const f32| _mm512_loadu_ps(at),
    splat _mm512_set1_ps,
    splat_sum _mm512_set1_ps,
    dot |sum, a, b| _mm512_fmadd_ps(a, b, sum),
    store |to: *mut f32, sums| _mm512_storeu_ps(to, sums)
}
