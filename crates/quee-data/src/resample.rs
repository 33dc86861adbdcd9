//! Resizing with antialiasing, as Pillow and PyTorch (`antialias=True`) do it: a separable filter whose support grows
//! with the reduction, weights normalised at the border.

use crate::{Interpolation, Picture};

/// The part of a resized picture that is wanted: `[top, left, height, width]` in pixels of the result.
pub(crate) type Window = [usize; 4];

/// Resizes `picture` to `size` `[H, W]` and returns the part `window` of the result. Only what that part needs is
/// computed, so that a long and narrow picture costs no more than a square one.
///
/// The cubic filter overshoots at edges; both passes cut values to the range 0 to 1, as Pillow does with bytes.
///
/// # Panics
/// When the picture or the size has no pixels, or the window reaches beyond the size.
pub(crate) fn resample(picture: &Picture, size: [usize; 2], window: Window, interpolation: Interpolation) -> Picture {
    let [channels, height, width] = picture.shape;
    let [top, left, rows, columns] = window;
    assert!(top + rows <= size[0] && left + columns <= size[1] && height * width > 0, "a window beyond the picture");
    let across = taps(width, size[1], left..left + columns, interpolation);
    let down = taps(height, size[0], top..top + rows, interpolation);
    let first = down.iter().map(|tap| tap.start).min().unwrap_or(0);
    let last = down.iter().map(|tap| tap.start + tap.weights.len()).max().unwrap_or(0);
    let clamps = interpolation == Interpolation::Bicubic;
    let cut = |value: f32| if clamps { value.clamp(0.0, 1.0) } else { value };

    let mut values = vec![0.0; channels * rows * columns];
    let mut narrow = vec![0.0; (last - first) * columns];
    for channel in 0..channels {
        let plane = &picture.values[channel * height * width..(channel + 1) * height * width];
        for (row, out) in (first..last).zip(narrow.chunks_exact_mut(columns)) {
            let line = &plane[row * width..(row + 1) * width];
            for (value, tap) in out.iter_mut().zip(&across) {
                *value = cut(tap.weights.iter().zip(&line[tap.start..]).map(|(w, v)| w * v).sum());
            }
        }
        let plane = &mut values[channel * rows * columns..(channel + 1) * rows * columns];
        for (out, tap) in plane.chunks_exact_mut(columns).zip(&down) {
            let lines = narrow[(tap.start - first) * columns..].chunks_exact(columns);
            for (weight, line) in tap.weights.iter().zip(lines) {
                out.iter_mut().zip(line).for_each(|(value, v)| *value += weight * v);
            }
            out.iter_mut().for_each(|value| *value = cut(*value));
        }
    }
    Picture { shape: [channels, rows, columns], values }
}

/// The source pixels of one output pixel, in one direction.
struct Tap {
    start: usize,
    weights: Vec<f32>,
}

/// The taps of the output pixels `wanted` when `from` pixels become `to`.
fn taps(from: usize, to: usize, wanted: std::ops::Range<usize>, interpolation: Interpolation) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = interpolation.support() * stretch;
    let tap = |at: usize| {
        let centre = scale * (at as f64 + 0.5);
        // The casts cut towards zero, and a negative start becomes 0.
        let start = ((centre - support + 0.5) as usize).min(from - 1);
        let end = ((centre + support + 0.5) as usize).clamp(start + 1, from);
        let weights: Vec<f64> =
            (start..end).map(|pixel| interpolation.weight((pixel as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        Tap { start, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() }
    };
    wanted.map(tap).collect()
}

impl Interpolation {
    /// Half the width of the filter at scale 1, in pixels.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The filter: a triangle, or the cubic convolution of R. Keys (*IEEE Trans. ASSP* 29, 1981) with a = −0.5.
    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: [usize; 3]) -> Picture {
        let n: usize = shape.iter().product();
        Picture { shape, values: (0..n).map(|i| i as f32 / n as f32).collect() }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let picture = ramp([2, 5, 4]);
            assert_eq!(resample(&picture, [5, 4], [0, 0, 5, 4], interpolation), picture);
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        for (interpolation, size) in [(Interpolation::Bilinear, [3, 9]), (Interpolation::Bicubic, [17, 4])] {
            let picture = ramp([1, 8, 6]);
            let whole = resample(&picture, size, [0, 0, size[0], size[1]], interpolation);
            let part = resample(&picture, size, [1, 2, 2, 2], interpolation);
            let expected = [1, 2].map(|row| whole.values[row * size[1] + 2..row * size[1] + 4].to_vec()).concat();
            assert_eq!(part.values, expected);
        }
    }

    #[test]
    fn halving_averages_with_a_triangle_of_four_pixels() {
        let line = Picture { shape: [1, 1, 8], values: vec![0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0] };
        let out = resample(&line, [1, 4], [0, 0, 1, 4], Interpolation::Bilinear);
        // Weights 1, 3, 3, 1 of 8; the border pixel keeps 3, 3, 1 of 7.
        assert_eq!(out.values, [0.0, 3.0 / 8.0, 1.0 / 8.0, 0.0]);
    }

    #[test]
    fn one_pixel_becomes_a_plain_surface() {
        let dot = Picture { shape: [1, 1, 1], values: vec![0.25] };
        assert_eq!(resample(&dot, [3, 3], [0, 0, 3, 3], Interpolation::Bicubic).values, [0.25; 9]);
    }

    #[test]
    fn a_long_picture_costs_no_more_than_its_window() {
        let line = Picture { shape: [1, 1, 60_000], values: vec![0.5; 60_000] };
        let out = resample(&line, [224, 224 * 60_000], [0, 112 * 60_000, 224, 224], Interpolation::Bilinear);
        assert!(out.values.iter().all(|value| (value - 0.5).abs() < 1e-6));
    }
}
