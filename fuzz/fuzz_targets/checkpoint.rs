//! Weights in any format: safetensors, archives of torch.save, and its format before version 1.6.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::checkpoint::run(bytes));
