//! Part files of the store, as they are and with right checksums: looked at as bytes, and opened to go on with.

use std::ops::ControlFlow;

use quee_store::{KeyParts, Store, pieces};

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    super::shells::mend_parts(&mut mended);
    for file in [bytes, &mended] {
        let (hash, length) = (super::shells::stated_key(file), file.len() as u64);
        let scan = super::bounded(file.len(), 50, 256 << 10, || pieces::scan(file, length, &hash));
        let Ok(scan) = scan else { continue };
        assert!(scan.whole <= length && (scan.whole == length) == scan.rest.is_none());
        for place in scan.pieces.values() {
            assert!(place.offset >= scan.header.length && place.offset + place.length <= scan.whole);
        }
    }
    // Opening repairs: what is whole stays, and a piece can be added. One input in 64, because files are slow.
    if !bytes.len().is_multiple_of(64) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), u64::MAX).expect("a store");
    let key = KeyParts::new("fuzz").key().expect("a key");
    if let Some(stated) = mended.get_mut(16..48) {
        stated.copy_from_slice(key.hash().as_bytes());
        super::shells::mend_parts(&mut mended);
    }
    std::fs::write(folder.path().join(format!("{}.parts", key.hash())), &mended).expect("room");
    let claim = store.claim(&key, |_| ControlFlow::Continue(())).expect("a lock").expect("a claim");
    let mut parts = claim.parts().expect("a part file");
    let numbers: Vec<u64> = parts.numbers().collect();
    let free = (0..).find(|number| !parts.contains(*number)).expect("a free number");
    parts.append(free, b"new").expect("room");
    drop(parts);
    let mut parts = claim.parts().expect("a part file");
    assert!(parts.cut().is_none() && parts.numbers().count() == numbers.len() + 1);
    assert!(numbers.iter().all(|number| parts.read(*number).expect("a readable file").is_some()));
    // One piece in the place of all.
    parts.replace(0, b"state").expect("room");
    drop(parts);
    let mut parts = claim.parts().expect("a part file");
    assert!(parts.cut().is_none() && parts.numbers().eq([0]));
    assert_eq!(parts.read(0).expect("a readable file").as_deref(), Some(&b"state"[..]));
}
