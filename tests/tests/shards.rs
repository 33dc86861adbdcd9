//! Runs on paths in parts give the results of a run in one piece.

use std::path::{Path, PathBuf};

use quee_tests::{DIGITS, QUICK, quee, stderr};
use tempfile::TempDir;

/// Files that do not hold the recipe.
const RESULTS: &[&str] = &["curve.csv", "predictor.csv", "splits.json", "paths.safetensors", "choices.safetensors"];

/// Arguments of a run with a cache of its own.
fn arguments<'a>(command: &[&'a str], cache: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let cache = ["--set", "timing.measure=false", "--cache", cache.to_str().unwrap()];
    [command, &[DIGITS], QUICK, &cache, more].concat()
}

/// The results folder of a run that succeeds, and what it said.
fn run(arguments: &[&str]) -> (PathBuf, String) {
    let output = quee(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    (PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()), stderr(&output))
}

/// Folders of a test, and the results of a run in one piece.
struct Place {
    folder: TempDir,
    whole: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cache, out) = (folder.path().join("whole"), folder.path().join("out"));
        let (whole, _) = run(&arguments(&["run"], &cache, &["--out", out.to_str().unwrap()]));
        Self { folder, whole }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn assert_same(one: &Path, other: &Path) {
    for file in RESULTS {
        assert!(std::fs::read(one.join(file)).unwrap() == std::fs::read(other.join(file)).unwrap(), "{file} differs");
    }
}

#[test]
fn parts_that_are_cells_of_a_sweep_are_joined_to_the_same_results() {
    let place = Place::new();
    let (cache, out) = (place.at("cache"), place.at("out"));
    let out = ["--out", out.to_str().unwrap()];

    let folder = place.at("parts");
    let into = ["--shards", "3", "--into", folder.to_str().unwrap()];
    let (sweep, _) = run(&arguments(&["sweep"], &cache, &into));
    let table = std::fs::read_to_string(sweep.join("cells.csv")).unwrap();
    assert_eq!(table.lines().filter(|line| line.contains(",done,")).count(), 3, "{table}");
    assert!(!std::fs::read_to_string(sweep.join("report.html")).unwrap().contains("have no results"));

    let join = [&out[..], &["--set", "paths.shard=all/3"]].concat();
    let explained = run(&arguments(&["run", "--explain"], &cache, &join[2..])).0;
    let explained = explained.to_str().unwrap().to_owned();
    let stored = |stage: &str| explained.lines().any(|line| line.starts_with(stage) && line.contains("stored ("));
    assert!(["run part 1/3 on paths", "run part 3/3 on paths"].into_iter().all(stored), "{explained}");
    assert!(!stored("run backbone on paths"), "{explained}");
    let (joined, said) = run(&arguments(&["run"], &cache, &join));
    assert!(said.contains("from 3 of 3 parts") && !said.contains("computed here"), "{said}");
    assert_same(&place.whole, &joined);
}

#[test]
fn what_is_missing_is_said_and_computed_and_a_part_needs_a_cache() {
    let place = Place::new();
    let (cache, out) = (place.at("cache"), place.at("out"));
    let out = ["--out", out.to_str().unwrap()];

    let second = [&out[..], &["--set", "paths.shard=2/2"]].concat();
    let (part, _) = run(&arguments(&["run"], &cache, &second));
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(part.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["part"], "2/2");
    assert!(summary["batches"].as_u64().unwrap() > 0);
    let (_, said) = run(&arguments(&["run"], &cache, &second));
    assert!(said.contains("batches (stored)"), "{said}");

    let (joined, said) = run(&arguments(&["run"], &cache, &[&out[..], &["--set", "paths.shard=all/2"]].concat()));
    assert!(said.contains("part 1/2 is not in the cache") && said.contains("from 1 of 2 parts"), "{said}");
    assert_same(&place.whole, &joined);

    for (cache, shard, hint) in [("none", "1/2", "kept in the cache"), ("unused", "3/2", "is no shard")] {
        let shard = format!("paths.shard={shard}");
        let output = quee(&arguments(&["run"], Path::new(cache), &[&out[..], &["--set", &shard]].concat()));
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(hint) && stderr(&output).contains("hint"), "{}", stderr(&output));
    }
}
