//! MATLAB files, and what SVHN takes out of them: plain, and as the content of a compressed element.

use quee_data::{mat5, svhn};

fn read(file: &[u8]) {
    let arrays = super::bounded(file.len(), mat5::MEMORY, 128 << 10, || mat5::read(file, &["X", "y"]));
    for array in arrays.iter().flatten().filter(|array| !array.is_empty()) {
        let _ = (array.value(0), array.value(array.len() - 1));
    }
    if let Ok((pixels, labels)) = super::bounded(file.len(), mat5::MEMORY, 128 << 10, || svhn::parse(file)) {
        assert_eq!(pixels.len(), labels.len() * 3 * 32 * 32);
        assert!(labels.iter().all(|label| *label < 10));
    }
}

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    read(bytes);
    if let Some(array) = bytes.get(128..) {
        read(&super::shells::mat_compressed(array));
    }
}
