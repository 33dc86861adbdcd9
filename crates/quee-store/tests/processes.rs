//! Many threads and processes on one store: each result is computed once, and nobody waits for the dead.

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{claim, found, key, names, put, wait};
use quee_store::{Lookup, Store};

const FOLDER: &str = "QUEE_STORE_TEST_FOLDER";
const ROLE: &str = "QUEE_STORE_TEST_ROLE";
const LARGE: u64 = 1 << 40;

/// Starts this program again, to do as [`child`] says.
fn start(role: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(FOLDER, folder).env(ROLE, role);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until a child says that it is ready.
fn ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended early");
}

fn payload(setting: u64) -> Vec<u8> {
    (0..20_000).map(|i| (i * (setting + 1)) as u8).collect()
}

/// Gets or computes the result of `key(setting)`; every computation leaves a line in `computed` beside the store's folder.
fn once(store: &Store, setting: u64, computed: &Path) {
    let claim = wait(store, &key(setting));
    match claim.get() {
        Lookup::Found(found) => assert_eq!(found.bytes().unwrap(), payload(setting)),
        Lookup::Missing => {
            let mut log = OpenOptions::new().append(true).create(true).open(computed).unwrap();
            log.write_all(format!("{setting}\n").as_bytes()).unwrap();
            claim.put(|file| file.write_all(&payload(setting))).unwrap();
        }
        Lookup::Damaged(damaged) => panic!("{damaged}"),
    }
}

/// What a child does; nothing where the program is no child.
#[test]
fn child() {
    let (Some(folder), Ok(role)) = (std::env::var_os(FOLDER), std::env::var(ROLE)) else { return };
    let folder = PathBuf::from(folder);
    let store = Store::open(folder.join("results"), LARGE).unwrap();
    match role.as_str() {
        // Everything from several keys, each starting elsewhere.
        "once" => {
            let first = u64::from(std::process::id());
            for i in 0..4 {
                once(&store, (first + i) % 4, &folder.join("computed"));
            }
        }
        // Stores and throws away without pause; what is found is right.
        "small" => {
            let small = Store::open(store.folder(), 100_000).unwrap();
            for i in 0..20 {
                let setting = (i * 7 + u64::from(std::process::id())) % 10;
                once(&small, setting, &folder.join("computed"));
                small.prune(50_000).unwrap();
                assert!(found(&small, &key(setting)).is_none_or(|found| found == payload(setting)));
            }
        }
        // Holds a claim with half an entry and some pieces until it is killed.
        "hold" => {
            let claim = wait(&store, &key(1));
            let mut parts = claim.parts().unwrap();
            parts.append(0, b"zero").unwrap();
            parts.append(1, b"one").unwrap();
            let _ = claim.put(|file| {
                file.write_all(&[0; 1 << 20])?;
                println!("ready");
                std::io::stdin().read_to_end(&mut Vec::new())?;
                panic!("this child is killed");
            });
        }
        // Adds pieces until it is killed, in the middle of one as likely as not.
        "append" => {
            let claim = wait(&store, &key(1));
            let mut parts = claim.parts().unwrap();
            let first = parts.numbers().count() as u64;
            for number in first.. {
                parts.append(number, &piece(number)).unwrap();
                if number == first {
                    println!("ready");
                }
            }
        }
        other => panic!("no such role: {other}"),
    }
}

fn piece(number: u64) -> Vec<u8> {
    vec![number as u8; 100_000]
}

fn finish(children: Vec<Child>) {
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn fifty_processes_and_two_threads_compute_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..50).map(|_| start("once", folder.path())).collect();
    let store = Store::open(folder.path().join("results"), LARGE).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..4).for_each(|setting| once(&store, setting, &folder.path().join("computed"))));
        }
    });
    finish(children);
    let mut computed: Vec<String> =
        fs::read_to_string(folder.path().join("computed")).unwrap().lines().map(str::to_owned).collect();
    computed.sort();
    assert_eq!(computed, ["0", "1", "2", "3"]);
    let left = names(store.folder());
    assert!(left.len() == 4 && left.iter().all(|name| name.ends_with(".entry")), "{left:?}");
}

#[test]
fn storing_and_throwing_away_at_once_never_gives_a_wrong_result() {
    let folder = tempfile::tempdir().unwrap();
    finish((0..12).map(|_| start("small", folder.path())).collect());
    let store = Store::open(folder.path().join("results"), LARGE).unwrap();
    let left = names(store.folder());
    assert!(left.iter().all(|name| name.ends_with(".entry")), "{left:?}");
    let pruned = store.prune(100_000).unwrap();
    assert!(pruned.kept == 0 && pruned.left <= 100_000, "nothing is in use any more: {pruned:?}");
}

#[test]
fn a_claim_is_free_when_its_holder_is_killed_and_its_pieces_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = start("hold", folder.path());
    ready(&mut holder);
    let store = Store::open(folder.path().join("results"), LARGE).unwrap();
    let hash = *key(1).hash();
    let during = ["lock", "partial", "parts"].map(|extension| format!("{hash}.{extension}"));
    assert_eq!(names(store.folder()), during, "opening leaves alone what a living process has");

    // Waiting is announced, and can be given up.
    let mut told = Duration::ZERO;
    let given_up = store.claim(&key(1), |waited| {
        told = waited;
        ControlFlow::Break(())
    });
    assert!(given_up.unwrap().is_none() && !told.is_zero());
    put(&store, &key(2), b"other keys are free");
    assert_eq!(store.clear().unwrap().kept, 1);

    // Killed while another waits.
    let claim = store.claim(&key(1), |_| {
        holder.kill().unwrap();
        ControlFlow::Continue(())
    });
    let claim = claim.unwrap().unwrap();
    holder.wait().unwrap();
    assert!(matches!(claim.get(), Lookup::Missing));
    let mut parts = claim.parts().unwrap();
    assert_eq!(parts.numbers().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(parts.read(1).unwrap().unwrap(), b"one");
    drop(parts);
    drop(claim);
    Store::open(store.folder(), LARGE).unwrap();
    assert_eq!(names(store.folder()), [format!("{hash}.parts")], "what the dead have left is gone, but for the pieces");
    put(&store, &key(1), b"done");
    assert_eq!(names(store.folder()), [format!("{hash}.entry")]);
}

#[test]
fn pieces_survive_any_number_of_kills() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results"), LARGE).unwrap();
    let mut before = 0;
    for _ in 0..10 {
        let mut child = start("append", folder.path());
        ready(&mut child);
        std::thread::sleep(Duration::from_millis(10));
        child.kill().unwrap();
        child.wait().unwrap();
        let claim = claim(&store, &key(1));
        let mut parts = claim.parts().unwrap();
        let numbers: Vec<u64> = parts.numbers().collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "no piece is missing");
        assert!(numbers.len() > before, "no piece was lost, and one was added at least");
        for number in &numbers[before..] {
            assert_eq!(parts.read(*number).unwrap().unwrap(), piece(*number));
        }
        before = numbers.len();
    }
}
