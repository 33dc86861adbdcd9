//! The fuzz targets without a fuzzer: each reads its seeds, what they are when they end too early, and files from elsewhere.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use quee_tests::{entries, workspace};

/// Lengths at which a seed is cut off.
const CUTS: usize = 64;

fn file_names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_target_is_listed_and_has_seeds() {
    let listed: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    for folder in ["fuzz/fuzz_targets", "fuzz/seeds"] {
        assert_eq!(file_names(&workspace().join(folder)), listed, "{folder}");
    }
    for (name, _) in fuzz::TARGETS {
        let target = fs::read_to_string(workspace().join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("quee_fuzz::{name}::run(")), "{target}");
    }
}

#[test]
fn seeds_are_what_the_formats_are_today() {
    let mut made = BTreeMap::new();
    fuzz::seeds::all(&mut |target, name, bytes| {
        made.insert(workspace().join("fuzz/seeds").join(target).join(name), bytes.to_vec());
    });
    let hint = "hint: cargo run --manifest-path fuzz/Cargo.toml --example seeds";
    for (path, bytes) in &made {
        assert!(fs::read(path).is_ok_and(|found| found == *bytes), "{}; {hint}", path.display());
    }
    let stored = entries(&workspace().join("fuzz/seeds")).into_iter().filter(|path| path.is_file());
    assert!(stored.eq(made.into_keys()), "other seeds; {hint}");
}

#[test]
fn every_target_reads_its_seeds_whole_and_cut_off() {
    for (name, run) in fuzz::TARGETS {
        for seed in entries(&workspace().join("fuzz/seeds").join(name)) {
            let bytes = fs::read(&seed).unwrap();
            run(&bytes);
            (0..CUTS).for_each(|cut| run(&bytes[..bytes.len() * cut / CUTS]));
        }
    }
}

#[test]
fn the_target_of_checkpoints_reads_files_of_pytorch() {
    for file in entries(&workspace().join("crates/quee-backbone/tests/fixtures")) {
        if file.extension().is_some_and(|kind| ["pth", "tar", "pickle"].iter().any(|wanted| kind == *wanted)) {
            fuzz::checkpoint::run(&fs::read(file).unwrap());
        }
    }
}

#[test]
#[should_panic(expected = "bytes of memory for an input of 10")]
fn a_parser_that_takes_too_much_memory_is_found() {
    fuzz::bounded(10, 2, 4096, || vec![1_u8; 4096 + 21].len());
}

#[test]
fn a_parser_may_give_back_what_was_taken_before() {
    let before = vec![1_u8; 1 << 20];
    fuzz::bounded(0, 0, 4096, || drop(before));
}
