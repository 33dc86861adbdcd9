//! The handwritten digits inside the program, and their file format.
//!
//! 1,797 pictures of 8×8 grey pixels from 0 to 16: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten
//! Digits*, UCI Machine Learning Repository, 1998, doi 10.24432/C50P49, CC BY 4.0. `assets/digits/` says how the file
//! was made.
//!
//! # Format
//! Numbers are little-endian.
//!
//! | byte | type | meaning |
//! | --- | --- | --- |
//! | 0 | 8 bytes | `QUEEDIG1` |
//! | 8 | u32 | pictures |
//! | 12 | u32 | height H, 1 to 1,024 |
//! | 16 | u32 | width W, 1 to 1,024 |
//! | 20 | u32 | classes, 2 to 256 |
//! | 24 | u32 | largest pixel value, 1 to 255 |
//! | 28 | | per picture: label (1 byte), then H·W pixels (1 byte each), row by row |

use crate::{DataError, Dataset, Pixels};

const MAGIC: &[u8; 8] = b"QUEEDIG1";
const HEAD: usize = 28;
static EMBEDDED: &[u8] = include_bytes!("../../../assets/digits/digits.bin");

impl Dataset {
    /// The digits inside the program.
    ///
    /// # Errors
    /// None in practice: as [`parse_digits`](Self::parse_digits), were the embedded file damaged.
    pub fn digits() -> Result<Self, DataError> {
        Self::parse_digits(EMBEDDED, "the embedded digits")
    }

    /// Pictures of one channel in the [format of the digits](crate::digits). `origin` names the file in errors.
    ///
    /// # Errors
    /// When the bytes are not of the format, end early, go on too long, or hold a label or pixel out of range.
    pub fn parse_digits(bytes: &[u8], origin: &str) -> Result<Self, DataError> {
        let origin = || origin.to_string();
        let start = &bytes[..bytes.len().min(MAGIC.len())];
        if !MAGIC.starts_with(start) {
            let (expected, found) = (MAGIC.escape_ascii().to_string(), start.escape_ascii().to_string());
            return Err(DataError::WrongMagic { origin: origin(), format: "digits", expected, found });
        }
        let Some((head, body)) = bytes.split_at_checked(HEAD) else {
            let (expected, found) = (HEAD as u64, bytes.len() as u64);
            return Err(DataError::Truncated { origin: origin(), what: "the head".into(), expected, found });
        };
        let number = |offset: usize, field: &'static str, least: u32, most: u32| {
            let value = u32::from_le_bytes([head[offset], head[offset + 1], head[offset + 2], head[offset + 3]]);
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(DataError::BadHeader { origin: origin(), offset, field, value, least, most })
            }
        };
        let pictures = number(8, "the number of pictures", 1, u32::MAX)?;
        let height = number(12, "the height", 1, 1024)? as usize;
        let width = number(16, "the width", 1, 1024)? as usize;
        let classes = number(20, "the number of classes", 2, 256)? as usize;
        let max = number(24, "the largest pixel value", 1, 255)? as u8;

        let record = 1 + height * width;
        let (expected, found) = (HEAD as u64 + u64::from(pictures) * record as u64, bytes.len() as u64);
        if found < expected {
            let what = format!("{pictures} pictures of {height}×{width}");
            return Err(DataError::Truncated { origin: origin(), what, expected, found });
        }
        if found > expected {
            return Err(DataError::WrongSize { origin: origin(), expected, found });
        }

        let mut labels = Vec::with_capacity(body.len() / record);
        let mut pixels = Vec::with_capacity(body.len() - body.len() / record);
        for (picture, chunk) in body.chunks_exact(record).enumerate() {
            let offset = HEAD + picture * record;
            let label = u16::from(chunk[0]);
            if usize::from(label) >= classes {
                return Err(DataError::LabelOutOfRange { origin: origin(), offset, picture, label, classes });
            }
            if let Some(place) = chunk[1..].iter().position(|&value| value > max) {
                return Err(DataError::PixelOutOfRange {
                    origin: origin(),
                    offset: offset + 1 + place,
                    picture,
                    row: place / width,
                    column: place % width,
                    value: chunk[1 + place],
                    max,
                });
            }
            labels.push(label);
            pixels.extend_from_slice(&chunk[1..]);
        }
        Ok(Self {
            name: "digits".into(),
            classes,
            class_names: (0..classes).map(|class| class.to_string()).collect(),
            pixels: Pixels::Memory { shape: [1, height, width], max, values: pixels },
            labels,
            official_test: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Two pictures of 2 rows and 3 columns, 4 classes, pixels up to 16.
    fn small_file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([2u32, 2, 3, 4, 16].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([3, 0, 1, 2, 3, 4, 5]);
        bytes.extend([0, 16, 15, 14, 13, 12, 11]);
        bytes
    }

    /// Shape, largest value and the bytes of one picture.
    fn stored(data: &Dataset, index: usize) -> ([usize; 3], u8, &[u8]) {
        let Pixels::Memory { shape, max, values } = &data.pixels else { panic!("digits are in memory") };
        let size: usize = shape.iter().product();
        (*shape, *max, &values[index * size..(index + 1) * size])
    }

    fn refusal(bytes: &[u8]) -> (DataError, String) {
        let error = Dataset::parse_digits(bytes, "my.bin").unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("my.bin: ") && message.contains("; hint: "), "{message}");
        (error, message)
    }

    #[test]
    fn the_embedded_file_is_the_documented_one() {
        let sum: String = Sha256::digest(EMBEDDED).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../../../assets/digits/README.md").contains(&sum), "sha256 {sum}");

        let data = Dataset::digits().unwrap();
        assert_eq!((data.len(), data.classes), (1797, 10));
        let (shape, max, first) = stored(&data, 0);
        assert_eq!((shape, max), ([1, 8, 8], 16));
        assert_eq!(data.labels[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
        assert_eq!(first[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
        let mut counts = [0; 10];
        data.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn a_file_of_the_format_is_read() {
        let data = Dataset::parse_digits(&small_file(), "my.bin").unwrap();
        assert_eq!(data.classes, 4);
        assert_eq!(data.labels, [3, 0]);
        assert_eq!(stored(&data, 1), ([1, 2, 3], 16, [16, 15, 14, 13, 12, 11].as_slice()));
        assert_eq!(data.class_names, ["0", "1", "2", "3"]);
    }

    #[test]
    fn another_format_is_refused() {
        let mut bytes = small_file();
        bytes[..4].copy_from_slice(b"\x89PNG");
        let (error, message) = refusal(&bytes);
        assert!(matches!(error, DataError::WrongMagic { .. }) && message.contains(r"\x89PNGDIG1"), "{message}");
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = small_file();
        for length in 0..bytes.len() {
            let (error, message) = refusal(&bytes[..length]);
            let expected = if length < HEAD { HEAD } else { bytes.len() };
            assert!(
                matches!(error, DataError::Truncated { expected: e, found: f, .. } if e == expected as u64 && f == length as u64),
                "{message}"
            );
        }
    }

    #[test]
    fn bytes_after_the_last_picture_are_refused() {
        let mut bytes = small_file();
        bytes.extend([0; 5]);
        let (error, message) = refusal(&bytes);
        assert!(matches!(error, DataError::WrongSize { expected: 42, found: 47, .. }), "{message}");
        assert!(message.contains("byte 42: 5 bytes follow"), "{message}");
    }

    #[test]
    fn impossible_numbers_in_the_head_are_refused_before_memory_is_asked_for() {
        for (place, value) in
            [(8, 0), (12, 0), (12, 1025), (16, 0), (16, u32::MAX), (20, 1), (20, 257), (24, 0), (24, 256)]
        {
            let mut bytes = small_file();
            bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
            let (error, message) = refusal(&bytes);
            assert!(
                matches!(error, DataError::BadHeader { offset, value: v, .. } if offset == place && v == value),
                "{message}"
            );
        }
        let mut bytes = small_file();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(refusal(&bytes).0, DataError::Truncated { .. }));
    }

    #[test]
    fn a_label_out_of_range_is_refused_with_its_place() {
        let mut bytes = small_file();
        bytes[35] = 4;
        let (error, message) = refusal(&bytes);
        assert!(
            matches!(error, DataError::LabelOutOfRange { offset: 35, picture: 1, label: 4, classes: 4, .. }),
            "{message}"
        );
    }

    #[test]
    fn a_pixel_out_of_range_is_refused_with_its_place() {
        let mut bytes = small_file();
        bytes[40] = 17;
        let (error, message) = refusal(&bytes);
        assert!(
            matches!(
                error,
                DataError::PixelOutOfRange { offset: 40, picture: 1, row: 1, column: 1, value: 17, max: 16, .. }
            ),
            "{message}"
        );
    }
}
