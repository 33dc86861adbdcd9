//! CIFAR files of both kinds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::cifar::run(bytes));
