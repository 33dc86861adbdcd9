//! The pickle that describes the objects of a checkpoint: in an archive whose checksums are right, and in the format before PyTorch 1.6
//! after the pickles that come first there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::pickle::run(bytes));
