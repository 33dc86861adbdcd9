//! Picture files in and out.

use std::io::{self, Cursor, Read};
use std::path::Path;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader,
    error::{LimitError, LimitErrorKind},
};

use crate::{DataError, Dataset, jpeg};

/// Pixels that a picture file may hold; the conversion to floats may take 28 bytes for each.
const MAX_PIXELS: u64 = 64 << 20;
/// Bytes that a picture file may have.
const MAX_BYTES: u64 = 512 << 20;

/// A picture on the 0–1 scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Shape `[C, H, W]`; C is 1 (grey) or 3 (red, green, blue).
    pub shape: [usize; 3],
    /// Values `[C, H, W]`.
    pub values: Vec<f32>,
}

impl Picture {
    /// The picture with `channels` channels: grey is copied into three, colours become luma (Rec. 709 weights).
    ///
    /// # Errors
    /// When another conversion would be needed.
    pub fn with_channels(self, channels: usize) -> Result<Self, DataError> {
        let [own, height, width] = self.shape;
        let values = match (own, channels) {
            (own, wanted) if own == wanted => return Ok(self),
            (1, 3) => self.values.repeat(3),
            (3, 1) => {
                let (red, rest) = self.values.split_at(height * width);
                let (green, blue) = rest.split_at(height * width);
                let luma = |((r, g), b): ((&f32, &f32), &f32)| 0.2126 * r + 0.7152 * g + 0.0722 * b;
                red.iter().zip(green).zip(blue).map(luma).collect()
            }
            (1 | 3, wanted) => return Err(DataError::Channels { channels: wanted }),
            (own, _) => return Err(DataError::Channels { channels: own }),
        };
        Ok(Self { shape: [channels, height, width], values })
    }
}

/// Reads a PNG or JPEG file in its own size, with one channel where it is grey and three otherwise.
///
/// The format is read from the content, not from the name. The picture is turned as its EXIF orientation says,
/// transparent parts become black, and the four inks of CMYK files become red, green and blue. Digits are light on dark,
/// as in the data set.
///
/// # Errors
/// When the file is missing, neither PNG nor JPEG, damaged, cut off, or larger than 64 Mi pixels or 512 MiB.
pub fn read_picture(path: &Path) -> Result<Picture, DataError> {
    let read = |source| DataError::Read { path: path.into(), source };
    let unreadable = |source| DataError::UnreadablePicture { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(too_large()));
    }
    let reader = ImageReader::new(Cursor::new(bytes.as_slice())).with_guessed_format().map_err(read)?;
    match reader.format() {
        // The decoder fills what is missing with grey, and says nothing.
        Some(ImageFormat::Jpeg) if !jpeg::is_complete(&bytes) => {
            return Err(DataError::CutOffPicture { path: path.into(), bytes: bytes.len() });
        }
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        _ => return Err(DataError::UnsupportedPicture { path: path.into() }),
    }
    let picture = decode(reader, MAX_PIXELS).map_err(unreadable)?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(DataError::UnsupportedPicture { path: path.into() });
    }
    Ok(floats(picture))
}

/// Writes one picture of a data set as an 8-bit PNG file, 1.0 as 255.
///
/// # Errors
/// When the file cannot be written, or the picture cannot be read.
///
/// # Panics
/// When `index` is not below the number of pictures.
pub fn write_picture(data: &Dataset, index: usize, path: &Path) -> Result<(), DataError> {
    let Picture { shape: [channels, height, width], values } = data.picture(index)?;
    let mut bytes = Vec::with_capacity(values.len());
    for place in 0..height * width {
        // The cast cuts to the range of bytes.
        bytes.extend((0..channels).map(|channel| (values[channel * height * width + place] * 255.0).round() as u8));
    }
    let color = match channels {
        1 => image::ColorType::L8,
        3 => image::ColorType::Rgb8,
        _ => return Err(DataError::Channels { channels }),
    };
    image::save_buffer_with_format(path, &bytes, width as u32, height as u32, color, ImageFormat::Png)
        .map_err(|source| DataError::Write { path: path.into(), source })
}

fn too_large() -> ImageError {
    ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError))
}

fn decode<R: io::BufRead + io::Seek>(reader: ImageReader<R>, max_pixels: u64) -> Result<DynamicImage, ImageError> {
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(too_large());
    }
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Values of a decoded picture, transparent parts black.
fn floats(picture: DynamicImage) -> Picture {
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let bytes = |channels: usize, pixels: &[u8]| {
        let plane = |channel| pixels[channel..].iter().step_by(channels).map(|&value| f32::from(value) / 255.0);
        Picture { shape: [channels, height, width], values: (0..channels).flat_map(plane).collect() }
    };
    match picture {
        DynamicImage::ImageLuma8(pixels) => bytes(1, pixels.as_raw()),
        DynamicImage::ImageRgb8(pixels) => bytes(3, pixels.as_raw()),
        other => {
            let channels = if other.color().has_color() { 3 } else { 1 };
            let pixels = other.into_rgba32f();
            let plane = |channel: usize| pixels.pixels().map(move |pixel| pixel.0[channel] * pixel.0[3]);
            Picture { shape: [channels, height, width], values: (0..channels).flat_map(plane).collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgba, RgbaImage};

    use super::*;
    use crate::Pixels;

    fn close(got: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(got.len(), expected.len());
        for (place, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance, "value {place}: {a}, expected {b}");
        }
    }

    #[test]
    fn a_digit_survives_a_png_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("digit.png");
        let data = Dataset::digits().unwrap();
        for index in [0, 1796] {
            write_picture(&data, index, &file).unwrap();
            // Half a step of 8 bits, and rounding.
            let read = read_picture(&file).unwrap();
            assert_eq!(read.shape, [1, 8, 8]);
            close(&read.values, &data.picture(index).unwrap().values, 0.5 / 255.0 + 1e-6);
        }
    }

    #[test]
    fn colour_pictures_are_written_and_read_by_channel() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("colour.png");
        let data = Dataset {
            name: "colour".into(),
            classes: 2,
            class_names: vec!["a".into(), "b".into()],
            pixels: Pixels::Memory { shape: [3, 2, 2], max: 255, values: (0..12).map(|n| n * 20).collect() },
            labels: vec![0],
            official_test: None,
        };
        write_picture(&data, 0, &file).unwrap();
        assert_eq!(read_picture(&file).unwrap(), data.picture(0).unwrap());
        let grey = read_picture(&file).unwrap().with_channels(1).unwrap().values;
        let luma = (0.2126 * 0.0 + 0.7152 * 80.0 + 0.0722 * 160.0) / 255.0;
        assert!((grey[0] - luma).abs() < 1e-4, "{} is not the luma {luma}", grey[0]);
    }

    #[test]
    fn a_photograph_is_turned_as_its_exif_orientation_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("turned.jpg");
        image::GrayImage::from_fn(32, 16, |x, _| Luma([if x < 16 { 0 } else { 255 }])).save(&file).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        // One entry of the first directory: tag 0x0112 (orientation), type 3 (short), one value, 6 (turn clockwise).
        let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        bytes.splice(2..2, exif.iter().copied());
        std::fs::write(&file, bytes).unwrap();
        let out = read_picture(&file).unwrap();
        assert_eq!(out.shape, [1, 32, 16]);
        assert!(out.values[8] < 0.3 && out.values[31 * 16 + 8] > 0.7, "left became top");
    }

    #[test]
    fn a_picture_of_too_many_pixels_is_not_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("digit.png");
        write_picture(&Dataset::digits().unwrap(), 0, &file).unwrap();
        let open = || ImageReader::open(&file).unwrap();
        assert!(matches!(decode(open(), 63), Err(ImageError::Limits(_))));
        assert!(decode(open(), 64).is_ok());
    }

    #[test]
    fn transparent_parts_are_black() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("glass.png");
        RgbaImage::from_fn(2, 1, |x, _| Rgba([255, 255, 255, if x == 0 { 0 } else { 255 }])).save(&file).unwrap();
        close(&read_picture(&file).unwrap().values, &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0], 1e-6);
    }

    #[test]
    fn files_that_are_no_pictures_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let whole = {
            write_picture(&Dataset::digits().unwrap(), 0, &at("whole.png")).unwrap();
            std::fs::read(at("whole.png")).unwrap()
        };
        std::fs::write(at("cut.png"), &whole[..whole.len() / 2]).unwrap();
        std::fs::write(at("text.png"), "not a picture").unwrap();
        std::fs::write(at("empty.jpg"), "").unwrap();
        std::fs::write(at("old.gif"), b"GIF89a\x01\0\x01\0\0\0\0;").unwrap();
        image::GrayImage::new(64, 64).save(at("whole.jpg")).unwrap();
        let photograph = std::fs::read(at("whole.jpg")).unwrap();
        std::fs::write(at("cut.JPEG"), &photograph[..photograph.len() - 20]).unwrap();
        for (name, kind) in [
            ("missing.png", "check the path"),
            ("cut.png", "cannot decode"),
            ("text.png", "not a PNG or JPEG"),
            ("empty.jpg", "not a PNG or JPEG"),
            ("old.gif", "not a PNG or JPEG"),
            ("cut.JPEG", "cut off"),
        ] {
            let message = read_picture(&at(name)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(kind) && message.contains("hint"), "{message}");
        }
        let message = read_picture(&at("whole.png")).unwrap().with_channels(4).unwrap_err().to_string();
        assert!(message.contains("4 channels"), "{message}");
        let message = write_picture(&Dataset::digits().unwrap(), 0, &at("no/where.png")).unwrap_err().to_string();
        assert!(message.contains("where.png") && message.contains("hint"), "{message}");
    }
}
