//! An encoder block's run on one sample, a block of rows at a time.

use super::attention::{Queries, RowHead};
use super::codes::{RowQuantizer, RowScale};
use super::plan::{CodedRows, RowBlock};
use crate::aligned::Aligned;
use crate::avx512::attention::{HEAD, RowScratch};
use crate::avx512::norm::{NormPlan, ROWS};
use crate::avx512::run::{BlockScratch, Refused, RunsBlock, Samples, Unpacked};
use crate::avx512::timer::{Place, Timer};
use crate::parallel::{Divisible, divided};

/// Most rows of a block: twelve tiles of rows.
const MOST_ROWS: usize = 72;

/// Lengths of blocks of about the same number of rows, which together are `rows`.
fn blocks(rows: usize) -> impl Iterator<Item = usize> {
    let count = rows.div_ceil(MOST_ROWS);
    (0..count).map(move |i| rows * (i + 1) / count - rows * i / count)
}

/// Codes with 128 added, `[rows, heads, 64]`, and the scales of the heads' rows.
#[derive(Debug, Default)]
struct Coded {
    codes: Aligned<u8>,
    scales: Vec<RowScale>,
}

/// Some rows of [`Coded`].
struct CodedMut<'a> {
    codes: &'a mut [u8],
    scales: &'a mut [RowScale],
}

impl Coded {
    fn resize(&mut self, rows: usize, dim: usize) {
        self.codes.resize(rows * dim);
        self.scales.resize(rows * dim / HEAD, RowScale::default());
    }

    fn rows(&mut self) -> CodedMut<'_> {
        CodedMut { codes: &mut self.codes, scales: &mut self.scales }
    }
}

impl CodedMut<'_> {
    fn split_at(self, codes: usize) -> (Self, Self) {
        let (codes, codes2) = self.codes.split_at_mut(codes);
        let (scales, scales2) = self.scales.split_at_mut(codes.len() / HEAD);
        (Self { codes, scales }, Self { codes: codes2, scales: scales2 })
    }
}

/// What attention needs of a sample.
#[derive(Debug, Default)]
pub(crate) struct RowCodes {
    queries: Coded,
    keys: Coded,
    values: Aligned<f32>,
    heads: Vec<RowHead>,
}

/// A thread's memory for a block of rows.
#[derive(Debug, Default)]
pub(crate) struct RowMemory {
    /// Before they become codes.
    floats: Aligned<f32>,
    codes: Aligned<u8>,
    scales: Vec<RowScale>,
    /// A few rows behind a normalisation.
    normed: Aligned<f32>,
}

/// Rows on their way to queries, keys and values.
struct Before<'a> {
    x: &'a [f32],
    queries: CodedMut<'a>,
    keys: CodedMut<'a>,
    values: &'a mut [f32],
    /// Rows from the first on that have queries.
    count: usize,
    dim: usize,
}

impl Divisible for Before<'_> {
    fn units(&self) -> usize {
        self.x.len() / self.dim
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let (dim, at) = (self.dim, units * self.dim);
        let (x, x2) = self.x.split_at(at);
        let count = self.count.min(units);
        let (queries, queries2) = self.queries.split_at(count * dim);
        let (keys, keys2) = self.keys.split_at(at);
        let (values, values2) = self.values.split_at_mut(at);
        let first = Self { x, queries, keys, values, count, dim };
        (first, Self { x: x2, queries: queries2, keys: keys2, values: values2, count: self.count - count, dim })
    }
}

/// Rows from their queries to the end of the block.
struct After<'a> {
    residual: &'a [f32],
    queries: &'a [u8],
    scales: &'a [RowScale],
    out: &'a mut [f32],
    dim: usize,
}

impl Divisible for After<'_> {
    fn units(&self) -> usize {
        self.out.len() / self.dim
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let (dim, at) = (self.dim, units * self.dim);
        let (residual, residual2) = self.residual.split_at(at);
        let (queries, queries2) = self.queries.split_at(at);
        let (scales, scales2) = self.scales.split_at(at / HEAD);
        let (out, out2) = self.out.split_at_mut(at);
        (
            Self { residual, queries, scales, out, dim },
            Self { residual: residual2, queries: queries2, scales: scales2, out: out2, dim },
        )
    }
}

impl RunsBlock for RowBlock {
    fn sample(&self, sample: Samples, scratch: &mut BlockScratch, timer: &mut Timer) -> Result<(), Refused> {
        let BlockScratch { rows: codes, row_memory: memory, scores, .. } = scratch;
        timer.start();
        self.to_thirds(codes.before(&sample), memory, timer)?;
        let RowCodes { keys, values, heads, .. } = codes;
        self.pack(Unpacked { heads, first: 0 }, keys, values)?;
        timer.stop("pack keys, values", Place::Attention);
        let (after, heads) = codes.after(sample);
        self.to_end(after, heads, memory, scores, timer)
    }

    fn shared_sample(&self, sample: Samples, scratch: &mut [BlockScratch]) -> Result<(), Refused> {
        let mut codes = std::mem::take(&mut scratch[0].rows);
        divided(codes.before(&sample), scratch, &|rows, own| {
            self.to_thirds(rows, &mut own.row_memory, &mut Timer::off())
        })?;
        let RowCodes { keys, values, heads, .. } = &mut codes;
        divided(Unpacked { heads, first: 0 }, scratch, &|heads, _| self.pack(heads, keys, values))?;
        let (after, heads) = codes.after(sample);
        divided(after, scratch, &|rows, own| {
            self.to_end(rows, heads, &mut own.row_memory, &mut own.scores, &mut Timer::off())
        })?;
        scratch[0].rows = codes;
        Ok(())
    }
}

fn unless_refused(finite: bool) -> Result<(), Refused> {
    if finite { Ok(()) } else { Err(Refused) }
}

impl RowBlock {
    fn to_thirds(&self, rows: Before, memory: &mut RowMemory, timer: &mut Timer) -> Result<(), Refused> {
        let mut left = rows;
        for m in blocks(left.units()) {
            let (Before { x, queries, keys, values, count, .. }, behind) = left.divide(m);
            left = behind;
            let (rows, _) = memory.normed(&self.norm1, self.at_qkv, x, 0)?;
            timer.stop("norm, quantize", Place::Qkv);
            let (of_queries, of_keys) = (&self.queries, &self.keys);
            let first = CodedRows { codes: rows.codes, scales: &rows.scales[..count] };
            // SAFETY: the processor has what `RunsBlock` asks for.
            let finite = unsafe {
                self.values.to_floats::<false>(rows, values);
                of_queries.0.to_heads(first, of_queries.1, queries.codes, queries.scales)
                    & of_keys.0.to_heads(rows, of_keys.1, keys.codes, keys.scales)
            };
            timer.stop("product, quantize", Place::Qkv);
            unless_refused(finite)?;
        }
        Ok(())
    }

    fn pack(&self, unpacked: Unpacked<RowHead>, keys: &Coded, values: &[f32]) -> Result<(), Refused> {
        let (dim, heads) = (self.dims.dim, self.dims.dim / HEAD);
        let tokens = values.len() / dim;
        for (i, head) in unpacked.heads.iter_mut().enumerate() {
            let number = unpacked.first + i;
            let at = number * HEAD;
            let (codes, scales) = (&keys.codes[at..], &keys.scales[number..]);
            let keys = Queries { codes, scales, stride: dim, heads, rows: tokens };
            // SAFETY: as above.
            unless_refused(unsafe { head.load(&self.attention, keys, &values[at..]) })?;
        }
        Ok(())
    }

    fn to_end(
        &self,
        rows: After,
        heads: &[RowHead],
        memory: &mut RowMemory,
        scores: &mut RowScratch,
        timer: &mut Timer,
    ) -> Result<(), Refused> {
        let dim = rows.dim;
        let mut left = rows;
        for m in blocks(left.units()) {
            let (After { residual, queries, scales, out, .. }, behind) = left.divide(m);
            left = behind;
            let mixed = memory.room(m * dim);
            for (i, head) in heads.iter().enumerate() {
                let (codes, scales) = (&queries[i * HEAD..], &scales[i..]);
                let queries = Queries { codes, scales, stride: dim, heads: heads.len(), rows: m };
                // SAFETY: as above.
                unless_refused(unsafe { head.run(&self.attention, queries, &mut mixed[i * HEAD..], scores) })?;
            }
            timer.stop("scores, softmax, values", Place::Attention);
            let (quantizer, proj) = &self.proj;
            let rows = memory.coded(*quantizer, dim)?;
            timer.stop("quantize", Place::Proj);
            // SAFETY: as above.
            unsafe { proj.add_to(rows, Some(residual), out) };
            timer.stop("product, add", Place::Proj);
            let (quantizer, fc1) = &self.fc1;
            let (rows, hidden) = memory.normed(&self.norm2, *quantizer, out, m * self.dims.hidden)?;
            timer.stop("norm, quantize", Place::Fc1);
            // SAFETY: as above.
            unsafe { fc1.to_floats::<true>(rows, hidden) };
            timer.stop("product, gelu", Place::Fc1);
            let (quantizer, fc2) = &self.fc2;
            let rows = memory.coded(*quantizer, self.dims.hidden)?;
            timer.stop("quantize", Place::Fc2);
            // SAFETY: as above.
            unsafe { fc2.add_to(rows, None, out) };
            timer.stop("product, add", Place::Fc2);
        }
        Ok(())
    }
}

impl RowMemory {
    /// Room for so many floats.
    fn room(&mut self, len: usize) -> &mut [f32] {
        self.floats.resize(len);
        &mut self.floats
    }

    /// The floats as rows of `d` features, in codes.
    fn coded(&mut self, quantizer: RowQuantizer, d: usize) -> Result<CodedRows<'_>, Refused> {
        let Self { floats, codes, scales, .. } = self;
        codes.resize(floats.len());
        scales.resize(floats.len() / d, RowScale::default());
        // SAFETY: as above.
        unless_refused(unsafe { quantizer.rows(d, floats, scales, codes) })?;
        Ok(CodedRows { codes, scales })
    }

    /// The rows of `x` normalised, in codes, and room for `len` floats.
    fn normed(
        &mut self,
        norm: &NormPlan,
        quantizer: RowQuantizer,
        x: &[f32],
        len: usize,
    ) -> Result<(CodedRows<'_>, &mut [f32]), Refused> {
        let d = norm.features();
        let Self { floats, codes, scales, normed } = self;
        codes.resize(x.len());
        scales.resize(x.len() / d, RowScale::default());
        let few = x.chunks(ROWS * d).zip(codes.chunks_mut(ROWS * d)).zip(scales.chunks_mut(ROWS));
        for ((x, codes), scales) in few {
            normed.resize(x.len());
            // SAFETY: as above.
            let finite = unsafe {
                norm.floats(x, normed);
                quantizer.rows(d, normed, scales, codes)
            };
            unless_refused(finite)?;
        }
        floats.resize(len);
        Ok((CodedRows { codes, scales }, floats))
    }
}

impl RowCodes {
    /// Makes room for a sample, and gives its rows up to queries, keys and values.
    fn before<'a>(&'a mut self, sample: &Samples<'a>) -> Before<'a> {
        let &Samples { x, tokens, count, dim, .. } = sample;
        self.queries.resize(count, dim);
        self.keys.resize(tokens, dim);
        self.values.resize(tokens * dim);
        self.heads.resize_with(dim / HEAD, RowHead::default);
        Before { x, queries: self.queries.rows(), keys: self.keys.rows(), values: &mut self.values, count, dim }
    }

    /// The sample's rows from there on, and its heads.
    fn after<'a>(&'a self, sample: Samples<'a>) -> (After<'a>, &'a [RowHead]) {
        let Samples { x, out, count, dim, .. } = sample;
        let Coded { codes, scales } = &self.queries;
        (After { residual: &x[..count * dim], queries: codes, scales, out, dim }, &self.heads)
    }
}
