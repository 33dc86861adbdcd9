//! CIFAR files of both kinds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quee_data::cifar::{CIFAR10, CIFAR100, parse};

fuzz_target!(|bytes: &[u8]| {
    for (variant, classes) in [(&CIFAR10, 10), (&CIFAR100, 100)] {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        let read = || parse(variant, bytes, "fuzz", &mut values, &mut labels).is_ok();
        if quee_fuzz::bounded(bytes.len(), 2, 4096, read) {
            assert_eq!(values.len(), labels.len() * 3072);
            assert!(!labels.is_empty() && labels.iter().all(|label| *label < classes));
        }
    }
});
