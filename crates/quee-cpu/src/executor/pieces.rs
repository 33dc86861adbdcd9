//! Outputs filled piece by piece, on one thread or several.

use std::convert::Infallible;

use super::CpuExecutor;
use crate::parallel::{Divisible, divided};

/// Floats that one thread moves in the time that another takes to get up.
const FEW: usize = 1 << 15;

/// Pieces of `each` floats of an output.
struct Pieces<'a> {
    out: &'a mut [f32],
    each: usize,
    /// The number of the first.
    first: usize,
}

impl Divisible for Pieces<'_> {
    fn units(&self) -> usize {
        self.out.len() / self.each
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let Self { out, each, first } = self;
        let (out, rest) = out.split_at_mut(units * each);
        (Self { out, each, first }, Self { out: rest, each, first: first + units })
    }
}

/// `fill(number, piece, scratch)` for every piece of `each` floats of `out`, on as many threads as there are scratches where `floats`, those that are read
/// or written, are many.
pub(super) fn each_piece<S: Send>(
    out: &mut [f32],
    each: usize,
    floats: usize,
    scratch: &mut [S],
    fill: impl Fn(usize, &mut [f32], &mut S) + Sync,
) {
    let threads = if floats < FEW { 1 } else { scratch.len() };
    let all = Pieces { out, each: each.max(1), first: 0 };
    let Ok(()) = divided(all, &mut scratch[..threads], &|Pieces { out, each, first }: Pieces, own: &mut S| {
        out.chunks_exact_mut(each).enumerate().for_each(|(i, piece)| fill(first + i, piece, own));
        Ok::<(), Infallible>(())
    });
}

impl CpuExecutor {
    /// `fill(number, piece)` for every piece of `each` floats of `out`.
    pub(super) fn fill(&mut self, out: &mut [f32], each: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let floats = out.len();
        each_piece(out, each, floats, &mut self.linear, |i, piece, _| fill(i, piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_filled_once_by_its_number() {
        for (count, each, threads) in [(0, 5, 2), (1, FEW, 3), (7, FEW / 5, 2), (7, FEW / 5, 9), (3, 4, 2)] {
            let mut out = vec![0.0; count * each];
            let mut filled = vec![0; threads];
            let floats = out.len();
            each_piece(&mut out, each, floats, &mut filled, |i, piece, own| {
                *own += 1;
                piece.iter_mut().for_each(|x| *x += (1 + i) as f32);
            });
            assert!(out.iter().enumerate().all(|(at, &x)| x == (1 + at / each) as f32));
            assert_eq!(filled.iter().sum::<usize>(), count);
            let alone = floats < FEW || count < 2;
            assert_eq!(filled.iter().filter(|&&pieces| pieces > 0).count() <= 1, alone, "{count} pieces of {each}");
        }
    }
}
