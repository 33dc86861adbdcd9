//! Entries of the store, as they are and with right checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quee_fuzz::store_entry::run(bytes));
