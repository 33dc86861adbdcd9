//! Labelled pictures, in memory or in files that are decoded when asked for.

use std::ops::Range;
use std::path::PathBuf;

use crate::{DataError, Picture, Transform, catalog, read_picture};

/// A data set: one pool of labelled pictures, addressed by index.
///
/// Loaders check that every label is below [`classes`](Self::classes) and every pixel in memory at most its largest
/// value. Where the source has a test part, it follows the training part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Name by which recipes know it.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// One name per class, for reports.
    pub class_names: Vec<String>,
    /// Where the pictures are.
    pub pixels: Pixels,
    /// Class of each picture, `[n]`.
    pub labels: Vec<u16>,
    /// Indices of the source's own test part; `None` where the source is a single pool.
    pub official_test: Option<Range<usize>>,
}

/// Where the pictures of a data set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pixels {
    /// In memory, all of one shape.
    Memory {
        /// Shape `[C, H, W]` of every picture; C is 1 (grey) or 3 (red, green, blue).
        shape: [usize; 3],
        /// Pixel value that stands for 1.0 on the 0–1 scale.
        max: u8,
        /// Pixel values `[n, C, H, W]`.
        values: Vec<u8>,
    },
    /// In PNG or JPEG files of any size, one per picture, decoded each time that a picture is asked for.
    Files(Vec<PathBuf>),
}

/// Number of pictures in the two parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    /// Pictures that are not in the source's test part.
    pub train: usize,
    /// Pictures of the source's test part; 0 where it has none.
    pub test: usize,
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

    /// Shape `[C, H, W]` of every picture; `None` for pictures in files, which may have any.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match self.pixels {
            Pixels::Memory { shape, .. } => Some(shape),
            Pixels::Files(_) => None,
        }
    }

    /// Number of pictures in each part.
    pub fn part_sizes(&self) -> PartSizes {
        let test = self.official_test.as_ref().map_or(0, Range::len);
        PartSizes { train: self.len() - test, test }
    }

    /// Number of pictures of the published data set of this name, where there is one.
    pub fn official_size(&self) -> Option<PartSizes> {
        catalog::official_size(&self.name)
    }

    /// One picture on the 0–1 scale, as it is stored.
    ///
    /// # Errors
    /// When its file cannot be read or decoded; pictures in memory give none.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn picture(&self, index: usize) -> Result<Picture, DataError> {
        match &self.pixels {
            Pixels::Memory { shape, max, values } => {
                let (size, max) = (shape.iter().product::<usize>(), f32::from(*max));
                let stored = &values[index * size..(index + 1) * size];
                Ok(Picture { shape: *shape, values: stored.iter().map(|&value| f32::from(value) / max).collect() })
            }
            Pixels::Files(paths) => read_picture(&paths[index]),
        }
    }

    /// Pictures brought to the shape of `transform` and normalised by it: `[n, C, H, W]`, in the order of `indices`.
    ///
    /// # Errors
    /// When a file cannot be read or decoded, or the number of channels cannot be converted.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len).
    pub fn batch(&self, indices: &[usize], transform: &Transform) -> Result<Vec<f32>, DataError> {
        let mut out = Vec::with_capacity(indices.len() * transform.shape().iter().product::<usize>());
        for &index in indices {
            out.extend(transform.apply(self.picture(index)?)?);
        }
        Ok(out)
    }

    /// As [`batch`](Self::batch), on the 0–1 scale: without mean and standard deviation.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    ///
    /// # Panics
    /// As [`batch`](Self::batch).
    pub fn unit_batch(&self, indices: &[usize], transform: &Transform) -> Result<Vec<f32>, DataError> {
        let mut out = Vec::with_capacity(indices.len() * transform.shape().iter().product::<usize>());
        for &index in indices {
            out.extend(transform.unit(self.picture(index)?)?.values);
        }
        Ok(out)
    }

    /// Whether a batch costs more than copying: files to decode, or pictures to resample.
    pub fn is_costly(&self, transform: &Transform) -> bool {
        self.shape().is_none_or(|shape| transform.resamples(shape))
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
    use crate::Interpolation;

    fn two_colour_pictures() -> Dataset {
        Dataset {
            name: "test".into(),
            classes: 2,
            class_names: vec!["a".into(), "b".into()],
            pixels: Pixels::Memory {
                shape: [3, 1, 2],
                max: 200,
                values: vec![0, 200, 100, 100, 50, 150, 200, 0, 0, 0, 100, 200],
            },
            labels: vec![1, 0],
            official_test: Some(1..2),
        }
    }

    fn transform(mean: &[f32], std: &[f32]) -> Transform {
        Transform {
            channels: 3,
            height: 1,
            width: 2,
            crop: 1.0,
            interpolation: Interpolation::Bilinear,
            mean: mean.to_vec(),
            std: std.to_vec(),
        }
    }

    #[test]
    fn pictures_are_scaled_by_the_largest_value_and_normalised_per_channel() {
        let (data, transform) = (two_colour_pictures(), transform(&[0.5, 0.0, 0.25], &[0.5, 1.0, 0.25]));
        let out = data.batch(&[1, 0, 1], &transform).unwrap();
        let first = [1.0, -1.0, 0.0, 0.0, 1.0, 3.0];
        let zeroth = [-1.0, 1.0, 0.5, 0.5, 0.0, 2.0];
        assert_eq!(out, [first, zeroth, first].concat());
        assert_eq!(data.unit_batch(&[1], &transform).unwrap(), [1.0, 0.0, 0.0, 0.0, 0.5, 1.0]);
        assert_eq!(data.labels_of(&[1, 0, 1]), [0, 1, 0]);
        assert!(!data.is_costly(&transform));
    }

    #[test]
    fn sizes_of_the_parts() {
        let mut data = two_colour_pictures();
        assert_eq!(data.part_sizes(), PartSizes { train: 1, test: 1 });
        assert_eq!(data.official_size(), None);
        data.name = "cifar10".into();
        assert_eq!(data.official_size(), Some(PartSizes { train: 50_000, test: 10_000 }));
    }

    #[test]
    #[should_panic(expected = "one number per channel")]
    fn a_mean_of_the_wrong_length_is_refused() {
        let _ = two_colour_pictures().batch(&[0], &transform(&[0.5; 4], &[0.5; 4]));
    }
}
