//! MATLAB files, and what SVHN takes out of them: plain, and as the content of a compressed element.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::mat5::run(bytes));
