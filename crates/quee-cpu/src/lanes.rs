//! Sums and maxima over a row in an order that the compiler can vectorise and that depends on the row's length alone.

/// Independent partial results; element `i` belongs to the partial result `i % LANES`.
pub(crate) const LANES: usize = 16;

/// Folds a row into interleaved partial results, then those in a fixed tree. The row is padded to whole chunks with
/// `neutral`, which `f` must leave without effect.
#[inline(always)]
pub(crate) fn fold<T: Copy>(
    row: &[f32],
    start: T,
    neutral: f32,
    f: impl Fn(T, f32) -> T,
    join: impl Fn(T, T) -> T,
) -> T {
    let mut lanes = [start; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    if !tail.is_empty() {
        let mut chunk = [neutral; LANES];
        chunk[..tail.len()].copy_from_slice(tail);
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    reduce(lanes, join)
}

/// Halves the partial results until one is left.
#[inline(always)]
pub(crate) fn reduce<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `Σ f(x)`, where `f(neutral)` is 0.
#[inline(always)]
pub(crate) fn sum(row: &[f32], neutral: f32, f: impl Fn(f32) -> f32) -> f32 {
    fold(row, 0.0, neutral, |sum, x| sum + f(x), |a, b| a + b)
}

/// The largest element, or −∞ for an empty row; NaN is passed over.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(row, f32::NEG_INFINITY, f32::NEG_INFINITY, larger, larger)
}
