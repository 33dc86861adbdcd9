//! Storing and finding, throwing away, and what is left behind.

mod common;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{claim, found, key, names, put};
use quee_store::{Damage, KeyParts, Kind, Lookup, Store, StoreError};

const LARGE: u64 = 1 << 40;

/// Sets the last use of the result of `key(setting)` to `seconds` after 2020.
fn used(folder: &Path, setting: u64, extension: &str, seconds: u64) {
    let file = File::open(folder.join(format!("{}.{extension}", key(setting).hash()))).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800 + seconds)).unwrap();
}

#[test]
fn what_was_stored_is_found_in_another_session_too() {
    let folder = tempfile::tempdir().unwrap();
    let payloads = [vec![], vec![7], (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()];
    let store = Store::open(folder.path().join("new/folder"), LARGE).unwrap();
    for (setting, payload) in (0..).zip(&payloads) {
        assert!(found(&store, &key(setting)).is_none());
        put(&store, &key(setting), payload);
        assert_eq!(found(&store, &key(setting)).as_ref(), Some(payload));
    }
    let again = Store::open(store.folder(), LARGE).unwrap();
    for (setting, payload) in (0..).zip(&payloads) {
        assert_eq!(found(&again, &key(setting)).as_ref(), Some(payload));
    }
    assert!(found(&again, &key(99)).is_none());
    put(&again, &key(1), b"other");
    assert_eq!(found(&store, &key(1)).unwrap(), b"other", "storing again replaces");
}

#[test]
fn a_result_is_read_piece_by_piece_and_ends_with_its_payload() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), b"0123456789");
    let Lookup::Found(mut result) = store.get(&key(1)) else { panic!("it is there") };
    assert_eq!((result.length(), result.description()), (10, key(1).description()));
    let mut first = [0; 4];
    result.read_exact(&mut first).unwrap();
    assert_eq!((&first, result.bytes().unwrap().as_slice()), (b"0123", b"456789".as_slice()));
}

#[test]
fn a_failed_result_leaves_the_one_before_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 2000).unwrap();
    put(&store, &key(1), b"before");
    let before = names(folder.path());
    let claim = claim(&store, &key(1));

    let refused = claim.put(|file| {
        file.write_all(b"half")?;
        Err(io::Error::other("the computation broke"))
    });
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");

    let refused = claim.put(|file| file.write_all(&[0; 2000]));
    assert!(matches!(refused, Err(StoreError::TooLarge { limit: 2000, .. })), "{refused:?}");

    // A writer that overlooks the error.
    let refused = claim.put(|file| {
        let _ = file.write_all(&[0; 2000]);
        file.write_all(b"x").or(Ok(()))
    });
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");

    drop(claim);
    assert_eq!(names(folder.path()), before);
    assert_eq!(found(&store, &key(1)).unwrap(), b"before");
}

#[test]
fn what_stands_in_the_way_is_an_error_and_not_a_wrong_result() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    let blocked = |extension: &str| {
        let path = folder.path().join(format!("{}.{extension}", key(1).hash()));
        fs::create_dir_all(path.join("inside")).unwrap();
        path
    };
    let path = blocked("lock");
    assert!(matches!(store.claim(&key(1), |_| panic!("nobody has it")), Err(StoreError::Io { .. })));
    fs::remove_dir_all(path).unwrap();
    for extension in ["partial", "entry"] {
        let path = blocked(extension);
        assert!(claim(&store, &key(1)).put(|file| file.write_all(b"x")).is_err(), "{extension}");
        assert!(!matches!(store.get(&key(1)), Lookup::Found(_)));
        fs::remove_dir_all(path).unwrap();
        assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
    }
    let path = blocked("parts");
    let claim = claim(&store, &key(1));
    assert!(claim.parts().is_err());
    claim.put(|file| file.write_all(b"x")).unwrap();
    drop(claim);
    fs::remove_dir_all(path).unwrap();
    assert_eq!(found(&store, &key(1)).unwrap(), b"x");

    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(Store::open(&file, LARGE), Err(StoreError::Io { .. })));
}

#[test]
fn the_least_recently_used_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    for setting in 0..5 {
        put(&store, &key(setting), &[0; 1000]);
    }
    for (setting, seconds) in [(0, 30), (1, 10), (2, 50), (3, 20), (4, 40)] {
        used(folder.path(), setting, "entry", seconds);
    }
    let each = store.list().unwrap()[0].size;
    let order: Vec<_> = store.list().unwrap().iter().map(|item| item.hash).collect();
    assert_eq!(order, [2, 4, 0, 3, 1].map(|setting| *key(setting).hash()), "last used first");

    // Being found is being used.
    assert!(found(&store, &key(1)).is_some());
    let pruned = store.prune(3 * each).unwrap();
    assert_eq!((pruned.removed, pruned.freed, pruned.kept, pruned.left), (2, 2 * each, 0, 3 * each));
    let there: Vec<bool> = (0..5).map(|setting| found(&store, &key(setting)).is_some()).collect();
    assert_eq!(there, [false, true, true, false, true]);

    // Storing one more under a limit takes away the oldest; the new one stays even with the oldest time of all.
    for (setting, seconds) in [(1, 1), (2, 2), (4, 3)] {
        used(folder.path(), setting, "entry", seconds);
    }
    let small = Store::open(folder.path(), 2 * each).unwrap();
    let pruned = claim(&small, &key(5)).put(|file| file.write_all(&[0; 1000])).unwrap();
    assert_eq!((pruned.removed, pruned.left), (2, 2 * each));
    let there: Vec<bool> = (0..6).map(|setting| found(&store, &key(setting)).is_some()).collect();
    assert_eq!(there, [false, false, false, false, true, true]);
}

#[test]
fn what_is_in_use_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    for setting in 0..4 {
        put(&store, &key(setting), &[0; 10]);
    }
    let computed = claim(&store, &key(1));
    let Lookup::Found(read) = store.get(&key(2)) else { panic!("it is there") };
    let unfinished = claim(&store, &key(9));
    unfinished.parts().unwrap().append(0, b"piece").unwrap();

    let pruned = store.clear().unwrap();
    assert_eq!((pruned.removed, pruned.kept), (2, 3));
    assert_eq!(read.bytes().unwrap(), [0; 10]);
    assert_eq!(unfinished.parts().unwrap().read(0).unwrap().unwrap(), b"piece");
    drop((computed, unfinished));
    assert_eq!(store.clear().unwrap().removed, 3);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn pieces_count_and_are_thrown_away_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), &[0; 10]);
    claim(&store, &key(2)).parts().unwrap().append(0, &[0; 10]).unwrap();
    used(folder.path(), 2, "parts", 0);
    let items = store.list().unwrap();
    assert_eq!(items.iter().map(|item| item.kind).collect::<Vec<_>>(), [Kind::Finished, Kind::Unfinished]);
    assert_eq!(items[1].description.as_ref().unwrap(), key(2).description());
    assert_eq!(store.prune(items[0].size).unwrap().removed, 1);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn opening_removes_what_the_dead_have_left_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), b"x");
    let file = |setting: u64, extension: &str| {
        fs::write(folder.path().join(format!("{}.{extension}", key(setting).hash())), b"rest").unwrap();
    };
    // Left by dead processes: half an entry, a lock, pieces that were stored as an entry.
    file(2, "partial");
    file(2, "lock");
    file(3, "lock");
    file(1, "parts");
    // Half an entry of a living process, pieces to go on with, and what is not the store's.
    let living = claim(&store, &key(4));
    file(4, "partial");
    file(5, "parts");
    fs::write(folder.path().join("notes.txt"), b"mine").unwrap();
    fs::write(folder.path().join("0123.entry"), b"mine").unwrap();
    Store::open(folder.path(), LARGE).unwrap();
    let (one, four, five) = (*key(1).hash(), *key(4).hash(), *key(5).hash());
    let mut expected = vec![
        format!("{one}.entry"),
        format!("{four}.lock"),
        format!("{four}.partial"),
        format!("{five}.parts"),
        "notes.txt".into(),
        "0123.entry".into(),
    ];
    expected.sort();
    assert_eq!(names(folder.path()), expected);
    drop(living);
    store.clear().unwrap();
    assert_eq!(names(folder.path()), ["0123.entry", "notes.txt"]);
}

#[test]
fn the_closest_result_tells_why_another_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    let key = |stage: &str, hidden: u32, seed: u32| {
        KeyParts::new(stage).text("predictor.hidden", hidden).text("seed", seed).key().unwrap()
    };
    let wanted = key("predictors", 64, 1);
    assert!(store.closest(&wanted).unwrap().is_none());
    for other in [key("predictors", 16, 2), key("predictors", 32, 1), key("exits", 64, 1)] {
        put(&store, &other, b"");
    }
    let (item, differences) = store.closest(&wanted).unwrap().unwrap();
    assert_eq!(item.hash, *key("predictors", 32, 1).hash());
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["predictor.hidden: 32 -> 64"]);
}

#[test]
fn an_entry_under_the_name_of_another_is_not_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), b"x");
    let path = |setting: u64| folder.path().join(format!("{}.entry", key(setting).hash()));
    fs::copy(path(1), path(2)).unwrap();
    assert!(matches!(store.list().unwrap().iter().find(|i| i.hash == *key(2).hash()).unwrap().description,
        Err(Damage::OtherKey { found }) if found == *key(1).hash()));
    let Lookup::Damaged(damaged) = store.get(&key(2)) else { panic!("it belongs to another key") };
    assert!(matches!(damaged.damage, Damage::OtherKey { .. }));
    assert!(damaged.removed && !path(2).exists());
    assert!(found(&store, &key(1)).is_some());
}

#[test]
fn a_damaged_entry_stays_while_somebody_computes_it_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), LARGE).unwrap();
    put(&store, &key(1), b"right");
    let path = folder.path().join(format!("{}.entry", key(1).hash()));
    fs::write(&path, b"wrong").unwrap();
    let claim = claim(&store, &key(1));
    let Lookup::Damaged(damaged) = store.get(&key(1)) else { panic!("it is damaged") };
    assert!(!damaged.removed && path.exists());
    claim.put(|file| file.write_all(b"right")).unwrap();
    assert_eq!(found(&store, &key(1)).unwrap(), b"right");
    fs::write(&path, b"wrong").unwrap();
    assert!(matches!(claim.get(), Lookup::Damaged(damaged) if damaged.removed));
    assert!(matches!(claim.get(), Lookup::Missing));
}

#[test]
fn pieces_go_on_where_they_were_and_end_with_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1000).unwrap();
    let held = claim(&store, &key(1));
    let mut parts = held.parts().unwrap();
    for (number, payload) in [(7, b"seven".as_slice()), (0, b""), (u64::MAX, b"last")] {
        assert!(!parts.contains(number) && parts.read(number).unwrap().is_none());
        parts.append(number, payload).unwrap();
        assert_eq!(parts.read(number).unwrap().unwrap(), payload);
    }
    assert!(matches!(parts.append(7, b"again"), Err(StoreError::PieceTwice { number: 7, .. })));
    assert!(matches!(parts.append(8, &[0; 1000]), Err(StoreError::TooLarge { .. })));
    assert!(matches!(held.parts(), Err(StoreError::PartsOpen { .. })));
    drop(parts);
    drop(held);

    let held = claim(&store, &key(1));
    let mut parts = held.parts().unwrap();
    assert!(parts.cut().is_none());
    assert_eq!(parts.numbers().collect::<Vec<_>>(), [0, 7, u64::MAX]);
    assert_eq!(parts.read(7).unwrap().unwrap(), b"seven");
    parts.append(8, b"eight").unwrap();
    held.put(|file| {
        for number in [7, 8] {
            file.write_all(&parts.read(number).map_err(io::Error::other)?.unwrap())?;
        }
        Ok(())
    })
    .unwrap();
    drop(parts);
    drop(held);
    assert_eq!(names(folder.path()), [format!("{}.entry", key(1).hash())]);
    assert_eq!(found(&store, &key(1)).unwrap(), b"seveneight");
}
