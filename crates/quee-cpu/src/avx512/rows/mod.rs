//! The form of an encoder block whose rows make their own scales, from their least and largest values.
//!
//! What depends on a row's zero point is added to its sums as one product of pairs of 16-bit integers per vector ([`pair`]). Queries and keys become codes while
//! their sums are in registers, because a head's row is one panel of a tile; rows that are longer go through floats, a block of rows at a time, so
//! that they stay in the second-level cache.
//!
//! - [`codes`]: rows of floats to codes; [`epilogue`]: what happens to sums
//! - [`attention`]: one head
//! - [`plan`]: weights and quantizers of a block; [`run`]: its run

mod attention;
mod codes;
mod epilogue;
mod plan;
mod run;

pub(crate) use plan::RowBlock;
pub(crate) use run::{RowCodes, RowMemory};

/// Two 16-bit integers side by side, the operand of `vpdpwssd`.
#[inline]
fn pair(low: i32, high: i32) -> i32 {
    debug_assert!([low, high].iter().all(|&x| i32::from(x as i16) == x), "{low} or {high} has more than 16 bits");
    low & 0xffff | high << 16
}
