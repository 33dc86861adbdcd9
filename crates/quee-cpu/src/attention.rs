//! Attention of one head, a block of query rows at a time, so that scores and probabilities stay in cache.

use quee_backbone::Attention;
use quee_backbone::params::AttentionOperand;
use quee_quant::ActQuant;

use crate::aligned::Aligned;
use crate::gemm::float::{PackedF32, gemm_f32};
use crate::gemm::{GemmScratch, PackedB, gemm_i8};
use crate::isa::{Cpu, per_isa};
use crate::quantize::{NotFinite, RowQuant, RowRule, SiteRule, encode};

/// How the operands of attention are quantized.
#[derive(Clone, Copy)]
pub(crate) struct AttentionRules {
    pub query: RowRule,
    pub key: RowRule,
    pub value: RowRule,
    pub probabilities: SiteRule,
}

/// The operand that is not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OperandNotFinite(pub AttentionOperand);

/// Queries, keys and values of one sample, `[T, 3·H·d]`.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub qkv: &'a [f32],
    pub tokens: usize,
    pub heads: usize,
    pub dim: usize,
    pub scale: f32,
}

impl<'a> Sample<'a> {
    pub fn new(qkv: &'a [f32], tokens: usize, attention: &Attention) -> Self {
        Self { qkv, tokens, heads: attention.heads, dim: attention.head_dim, scale: attention.scale }
    }

    fn stride(&self) -> usize {
        3 * self.heads * self.dim
    }

    /// Where the first row of a third (0 query, 1 key, 2 value) of a head begins; rows are `stride` apart.
    fn third(&self, third: usize, head: usize) -> &'a [f32] {
        &self.qkv[(third * self.heads + head) * self.dim..]
    }

    fn row(&self, third: usize, head: usize, token: usize) -> &'a [f32] {
        &self.third(third, head)[token * self.stride()..][..self.dim]
    }
}

/// One head's keys or values, packed; and the memory needed on the way.
pub(crate) struct HeadScratch {
    keys: PackedB,
    values: PackedB,
    float_keys: PackedF32,
    float_values: PackedF32,
    codes: Vec<i8>,
    rows: Vec<RowQuant>,
    sums: Aligned<i32>,
    key_columns: Columns,
    value_quant: ActQuant,
    value_sums: Vec<i32>,
    gathered: Vec<f32>,
    zeros: Vec<f32>,
    gemm: GemmScratch,
}

/// Scale, zero point and sum of each key.
#[derive(Default)]
struct Columns {
    scales: Vec<f32>,
    zeros: Vec<i32>,
    sums: Vec<i32>,
}

impl HeadScratch {
    pub fn new(cpu: Cpu) -> Self {
        Self {
            keys: PackedB::on(cpu),
            values: PackedB::on(cpu),
            float_keys: PackedF32::on(cpu),
            float_values: PackedF32::on(cpu),
            codes: Vec::new(),
            rows: Vec::new(),
            sums: Aligned::default(),
            key_columns: Columns::default(),
            value_quant: ActQuant::new(1.0, 0, 8),
            value_sums: Vec::new(),
            gathered: Vec::new(),
            zeros: Vec::new(),
            gemm: GemmScratch::default(),
        }
    }

    /// Packs the keys of a head; without rules in float.
    pub fn load_keys(
        &mut self,
        cpu: Cpu,
        sample: Sample,
        head: usize,
        rules: Option<&AttentionRules>,
    ) -> Result<(), OperandNotFinite> {
        let (t, d) = (sample.tokens, sample.dim);
        let Some(rules) = rules else {
            self.float_keys.pack(t, d, sample.third(1, head), sample.stride());
            return Ok(());
        };
        self.codes.resize(t * d, 0);
        let Columns { scales, zeros, sums } = &mut self.key_columns;
        scales.clear();
        zeros.clear();
        sums.clear();
        for token in 0..t {
            let codes = &mut self.codes[token * d..(token + 1) * d];
            let row = rules.key.quantize(cpu, sample.row(1, head, token), codes);
            let row = row.map_err(|NotFinite| OperandNotFinite(AttentionOperand::Key))?;
            scales.push(row.scale);
            zeros.push(row.zero);
            sums.push(row.sum);
        }
        self.keys.pack(t, d, &self.codes);
        Ok(())
    }

    /// Scores of the queries `first..first + rows` against the keys that were loaded: `out` is `[rows, T]`.
    #[allow(clippy::too_many_arguments)]
    pub fn scores(
        &mut self,
        cpu: Cpu,
        sample: Sample,
        head: usize,
        first: usize,
        rules: Option<&AttentionRules>,
        out: &mut [f32],
    ) -> Result<(), OperandNotFinite> {
        let (t, d) = (sample.tokens, sample.dim);
        let m = out.len() / t;
        let Some(rules) = rules else {
            let queries = &sample.third(0, head)[first * sample.stride()..];
            gemm_f32(m, queries, sample.stride(), &self.float_keys, out, &mut self.zeros);
            out.iter_mut().for_each(|score| *score *= sample.scale);
            return Ok(());
        };
        let queries = (0..m).map(|i| sample.row(0, head, first + i));
        self.quantize(cpu, d, queries, &SiteRule::Uniform(rules.query), 0)
            .map_err(|NotFinite| OperandNotFinite(AttentionOperand::Query))?;
        self.sums.resize(m * t);
        gemm_i8(m, &self.codes, d, &self.keys, &mut self.sums, &mut self.gemm);
        let Columns { scales, zeros, sums } = &self.key_columns;
        for ((acc, out), row) in self.sums.chunks_exact(t).zip(out.chunks_exact_mut(t)).zip(&self.rows) {
            let (zero, scale) = (row.zero, row.scale);
            score_row(cpu, acc, zero, row.sum, d as i32 * zero, scale, sample.scale, zeros, sums, scales, out);
        }
        Ok(())
    }

    /// Packs the values of a head; without rules in float.
    pub fn load_values(
        &mut self,
        cpu: Cpu,
        sample: Sample,
        head: usize,
        rules: Option<&AttentionRules>,
    ) -> Result<(), OperandNotFinite> {
        let (t, d) = (sample.tokens, sample.dim);
        let Some(rules) = rules else {
            self.float_values.pack_transposed(d, t, sample.third(2, head), sample.stride());
            return Ok(());
        };
        self.gathered.clear();
        for token in 0..t {
            self.gathered.extend_from_slice(sample.row(2, head, token));
        }
        let quant = rules.value.quant(cpu, &self.gathered);
        self.value_quant = quant.map_err(|NotFinite| OperandNotFinite(AttentionOperand::Value))?;
        self.codes.resize(t * d, 0);
        encode(cpu, &self.gathered, self.value_quant, &mut self.codes);
        self.value_sums.clear();
        self.value_sums.resize(d, 0);
        for row in self.codes.chunks_exact(d) {
            for (sum, &code) in self.value_sums.iter_mut().zip(row) {
                *sum += i32::from(code);
            }
        }
        self.values.pack_transposed(d, t, &self.codes);
        Ok(())
    }

    /// Probabilities `[rows, T]` times the values that were loaded; row `i` goes to `out[i · stride..][..d]`.
    #[allow(clippy::too_many_arguments)]
    pub fn mix(
        &mut self,
        cpu: Cpu,
        sample: Sample,
        probabilities: &[f32],
        rules: Option<&AttentionRules>,
        out: &mut [f32],
        stride: usize,
    ) -> Result<(), OperandNotFinite> {
        let (t, d) = (sample.tokens, sample.dim);
        let m = probabilities.len() / t;
        let Some(rules) = rules else {
            self.gathered.resize(m * d, 0.0);
            gemm_f32(m, probabilities, t, &self.float_values, &mut self.gathered, &mut self.zeros);
            for (i, row) in self.gathered.chunks_exact(d).enumerate() {
                out[i * stride..][..d].copy_from_slice(row);
            }
            return Ok(());
        };
        for p in 0..rules.probabilities.planes() {
            let quantized = self.quantize(cpu, t, probabilities.chunks_exact(t), &rules.probabilities, p);
            quantized.map_err(|NotFinite| OperandNotFinite(AttentionOperand::Probabilities))?;
            self.sums.resize(m * d);
            gemm_i8(m, &self.codes, t, &self.values, &mut self.sums, &mut self.gemm);
            let value = self.value_quant;
            for (i, (acc, row)) in self.sums.chunks_exact(d).zip(&self.rows).enumerate() {
                let zero = row.zero;
                let rest = value.zero * (t as i32 * zero - row.sum);
                let scale = row.scale * value.scale;
                let out = &mut out[i * stride..][..d];
                if p == 0 {
                    mixed_row(cpu, acc, zero, rest, scale, &self.value_sums, out);
                } else {
                    add_mixed_row(cpu, acc, zero, rest, scale, &self.value_sums, out);
                }
            }
        }
        Ok(())
    }

    /// Quantizes rows of `k` values one after the other: what plane `p` has of them.
    fn quantize<'r>(
        &mut self,
        cpu: Cpu,
        k: usize,
        rows: impl ExactSizeIterator<Item = &'r [f32]>,
        rule: &SiteRule,
        p: usize,
    ) -> Result<(), NotFinite> {
        self.codes.resize(rows.len() * k, 0);
        self.rows.clear();
        for (row, codes) in rows.zip(self.codes.chunks_exact_mut(k)) {
            let row = rule.quantize(cpu, row, p, codes)?;
            self.rows.push(row);
        }
        Ok(())
    }
}

per_isa! {
    /// [`quee_quant::reference::product_sum`] of one query with every key (`Σab − za·Σb − zb·Σa + d·za·zb`), scaled.
    fn score_row(
        cpu, acc: &[i32], zero: i32, sum: i32, d_zero: i32, query_scale: f32, scale: f32,
        key_zeros: &[i32], key_sums: &[i32], key_scales: &[f32], out: &mut [f32],
    ) {
        let t = out.len();
        let (acc, key_zeros, key_sums, key_scales) = (&acc[..t], &key_zeros[..t], &key_sums[..t], &key_scales[..t]);
        for j in 0..t {
            let product = acc[j] - zero * key_sums[j] + key_zeros[j] * (d_zero - sum);
            out[j] = product as f32 * (query_scale * key_scales[j] * scale);
        }
    }
}

per_isa! {
    /// The same of one row of probabilities with every feature of the values; `rest` is what does not depend on the feature.
    fn mixed_row(cpu, acc: &[i32], zero: i32, rest: i32, scale: f32, value_sums: &[i32], out: &mut [f32]) {
        let d = out.len();
        let (acc, value_sums) = (&acc[..d], &value_sums[..d]);
        for j in 0..d {
            out[j] = (acc[j] - zero * value_sums[j] + rest) as f32 * scale;
        }
    }
}

per_isa! {
    /// Adds the same.
    fn add_mixed_row(cpu, acc: &[i32], zero: i32, rest: i32, scale: f32, value_sums: &[i32], out: &mut [f32]) {
        let d = out.len();
        let (acc, value_sums) = (&acc[..d], &value_sums[..d]);
        for j in 0..d {
            out[j] += (acc[j] - zero * value_sums[j] + rest) as f32 * scale;
        }
    }
}
