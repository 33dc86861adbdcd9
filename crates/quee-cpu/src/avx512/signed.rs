//! Products of signed codes: rows get their 128 on the way.

use std::arch::x86_64::*;

use super::epilogue::Sums;
use super::matrix::{GROUP, Matrix, Panel, ROWS, Rows, fetch, multiply_panel};
use super::{COLUMNS, LANES};
use crate::aligned::Aligned;
use crate::isa::Cpu;

/// `rows` rows of signed codes, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct SignedRows<'a> {
    pub codes: &'a [i8],
    pub stride: usize,
    pub rows: usize,
}

/// Memory on the way.
#[derive(Debug, Default)]
pub(crate) struct SignedScratch {
    /// The rows with 128 added.
    bytes: Aligned<u8>,
    /// Sums of the last panel where its columns do not fill its vectors.
    tail: Aligned<i32>,
}

/// The product itself: `out` is `[rows, n]`. `start` has an element for each padded column.
///
/// # Panics
/// When the lengths do not fit.
pub(crate) fn multiply_to_sums(
    cpu: Cpu,
    a: SignedRows,
    b: &Matrix,
    start: &[i32],
    out: &mut [i32],
    scratch: &mut SignedScratch,
) {
    assert!(cpu.isa().has_avx512() && start.len() >= b.padded() && out.len() == a.rows * b.n());
    let (n, SignedScratch { bytes, tail }) = (b.n(), scratch);
    bytes.resize(a.rows * b.k().next_multiple_of(GROUP));
    let mut left = Left { signed: a, k: b.k(), bytes, ready: false };
    for panel in b.panels() {
        let (column, width) = (panel.column, panel.vectors * LANES);
        if column + width <= n {
            // SAFETY: the `Cpu` proves the features.
            unsafe { left.multiply(&panel, start, Sums { out, stride: n }) };
            continue;
        }
        tail.resize(a.rows * width);
        let alone = Panel { column: 0, ..panel };
        // SAFETY: as above.
        unsafe { left.multiply(&alone, &start[column..], Sums { out: tail, stride: width }) };
        for (sums, out) in tail.chunks_exact(width).zip(out.chunks_exact_mut(n)) {
            out[column..].copy_from_slice(&sums[..n - column]);
        }
    }
}

/// The left operand.
struct Left<'a> {
    signed: SignedRows<'a>,
    k: usize,
    /// The rows with 128 added, in whole groups, as soon as they are `ready`.
    bytes: &'a mut [u8],
    ready: bool,
}

impl Left<'_> {
    /// The columns of one panel. The first one is done tile by tile, and makes the rows ready: those of the next tile are fetched meanwhile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn multiply(&mut self, panel: &Panel, start: &[i32], mut sums: Sums) {
        let Self { signed: SignedRows { codes, stride, rows }, k, ref mut bytes, ready } = *self;
        let padded = k.next_multiple_of(GROUP);
        if ready {
            return multiply_panel(Rows::new(bytes, padded, rows, k), padded / GROUP, panel, start, &mut sums);
        }
        for first in (0..rows).step_by(ROWS) {
            let end = rows.min(first + ROWS);
            fetch(codes, stride, end..rows.min(end + ROWS), k);
            for row in first..end {
                unsigned(&codes[row * stride..][..k], &mut bytes[row * padded..][..k]);
            }
            let part = Rows::new(&bytes[..end * padded], padded, end, k).part(first, end - first);
            multiply_panel(part, padded / GROUP, panel, start, &mut sums);
        }
        self.ready = true;
    }
}

/// 128 added to every code.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn unsigned(codes: &[i8], bytes: &mut [u8]) {
    assert!(codes.len() == bytes.len());
    let sign = _mm512_set1_epi8(i8::MIN);
    let (whole, tail) = codes.as_chunks::<COLUMNS>();
    let (whole_bytes, tail_bytes) = bytes.as_chunks_mut::<COLUMNS>();
    for (codes, bytes) in whole.iter().zip(whole_bytes) {
        // SAFETY: both are 64 bytes.
        unsafe {
            let codes = _mm512_loadu_si512(codes.as_ptr().cast());
            _mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_xor_si512(codes, sign));
        }
    }
    if tail.is_empty() {
        return;
    }
    let mask = (1u64 << tail.len()) - 1;
    // SAFETY: no more bytes are read and written than both tails have.
    unsafe {
        let codes = _mm512_maskz_loadu_epi8(mask, tail.as_ptr());
        _mm512_mask_storeu_epi8(tail_bytes.as_mut_ptr().cast(), mask, _mm512_xor_si512(codes, sign));
    }
}
