//! Verifying real data sets: subsets in the official formats.

use std::fs;
use std::path::Path;

use quee_data::PartSizes;
use quee_data::fetch::sources::{SOURCES, find};
use quee_data::fetch::{FileState, verify};

#[test]
fn real_subsets_are_told_apart_from_the_whole() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let shared = std::env::var_os("QUEE_SHARED").map_or(shared, |folder| Path::new(&folder).join("data"));
    if !shared.join("svhn").is_dir() {
        // Written past the test harness, which shows no output of tests that pass.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no data sets in {}\n", shared.display()),
        );
        return;
    }
    for source in SOURCES.iter().filter(|s| s.name != "digits") {
        let report = verify(source, &shared).unwrap();
        assert!(!report.broken(), "{report:?}");
        assert!(report.files.iter().all(|(_, state)| *state == FileState::NoReference), "{report:?}");
        let subset = report.subset(source).unwrap();
        assert!(subset.starts_with("subset: ") && subset.contains(" training pictures, "), "{subset}");
        // One folder further in is as good.
        let inner = verify(source, &shared.join(source.name)).unwrap();
        assert_eq!(inner.structure.unwrap(), report.structure.unwrap());
    }

    // Cut off in the middle, as a download by other means may leave it.
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("svhn");
    fs::create_dir(&folder).unwrap();
    for name in ["train_32x32.mat", "test_32x32.mat"] {
        let bytes = fs::read(shared.join("svhn").join(name)).unwrap();
        fs::write(folder.join(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    assert!(verify(find("svhn").unwrap(), data.path()).unwrap().broken());
}

#[test]
fn the_digits_inside_the_program_are_complete() {
    let digits = find("digits").unwrap();
    let report = verify(digits, Path::new("nowhere")).unwrap();
    assert_eq!(report.structure.as_ref().unwrap(), &PartSizes { train: 1797, test: 0 });
    assert!(!report.broken() && report.place.is_none());
    assert_eq!(report.subset(digits), None);
}
