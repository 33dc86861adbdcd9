//! Entries of the store, as they are and with right checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quee_store::entry;

fuzz_target!(|bytes: &[u8]| {
    let mut mended = bytes.to_vec();
    quee_fuzz::mend_entry(&mut mended);
    for file in [bytes, &mended] {
        let (hash, length) = (quee_fuzz::stated_key(file), file.len() as u64);
        quee_fuzz::bounded(file.len(), 50, 256 << 10, || {
            if let Ok((header, payload)) = entry::verify(file, length, &hash) {
                assert!(header.hash == hash && payload.start == header.length && payload.end + 40 == length);
                let other = quee_store::KeyHash::from_bytes([7; 32]);
                assert!(hash == other || entry::verify(file, length, &other).is_err());
            }
        });
    }
});
