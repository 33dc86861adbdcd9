//! Register tiles for 64-bit ARM.

use std::arch::aarch64::*;
use std::arch::asm;

use super::register::register_tile;
use super::tile::{ROWS, Tile, TileInput, by_size};
use crate::isa::{Cpu, Isa};

/// What is added to the codes of B of a tile of four codes per group: nothing, its instruction multiplies signed codes.
pub(crate) const ADDED: i8 = 0;

/// Each sum plus the four products of its codes. The standard library's function for it is not stable.
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers alone are used, and the instruction is one of the feature.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

register_tile! {
    /// Four codes per group, signed on both sides.
    NeonCodes in neon_codes: features "neon,dotprod", on Isa::NeonDot, 4 of [1 2 3 4] vectors,
    vector int32x4_t = 4 x [i8; 4] => i32,
    load |at: *const [i8; 4]| vreinterpretq_s32_s8(vld1q_s8(at.cast())),
    splat |group: [i8; 4]| vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(group.map(|code| code as u8)))),
    splat_sum vdupq_n_s32,
    dot |sum, a, b| dot(sum, a, vreinterpretq_s8_s32(b)),
    store |to: *mut i32, sums| vst1q_s32(to, sums)
}

register_tile! {
    /// One float per group; fused multiply-add.
    NeonFloats in neon_floats: features "neon", on Isa::NeonDot, 4 of [1 2 3 4] vectors,
    vector float32x4_t = 4 x f32 => f32,
    load |at: *const f32| vld1q_f32(at),
    splat vdupq_n_f32,
    splat_sum vdupq_n_f32,
    dot |sum, a, b| vfmaq_f32(sum, a, b),
    store |to: *mut f32, sums| vst1q_f32(to, sums)
}
