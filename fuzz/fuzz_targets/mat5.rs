//! MATLAB files, and what SVHN takes out of them: plain, and as the content of a compressed element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quee_data::{mat5, svhn};

fn read(file: &[u8]) {
    let arrays = quee_fuzz::bounded(file.len(), mat5::MEMORY, 128 << 10, || mat5::read(file, &["X", "y"]));
    for array in arrays.iter().flatten().filter(|array| !array.is_empty()) {
        let _ = (array.value(0), array.value(array.len() - 1));
    }
    if let Ok((pixels, labels)) = quee_fuzz::bounded(file.len(), mat5::MEMORY, 128 << 10, || svhn::parse(file)) {
        assert_eq!(pixels.len(), labels.len() * 3 * 32 * 32);
        assert!(labels.iter().all(|label| *label < 10));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(array) = bytes.get(128..) {
        read(&quee_fuzz::mat_compressed(array));
    }
});
