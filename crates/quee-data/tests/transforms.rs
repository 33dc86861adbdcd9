//! Resizing, crop and inks against torchvision and Pillow; `fixtures/make_transforms.py` makes the references.

use std::path::{Path, PathBuf};

use quee_data::{Interpolation, Picture, Transform, read_picture};

const REFERENCES: &[u8] = include_bytes!("fixtures/transforms.bin");

struct Case {
    height: usize,
    width: usize,
    side: usize,
    crop: f32,
    interpolation: Interpolation,
}

const fn case(height: usize, width: usize, side: usize, crop: f32, interpolation: Interpolation) -> Case {
    Case { height, width, side, crop, interpolation }
}

const CASES: [Case; 7] = [
    case(84, 84, 32, 1.0, Interpolation::Bilinear),
    case(84, 84, 32, 1.0, Interpolation::Bicubic),
    case(60, 97, 32, 0.875, Interpolation::Bilinear),
    case(97, 60, 32, 0.9, Interpolation::Bicubic),
    case(32, 32, 48, 1.0, Interpolation::Bilinear),
    case(32, 32, 48, 0.95, Interpolation::Bicubic),
    case(33, 35, 28, 0.875, Interpolation::Bicubic),
];

/// The script's formula.
fn picture(height: usize, width: usize, low: usize, high: usize) -> Picture {
    let mut values = Vec::new();
    for c in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let wave = (x * (3 + c) + y * (5 - c)) % 64;
                let edge = if 2 * x + c * y > width { 96 } else { 0 };
                let dirt = (x * 7919 + y * 104_729 + c * 1_299_709) % 61;
                values.push((low + (wave + edge + dirt) * (high - low) / 255) as f32 / 255.0);
            }
        }
    }
    Picture { shape: [3, height, width], values }
}

fn transformed(case: &Case, low: usize, high: usize) -> Vec<f32> {
    let transform = Transform {
        channels: 3,
        height: case.side,
        width: case.side,
        crop: case.crop,
        interpolation: case.interpolation,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    transform.apply(picture(case.height, case.width, low, high)).unwrap()
}

#[test]
fn pictures_are_those_of_pillow_within_its_rounding() {
    let mut rest = REFERENCES;
    for case in &CASES {
        let (expected, next) = rest.split_at(3 * case.side * case.side);
        rest = next;
        let got = transformed(case, 0, 255);
        let differences: Vec<f32> = got.iter().zip(expected).map(|(g, e)| (g * 255.0 - f32::from(*e)).abs()).collect();
        let largest = differences.iter().copied().fold(0.0, f32::max);
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        println!("{}x{} -> {}: largest {largest:.3}, mean {mean:.3} of 255", case.height, case.width, case.side);
        // Pillow rounds to bytes after each of its two passes, half a step each: at most one step, a third of one on
        // average. Cubic weights add up to at most 1.3 in absolute value, so the first error may grow by as much.
        assert!(largest <= 1.2 && mean <= 0.4, "largest {largest}, mean {mean}");
    }
}

#[test]
fn pictures_are_those_of_torchvision_on_floats() {
    let bytes: usize = CASES.iter().map(|case| 3 * case.side * case.side).sum();
    let mut rest = &REFERENCES[bytes..];
    for case in &CASES {
        let (expected, next) = rest.split_at(2 * 3 * case.side * case.side);
        rest = next;
        let got = transformed(case, 80, 175);
        for (place, (g, e)) in got.iter().zip(expected.as_chunks::<2>().0).enumerate() {
            let e = f32::from(u16::from_le_bytes(*e)) / 65535.0;
            // Half a step of 16 bits is 7.6e-6; the rest is rounding of sums in 32 bits.
            assert!((g - e).abs() < 9e-6, "{}x{}, value {place}: {g}, expected {e}", case.height, case.width);
        }
    }
    assert!(rest.is_empty());
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn four_inks_become_the_colours_that_pillow_makes_of_them() {
    let (got, expected) = (read_picture(&fixture("cmyk.jpg")).unwrap(), read_picture(&fixture("cmyk.png")).unwrap());
    assert_eq!(got.shape, [3, 16, 16]);
    for (place, (g, e)) in got.values.iter().zip(&expected.values).enumerate() {
        // Decoders may differ by two steps of 255 in the inverse transform and the product of inks.
        assert!((g - e).abs() <= 2.0 / 255.0 + 1e-6, "value {place}: {g}, expected {e}");
    }
}

#[test]
fn a_png_that_is_called_jpeg_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n02105855_2933.JPEG");
    std::fs::copy(fixture("cmyk.png"), &file).unwrap();
    assert_eq!(read_picture(&file).unwrap(), read_picture(&fixture("cmyk.png")).unwrap());
}

/// Damaged files give a picture or an error that names the file.
#[test]
fn no_damage_to_a_picture_makes_the_reader_panic() {
    use rand::{RngExt, SeedableRng};
    let folder = tempfile::tempdir().unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let photograph = folder.path().join("whole.jpg");
    let colours = |x: u32, y: u32| image::Rgb([(x * 5) as u8, (y * 7) as u8, (x ^ y) as u8]);
    image::RgbImage::from_fn(48, 36, colours).save(&photograph).unwrap();
    for source in [photograph, fixture("cmyk.jpg"), fixture("cmyk.png")] {
        let whole = std::fs::read(source).unwrap();
        for round in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            if round % 3 == 0 {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            let file = folder.path().join("damaged.jpg");
            std::fs::write(&file, bytes).unwrap();
            if let Err(error) = read_picture(&file) {
                let message = error.to_string();
                assert!(message.contains("damaged.jpg") && message.contains("hint"), "{message}");
            }
        }
    }
}

/// ImageNet's layout, where a folder with data lies beside the project.
#[test]
fn every_published_photograph_is_decoded() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let shared = std::env::var_os("QUEE_SHARED").map_or(shared, |folder| Path::new(&folder).join("data"));
    if !shared.join("imagenet").is_dir() {
        // Written past the test harness, which shows no output of tests that pass.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no ImageNet in {}\n", shared.display()),
        );
        return;
    }
    let data = quee_data::load("imagenet", Some(&shared)).unwrap();
    let sizes = data.part_sizes();
    let official = data.official_size().unwrap();
    assert!(sizes.train > 0 && sizes.train <= official.train && sizes.test > 0 && sizes.test <= official.test);
    assert!(
        data.class_names.iter().all(|name| !name.starts_with('n') || !name[1..].bytes().all(|b| b.is_ascii_digit()))
    );
    let transform = Transform {
        channels: 3,
        height: 32,
        width: 32,
        crop: 1.0,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
    };
    // Of the whole of ImageNet, three thousand are enough.
    let chosen: Vec<usize> = (0..data.len()).step_by(data.len().div_ceil(3000)).collect();
    let values = data.batch(&chosen, &transform).unwrap();
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    // Photographs are normalised by their own statistics.
    assert!(mean.abs() < 0.3, "{mean}");
}
