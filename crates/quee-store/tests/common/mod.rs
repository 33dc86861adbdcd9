//! What several tests need.

use std::ops::ControlFlow;
use std::path::Path;

use quee_store::{Claim, Key, KeyParts, Lookup, Store};

/// A key of the stage `stage` with one setting.
pub fn key(setting: u64) -> Key {
    KeyParts::new("stage").text("setting", setting).key().unwrap()
}

/// The claim of a key that nobody else has.
pub fn claim(store: &Store, key: &Key) -> Claim {
    store.claim(key, |waited| panic!("somebody else has the claim for {waited:?}")).unwrap().unwrap()
}

/// The claim of a key, after waiting for it.
#[allow(dead_code, reason = "not every test waits")]
pub fn wait(store: &Store, key: &Key) -> Claim {
    store.claim(key, |_| ControlFlow::Continue(())).unwrap().unwrap()
}

/// Stores a payload.
#[allow(dead_code, reason = "not every test stores")]
pub fn put(store: &Store, key: &Key, payload: &[u8]) {
    claim(store, key).put(|file| file.write_all(payload)).unwrap();
}

/// The payload that is found; `None` for a miss.
#[allow(dead_code, reason = "not every test looks")]
pub fn found(store: &Store, key: &Key) -> Option<Vec<u8>> {
    match store.get(key) {
        Lookup::Found(found) => Some(found.bytes().unwrap()),
        Lookup::Missing => None,
        Lookup::Damaged(damaged) => panic!("{damaged}"),
    }
}

/// Names in a folder, sorted, without that of the lock that stays.
#[allow(dead_code, reason = "not every test looks")]
pub fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "evict.lock").collect();
    names.sort();
    names
}
