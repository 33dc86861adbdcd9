//! An encoder block's run: sample by sample, or rows of one sample side by side.

use super::FixedBlock;
use crate::aligned::Aligned;
use crate::avx512::attention::{HEAD, Head, RowScratch};
use crate::avx512::matrix::Rows;
use crate::avx512::run::{BlockScratch, Refused, RunsBlock, Samples, Unpacked};

use crate::avx512::timer::{Place, Timer};
use crate::parallel::{Divisible, divided};

/// Codes of a sample on their way through a block.
#[derive(Debug, Default)]
pub(crate) struct FixedCodes {
    /// Behind a normalisation.
    normed: Aligned<u8>,
    /// Queries, keys, values.
    thirds: [Aligned<u8>; 3],
    /// Behind attention.
    mixed: Aligned<u8>,
    /// Behind GELU.
    hidden: Aligned<u8>,
    /// Keys and values, packed.
    heads: Vec<Head>,
}

/// Rows on their way to queries, keys and values.
struct Before<'a> {
    x: &'a [f32],
    normed: &'a mut [u8],
    thirds: [&'a mut [u8]; 3],
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
        let (normed, normed2) = self.normed.split_at_mut(at);
        let [(a, a2), (b, b2), (c, c2)] = self.thirds.map(|third| third.split_at_mut(at));
        let first = Self { x, normed, thirds: [a, b, c], count: self.count.min(units), dim };
        let count = self.count.saturating_sub(units);
        (first, Self { x: x2, normed: normed2, thirds: [a2, b2, c2], count, dim })
    }
}

/// Rows from their queries to the end of the block.
struct After<'a> {
    residual: &'a [f32],
    queries: &'a [u8],
    normed: &'a mut [u8],
    mixed: &'a mut [u8],
    hidden: &'a mut [u8],
    out: &'a mut [f32],
    dim: usize,
}

impl Divisible for After<'_> {
    fn units(&self) -> usize {
        self.out.len() / self.dim
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let (dim, at) = (self.dim, units * self.dim);
        let of_hidden = self.hidden.len() / self.units() * units;
        let (residual, residual2) = self.residual.split_at(at);
        let (queries, queries2) = self.queries.split_at(at);
        let (normed, normed2) = self.normed.split_at_mut(at);
        let (mixed, mixed2) = self.mixed.split_at_mut(at);
        let (hidden, hidden2) = self.hidden.split_at_mut(of_hidden);
        let (out, out2) = self.out.split_at_mut(at);
        (
            Self { residual, queries, normed, mixed, hidden, out, dim },
            After {
                residual: residual2,
                queries: queries2,
                normed: normed2,
                mixed: mixed2,
                hidden: hidden2,
                out: out2,
                dim,
            },
        )
    }
}

impl RunsBlock for FixedBlock {
    fn sample(&self, sample: Samples, scratch: &mut BlockScratch, timer: &mut Timer) -> Result<(), Refused> {
        let BlockScratch { fixed: codes, scores, .. } = scratch;
        timer.start();
        self.to_thirds(codes.before(self, &sample), timer)?;
        let [_, keys, values] = &codes.thirds;
        self.pack(Unpacked { heads: &mut codes.heads, first: 0 }, sample.tokens, keys, values);
        timer.stop("pack keys, values", Place::Attention);
        let (after, heads) = codes.after(sample);
        self.to_end(after, heads, scores, timer)
    }

    fn shared_sample(&self, sample: Samples, scratch: &mut [BlockScratch]) -> Result<(), Refused> {
        let mut codes = std::mem::take(&mut scratch[0].fixed);
        divided(codes.before(self, &sample), scratch, &|rows, _| self.to_thirds(rows, &mut Timer::off()))?;
        let [_, keys, values] = &codes.thirds;
        divided(Unpacked { heads: &mut codes.heads, first: 0 }, scratch, &|heads, _| {
            self.pack(heads, sample.tokens, keys, values);
            Ok(())
        })?;
        let (after, heads) = codes.after(sample);
        divided(after, scratch, &|rows, own| self.to_end(rows, heads, &mut own.scores, &mut Timer::off()))?;
        scratch[0].fixed = codes;
        Ok(())
    }
}

impl FixedBlock {
    fn to_thirds(&self, rows: Before, timer: &mut Timer) -> Result<(), Refused> {
        let Before { x, normed, thirds, count, dim } = rows;
        let (norm, encoder) = &self.norm1;
        // SAFETY: the processor has what `RunsBlock` asks for.
        if !unsafe { norm.codes(x, encoder, normed) } {
            return Err(Refused);
        }
        timer.stop("norm, quantize", Place::Qkv);
        for (i, ((linear, encoder), codes)) in self.thirds.iter().zip(thirds).enumerate() {
            let rows = if i == 0 { count } else { x.len() / dim };
            // SAFETY: as above.
            unsafe { linear.to_codes::<false>(Rows::new(normed, dim, rows, dim), *encoder, codes) };
        }
        timer.stop("product, quantize", Place::Qkv);
        Ok(())
    }

    fn pack(&self, heads: Unpacked<Head>, tokens: usize, keys: &[u8], values: &[u8]) {
        for (i, head) in heads.heads.iter_mut().enumerate() {
            let at = (heads.first + i) * HEAD;
            // SAFETY: as above.
            unsafe { head.load(&self.attention, tokens, &keys[at..], &values[at..], self.dims.dim) };
        }
    }

    fn to_end(&self, rows: After, heads: &[Head], scratch: &mut RowScratch, timer: &mut Timer) -> Result<(), Refused> {
        let After { residual, queries, normed, mixed, hidden, out, dim } = rows;
        let count = out.len() / dim;
        for (i, head) in heads.iter().enumerate() {
            let at = i * HEAD;
            // SAFETY: as above.
            unsafe { head.run(&self.attention, &queries[at..], dim, count, &mut mixed[at..], dim, scratch) };
        }
        timer.stop("scores, softmax, values", Place::Attention);
        // SAFETY: as above.
        unsafe { self.proj.add_to(Rows::new(mixed, dim, count, dim), Some(residual), out) };
        timer.stop("product, add", Place::Proj);
        let (norm, encoder) = &self.norm2;
        // SAFETY: as above.
        if !unsafe { norm.codes(out, encoder, normed) } {
            return Err(Refused);
        }
        timer.stop("norm, quantize", Place::Fc1);
        let (fc1, encoder) = &self.fc1;
        // SAFETY: as above.
        unsafe { fc1.to_codes::<true>(Rows::new(normed, dim, count, dim), *encoder, hidden) };
        timer.stop("product, gelu, quantize", Place::Fc1);
        let width = self.dims.hidden;
        // SAFETY: as above.
        unsafe { self.fc2.add_to(Rows::new(hidden, width, count, width), None, out) };
        timer.stop("product, add", Place::Fc2);
        Ok(())
    }
}

impl FixedCodes {
    /// Makes room for a sample, and gives its rows up to queries, keys and values.
    fn before<'a>(&'a mut self, plan: &FixedBlock, sample: &Samples<'a>) -> Before<'a> {
        let &Samples { x, tokens, count, dim, .. } = sample;
        self.normed.resize(tokens * dim);
        self.thirds.iter_mut().for_each(|third| third.resize(tokens * dim));
        self.mixed.resize(count * dim);
        self.hidden.resize(count * plan.dims.hidden);
        self.heads.resize_with(dim / HEAD, Head::default);
        let thirds = self.thirds.each_mut().map(|third| third.as_mut());
        Before { x, normed: &mut self.normed, thirds, count, dim }
    }

    /// The sample's rows from there on, and its heads.
    fn after<'a>(&'a mut self, sample: Samples<'a>) -> (After<'a>, &'a [Head]) {
        let Samples { x, out, count, dim, .. } = sample;
        let Self { normed, thirds: [queries, ..], mixed, hidden, heads } = self;
        let (residual, queries, normed) = (&x[..count * dim], &queries[..count * dim], &mut normed[..count * dim]);
        (After { residual, queries, normed, mixed, hidden, out, dim }, heads)
    }
}
