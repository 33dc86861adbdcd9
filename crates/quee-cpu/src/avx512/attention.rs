//! One head of attention in 8-bit codes: keys and values packed, then a few query rows at a time, whose scores stay in the first-level cache.

use std::arch::x86_64::*;

use super::codes::Encoder;
use super::epilogue::{Affine, Sums, ToCodes};
use super::matrix::{Epilogue, GROUP, Line, Matrix, Rows, multiply, widths};
use super::softmax::{QUERIES, Scores, SoftmaxCall};
use super::{COLUMNS, LANES};
use crate::aligned::Aligned;

/// Features of a head; nothing else is written for.
pub(crate) const HEAD: usize = 64;

/// Quantizers and factors of the attention of a block, the same for all heads and tokens.
#[derive(Debug)]
pub(crate) struct AttentionPlan {
    /// Zero points of queries, keys, values and probabilities.
    pub zeros: [i32; 4],
    /// What a sum of scores is multiplied by: both steps and the scale of attention.
    pub score: f32,
    /// To codes of probabilities.
    pub probabilities: Encoder,
    /// What a sum of mixed values is multiplied by, 64 times.
    pub mixed: Aligned<f32>,
    /// To codes of the projection's input.
    pub out: Encoder,
}

/// Keys and values of a head.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub keys: Matrix,
    pub values: Matrix,
    /// What the sums of scores start from, for each key.
    pub key_start: Aligned<i32>,
    /// The same of mixed values, for each feature.
    pub value_start: Aligned<i32>,
}

/// Memory for a few query rows.
#[derive(Debug, Default)]
pub(crate) struct RowScratch {
    scores: Aligned<i32>,
    probabilities: Aligned<u8>,
}

impl RowScratch {
    /// Makes room for a few rows: what softmax has to know, sums of scores, and codes of probabilities.
    pub fn for_keys(&mut self, keys: &Matrix) -> (SoftmaxCall, &mut [i32], &mut [u8]) {
        let (t, padded) = (keys.n(), keys.padded());
        let width = t.next_multiple_of(COLUMNS);
        self.scores.resize(QUERIES * padded);
        self.probabilities.resize(QUERIES * width);
        (SoftmaxCall { t, padded, width }, &mut self.scores, &mut self.probabilities)
    }
}

/// Zeros as a bias.
static NOTHING: [f32; HEAD] = [0.0; HEAD];

impl Head {
    /// Packs keys and values of `t` tokens: codes with 128 added, rows of 64 bytes `stride` apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn load(&mut self, plan: &AttentionPlan, t: usize, keys: &[u8], values: &[u8], stride: usize) {
        let [query_zero, _, _, probability_zero] = plan.zeros;
        self.load_keys(t, keys, stride, -(128 + query_zero));
        self.load_values(t, values, stride, -(128 + probability_zero));
    }

    /// Packs keys alone; scores start from `factor · Σ codes`.
    ///
    /// Sixteen tokens make a vector of each group of features: squares of 16 × 16 groups are turned.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn load_keys(&mut self, t: usize, keys: &[u8], stride: usize, factor: i32) {
        assert!(t > 0 && keys.len() >= (t - 1) * stride + HEAD);
        self.keys.resize(t, HEAD);
        self.key_start.resize(self.keys.padded());
        let sign = _mm512_set1_epi8(-128);
        let (mut first, mut line) = (0, 0);
        for width in widths(t) {
            for v in 0..width {
                let token = first + v * LANES;
                let mut square = [_mm512_setzero_si512(); 16];
                for (i, row) in square.iter_mut().enumerate().take(t - token) {
                    // SAFETY: row token + i < t has 64 bytes.
                    let bytes = unsafe { _mm512_loadu_si512(keys.as_ptr().add((token + i) * stride).cast()) };
                    *row = _mm512_xor_si512(bytes, sign);
                }
                let mut sums = _mm512_setzero_si512();
                for (g, codes) in turned(square).into_iter().enumerate() {
                    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), codes);
                    store(&mut self.keys.lines_mut()[line + g * width + v], codes);
                }
                let start = _mm512_mullo_epi32(sums, _mm512_set1_epi32(factor));
                let to: &mut [i32; LANES] = self.key_start[token..].first_chunk_mut().expect("whole vectors");
                // SAFETY: 16 elements.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), start) };
            }
            first += width * LANES;
            line += width * (HEAD / GROUP);
        }
    }

    /// Packs values alone; what is mixed starts from `factor · Σ codes`.
    ///
    /// Four tokens make a group: bytes of four rows are interleaved.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn load_values(&mut self, t: usize, values: &[u8], stride: usize, factor: i32) {
        assert!(t > 0 && values.len() >= (t - 1) * stride + HEAD);
        self.values.resize(HEAD, t);
        self.value_start.resize(HEAD);
        let sign = _mm512_set1_epi8(-128);
        let mut sums = [_mm512_setzero_si512(); 4];
        for (g, lines) in self.values.lines_mut().chunks_exact_mut(4).enumerate() {
            let mut rows = [_mm512_setzero_si512(); GROUP];
            for (i, row) in rows.iter_mut().enumerate().take(t - g * GROUP) {
                // SAFETY: row 4 · g + i < t has 64 bytes.
                let bytes = unsafe { _mm512_loadu_si512(values.as_ptr().add((g * GROUP + i) * stride).cast()) };
                *row = _mm512_xor_si512(bytes, sign);
            }
            let [a, b, c, d] = rows;
            let (ab0, ab1) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (cd0, cd1) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            // Quarter l of part p holds the features 16 · l + 4 · p …
            let p0 = _mm512_unpacklo_epi16(ab0, cd0);
            let p1 = _mm512_unpackhi_epi16(ab0, cd0);
            let p2 = _mm512_unpacklo_epi16(ab1, cd1);
            let p3 = _mm512_unpackhi_epi16(ab1, cd1);
            for ((line, codes), sums) in lines.iter_mut().zip(quarters_turned([p0, p1, p2, p3])).zip(&mut sums) {
                *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), codes);
                store(line, codes);
            }
        }
        for (v, sums) in sums.into_iter().enumerate() {
            let start = _mm512_mullo_epi32(sums, _mm512_set1_epi32(factor));
            let to: &mut [i32; LANES] = self.value_start[v * LANES..].first_chunk_mut().expect("64 features");
            // SAFETY: 16 elements.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), start) };
        }
    }

    /// Attention of `rows` queries (codes with 128 added, 64 bytes each, `stride` apart) into codes of the projection's input, 64 bytes each,
    /// `out_stride` apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        plan: &AttentionPlan,
        queries: &[u8],
        stride: usize,
        rows: usize,
        out: &mut [u8],
        out_stride: usize,
        scratch: &mut RowScratch,
    ) {
        let t = self.keys.n();
        let [query_zero, key_zero, value_zero, probability_zero] = plan.zeros;
        let (call, scores, probabilities) = scratch.for_keys(&self.keys);
        let (padded, width) = (call.padded, call.width);
        for first in (0..rows).step_by(QUERIES) {
            let m = QUERIES.min(rows - first);
            let queries = &queries[first * stride..];
            let mut sums = Sums { out: scores, stride: padded };
            multiply(Rows::new(queries, stride, m, HEAD), &self.keys, &self.key_start, &mut sums);
            // Σ (a − za)(b − zb) = Σ ab − za·Σb − zb·Σa + d·za·zb; Σa counts 128 for each of the features.
            let mut rest = [0; QUERIES];
            for (i, rest) in rest[..m].iter_mut().enumerate() {
                let sum = sum_bytes(queries[i * stride..].first_chunk().expect("64 bytes")) - 128 * HEAD as i32;
                *rest = key_zero * (HEAD as i32 * query_zero - sum);
            }
            let mut fixed = FixedScores { rest, scale: plan.score, encoder: plan.probabilities };
            let mut mixed_rest = call.rows(m, &mut fixed, scores, probabilities).codes;
            mixed_rest.iter_mut().for_each(|sum| *sum = value_zero * (t as i32 * probability_zero - *sum));
            let affine = Affine { scales: &plan.mixed, biases: &NOTHING };
            let out = &mut out[first * out_stride..];
            let mut epilogue =
                Mixed { rest: mixed_rest, to: ToCodes::<false> { affine, encoder: plan.out, out, stride: out_stride } };
            multiply(Rows::new(probabilities, width, m, t), &self.values, &self.value_start, &mut epilogue);
        }
    }
}

/// Scores of queries and keys of one scale each.
struct FixedScores {
    /// What belongs to a row.
    rest: [i32; QUERIES],
    scale: f32,
    encoder: Encoder,
}

impl Scores for FixedScores {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn score(&self, i: usize, _: usize, sums: __m512i) -> __m512 {
        let sums = _mm512_add_epi32(sums, _mm512_set1_epi32(self.rest[i]));
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(self.scale))
    }

    #[inline]
    unsafe fn encoder(&mut self, _: usize, _: f32) -> Encoder {
        self.encoder
    }
}

/// Codes behind what belongs to a row.
struct Mixed<'a> {
    rest: [i32; QUERIES],
    to: ToCodes<'a, false>,
}

impl Epilogue for Mixed<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row<const V: usize>(&mut self, row: usize, column: usize, mut sums: [__m512i; V]) {
        let rest = _mm512_set1_epi32(self.rest[row]);
        for sums in &mut sums {
            *sums = _mm512_add_epi32(*sums, rest);
        }
        // SAFETY: the same features.
        unsafe { self.to.row(row, column, sums) };
    }
}

/// Sum of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn sum_bytes(bytes: &[u8; 64]) -> i32 {
    // SAFETY: 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, _mm512_set1_epi8(1)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn store(line: &mut Line, codes: __m512i) {
    // SAFETY: a line is a vector, and aligned like one.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), codes) };
}

/// Of four vectors, the first quarters one after the other, then the second ones, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quarters_turned([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab0, ab1) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
    let (cd0, cd1) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab0, cd0),
        _mm512_shuffle_i32x4::<0xdd>(ab0, cd0),
        _mm512_shuffle_i32x4::<0x88>(ab1, cd1),
        _mm512_shuffle_i32x4::<0xdd>(ab1, cd1),
    ]
}

/// A square of 16 × 16 groups of four bytes, turned.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn turned(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut out = [_mm512_setzero_si512(); 16];
    // Four rows: afterwards quarter q of part p holds their group 4 · q + p.
    let mut parts = [[_mm512_setzero_si512(); 4]; 4];
    for (rows, parts) in rows.chunks_exact(4).zip(&mut parts) {
        let (ab0, ab1) = (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
        let (cd0, cd1) = (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
        *parts = [
            _mm512_unpacklo_epi64(ab0, cd0),
            _mm512_unpackhi_epi64(ab0, cd0),
            _mm512_unpacklo_epi64(ab1, cd1),
            _mm512_unpackhi_epi64(ab1, cd1),
        ];
    }
    for p in 0..4 {
        let groups = quarters_turned([parts[0][p], parts[1][p], parts[2][p], parts[3][p]]);
        for (q, group) in groups.into_iter().enumerate() {
            out[4 * q + p] = group;
        }
    }
    out
}
