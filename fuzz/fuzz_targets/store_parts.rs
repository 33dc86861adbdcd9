//! Part files of the store, as they are and with right checksums: looked at as bytes, and opened to go on with.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::store_parts::run(bytes));
