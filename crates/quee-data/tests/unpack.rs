//! Archives that want to do harm.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use quee_data::fetch::{FetchError, Limits, unpack};
use tar::{EntryType, Header};
use tempfile::TempDir;

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 8 };

/// One entry, its name written as it is.
fn entry(tar: &mut Vec<u8>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

/// A folder `inner/` inside a temporary folder, so that a path can lead out of the former within the latter.
struct Place {
    outer: TempDir,
    inner: PathBuf,
}

fn unpacked(bytes: &[u8]) -> (Place, Result<(), FetchError>) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let archive = inner.join("a.tar.gz");
    fs::write(&archive, bytes).unwrap();
    let result = unpack(&archive, "set", &inner.join("set"), LIMITS, &mut |_| ControlFlow::Continue(()));
    (Place { outer, inner }, result)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The archive is refused in words that hold `reason`, and nothing is written anywhere.
fn refused(tar: &[u8], reason: &str) {
    let (place, result) = unpacked(&gzip(tar));
    let error = result.unwrap_err();
    assert!(matches!(error, FetchError::Hostile { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(reason) && message.contains("a.tar.gz") && message.contains("hint"), "{message}");
    assert_eq!(names(&place.inner), ["a.tar.gz"]);
    assert_eq!(names(place.outer.path()), ["inner"]);
}

fn honest() -> Vec<u8> {
    let mut tar = Vec::new();
    entry(&mut tar, EntryType::Directory, "set/", "", b"");
    entry(&mut tar, EntryType::Regular, "set/b.bin", "", &[7; 1000]);
    entry(&mut tar, EntryType::Regular, "./set/a/abc", "", b"abc");
    tar
}

#[test]
fn an_honest_archive_with_its_list_of_checksums() {
    let (place, result) = unpacked(&gzip(&honest()));
    result.unwrap();
    assert_eq!(names(&place.inner), ["a.tar.gz", "set"]);
    let set = place.inner.join("set");
    assert_eq!(names(&set), ["SHA256SUMS", "a", "b.bin"]);
    assert_eq!(fs::read(set.join("b.bin")).unwrap(), [7; 1000]);
    let sums = fs::read_to_string(set.join("SHA256SUMS")).unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a/abc";
    assert_eq!(sums.lines().next(), Some(abc));
    assert!(sums.lines().nth(1).unwrap().ends_with("  b.bin") && sums.lines().count() == 2, "{sums}");
}

#[test]
fn paths_that_lead_out() {
    for (name, reason) in [
        ("../evil", "`..`"),
        ("set/../../evil", "`..`"),
        ("set/../set/evil", "`..`"),
        ("/tmp/evil", "absolute"),
        ("//evil", "absolute"),
        ("other/evil", "does not lie in"),
        ("settle/evil", "does not lie in"),
        ("set\\..\\evil", "odd characters"),
        ("C:evil", "odd characters"),
        ("set/ev\nil", "odd characters"),
        ("set", "not a folder"),
        ("set/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/evil", "folders deep"),
    ] {
        let mut tar = Vec::new();
        entry(&mut tar, EntryType::Regular, "set/first", "", b"1");
        entry(&mut tar, EntryType::Regular, name, "", b"evil");
        let mut alone = Vec::new();
        entry(&mut alone, EntryType::Regular, name, "", b"evil");
        refused(&tar, reason);
        refused(&alone, reason);
    }
}

#[test]
fn links_and_devices() {
    for (kind, reason) in [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "named pipe"),
        (EntryType::Continuous, "not needed"),
    ] {
        let mut tar = Vec::new();
        entry(&mut tar, kind, "set/door", "..", b"");
        entry(&mut tar, EntryType::Regular, "set/door/evil", "", b"evil");
        refused(&tar, reason);
    }
}

#[test]
fn nothing_occurs_twice() {
    let mut tar = honest();
    entry(&mut tar, EntryType::Regular, "set/b.bin", "", b"other");
    refused(&tar, "twice");
}

#[test]
fn more_than_the_limits() {
    let mut many = Vec::new();
    for i in 0..9 {
        entry(&mut many, EntryType::Regular, &format!("set/{i}"), "", b"");
    }
    refused(&many, "more than 8 entries");

    let mut large = Vec::new();
    for i in 0..3 {
        entry(&mut large, EntryType::Regular, &format!("set/{i}"), "", &vec![0; 500_000]);
    }
    refused(&large, "larger than 1048576 bytes");

    // A header may promise anything.
    let mut promise = Header::new_gnu();
    promise.set_path("set/huge").unwrap();
    promise.set_size(1 << 40);
    promise.set_cksum();
    refused(promise.as_bytes(), "says that it has 1099511627776 bytes");

    // The extension for long names holds a name of any length.
    let mut name = Vec::new();
    entry(&mut name, EntryType::GNULongName, "././@LongLink", "", &vec![b'a'; 2_000_000]);
    entry(&mut name, EntryType::Regular, "set/x", "", b"");
    refused(&name, "larger than 1048576 bytes");
}

#[test]
fn an_empty_archive() {
    refused(&[], "no file");
}

#[test]
fn damaged_archives() {
    let bytes = gzip(&honest());
    let mut wrong_sum = bytes.clone();
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    for bad in [&bytes[..bytes.len() / 2], &bytes[..bytes.len() - 4], &wrong_sum, b"no archive at all", b""] {
        let (place, result) = unpacked(bad);
        let error = result.unwrap_err();
        assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
        assert_eq!(names(&place.inner), ["a.tar.gz"]);
    }
}

#[test]
fn what_is_there_is_not_overwritten() {
    let (place, result) = unpacked(&gzip(&honest()));
    result.unwrap();
    fs::write(place.inner.join("set/b.bin"), "mine").unwrap();
    let archive = place.inner.join("a.tar.gz");
    let again = unpack(&archive, "set", &place.inner.join("set"), LIMITS, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(again, Err(FetchError::File { .. })), "{again:?}");
    assert_eq!(fs::read(place.inner.join("set/b.bin")).unwrap(), b"mine");
    assert_eq!(names(&place.inner), ["a.tar.gz", "set"]);
}

#[test]
fn a_wish_to_stop_leaves_no_trace() {
    let outer = tempfile::tempdir().unwrap();
    let archive = outer.path().join("a.tar.gz");
    fs::write(&archive, gzip(&honest())).unwrap();
    let stopped = unpack(&archive, "set", &outer.path().join("set"), LIMITS, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(FetchError::Stopped { .. })));
    assert_eq!(names(outer.path()), ["a.tar.gz"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The tar archive is damaged before it is compressed, so that its checksum holds.
    #[test]
    fn random_damage_ends_in_an_error_or_stays_in_the_folder(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut tar = honest();
        for (at, value) in flips {
            let at = at.index(tar.len());
            tar[at] = value;
        }
        let (place, result) = unpacked(&gzip(&tar));
        prop_assert_eq!(names(place.outer.path()), ["inner"]);
        let expected: &[&str] = if result.is_ok() { &["a.tar.gz", "set"] } else { &["a.tar.gz"] };
        prop_assert_eq!(names(&place.inner), expected);
    }
}
