//! Random rotation, scale and shift, for training parts only.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::DataError;

/// What lies outside a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// 0.0: the paper of the digits, black in a photograph.
    #[default]
    Zero,
    /// The nearest pixel of the picture.
    Edge,
}

/// How far a training picture may be moved. Each draw is uniform between the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Largest rotation to either side, in degrees; default 10.
    pub rotation: f32,
    /// Largest shift in each direction, in pixels; default 1.
    pub shift: f32,
    /// Largest relative change of size; default 0.1, which is from 1/1.1 to 1.1 times the size.
    pub scale: f32,
    /// What lies outside the picture; default zero.
    pub fill: Fill,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { rotation: 10.0, shift: 1.0, scale: 0.1, fill: Fill::Zero }
    }
}

impl AugmentConfig {
    /// Checks that every range is a finite number, 0 or more.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), DataError> {
        for (field, value) in [("rotation", self.rotation), ("shift", self.shift), ("scale", self.scale)] {
            if !value.is_finite() || value < 0.0 {
                return Err(DataError::Augment { field, value });
            }
        }
        Ok(())
    }
}

/// One movement of a picture about its centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Rotation in degrees, clockwise as seen on a screen.
    pub rotation: f32,
    /// Factor of the size; above 0.
    pub scale: f32,
    /// Shift down and to the right, in pixels.
    pub shift: [f32; 2],
}

/// Moves `image` of `shape` `[C, H, W]` at random within `config`, which has been [checked](AugmentConfig::check).
/// Takes four numbers from `rng`, whatever the configuration, so the draws of later pictures don't depend on it.
///
/// The picture should be on the 0–1 scale: [`Fill::Zero`] fills with 0.0, which is another colour after normalisation.
///
/// # Panics
/// When `image` is not of `shape`.
pub fn augment<R: Rng + ?Sized>(image: &[f32], shape: [usize; 3], config: &AugmentConfig, rng: &mut R) -> Vec<f32> {
    let mut draw = || 2.0 * rng.random::<f32>() - 1.0;
    let movement = Affine {
        rotation: draw() * config.rotation,
        scale: (1.0 + config.scale).powf(draw()),
        shift: [draw() * config.shift, draw() * config.shift],
    };
    affine(image, shape, movement, config.fill)
}

/// Moves `image` of `shape` `[C, H, W]`, with bilinear interpolation.
///
/// # Panics
/// When `image` is not of `shape`.
pub fn affine(image: &[f32], shape: [usize; 3], movement: Affine, fill: Fill) -> Vec<f32> {
    let [channels, height, width] = shape;
    assert_eq!(image.len(), channels * height * width, "an image of another shape than {shape:?}");
    let (sin, cos) = movement.rotation.to_radians().sin_cos();
    let (centre_y, centre_x) = ((height as f32 - 1.0) / 2.0, (width as f32 - 1.0) / 2.0);

    let mut out = vec![0.0; image.len()];
    for y in 0..height {
        for x in 0..width {
            // Where the pixel comes from: the movement backwards, about the centre.
            let (dy, dx) = (y as f32 - centre_y - movement.shift[0], x as f32 - centre_x - movement.shift[1]);
            let from_y = (cos * dy - sin * dx) / movement.scale + centre_y;
            let from_x = (sin * dy + cos * dx) / movement.scale + centre_x;
            let (top, left) = (from_y.floor(), from_x.floor());
            let (low, right) = (from_y - top, from_x - left);
            let corners = [
                (top, left, (1.0 - low) * (1.0 - right)),
                (top, left + 1.0, (1.0 - low) * right),
                (top + 1.0, left, low * (1.0 - right)),
                (top + 1.0, left + 1.0, low * right),
            ];
            for (row, column, weight) in corners {
                let clamped = (row.clamp(0.0, height as f32 - 1.0), column.clamp(0.0, width as f32 - 1.0));
                if weight == 0.0 || (fill == Fill::Zero && clamped != (row, column)) {
                    continue;
                }
                let source = clamped.0 as usize * width + clamped.1 as usize;
                for channel in 0..channels {
                    let plane = channel * height * width;
                    out[plane + y * width + x] += weight * image[plane + source];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const STILL: Affine = Affine { rotation: 0.0, scale: 1.0, shift: [0.0, 0.0] };

    /// Distinct values, so that a misplaced pixel shows.
    fn ramp(shape: [usize; 3]) -> Vec<f32> {
        (1..=shape.iter().product::<usize>()).map(|n| n as f32).collect()
    }

    #[test]
    fn nothing_moves_without_movement() {
        let still = AugmentConfig { rotation: 0.0, shift: 0.0, scale: 0.0, fill: Fill::Zero };
        for shape in [[1, 8, 8], [3, 5, 4], [2, 1, 1]] {
            let image = ramp(shape);
            assert_eq!(augment(&image, shape, &still, &mut ChaCha8Rng::seed_from_u64(3)), image);
        }
    }

    #[test]
    fn a_shift_of_whole_pixels_moves_down_and_right() {
        let movement = Affine { shift: [1.0, 2.0], ..STILL };
        let zero = affine(&ramp([2, 2, 4]), [2, 2, 4], movement, Fill::Zero);
        assert_eq!(zero, [0., 0., 0., 0., 0., 0., 1., 2., 0., 0., 0., 0., 0., 0., 9., 10.]);
        let edge = affine(&ramp([2, 2, 4]), [2, 2, 4], movement, Fill::Edge);
        assert_eq!(edge, [1., 1., 1., 2., 1., 1., 1., 2., 9., 9., 9., 10., 9., 9., 9., 10.]);
    }

    #[test]
    fn half_a_pixel_averages_neighbours() {
        let out = affine(&[0.0, 2.0, 6.0], [1, 1, 3], Affine { shift: [0.0, 0.5], ..STILL }, Fill::Zero);
        assert_eq!(out, [0.0, 1.0, 4.0]);
    }

    #[test]
    fn a_quarter_turn_is_clockwise() {
        let out = affine(&ramp([1, 2, 2]), [1, 2, 2], Affine { rotation: 90.0, ..STILL }, Fill::Edge);
        // 1e-5: the cosine of 90 degrees is not exactly zero in 32 bits.
        for (got, expected) in out.iter().zip([3.0, 1.0, 4.0, 2.0]) {
            assert!((got - expected).abs() < 1e-5, "{out:?}");
        }
    }

    #[test]
    fn a_larger_picture_shows_its_middle() {
        let out = affine(&[0.0, 1.0, 2.0, 3.0, 4.0], [1, 1, 5], Affine { scale: 2.0, ..STILL }, Fill::Zero);
        assert_eq!(out, [1.0, 1.5, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn the_seed_alone_decides() {
        let image = ramp([1, 8, 8]);
        let run = |seed| augment(&image, [1, 8, 8], &AugmentConfig::default(), &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let default = AugmentConfig::default();
        assert!(default.check().is_ok());
        for (config, field) in [
            (AugmentConfig { rotation: f32::NAN, ..default }, "augment.rotation is NaN"),
            (AugmentConfig { shift: -1.0, ..default }, "augment.shift is -1"),
            (AugmentConfig { scale: f32::INFINITY, ..default }, "augment.scale is inf"),
        ] {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("hint"), "{message}");
        }
    }

    proptest! {
        /// Interpolation never leaves the range of the pixels (and of the zero outside).
        #[test]
        fn values_stay_in_range(
            image in prop::collection::vec(0.0f32..1.0, 3 * 6 * 7),
            rotation in 0.0f32..360.0,
            shift in 0.0f32..20.0,
            scale in 0.0f32..3.0,
            edge: bool,
            seed: u64,
        ) {
            let fill = if edge { Fill::Edge } else { Fill::Zero };
            let config = AugmentConfig { rotation, shift, scale, fill };
            let out = augment(&image, [3, 6, 7], &config, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(out.len(), image.len());
            // 1e-5: the four weights add up to 1 only within rounding.
            prop_assert!(out.iter().all(|value| (0.0..=1.0 + 1e-5).contains(value)));
        }
    }
}
