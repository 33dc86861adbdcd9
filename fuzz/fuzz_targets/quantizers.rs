//! Quantizers in files: the notes in JSON, a byte 0, and a safetensors file with the tensors that they name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::quantizers::run(bytes));
