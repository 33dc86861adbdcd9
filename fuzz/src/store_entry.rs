//! Entries of the store, as they are and with right checksums.

use quee_store::entry;

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    super::shells::mend_entry(&mut mended);
    for file in [bytes, &mended] {
        let (hash, length) = (super::shells::stated_key(file), file.len() as u64);
        super::bounded(file.len(), 50, 256 << 10, || {
            if let Ok((header, payload)) = entry::verify(file, length, &hash) {
                assert!(header.hash == hash && payload.start == header.length && payload.end + 40 == length);
                let other = quee_store::KeyHash::from_bytes([7; 32]);
                assert!(hash == other || entry::verify(file, length, &other).is_err());
            }
        });
    }
}
