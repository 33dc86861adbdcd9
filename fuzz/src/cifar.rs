//! CIFAR files of both kinds.

use quee_data::cifar::{CIFAR10, CIFAR100, parse};

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    for (variant, classes) in [(&CIFAR10, 10), (&CIFAR100, 100)] {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        let read = || parse(variant, bytes, "fuzz", &mut values, &mut labels).is_ok();
        if super::bounded(bytes.len(), 2, 4096, read) {
            assert_eq!(values.len(), labels.len() * 3072);
            assert!(!labels.is_empty() && labels.iter().all(|label| *label < classes));
        }
    }
}
