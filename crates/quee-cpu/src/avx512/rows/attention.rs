//! One head of attention: queries and keys with a scale for each row, values with one, probabilities with one for each query.

use std::arch::x86_64::*;

use super::codes::{Range, RowQuantizer, RowScale, encode, load};
use super::epilogue::ToFloats;
use super::pair;
use crate::aligned::Aligned;
use crate::avx512::LANES;
use crate::avx512::attention::{HEAD, Head, RowScratch, sum_bytes};
use crate::avx512::codes::Encoder;
use crate::avx512::epilogue::{Outputs, Sums};
use crate::avx512::matrix::{Rows, multiply};
use crate::avx512::softmax::{QUERIES, RowSums, Scores};

/// Quantizers of the attention of a block, and the scale of its scores.
#[derive(Debug)]
pub(crate) struct RowAttention {
    pub value: RowQuantizer,
    pub probabilities: RowQuantizer,
    pub scale: f32,
}

/// Keys and values of a head.
#[derive(Debug, Default)]
pub(crate) struct RowHead {
    head: Head,
    /// Sum of the codes and zero point of each key.
    key_pairs: Aligned<i32>,
    key_scales: Aligned<f32>,
    value: RowScale,
    /// Codes of the values, `[T, 64]`, before they are packed.
    bytes: Aligned<u8>,
}

/// Queries: codes with 128 added, 64 bytes each, `stride` apart; and a scale for each, `heads` apart.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub codes: &'a [u8],
    pub scales: &'a [RowScale],
    pub stride: usize,
    pub heads: usize,
    pub rows: usize,
}

impl RowHead {
    /// Packs `t` keys, which look like [`Queries`], and values, 64 floats each, `stride` apart; whether the values were finite.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn load(&mut self, plan: &RowAttention, keys: Queries, values: &[f32]) -> bool {
        let Queries { codes, scales, stride, heads, rows: t } = keys;
        self.head.load_keys(t, codes, stride, -128);
        let padded = self.head.keys.padded();
        self.key_pairs.resize(padded);
        self.key_scales.resize(padded);
        self.key_pairs[t..].fill(0);
        self.key_scales[t..].fill(0.0);
        let own = scales.iter().step_by(heads).zip(&self.head.key_start[..]);
        let to = self.key_pairs.iter_mut().zip(&mut self.key_scales[..]).take(t);
        for ((to_pair, to_scale), (&RowScale { scale, zero }, start)) in to.zip(own) {
            *to_pair = pair(start / -128, zero);
            *to_scale = scale;
        }
        let row = |token: usize| values[token * stride..].first_chunk().expect("64 values");
        let mut range = Range::new();
        for token in 0..t {
            range.add(load(row(token)));
        }
        let (lo, hi) = range.ends();
        let encoder;
        (self.value, encoder) = plan.value.of_range(lo, hi);
        self.bytes.resize(t * HEAD);
        for (token, out) in self.bytes.chunks_exact_mut(HEAD).enumerate() {
            encode(&encoder, row(token), out);
        }
        // The least probability is 0, so its code is the least one.
        self.head.load_values(t, &self.bytes, HEAD, -(128 + plan.probabilities.least()));
        range.finite()
    }

    /// Attention of `queries` into 64 floats each, `stride` apart; whether the probabilities were numbers.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn run(&self, plan: &RowAttention, queries: Queries, out: &mut [f32], scratch: &mut RowScratch) -> bool {
        let Queries { codes, scales, stride, heads, rows } = queries;
        let t = self.head.keys.n();
        let (call, sums, probabilities) = scratch.for_keys(&self.head.keys);
        let mut numbers = true;
        for first in (0..rows).step_by(QUERIES) {
            let m = QUERIES.min(rows - first);
            let codes = &codes[first * stride..];
            let mut to_sums = Sums { out: sums, stride: call.padded };
            multiply(Rows::new(codes, stride, m, HEAD), &self.head.keys, &self.head.key_start, &mut to_sums);
            let mut scores = RowScores {
                head: self,
                rows: [0; QUERIES],
                scales: [0.0; QUERIES],
                scale: plan.scale,
                quantizer: plan.probabilities,
                probabilities: [0.0; QUERIES],
            };
            for i in 0..m {
                let RowScale { scale, zero } = scales[(first + i) * heads];
                let sum = sum_bytes(codes[i * stride..].first_chunk().expect("64 bytes")) - 128 * HEAD as i32;
                // Σ (a − za)(b − zb) = Σ ab − za·Σb + zb·(d·za − Σa); both factors have at most 16 bits, as d is 64.
                scores.rows[i] = pair(-zero, HEAD as i32 * zero - sum);
                scores.scales[i] = scale;
            }
            let RowSums { codes: sums_of_codes, nan } = call.rows(m, &mut scores, sums, probabilities);
            numbers &= !nan;
            let least = plan.probabilities.least();
            let mixed = Mixed {
                rest: sums_of_codes.map(|sum| self.value.zero * (t as i32 * least - sum)),
                scales: scores.probabilities.map(|scale| scale * self.value.scale),
            };
            let mut to = ToFloats::<_, false> { outputs: mixed, out: &mut out[first * stride..], stride };
            multiply(Rows::new(probabilities, call.width, m, t), &self.head.values, &self.head.value_start, &mut to);
        }
        numbers
    }
}

/// Scores of a few queries.
struct RowScores<'a> {
    head: &'a RowHead,
    /// What each row multiplies the pairs of the keys by.
    rows: [i32; QUERIES],
    scales: [f32; QUERIES],
    scale: f32,
    quantizer: RowQuantizer,
    /// Scales of the probabilities.
    probabilities: [f32; QUERIES],
}

impl Scores for RowScores<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn score(&self, i: usize, j: usize, sums: __m512i) -> __m512 {
        let (pairs, scales) = (&self.head.key_pairs[j..j + LANES], &self.head.key_scales[j..j + LANES]);
        // SAFETY: both have 16 elements.
        let (pairs, scales) = unsafe { (_mm512_loadu_si512(pairs.as_ptr().cast()), _mm512_loadu_ps(scales.as_ptr())) };
        let product = _mm512_dpwssd_epi32(sums, pairs, _mm512_set1_epi32(self.rows[i]));
        let scales = _mm512_mul_ps(_mm512_set1_ps(self.scales[i]), scales);
        _mm512_mul_ps(_mm512_cvtepi32_ps(product), _mm512_mul_ps(scales, _mm512_set1_ps(self.scale)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn encoder(&mut self, i: usize, largest: f32) -> Encoder {
        let (scale, encoder) = self.quantizer.of_range(0.0, largest);
        self.probabilities[i] = scale.scale;
        encoder
    }
}

/// Probabilities times values: `(sum + rest) · scale`, both of the row.
struct Mixed {
    rest: [i32; QUERIES],
    scales: [f32; QUERIES],
}

impl Outputs for Mixed {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn of<const V: usize>(&self, row: usize, _: usize, sums: [__m512i; V]) -> [__m512; V] {
        let (rest, scale) = (_mm512_set1_epi32(self.rest[row]), _mm512_set1_ps(self.scales[row]));
        sums.map(|sums| _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sums, rest)), scale))
    }
}
