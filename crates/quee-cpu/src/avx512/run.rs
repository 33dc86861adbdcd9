//! An encoder block's run: sample by sample, or rows of one sample side by side.

use super::attention::{HEAD, Head, RowScratch};
use super::block::{BadNorm, BlockPlan};
use super::matrix::Rows;
use super::timer::{Place, Timer};
use crate::aligned::Aligned;
use crate::isa::Isa;
use crate::parallel::{Divisible, divided};

/// Samples of a batch: `x`, `[B, T, D]`, and of each the first tokens of what comes out: `out`, `[B, count, D]`.
pub(crate) struct Samples<'a> {
    pub x: &'a [f32],
    pub out: &'a mut [f32],
    pub tokens: usize,
    pub count: usize,
    pub dim: usize,
}

impl Divisible for Samples<'_> {
    fn units(&self) -> usize {
        self.x.len() / (self.tokens * self.dim)
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let Self { tokens, count, dim, .. } = self;
        let (x, behind_x) = self.x.split_at(units * tokens * dim);
        let (out, behind_out) = self.out.split_at_mut(units * count * dim);
        (Self { x, out, tokens, count, dim }, Self { x: behind_x, out: behind_out, tokens, count, dim })
    }
}

impl Samples<'_> {
    fn each(self) -> impl Iterator<Item = Self> {
        let Self { tokens, count, dim, .. } = self;
        let samples = self.x.chunks_exact(tokens * dim).zip(self.out.chunks_exact_mut(count * dim));
        samples.map(move |(x, out)| Samples { x, out, tokens, count, dim })
    }
}

/// Codes of a sample on their way through a block.
#[derive(Debug, Default)]
struct Codes {
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

/// Memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    codes: Codes,
    rows: RowScratch,
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

/// Heads whose keys and values are to be packed; `first` is the number of the first.
struct Unpacked<'a> {
    heads: &'a mut [Head],
    first: usize,
}

impl Divisible for Unpacked<'_> {
    fn units(&self) -> usize {
        self.heads.len()
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let (heads, rest) = self.heads.split_at_mut(units);
        (Self { heads, first: self.first }, Self { heads: rest, first: self.first + units })
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

impl BlockPlan {
    /// Runs the block on `samples`, on as many threads as there are scratches. Results do not depend on how many.
    pub fn run(&self, samples: Samples, scratch: &mut [BlockScratch], timer: &mut Timer) -> Result<(), BadNorm> {
        assert!(self.cpu().isa() == Isa::Avx512Vnni && samples.dim == self.dim());
        // As many samples as can be dealt out evenly; those left over are divided themselves.
        let even = samples.units() / scratch.len() * scratch.len();
        let (even, rest) = samples.divide(even);
        if let [one] = scratch {
            return even.each().try_for_each(|sample| self.sample(sample, one, timer));
        }
        timer.start();
        divided(even, scratch, &|samples: Samples, own| {
            samples.each().try_for_each(|sample| self.sample(sample, own, &mut Timer::off()))
        })?;
        rest.each().try_for_each(|sample| self.shared_sample(sample, scratch))?;
        timer.stop("encoder block", Place::Attention);
        Ok(())
    }

    /// A sample on one thread.
    fn sample(&self, sample: Samples, scratch: &mut BlockScratch, timer: &mut Timer) -> Result<(), BadNorm> {
        let BlockScratch { codes, rows } = scratch;
        timer.start();
        self.to_thirds(codes.before(self, &sample), timer)?;
        let [_, keys, values] = &codes.thirds;
        self.pack(Unpacked { heads: &mut codes.heads, first: 0 }, sample.tokens, keys, values);
        timer.stop("pack keys, values", Place::Attention);
        let (after, heads) = codes.after(sample);
        self.to_end(after, heads, rows, timer)
    }

    /// A sample whose rows are divided.
    fn shared_sample(&self, sample: Samples, scratch: &mut [BlockScratch]) -> Result<(), BadNorm> {
        let mut codes = std::mem::take(&mut scratch[0].codes);
        divided(codes.before(self, &sample), scratch, &|rows, _| self.to_thirds(rows, &mut Timer::off()))?;
        let [_, keys, values] = &codes.thirds;
        divided(Unpacked { heads: &mut codes.heads, first: 0 }, scratch, &|heads, _| {
            self.pack(heads, sample.tokens, keys, values);
            Ok(())
        })?;
        let (after, heads) = codes.after(sample);
        divided(after, scratch, &|rows, own| self.to_end(rows, heads, &mut own.rows, &mut Timer::off()))?;
        scratch[0].codes = codes;
        Ok(())
    }

    fn to_thirds(&self, rows: Before, timer: &mut Timer) -> Result<(), BadNorm> {
        let Before { x, normed, thirds, count, dim } = rows;
        // SAFETY: `run` has asked the `Cpu`.
        if !unsafe { self.norm1().rows(x, normed) } {
            return Err(BadNorm::First);
        }
        timer.stop("norm, quantize", Place::Qkv);
        for (i, ((linear, encoder), codes)) in self.thirds().iter().zip(thirds).enumerate() {
            let rows = if i == 0 { count } else { x.len() / dim };
            // SAFETY: as above.
            unsafe { linear.to_codes::<false>(Rows::new(normed, dim, rows, dim), *encoder, codes) };
        }
        timer.stop("product, quantize", Place::Qkv);
        Ok(())
    }

    fn pack(&self, heads: Unpacked, tokens: usize, keys: &[u8], values: &[u8]) {
        for (i, head) in heads.heads.iter_mut().enumerate() {
            let at = (heads.first + i) * HEAD;
            // SAFETY: as above.
            unsafe { head.load(self.attention(), tokens, &keys[at..], &values[at..], self.dim()) };
        }
    }

    fn to_end(&self, rows: After, heads: &[Head], scratch: &mut RowScratch, timer: &mut Timer) -> Result<(), BadNorm> {
        let After { residual, queries, normed, mixed, hidden, out, dim } = rows;
        let count = out.len() / dim;
        for (i, head) in heads.iter().enumerate() {
            let at = i * HEAD;
            // SAFETY: as above.
            unsafe { head.run(self.attention(), &queries[at..], dim, count, &mut mixed[at..], dim, scratch) };
        }
        timer.stop("scores, softmax, values", Place::Attention);
        // SAFETY: as above.
        unsafe { self.proj().add_to(Rows::new(mixed, dim, count, dim), Some(residual), out) };
        timer.stop("product, add", Place::Proj);
        // SAFETY: as above.
        if !unsafe { self.norm2().rows(out, normed) } {
            return Err(BadNorm::Second);
        }
        timer.stop("norm, quantize", Place::Fc1);
        let (fc1, encoder) = self.fc1();
        // SAFETY: as above.
        unsafe { fc1.to_codes::<true>(Rows::new(normed, dim, count, dim), encoder, hidden) };
        timer.stop("product, gelu, quantize", Place::Fc1);
        let width = self.hidden();
        // SAFETY: as above.
        unsafe { self.fc2().add_to(Rows::new(hidden, width, count, width), None, out) };
        timer.stop("product, add", Place::Fc2);
        Ok(())
    }
}

impl Codes {
    /// Makes room for a sample, and gives its rows up to queries, keys and values.
    fn before<'a>(&'a mut self, plan: &BlockPlan, sample: &Samples<'a>) -> Before<'a> {
        let &Samples { x, tokens, count, dim, .. } = sample;
        self.normed.resize(tokens * dim);
        self.thirds.iter_mut().for_each(|third| third.resize(tokens * dim));
        self.mixed.resize(count * dim);
        self.hidden.resize(count * plan.hidden());
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
