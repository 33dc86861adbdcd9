//! SVHN, cropped digits: Y. Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning*, NIPS
//! workshop 2011.
//!
//! `train_32x32.mat` and `test_32x32.mat` are MATLAB 5 files with `X`, bytes of 32×32×3×N (row, column, channel,
//! picture; the row runs fastest), and `y`, N×1, where the digit 0 is stored as 10. Here a label is its digit.

use std::path::Path;

use crate::{DataError, Dataset, Pixels, mat5};

pub(crate) const TRAIN: &str = "train_32x32.mat";
pub(crate) const TEST: &str = "test_32x32.mat";

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// Reads both files in `folder`: training pictures, then test pictures.
///
/// # Errors
/// When a file is missing or damaged, or `X` and `y` are not as described.
pub(crate) fn load(folder: &Path) -> Result<Dataset, DataError> {
    let (mut values, mut labels) = read_file(&folder.join(TRAIN))?;
    let train = labels.len();
    let (more, test) = read_file(&folder.join(TEST))?;
    values.extend(more);
    labels.extend(test);
    Ok(Dataset {
        name: "svhn".into(),
        classes: 10,
        class_names: (0..10).map(|digit| digit.to_string()).collect(),
        official_test: Some(train..labels.len()),
        pixels: Pixels::Memory { shape: [3, SIDE, SIDE], max: 255, values },
        labels,
    })
}

fn read_file(path: &Path) -> Result<(Vec<u8>, Vec<u16>), DataError> {
    let file = std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source })?;
    parse(&file).map_err(|source| DataError::Matlab { path: path.into(), source })
}

/// Pixels `[n, 3, 32, 32]` and labels of one file. Takes at most [`mat5::MEMORY`] times the file's size.
///
/// # Errors
/// When the file is damaged, or `X` and `y` are not as described.
pub fn parse(file: &[u8]) -> Result<(Vec<u8>, Vec<u16>), mat5::MatError> {
    let error = |reason: String| mat5::MatError { offset: 0, reason };
    let mut arrays = mat5::read(file, &["X", "y"])?;
    let mut find = |name: &str| {
        let place = arrays.iter().position(|array| array.name == name);
        place.map(|place| arrays.swap_remove(place)).ok_or_else(|| error(format!("no variable `{name}`")))
    };
    let (x, y) = (find("X")?, find("y")?);

    // A last dimension of 1 is not stored.
    let pictures = match x.dims[..] {
        [SIDE, SIDE, 3] => 1,
        [SIDE, SIDE, 3, n] if n > 0 => n,
        _ => return Err(error(format!("`X` is of {:?}, expected 32×32×3×N", x.dims))),
    };
    if y.dims != [pictures, 1] && y.dims != [1, pictures] {
        return Err(error(format!("`y` is of {:?}, expected {pictures}×1", y.dims)));
    }
    let label = |index: usize| match y.value(index) {
        10.0 => Ok(0),
        digit if (1.0..=9.0).contains(&digit) && digit.fract() == 0.0 => Ok(digit as u16),
        other => Err(error(format!("`y`: picture {index} has label {other}, expected 1 to 10"))),
    };
    let labels = (0..pictures).map(label).collect::<Result<Vec<u16>, _>>()?;
    if x.class != mat5::Class::Uint8 {
        return Err(error("`X` is not of class uint8".into()));
    }
    let mut values = x.into_bytes().ok_or_else(|| error("`X` is not stored as bytes".into()))?;
    for plane in values.chunks_exact_mut(PLANE) {
        transpose(plane);
    }
    Ok((values, labels))
}

fn transpose(plane: &mut [u8]) {
    for row in 0..SIDE {
        for column in 0..row {
            plane.swap(row * SIDE + column, column * SIDE + row);
        }
    }
}
