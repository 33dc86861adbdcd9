//! Samples of a batch, dealt out to threads.

use super::attention::RowScratch;
use super::fixed::FixedCodes;
use super::rows::{RowCodes, RowMemory};

use super::timer::{Place, Timer};
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

/// Memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    pub fixed: FixedCodes,
    pub rows: RowCodes,
    pub row_memory: RowMemory,
    pub scores: RowScratch,
}

/// Something is not finite. The operations one by one find out where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refused;

/// Encoder blocks of one kind of quantizers. The processor must have AVX-512 VNNI.
pub(crate) trait RunsBlock: Sync {
    /// Runs the block on one sample.
    fn sample(&self, sample: Samples, scratch: &mut BlockScratch, timer: &mut Timer) -> Result<(), Refused>;

    /// Runs the block on one sample whose rows are divided among threads.
    fn shared_sample(&self, sample: Samples, scratch: &mut [BlockScratch]) -> Result<(), Refused>;
}

/// Runs a block on `samples`, on as many threads as there are scratches.
pub(crate) fn deal(
    block: &impl RunsBlock,
    samples: Samples,
    scratch: &mut [BlockScratch],
    timer: &mut Timer,
) -> Result<(), Refused> {
    // As many samples as can be dealt out evenly; those left over are divided themselves.
    let even = samples.units() / scratch.len() * scratch.len();
    let (even, rest) = samples.divide(even);
    if let [one] = scratch {
        return even.each().try_for_each(|sample| block.sample(sample, one, timer));
    }
    timer.start();
    divided(even, scratch, &|samples: Samples, own| {
        samples.each().try_for_each(|sample| block.sample(sample, own, &mut Timer::off()))
    })?;
    rest.each().try_for_each(|sample| block.shared_sample(sample, scratch))?;
    timer.stop("encoder block", Place::Attention);
    Ok(())
}

/// Heads whose keys and values are to be packed; `first` is the number of the first.
pub(crate) struct Unpacked<'a, H> {
    pub heads: &'a mut [H],
    pub first: usize,
}

impl<H: Send> Divisible for Unpacked<'_, H> {
    fn units(&self) -> usize {
        self.heads.len()
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let (heads, rest) = self.heads.split_at_mut(units);
        (Self { heads, first: self.first }, Self { heads: rest, first: self.first + units })
    }
}
