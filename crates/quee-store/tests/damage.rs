//! Whatever happens to the bytes of a file, it is noticed, and never more than the damaged part is lost.

mod common;

use std::fs;

use common::{claim, key, names, put};
use proptest::prelude::*;
use quee_store::{Damage, Lookup, Store, StoreError, entry, pieces};

const LARGE: u64 = 1 << 40;

/// The file of the result of `key(1)` with this payload.
fn entry_bytes(payload: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), payload);
    fs::read(folder.path().join(format!("{}.entry", key(1).hash()))).unwrap()
}

/// A part file of `key(1)` with these pieces, numbered from 10.
fn parts_bytes(payloads: &[&[u8]]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    let claim = claim(&store, &key(1));
    let mut parts = claim.parts().unwrap();
    for (number, payload) in (10..).zip(payloads) {
        parts.append(number, payload).unwrap();
    }
    fs::read(folder.path().join(format!("{}.parts", key(1).hash()))).unwrap()
}

fn verify(bytes: &[u8]) -> Result<std::ops::Range<u64>, Damage> {
    entry::verify(bytes, bytes.len() as u64, key(1).hash()).map(|(_, payload)| payload)
}

#[test]
fn every_flipped_bit_of_an_entry_is_noticed_and_removed() {
    let bytes = entry_bytes(b"a short payload");
    let payload = verify(&bytes).unwrap();
    assert_eq!(bytes[payload.start as usize..payload.end as usize], *b"a short payload");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    let path = folder.path().join(format!("{}.entry", key(1).hash()));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << bit;
            assert!(verify(&wrong).is_err(), "bit {bit} of byte {at}");
        }
        let mut wrong = bytes.clone();
        wrong[at] = !wrong[at];
        fs::write(&path, wrong).unwrap();
        assert!(matches!(store.get(&key(1)), Lookup::Damaged(damaged) if damaged.removed), "byte {at}");
        assert!(matches!(store.get(&key(1)), Lookup::Missing), "byte {at}");
    }
}

#[test]
fn every_byte_that_is_missing_or_too_many_is_noticed() {
    let bytes = entry_bytes(b"a short payload");
    for length in 0..bytes.len() {
        assert!(verify(&bytes[..length]).is_err(), "{length} bytes at the front");
        assert!(verify(&bytes[bytes.len() - length..]).is_err(), "{length} bytes at the end");
        // The system states a length that the file no longer has.
        let stated = entry::verify(&bytes[..length], bytes.len() as u64, key(1).hash());
        assert!(matches!(stated, Err(Damage::Truncated { .. })), "{length} bytes: {stated:?}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(verify(&longer).is_err());
    assert!(verify(&[bytes.as_slice(), &bytes].concat()).is_err());
}

#[test]
fn damage_is_named() {
    let bytes = entry_bytes(b"x");
    let with = |at: usize, byte: u8| {
        let mut wrong = bytes.clone();
        wrong[at] = byte;
        verify(&wrong).unwrap_err()
    };
    assert!(matches!(with(0, b'x'), Damage::Foreign));
    assert!(matches!(with(8, 2), Damage::Version { found: 2 }));
    assert!(matches!(with(15, 255), Damage::Length { what: "description", .. }));
    assert!(matches!(with(20, bytes[20] ^ 1), Damage::Checksum { what: "header" }));
    let end = bytes.len();
    assert!(matches!(with(end - 41, b'y'), Damage::Checksum { what: "payload" }));
    assert!(matches!(with(end - 40, 2), Damage::Length { what: "end", stated: 2, possible: 1 }));
    assert!(matches!(verify(&parts_bytes(&[])).unwrap_err(), Damage::Foreign));
    let other = entry::verify(bytes.as_slice(), end as u64, key(2).hash()).unwrap_err();
    assert!(matches!(other, Damage::OtherKey { found } if found == *key(1).hash()));
}

const PIECES: [&[u8]; 4] = [b"first", b"", b"third piece", b"4"];

/// Opens a part file with these bytes: the pieces in it, all of which must be right; and appends one more.
fn reopened(bytes: &[u8]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    fs::write(folder.path().join(format!("{}.parts", key(1).hash())), bytes).unwrap();
    let claim = claim(&store, &key(1));
    let mut parts = claim.parts().unwrap();
    let numbers: Vec<u64> = parts.numbers().collect();
    for (number, expected) in (10..).zip(&PIECES[..numbers.len()]) {
        assert_eq!(parts.read(number).unwrap().as_deref(), Some(*expected));
    }
    // What was cut off can be computed and added again.
    parts.append(99, b"new").unwrap();
    drop(parts);
    let mut again = claim.parts().unwrap();
    assert!(again.cut().is_none());
    assert_eq!(again.numbers().count(), numbers.len() + 1);
    assert_eq!(again.read(99).unwrap().unwrap(), b"new");
    numbers.len()
}

#[test]
fn a_part_file_torn_anywhere_keeps_its_whole_pieces() {
    let bytes = parts_bytes(&PIECES);
    let scan = pieces::scan(bytes.as_slice(), bytes.len() as u64, key(1).hash()).unwrap();
    assert!(scan.rest.is_none() && scan.whole == bytes.len() as u64);
    let ends: Vec<u64> = scan.pieces.values().map(|place| place.offset + place.length).collect();
    for length in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= length as u64).count();
        assert_eq!(reopened(&bytes[..length]), whole, "{length} bytes");
        // After a power cut the file may have its length but not its bytes.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 100, 0);
        assert_eq!(reopened(&zeros), whole, "{length} bytes, then zeros");
    }
}

#[test]
fn a_part_file_with_a_flipped_bit_keeps_the_pieces_before() {
    let bytes = parts_bytes(&PIECES);
    let scan = pieces::scan(bytes.as_slice(), bytes.len() as u64, key(1).hash()).unwrap();
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1 << (at % 8);
        let before = scan.pieces.values().filter(|place| place.offset + place.length <= at as u64).count();
        assert_eq!(reopened(&wrong), before, "byte {at}");
    }
}

#[test]
fn a_piece_in_the_place_of_all_others_is_there_alone_and_can_be_added_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1000).unwrap();
    // Half of one, as a process leaves it that dies.
    fs::write(folder.path().join(format!("{}.partial", key(1).hash())), b"half").unwrap();
    let claim = claim(&store, &key(1));
    let mut parts = claim.parts().unwrap();
    parts.append(1, b"one").unwrap();
    parts.append(2, b"two").unwrap();
    assert!(matches!(parts.replace(7, &[0; 1000]), Err(StoreError::TooLarge { .. })));
    assert_eq!(parts.read(1).unwrap().unwrap(), b"one", "what was there stays");
    parts.replace(2, b"first state").unwrap();
    parts.replace(7, b"a longer state").unwrap();
    parts.append(8, b"added").unwrap();
    for reopened in [false, true] {
        if reopened {
            drop(parts);
            parts = claim.parts().unwrap();
        }
        assert!(parts.cut().is_none() && parts.numbers().eq([7, 8]));
        assert_eq!(parts.read(7).unwrap().unwrap(), b"a longer state");
        assert_eq!(parts.read(8).unwrap().unwrap(), b"added");
    }
    drop(parts);
    drop(claim);
    assert_eq!(names(folder.path()), [format!("{}.parts", key(1).hash())]);
}

#[test]
fn a_piece_that_is_there_twice_or_comes_from_another_file_is_cut_off() {
    let bytes = parts_bytes(&PIECES);
    let scan = pieces::scan(bytes.as_slice(), bytes.len() as u64, key(1).hash()).unwrap();
    let first = scan.header.length as usize..scan.pieces[&11].offset as usize - 48;
    assert_eq!(reopened(&[bytes.as_slice(), &bytes[first]].concat()), 4);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    let claim = claim(&store, &key(2));
    claim.parts().unwrap().append(50, b"x").unwrap();
    let other = fs::read(folder.path().join(format!("{}.parts", key(2).hash()))).unwrap();
    let piece = &other[other.len() - 49..];
    assert_eq!(reopened(&[bytes.as_slice(), piece].concat()), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_large_entry_with_any_damage_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let payload: Vec<u8> = (0..400_000_u64).map(|i| (i.wrapping_mul(seed | 1) >> 32) as u8).collect();
        let bytes = entry_bytes(&payload);
        prop_assert!(verify(&bytes).is_ok());
        let at = at.index(bytes.len());
        let mut wrong = bytes.clone();
        wrong[at] ^= flip;
        prop_assert!(verify(&wrong).is_err());
        prop_assert!(verify(&bytes[..at]).is_err());
        // Two ranges of the file swapped.
        let mut swapped = bytes[at..].to_vec();
        swapped.extend(&bytes[..at]);
        prop_assert!(at == 0 || verify(&swapped).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        prop_assert!(verify(&bytes).is_err());
        prop_assert!(pieces::scan(bytes.as_slice(), bytes.len() as u64, key(1).hash()).is_err());
        // Behind a right header.
        let mut tail = parts_bytes(&PIECES);
        tail.truncate(at.index(tail.len()));
        tail.extend(&bytes);
        if let Ok(scan) = pieces::scan(tail.as_slice(), tail.len() as u64, key(1).hash()) {
            prop_assert!(scan.whole <= tail.len() as u64 && scan.pieces.len() <= PIECES.len());
        }
        // A stated length beyond anything: nothing of that size is asked for.
        prop_assert!(verify(&[&entry_bytes(b"x")[..16], bytes.as_slice()].concat()).is_err());
        prop_assert!(entry::verify(entry_bytes(b"x").as_slice(), u64::MAX, key(1).hash()).is_err());
    }
}
