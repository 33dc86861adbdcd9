//! Labelled pictures in memory.

use std::ops::Range;

/// A data set: one pool of labelled pictures, addressed by index.
///
/// Loaders check that every label is below [`classes`](Self::classes) and every pixel at most [`max`](Self::max).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Name by which recipes know it.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// One name per class, for reports.
    pub class_names: Vec<String>,
    /// Channels C of every picture: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Height H in pixels.
    pub height: usize,
    /// Width W in pixels.
    pub width: usize,
    /// Pixel value that stands for 1.0 on the 0–1 scale.
    pub max: u8,
    /// Pixel values `[n, C, H, W]`.
    pub pixels: Vec<u8>,
    /// Class of each picture, `[n]`.
    pub labels: Vec<u16>,
    /// Indices of the source's own test part; `None` where the source is a single pool.
    pub official_test: Option<Range<usize>>,
}

impl Dataset {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape `[C, H, W]` of every picture.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Pixel values `[C, H, W]` of one picture.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn picture(&self, index: usize) -> &[u8] {
        let size = self.channels * self.height * self.width;
        &self.pixels[index * size..(index + 1) * size]
    }

    /// Pictures on the 0–1 scale, minus `mean`, over `std`: `[n, C, H, W]`, in the order of `indices`.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len), or `mean` or `std` does not hold one number per channel.
    pub fn images(&self, indices: &[usize], mean: &[f32], std: &[f32]) -> Vec<f32> {
        let mut out = self.unit_images(indices);
        normalize(&mut out, self.height * self.width, mean, std);
        out
    }

    /// Pictures on the 0–1 scale: `[n, C, H, W]`, in the order of `indices`.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len).
    pub fn unit_images(&self, indices: &[usize]) -> Vec<f32> {
        let max = f32::from(self.max);
        let mut out = Vec::with_capacity(indices.len() * self.channels * self.height * self.width);
        for &index in indices {
            out.extend(self.picture(index).iter().map(|&value| f32::from(value) / max));
        }
        out
    }

    /// Classes of the pictures, in the order of `indices`.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len).
    pub fn labels_of(&self, indices: &[usize]) -> Vec<u16> {
        indices.iter().map(|&index| self.labels[index]).collect()
    }
}

/// Subtracts `mean` and divides by `std`, channel by channel, in place. `images` is `[n, C, H, W]` with `area` = H·W and
/// C = `mean.len()`.
///
/// # Panics
/// When `mean` and `std` differ in length or are empty, `area` is 0, or `images` is not a whole number of pictures.
pub fn normalize(images: &mut [f32], area: usize, mean: &[f32], std: &[f32]) {
    let channels = mean.len();
    assert_eq!(channels, std.len(), "mean and std must hold one number per channel");
    assert_eq!(images.len() % (channels * area), 0, "mean and std must hold one number per channel of the pictures");
    for (plane, values) in images.chunks_exact_mut(area).enumerate() {
        let (mean, std) = (mean[plane % channels], std[plane % channels]);
        for value in values {
            *value = (*value - mean) / std;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_colour_pictures() -> Dataset {
        Dataset {
            name: "test".into(),
            classes: 2,
            class_names: vec!["a".into(), "b".into()],
            channels: 3,
            height: 1,
            width: 2,
            max: 200,
            pixels: vec![0, 200, 100, 100, 50, 150, 200, 0, 0, 0, 100, 200],
            labels: vec![1, 0],
            official_test: None,
        }
    }

    #[test]
    fn images_are_scaled_by_the_largest_value_and_normalised_per_channel() {
        let data = two_colour_pictures();
        let out = data.images(&[1, 0, 1], &[0.5, 0.0, 0.25], &[0.5, 1.0, 0.25]);
        let first = [1.0, -1.0, 0.0, 0.0, 1.0, 3.0];
        let zeroth = [-1.0, 1.0, 0.5, 0.5, 0.0, 2.0];
        assert_eq!(out, [first, zeroth, first].concat());
        assert_eq!(data.labels_of(&[1, 0, 1]), [0, 1, 0]);
    }

    #[test]
    #[should_panic(expected = "one number per channel")]
    fn a_mean_of_the_wrong_length_is_refused() {
        two_colour_pictures().images(&[0], &[0.5; 4], &[0.5; 4]);
    }
}
