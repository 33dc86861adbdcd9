//! Position embeddings: sines and cosines, and learned ones for another picture size.

/// Fixed positions `[tokens, dim]`, row-major (Vaswani et al., *Attention Is All You Need*, arXiv 1706.03762, section 3.5):
/// `sin(t / 10000^(j/dim))` at even features j, the cosine with the exponent of j − 1 at odd ones.
pub fn sinusoid(tokens: usize, dim: usize) -> Vec<f32> {
    let angle = |t: usize, j: usize| t as f64 / 10_000f64.powf(2.0 * (j / 2) as f64 / dim as f64);
    let value = |t: usize, j: usize| if j.is_multiple_of(2) { angle(t, j).sin() } else { angle(t, j).cos() };
    (0..tokens).flat_map(|t| (0..dim).map(move |j| value(t, j) as f32)).collect()
}

/// Learned positions `[prefix + old², dim]` for a square of `new`² patches: bicubic with antialiasing, as timm's
/// `resample_abs_pos_embed` does. The first `prefix` positions stay as they are.
///
/// # Panics
/// When the values do not fill the shape.
pub fn resample(values: &[f32], prefix: usize, old: usize, new: usize, dim: usize) -> Vec<f32> {
    assert_eq!(values.len(), (prefix + old * old) * dim, "values of a position embedding");
    let (kept, grid) = values.split_at(prefix * dim);
    let taps = bicubic(old, new);
    // First across, then down.
    let mut across = vec![0f64; old * new * dim];
    for (y, (x, taps)) in (0..old).flat_map(|y| taps.iter().enumerate().map(move |tap| (y, tap))) {
        let to = &mut across[(y * new + x) * dim..][..dim];
        for (offset, weight) in taps.weights.iter().enumerate() {
            let from = &grid[(y * old + taps.first + offset) * dim..][..dim];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += weight * f64::from(from));
        }
    }
    let mut out = vec![0f64; new * new * dim];
    for (y, taps) in taps.iter().enumerate() {
        let to = &mut out[y * new * dim..][..new * dim];
        for (offset, weight) in taps.weights.iter().enumerate() {
            let from = &across[(taps.first + offset) * new * dim..][..new * dim];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
        }
    }
    kept.iter().copied().chain(out.into_iter().map(|x| x as f32)).collect()
}

/// The inputs that one output is made of.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

/// Weights of the resampling along one axis, one entry per output.
fn bicubic(old: usize, new: usize) -> Vec<Taps> {
    let scale = old as f64 / new as f64;
    // Shrinking widens the filter, so that no input is passed over.
    let stretch = scale.max(1.0);
    let taps = |i: usize| {
        let centre = scale * (i as f64 + 0.5);
        let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * stretch + 0.5) as usize).min(old);
        let weights: Vec<f64> = (first..end).map(|j| keys((j as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.into_iter().map(|w| w / sum).collect() }
    };
    (0..new).map(taps).collect()
}

/// Cubic convolution with a = −1/2 (Keys, *IEEE Trans. ASSP* 29, 1981).
fn keys(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_and_cosines_are_where_the_paper_puts_them() {
        let (tokens, dim) = (5, 6);
        let table = sinusoid(tokens, dim);
        assert_eq!(&table[..dim], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        let third = 3.0 / 10_000f32.powf(2.0 / 6.0);
        assert!((table[3 * dim + 2] - third.sin()).abs() < 1e-6 && (table[3 * dim + 3] - third.cos()).abs() < 1e-6);
    }

    #[test]
    fn the_same_size_changes_nothing_and_a_constant_stays_one() {
        let values: Vec<f32> = (0..(2 + 9) * 4).map(|i| (i * 37 % 19) as f32).collect();
        assert_eq!(resample(&values, 2, 3, 3, 4), values);
        for new in [1, 2, 5, 11] {
            let mut flat = vec![2.5; (1 + 16) * 3];
            flat[..3].copy_from_slice(&[1.0, 2.0, 3.0]);
            let out = resample(&flat, 1, 4, new, 3);
            assert_eq!(&out[..3], [1.0, 2.0, 3.0]);
            assert!(out[3..].iter().all(|x| (x - 2.5).abs() < 1e-6) && out.len() == (1 + new * new) * 3);
        }
    }
}
