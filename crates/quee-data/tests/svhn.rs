//! The MATLAB reader on SVHN's files: right data, 200 corruptions, and memory bounded by the file's size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compression, write::ZlibEncoder};
use quee_data::{Pixels, mat5, svhn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Counts the bytes in use and their peak.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Only one test at a time may measure.
static MEASURING: Mutex<()> = Mutex::new(());

fn grew(size: usize) {
    let now = IN_USE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged; only sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grew(size);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Result of `work`, and the most bytes that were in use during it beyond those before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// Tables and windows of the decoder, and messages, which don't depend on the file.
const FIXED: usize = 128 << 10;

#[derive(Clone, Copy)]
struct Style {
    compressed: bool,
    big_endian: bool,
    /// Whether `y` is of class double instead of uint8.
    doubles: bool,
}

fn word(style: Style, value: u32) -> [u8; 4] {
    if style.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn element(style: Style, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [word(style, kind), word(style, content.len() as u32)].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An array variable; its name goes into the tag, as MATLAB writes short ones.
fn array(style: Style, name: u8, class: u32, dims: &[u32], kind: u32, values: &[u8]) -> Vec<u8> {
    let mut content = element(style, 6, &[word(style, class), word(style, 0)].concat());
    content.extend(element(style, 5, &dims.iter().flat_map(|&dim| word(style, dim)).collect::<Vec<_>>()));
    content.extend(word(style, 1 << 16 | 1));
    content.extend([name, 0, 0, 0]);
    content.extend(element(style, kind, values));
    let matrix = element(style, 14, &content);
    if !style.compressed {
        return matrix;
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&matrix).unwrap();
    let packed = encoder.finish().unwrap();
    let mut bytes = [word(style, 15), word(style, packed.len() as u32)].concat();
    bytes.extend(packed);
    bytes
}

fn head(style: Style) -> Vec<u8> {
    let mut bytes = b"MATLAB 5.0 MAT-file, for a test".to_vec();
    bytes.resize(124, b' ');
    bytes.extend(if style.big_endian { *b"\x01\x00MI" } else { *b"\x00\x01IM" });
    bytes
}

/// `n` pictures of noise, pixel `[n, 3, 32, 32]`, and their digits.
fn pictures(n: usize) -> (Vec<u8>, Vec<u16>) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    ((0..n * 3072).map(|_| rng.random()).collect(), (0..n).map(|i| (i * 7 % 10) as u16).collect())
}

fn file(style: Style, pixels: &[u8], labels: &[u16]) -> Vec<u8> {
    let n = labels.len();
    let mut x = vec![0; pixels.len()];
    for (place, &value) in pixels.iter().enumerate() {
        let (plane, row, column) = (place / 1024, place / 32 % 32, place % 32);
        x[plane * 1024 + column * 32 + row] = value;
    }
    let digits = labels.iter().map(|&label| if label == 0 { 10u8 } else { label as u8 });
    let mut bytes = head(style);
    bytes.extend(array(style, b'X', 9, &[32, 32, 3, n as u32], 2, &x));
    if style.doubles {
        let double = |digit: u8| {
            let bits = f64::from(digit);
            if style.big_endian { bits.to_be_bytes() } else { bits.to_le_bytes() }
        };
        bytes.extend(array(style, b'y', 6, &[n as u32, 1], 9, &digits.flat_map(double).collect::<Vec<_>>()));
    } else {
        bytes.extend(array(style, b'y', 9, &[n as u32, 1], 2, &digits.collect::<Vec<_>>()));
    }
    bytes
}

const COMPRESSED: Style = Style { compressed: true, big_endian: false, doubles: false };
const PLAIN: Style = Style { compressed: false, ..COMPRESSED };

#[test]
fn every_style_of_the_format_is_read() {
    let _alone = MEASURING.lock().unwrap();
    for compressed in [false, true] {
        for big_endian in [false, true] {
            for doubles in [false, true] {
                let style = Style { compressed, big_endian, doubles };
                let (pixels, labels) = pictures(6);
                let bytes = file(style, &pixels, &labels);
                let (read, peak) = measured(|| svhn::parse(&bytes));
                assert_eq!(read.unwrap(), (pixels, labels));
                assert!(peak <= 3 * bytes.len() + FIXED, "{peak} bytes for a file of {}", bytes.len());
            }
        }
    }
}

#[test]
fn corruptions_give_an_error_or_the_right_data() {
    let _alone = MEASURING.lock().unwrap();
    let (pixels, labels) = pictures(6);
    let whole = [file(COMPRESSED, &pixels, &labels), file(PLAIN, &pixels, &labels)];
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut refused = 0;
    for round in 0..400 {
        let mut bytes = whole[round % 2].clone();
        match round / 2 % 4 {
            0 => bytes.truncate(rng.random_range(0..bytes.len())),
            1 => {
                // Heads and tags, where the numbers are that memory is asked for by.
                let place = rng.random_range(0..192);
                bytes[place] ^= 1 << rng.random_range(0..8);
            }
            _ => {
                for _ in 0..rng.random_range(1..4) {
                    let place = rng.random_range(0..bytes.len());
                    bytes[place] ^= 1 << rng.random_range(0..8);
                }
            }
        }
        let size = bytes.len();
        let (read, peak) = measured(|| svhn::parse(&bytes));
        assert!(peak + size <= mat5::MEMORY * size + FIXED, "round {round}: {peak} bytes for a file of {size}");
        match read {
            Err(_) => refused += 1,
            Ok(read) if round % 2 == 0 => assert_eq!(read, (pixels.clone(), labels.clone()), "round {round}"),
            // Without a checksum, another pixel cannot be told from the right one.
            Ok(read) => assert_eq!((read.0.len(), read.1.len()), (pixels.len(), labels.len()), "round {round}"),
        }
    }
    assert!(refused > 200, "{refused} of 400 were refused");
}

#[test]
fn a_file_that_inflates_without_bounds_is_refused() {
    let _alone = MEASURING.lock().unwrap();
    let (pixels, labels) = (vec![0; 3072 * 2000], vec![1; 2000]);
    let bytes = file(COMPRESSED, &pixels, &labels);
    assert!(bytes.len() < 20_000, "{}", bytes.len());
    let (read, peak) = measured(|| svhn::parse(&bytes));
    let message = read.unwrap_err().to_string();
    assert!(message.contains("more than a file of this size may hold"), "{message}");
    assert!(peak <= 9 * bytes.len() + FIXED, "{peak}");
}

#[test]
fn other_contents_are_refused_in_words() {
    let _alone = MEASURING.lock().unwrap();
    let refusal = |variables: &[Vec<u8>]| {
        let bytes = [head(PLAIN), variables.concat()].concat();
        svhn::parse(&bytes).unwrap_err().to_string()
    };
    let x = || array(PLAIN, b'X', 9, &[32, 32, 3, 2], 2, &[0; 6144]);
    let y = |digits: [u8; 2]| array(PLAIN, b'y', 9, &[2, 1], 2, &digits);
    assert!(refusal(&[x()]).contains("no variable `y`"));
    assert!(refusal(&[x(), x(), y([1, 2])]).contains("second variable `X`"));
    assert!(refusal(&[x(), y([1, 0])]).contains("picture 1 has label 0"));
    assert!(refusal(&[x(), y([11, 1])]).contains("picture 0 has label 11"));
    assert!(refusal(&[array(PLAIN, b'X', 9, &[32, 32, 1, 2], 2, &[0; 2048]), y([1, 2])]).contains("32×32×3×N"));
    assert!(refusal(&[array(PLAIN, b'X', 9, &[32, 32, 3, 3], 2, &[0; 6144]), y([1, 2])]).contains("do not fill"));
    assert!(refusal(&[array(PLAIN, b'X', 7, &[32, 32, 3, 2], 2, &[0; 6144]), y([1, 2])]).contains("class 7"));
    assert!(svhn::parse(b"\x89HDF").unwrap_err().to_string().contains("128 bytes"));
    assert!(svhn::parse(&[0; 200]).unwrap_err().to_string().contains("MATLAB 5.0"));
}

/// The published files, or a part of them, where a folder with data lies beside the project.
#[test]
fn the_published_files_are_read() {
    let _alone = MEASURING.lock().unwrap();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let shared = std::env::var_os("QUEE_SHARED").map_or(shared, |folder| Path::new(&folder).join("data"));
    if !shared.join("svhn/test_32x32.mat").is_file() {
        // Written past the test harness, which shows no output of tests that pass.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no SVHN files in {}\n", shared.display()),
        );
        return;
    }
    let data = quee_data::load("svhn", Some(&shared)).unwrap();
    let test = data.official_test.clone().unwrap();
    assert_eq!(data.labels[test.start..test.start + 8], [5, 2, 1, 0, 6, 1, 9, 1]);
    let Pixels::Memory { values, .. } = &data.pixels else { panic!("SVHN is in memory") };
    assert_eq!(values.len(), data.len() * 3072);

    // Corruptions of the real file.
    let whole = std::fs::read(shared.join("svhn/test_32x32.mat")).unwrap();
    let right = svhn::parse(&whole).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for round in 0..40 {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        } else {
            let place = if round % 4 == 1 { rng.random_range(0..200) } else { rng.random_range(0..bytes.len()) };
            bytes[place] ^= 1 << rng.random_range(0..8);
        }
        let (read, peak) = measured(|| svhn::parse(&bytes));
        assert!(peak + bytes.len() <= mat5::MEMORY * bytes.len() + FIXED, "round {round}: {peak}");
        assert!(read.is_err() || read.as_ref() == Ok(&right), "round {round}");
    }
}
