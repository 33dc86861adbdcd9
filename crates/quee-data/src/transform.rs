//! From a stored picture to what a backbone takes: channels, resizing, centre crop, mean and standard deviation.

use serde::{Deserialize, Serialize};

use crate::resample::{Window, resample};
use crate::{DataError, Picture, normalize};

/// How pictures are resized; both filters grow with the reduction (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// A triangle.
    #[default]
    Bilinear,
    /// Cubic convolution with a = −0.5.
    Bicubic,
}

/// What evaluation does with every picture, as torchvision's `Resize(antialias=True)`, `CenterCrop`, `Normalize`:
///
/// 1. Grey is copied into three channels, colours become luma (Rec. 709 weights) for one.
/// 2. The picture is resized so that its shorter side is `floor(side / crop)`, and the longer one in proportion, rounded
///    down. Where the target is not square, it is the smallest size that covers it.
/// 3. The middle is cut out; an odd rest is divided as Python rounds halves, to even.
/// 4. Each channel minus its mean, over its standard deviation.
///
/// A picture that already has the shape is not resampled when `crop` is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Channels C: 1 or 3.
    pub channels: usize,
    /// Height H in pixels.
    pub height: usize,
    /// Width W in pixels.
    pub width: usize,
    /// Share of the resized shorter side that is kept, above 0 and at most 1; timm's `crop_pct`.
    pub crop: f32,
    /// Filter.
    pub interpolation: Interpolation,
    /// Mean of each channel, on the 0–1 scale.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, on the 0–1 scale.
    pub std: Vec<f32>,
}

impl Transform {
    /// Shape `[C, H, W]` of the result.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Whether pictures of `shape` are resampled.
    pub fn resamples(&self, shape: [usize; 3]) -> bool {
        let [_, height, width] = shape;
        self.resized([height, width]) != [height, width]
    }

    /// The whole transform of one picture; values `[C, H, W]`.
    ///
    /// # Errors
    /// When the number of channels cannot be converted.
    ///
    /// # Panics
    /// When mean or standard deviation don't hold one number per channel, or the picture has no pixels.
    pub fn apply(&self, picture: Picture) -> Result<Vec<f32>, DataError> {
        let mut values = self.unit(picture)?.values;
        self.normalize(&mut values);
        Ok(values)
    }

    /// The transform without its last step: the result is on the 0–1 scale.
    ///
    /// # Errors
    /// When the number of channels cannot be converted.
    ///
    /// # Panics
    /// When the picture has no pixels.
    pub fn unit(&self, picture: Picture) -> Result<Picture, DataError> {
        let picture = picture.with_channels(self.channels)?;
        let [_, height, width] = picture.shape;
        let size = self.resized([height, width]);
        let window = [centre(size[0], self.height), centre(size[1], self.width), self.height, self.width];
        Ok(cut(picture, size, window, self.interpolation))
    }

    /// Mean and standard deviation, in place, of values `[n, C, H, W]`.
    ///
    /// # Panics
    /// When mean or standard deviation don't hold one number per channel, or `values` is not a whole number of pictures.
    pub fn normalize(&self, values: &mut [f32]) {
        assert_eq!(self.mean.len(), self.channels, "mean and std must hold one number per channel");
        normalize(values, self.height * self.width, &self.mean, &self.std);
    }

    /// Size `[H, W]` of the resized picture, before the crop.
    fn resized(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        // A crop such as 0.8 is a little more than 0.8 in 32 bits: 224 / 0.8 must be 280 all the same.
        let side = |target: usize| ((target as f64 / f64::from(self.crop) + 1e-4) as usize).max(target);
        let [tall, wide] = [side(self.height), side(self.width)];
        if height * wide >= width * tall {
            [(wide * height / width.max(1)).max(tall), wide]
        } else {
            [tall, (tall * width / height.max(1)).max(wide)]
        }
    }
}

/// Resizes to `size` where that is another size, and cuts `window` out.
fn cut(picture: Picture, size: [usize; 2], window: Window, interpolation: Interpolation) -> Picture {
    let [_, height, width] = picture.shape;
    if size == [height, width] && window == [0, 0, height, width] {
        return picture;
    }
    resample(&picture, size, window, interpolation)
}

/// Start of the middle `part` of `whole`, as torchvision's `CenterCrop` rounds it.
fn centre(whole: usize, part: usize) -> usize {
    let rest = whole - part;
    let half = rest / 2;
    if rest % 2 == 1 { half + half % 2 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(channels: usize, side: usize, crop: f32) -> Transform {
        Transform {
            channels,
            height: side,
            width: side,
            crop,
            interpolation: Interpolation::Bilinear,
            mean: vec![0.5; channels],
            std: vec![0.25; channels],
        }
    }

    #[test]
    fn the_shorter_side_and_the_crop_are_those_of_timm() {
        let resized = |side, crop, from| transform(3, side, crop).resized(from);
        assert_eq!(resized(224, 0.875, [375, 500]), [256, 341]);
        assert_eq!(resized(224, 0.9, [500, 375]), [330, 248]);
        assert_eq!(resized(224, 0.95, [84, 84]), [235, 235]);
        assert_eq!(resized(224, 0.8, [10, 10]), [280, 280]);
        assert_eq!(resized(32, 1.0, [32, 32]), [32, 32]);
        let wide = Transform { width: 48, ..transform(3, 32, 1.0) };
        assert_eq!(wide.resized([100, 100]), [48, 48]);
        assert_eq!(wide.resized([100, 300]), [32, 96]);
        // Python: round(0.5) = 0, round(1.5) = 2, round(2.5) = 2.
        assert_eq!([centre(9, 8), centre(11, 8), centre(13, 8), centre(12, 8)], [0, 2, 2, 2]);
    }

    #[test]
    fn a_picture_of_the_right_shape_keeps_its_bits() {
        let values: Vec<f32> = (0..48).map(|n| n as f32 / 48.0).collect();
        let picture = Picture { shape: [3, 4, 4], values: values.clone() };
        let out = transform(3, 4, 1.0).apply(picture).unwrap();
        assert!(out.iter().zip(&values).all(|(got, value)| *got == (value - 0.5) / 0.25));
        assert!(!transform(3, 4, 1.0).resamples([3, 4, 4]) && transform(3, 4, 0.5).resamples([3, 4, 4]));
    }

    #[test]
    fn channels_are_converted_before_anything_else() {
        let grey = Picture { shape: [1, 1, 1], values: vec![0.75] };
        assert_eq!(transform(3, 2, 1.0).apply(grey).unwrap(), [1.0; 12]);
        let red = Picture { shape: [3, 1, 1], values: vec![1.0, 0.0, 0.0] };
        assert!((transform(1, 1, 1.0).unit(red).unwrap().values[0] - 0.2126).abs() < 1e-6);
    }
}
