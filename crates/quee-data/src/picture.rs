//! Picture files in and out.

use std::{io, path::Path};

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Pixel,
    error::{LimitError, LimitErrorKind},
    imageops::FilterType,
};

use crate::{DataError, Dataset};

/// Pixels that a picture file may hold; the conversion to floats takes 16 bytes for each.
const MAX_PIXELS: u64 = 64 << 20;

/// Reads a PNG or JPEG file for a backbone that takes `shape` `[C, H, W]` with C = 1 or 3; the result is on the 0–1
/// scale.
///
/// The picture is turned as its EXIF orientation says, transparent parts become black, and colours become luma
/// (Rec. 709 weights) where C = 1. A picture of another size is stretched to H×W with a triangle filter as wide as the
/// reduction, so that fine detail is averaged instead of skipped. Digits are light on dark, as in the data set.
///
/// # Errors
/// When the file is missing, neither PNG nor JPEG, damaged, or larger than 64 Mi pixels; or C is neither 1 nor 3.
pub fn read_picture(path: &Path, shape: [usize; 3]) -> Result<Vec<f32>, DataError> {
    let [channels, height, width] = shape;
    if !matches!(channels, 1 | 3) {
        return Err(DataError::Channels { channels });
    }
    let read = |source| DataError::Read { path: path.into(), source };
    let file = io::BufReader::new(std::fs::File::open(path).map_err(read)?);
    let reader = ImageReader::new(file).with_guessed_format().map_err(read)?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(DataError::UnsupportedPicture { path: path.into() });
    }
    let picture =
        decode(reader, MAX_PIXELS).map_err(|source| DataError::UnreadablePicture { path: path.into(), source })?;

    let mut pixels = picture.to_rgba32f();
    for pixel in pixels.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0;
        pixel.0 = [red * alpha, green * alpha, blue * alpha, 1.0];
    }
    let opaque = DynamicImage::ImageRgba32F(pixels);
    Ok(match channels {
        1 => planes(&opaque.to_luma32f(), height, width),
        _ => planes(&opaque.to_rgb32f(), height, width),
    })
}

/// Writes one picture of a data set as an 8-bit PNG file, largest pixel value as 255.
///
/// # Errors
/// When the file cannot be written, or the pictures have neither 1 nor 3 channels.
///
/// # Panics
/// When `index` is not below the number of pictures.
pub fn write_picture(data: &Dataset, index: usize, path: &Path) -> Result<(), DataError> {
    let [channels, height, width] = data.shape();
    let planes = data.picture(index);
    let max = u32::from(data.max);
    let mut bytes = Vec::with_capacity(planes.len());
    for place in 0..height * width {
        for channel in 0..channels {
            let value = u32::from(planes[channel * height * width + place]);
            bytes.push(((value * 255 + max / 2) / max).min(255) as u8);
        }
    }
    let color = match channels {
        1 => image::ColorType::L8,
        3 => image::ColorType::Rgb8,
        _ => return Err(DataError::Channels { channels }),
    };
    image::save_buffer_with_format(path, &bytes, width as u32, height as u32, color, ImageFormat::Png)
        .map_err(|source| DataError::Write { path: path.into(), source })
}

fn decode<R: io::BufRead + io::Seek>(reader: ImageReader<R>, max_pixels: u64) -> Result<DynamicImage, ImageError> {
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError)));
    }
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Interleaved pixels, resized where needed, as `[C, H, W]`.
fn planes<P: Pixel<Subpixel = f32> + 'static>(
    pixels: &ImageBuffer<P, Vec<f32>>,
    height: usize,
    width: usize,
) -> Vec<f32> {
    let resized;
    let pixels = if pixels.dimensions() == (width as u32, height as u32) {
        pixels
    } else {
        resized = image::imageops::resize(pixels, width as u32, height as u32, FilterType::Triangle);
        &resized
    };
    let channels = usize::from(P::CHANNEL_COUNT);
    (0..channels).flat_map(|channel| pixels.as_raw().iter().skip(channel).step_by(channels).copied()).collect()
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb, Rgba, RgbaImage};

    use super::*;

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
            close(&read_picture(&file, [1, 8, 8]).unwrap(), &data.unit_images(&[index]), 0.5 / 255.0 + 1e-6);
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
            channels: 3,
            height: 2,
            width: 2,
            max: 255,
            pixels: (0..12).map(|n| n * 20).collect(),
            labels: vec![0],
            official_test: None,
        };
        write_picture(&data, 0, &file).unwrap();
        close(&read_picture(&file, [3, 2, 2]).unwrap(), &data.unit_images(&[0]), 1e-6);
        let grey = read_picture(&file, [1, 2, 2]).unwrap();
        let luma = (0.2126 * 0.0 + 0.7152 * 80.0 + 0.0722 * 160.0) / 255.0;
        assert!((grey[0] - luma).abs() < 1e-4, "{} is not the luma {luma}", grey[0]);
    }

    #[test]
    fn reducing_averages_instead_of_skipping() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("board.png");
        image::GrayImage::from_fn(64, 64, |x, y| Luma([if (x + y) % 2 == 0 { 255 } else { 0 }])).save(&file).unwrap();
        // A chessboard of single pixels is grey from afar; away from the border the filter sees whole periods.
        let out = read_picture(&file, [1, 8, 8]).unwrap();
        close(&out, &[0.5; 64], 0.02);
    }

    #[test]
    fn jpeg_is_read_and_stretched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("half.jpg");
        image::RgbImage::from_fn(64, 32, |x, _| Rgb(if x < 32 { [0, 0, 0] } else { [255, 0, 0] })).save(&file).unwrap();
        let out = read_picture(&file, [3, 2, 2]).unwrap();
        assert_eq!(out.len(), 12);
        assert!(out[0] < 0.3 && out[1] > 0.7 && out[2] < 0.3 && out[3] > 0.7, "{out:?}");
        assert!(out[4..].iter().all(|value| *value < 0.1), "{out:?}");
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
        let out = read_picture(&file, [1, 2, 1]).unwrap();
        assert!(out[0] < 0.3 && out[1] > 0.7, "left became top: {out:?}");
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
        close(&read_picture(&file, [1, 1, 2]).unwrap(), &[0.0, 1.0], 1e-4);
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
        for (name, kind) in [
            ("missing.png", "check the path"),
            ("cut.png", "cannot decode"),
            ("text.png", "not a PNG or JPEG"),
            ("empty.jpg", "not a PNG or JPEG"),
            ("old.gif", "not a PNG or JPEG"),
        ] {
            let message = read_picture(&at(name), [1, 8, 8]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(kind) && message.contains("hint"), "{message}");
        }
        let message = read_picture(&at("whole.png"), [4, 8, 8]).unwrap_err().to_string();
        assert!(message.contains("4 channels"), "{message}");
        let message = write_picture(&Dataset::digits().unwrap(), 0, &at("no/where.png")).unwrap_err().to_string();
        assert!(message.contains("where.png") && message.contains("hint"), "{message}");
    }
}
