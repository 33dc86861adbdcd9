//! Random movements, crops and flips, for training parts only.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::resample::resample;
use crate::{DataError, Picture, Transform};

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

/// How a training picture may be changed. Each draw is uniform between the bounds.
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
    /// Pixels added to each side before a part of the old size is cut out at random; default 0.
    pub crop: usize,
    /// Probability of exchanging left and right; default 0.
    pub flip: f32,
    /// A random part, resized; default none.
    pub resized_crop: Option<ResizedCrop>,
}

/// A part of random area and shape that is resized to the whole (torchvision's `RandomResizedCrop`; C. Szegedy et al.,
/// *Going Deeper with Convolutions*, CVPR 2015).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResizedCrop {
    /// Least and largest share of the area; default 0.08 to 1.
    pub scale: [f32; 2],
    /// Least and largest width over height, uniform on a log scale; default 3/4 to 4/3.
    pub ratio: [f32; 2],
}

impl Default for ResizedCrop {
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { rotation: 10.0, shift: 1.0, scale: 0.1, ..Self::NONE }
    }
}

impl AugmentConfig {
    /// Changes nothing.
    pub const NONE: Self =
        Self { rotation: 0.0, shift: 0.0, scale: 0.0, fill: Fill::Zero, crop: 0, flip: 0.0, resized_crop: None };

    /// Checks that every range is possible.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse = |field, value, allowed| Err(DataError::Augment { field, value, allowed });
        for (field, value) in [("rotation", self.rotation), ("shift", self.shift), ("scale", self.scale)] {
            if !value.is_finite() || value < 0.0 {
                return refuse(field, value, "0 or a positive number");
            }
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return refuse("flip", self.flip, "a probability, from 0 to 1");
        }
        if let Some(ResizedCrop { scale, ratio }) = self.resized_crop {
            let range = |[low, high]: [f32; 2]| low > 0.0 && low <= high && high.is_finite();
            if !range(scale) || scale[1] > 1.0 {
                return refuse(
                    "resized_crop.scale",
                    scale[0],
                    "two shares of the area, above 0 and at most 1, the smaller first",
                );
            }
            if !range(ratio) {
                return refuse("resized_crop.ratio", ratio[0], "two positive numbers, the smaller first");
            }
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        self.rotation != 0.0 || self.shift != 0.0 || self.scale != 0.0
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

/// Changes `image` of `shape` `[C, H, W]` at random within `config`, which has been [checked](AugmentConfig::check): first a
/// random part is resized, then the picture is moved, cropped and flipped, each where the configuration says so. The
/// shape stays.
///
/// How many numbers are taken from `rng` depends on the configuration: give every picture a generator of its own.
/// The picture should be on the 0–1 scale: [`Fill::Zero`] fills with 0.0, which is another colour after normalisation.
///
/// # Panics
/// When `image` is not of `shape`.
pub fn augment<R: Rng + ?Sized>(image: &[f32], shape: [usize; 3], config: &AugmentConfig, rng: &mut R) -> Vec<f32> {
    assert_eq!(image.len(), shape.iter().product::<usize>(), "an image of another shape than {shape:?}");
    let [_, height, width] = shape;
    let movement = draw_movement(config, rng);
    let mut values = match &config.resized_crop {
        None => image.to_vec(),
        Some(crop) => {
            let picture = Picture { shape, values: image.to_vec() };
            random_part(&picture, crop, [height, width], crate::Interpolation::Bilinear, rng).values
        }
    };
    finish(&mut values, shape, movement, config, rng);
    values
}

impl Transform {
    /// One training picture: as [`apply`](Self::apply), with the changes of [`augment`] on the 0–1 scale. A random part is
    /// taken from the stored picture in its own size and replaces resizing and centre crop.
    ///
    /// # Errors
    /// When the number of channels cannot be converted.
    ///
    /// # Panics
    /// As [`apply`](Self::apply).
    pub fn augmented<R: Rng + ?Sized>(
        &self,
        picture: Picture,
        config: &AugmentConfig,
        rng: &mut R,
    ) -> Result<Vec<f32>, DataError> {
        let movement = draw_movement(config, rng);
        let mut values = match &config.resized_crop {
            None => self.unit(picture)?.values,
            Some(crop) => {
                let picture = picture.with_channels(self.channels)?;
                random_part(&picture, crop, [self.height, self.width], self.interpolation, rng).values
            }
        };
        finish(&mut values, self.shape(), movement, config, rng);
        self.normalize(&mut values);
        Ok(values)
    }
}

/// Takes four numbers from `rng`, whatever the configuration.
fn draw_movement<R: Rng + ?Sized>(config: &AugmentConfig, rng: &mut R) -> Affine {
    let mut draw = || 2.0 * rng.random::<f32>() - 1.0;
    Affine {
        rotation: draw() * config.rotation,
        scale: (1.0 + config.scale).powf(draw()),
        shift: [draw() * config.shift, draw() * config.shift],
    }
}

/// Movement, crop and flip.
fn finish<R: Rng + ?Sized>(
    values: &mut Vec<f32>,
    shape: [usize; 3],
    movement: Affine,
    config: &AugmentConfig,
    rng: &mut R,
) {
    if config.moves() {
        *values = affine(values, shape, movement, config.fill);
    }
    if config.crop > 0 {
        let mut draw = || rng.random_range(0..=2 * config.crop) as isize - config.crop as isize;
        let (down, right) = (draw(), draw());
        *values = shifted(values, shape, [down, right], config.fill);
    }
    if config.flip > 0.0 && rng.random::<f32>() < config.flip {
        values.chunks_exact_mut(shape[2]).for_each(<[f32]>::reverse);
    }
}

/// The picture seen through a window of its size that lies `offset` (down, right) from its own place.
fn shifted(image: &[f32], [channels, height, width]: [usize; 3], offset: [isize; 2], fill: Fill) -> Vec<f32> {
    let source = |at: usize, offset: isize, size: usize| {
        let (from, last) = (at as isize + offset, size as isize - 1);
        if fill == Fill::Edge || (0..=last).contains(&from) { Some(from.clamp(0, last) as usize) } else { None }
    };
    let mut out = vec![0.0; image.len()];
    for channel in 0..channels {
        for y in 0..height {
            let Some(row) = source(y, offset[0], height) else { continue };
            for x in 0..width {
                if let Some(column) = source(x, offset[1], width) {
                    out[(channel * height + y) * width + x] = image[(channel * height + row) * width + column];
                }
            }
        }
    }
    out
}

/// A random part of `picture`, resized to `size` `[H, W]`. As torchvision draws it: ten tries, then the largest part in
/// the middle whose shape is allowed.
fn random_part<R: Rng + ?Sized>(
    picture: &Picture,
    crop: &ResizedCrop,
    size: [usize; 2],
    interpolation: crate::Interpolation,
    rng: &mut R,
) -> Picture {
    const TRIES: usize = 10;
    let [channels, height, width] = picture.shape;
    let mut between = |[low, high]: [f32; 2]| low + (high - low) * rng.random::<f32>();
    let mut found = None;
    for _ in 0..TRIES {
        let area = (height * width) as f32 * between(crop.scale);
        let ratio = between(crop.ratio.map(f32::ln)).exp();
        let part = [(area / ratio).sqrt().round() as usize, (area * ratio).sqrt().round() as usize];
        if (1..=height).contains(&part[0]) && (1..=width).contains(&part[1]) {
            found = Some(part);
            break;
        }
    }
    let ([top, left], [rows, columns]) = match found {
        Some(part) => ([rng.random_range(0..=height - part[0]), rng.random_range(0..=width - part[1])], part),
        None => {
            let ratio = width as f32 / height as f32;
            let rows = if ratio < crop.ratio[0] { (width as f32 / crop.ratio[0]).round() as usize } else { height };
            let columns = if ratio > crop.ratio[1] { (height as f32 * crop.ratio[1]).round() as usize } else { width };
            let part = [rows.clamp(1, height), columns.clamp(1, width)];
            ([(height - part[0]) / 2, (width - part[1]) / 2], part)
        }
    };
    let mut values = Vec::with_capacity(channels * rows * columns);
    for line in 0..channels * rows {
        let (channel, row) = (line / rows, top + line % rows);
        let start = (channel * height + row) * width + left;
        values.extend_from_slice(&picture.values[start..start + columns]);
    }
    let part = Picture { shape: [channels, rows, columns], values };
    resample(&part, size, [0, 0, size[0], size[1]], interpolation)
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
        let still = AugmentConfig::NONE;
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

    fn resized(scale: [f32; 2], ratio: [f32; 2]) -> AugmentConfig {
        AugmentConfig { resized_crop: Some(ResizedCrop { scale, ratio }), ..AugmentConfig::NONE }
    }

    #[test]
    fn flips_exchange_left_and_right_as_often_as_asked() {
        let flipped = [3.0, 2.0, 1.0, 6.0, 5.0, 4.0];
        let run = |flip, seed| {
            let config = AugmentConfig { flip, ..AugmentConfig::NONE };
            augment(&ramp([1, 2, 3]), [1, 2, 3], &config, &mut ChaCha8Rng::seed_from_u64(seed))
        };
        assert_eq!(run(1.0, 0), flipped);
        let count = (0..400).filter(|&seed| run(0.5, seed) == flipped).count();
        // Four standard deviations of 400 throws are 40.
        assert!((160..=240).contains(&count), "{count} of 400");
    }

    #[test]
    fn a_random_crop_shows_every_place_within_the_padding() {
        let config = AugmentConfig { crop: 1, ..AugmentConfig::NONE };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let out = augment(&ramp([1, 2, 2]), [1, 2, 2], &config, &mut ChaCha8Rng::seed_from_u64(seed));
            seen.insert(out.iter().map(|&v| v as u8).collect::<Vec<_>>());
        }
        let expected = [
            [0, 0, 0, 1],
            [0, 0, 1, 2],
            [0, 0, 2, 0],
            [0, 1, 0, 3],
            [1, 2, 3, 4],
            [2, 0, 4, 0],
            [0, 3, 0, 0],
            [3, 4, 0, 0],
            [4, 0, 0, 0],
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), {
            let mut all = expected.map(Vec::from).to_vec();
            all.sort();
            all
        });
        assert_eq!(shifted(&ramp([1, 2, 2]), [1, 2, 2], [1, 1], Fill::Edge), [4.0; 4]);
    }

    #[test]
    fn a_resized_crop_of_everything_is_the_picture() {
        let config = resized([1.0, 1.0], [1.0, 1.0]);
        let image = ramp([2, 6, 6]);
        assert_eq!(augment(&image, [2, 6, 6], &config, &mut ChaCha8Rng::seed_from_u64(0)), image);
    }

    #[test]
    fn a_resized_crop_keeps_to_its_area_and_shape() {
        // A ramp from left to right: what is seen of it tells the width of the part.
        let (height, width) = (40, 80);
        let values: Vec<f32> = (0..height * width).map(|i| (i % width) as f32 / width as f32).collect();
        let picture = Picture { shape: [1, height, width], values };
        let crop = ResizedCrop { scale: [0.25, 0.25], ratio: [0.5, 2.0] };
        let mut widths = Vec::new();
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let out = random_part(&picture, &crop, [8, 8], crate::Interpolation::Bilinear, &mut rng);
            // Between the centres of the first and the last of 8 pixels lie 7/8 of the part.
            widths.push((out.values[6] - out.values[1]) * width as f32 * 8.0 / 5.0);
        }
        let (low, high) = (widths.iter().copied().fold(f32::MAX, f32::min), widths.iter().copied().fold(0.0, f32::max));
        // A quarter of 3,200 pixels: 20 to 40 wide; one pixel for rounding.
        assert!((19.0..22.0).contains(&low) && (38.0..=41.0).contains(&high), "{low} to {high}");
        // Nothing of the allowed shape fits: the middle, as wide as allowed.
        let impossible = ResizedCrop { scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        let middle = random_part(
            &picture,
            &impossible,
            [40, 40],
            crate::Interpolation::Bilinear,
            &mut ChaCha8Rng::seed_from_u64(0),
        );
        assert_eq!((middle.values[0], middle.values[39]), (0.25, 59.0 / 80.0));
    }

    #[test]
    fn an_augmented_file_is_normalised_last() {
        let transform = Transform {
            channels: 1,
            height: 2,
            width: 2,
            crop: 1.0,
            interpolation: crate::Interpolation::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
        };
        let white = || Picture { shape: [1, 2, 2], values: vec![1.0; 4] };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(transform.augmented(white(), &AugmentConfig::NONE, &mut rng).unwrap(), [1.0; 4]);
        // A shift beyond the picture leaves black.
        let config = AugmentConfig { crop: 1000, ..AugmentConfig::NONE };
        assert_eq!(transform.augmented(white(), &config, &mut rng).unwrap(), [-1.0; 4]);
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let default = AugmentConfig::default();
        assert!(default.check().is_ok());
        for (config, field) in [
            (AugmentConfig { rotation: f32::NAN, ..default }, "augment.rotation is NaN"),
            (AugmentConfig { shift: -1.0, ..default }, "augment.shift is -1"),
            (AugmentConfig { scale: f32::INFINITY, ..default }, "augment.scale is inf"),
            (AugmentConfig { flip: 1.5, ..default }, "augment.flip is 1.5"),
            (resized([0.0, 1.0], [1.0, 1.0]), "augment.resized_crop.scale is 0"),
            (resized([0.5, 1.5], [1.0, 1.0]), "augment.resized_crop.scale is 0.5"),
            (resized([0.5, 1.0], [2.0, 1.0]), "augment.resized_crop.ratio is 2"),
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
            crop in 0usize..9,
            resized: bool,
            seed: u64,
        ) {
            let fill = if edge { Fill::Edge } else { Fill::Zero };
            let resized_crop = resized.then(ResizedCrop::default);
            let config = AugmentConfig { rotation, shift, scale, fill, crop, flip: 0.5, resized_crop };
            let out = augment(&image, [3, 6, 7], &config, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(out.len(), image.len());
            // 1e-5: the four weights add up to 1 only within rounding.
            prop_assert!(out.iter().all(|value| (0.0..=1.0 + 1e-5).contains(value)));
        }
    }
}
