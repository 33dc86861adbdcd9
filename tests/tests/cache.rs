//! `quee cache`: looking at stored results and throwing them away.

use std::path::Path;
use std::process::Output;

use quee_store::{KeyParts, Store};
use quee_tests::{quee, stderr};
use serde_json::Value;

fn cache(folder: &Path, args: &[&str]) -> Output {
    quee(&["cache", args[0], "--cache", folder.to_str().unwrap()].iter().chain(&args[1..]).collect::<Vec<_>>())
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Stores results of 1000 bytes, the first used long ago.
fn fill(folder: &Path) -> Store {
    let store = Store::open(folder, u64::MAX).unwrap();
    for hidden in [16, 32, 64] {
        let key = KeyParts::new("predictors").text("predictor.hidden", hidden).key().unwrap();
        let claim = store.claim(&key, |_| panic!("nobody has it")).unwrap().unwrap();
        claim.put(|file| file.write_all(&[0; 1000])).unwrap();
        let file = std::fs::File::open(folder.join(format!("{}.entry", key.hash()))).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(hidden)).unwrap();
    }
    store
}

#[test]
fn stored_results_are_listed_with_what_they_were_computed_from() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let text = printed(&cache(folder.path(), &["list", "--parts"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert!(lines[1].ends_with("1.2 kB  1970-01-01T00:01:04Z  predictors"), "{text}");
    assert_eq!(lines[2], "  predictor.hidden = 64");
    assert!(lines[7].ends_with(": 3.5 kB"), "{text}");

    std::fs::write(folder.path().join(format!("{}.entry", "0".repeat(64))), b"no entry, though it is named like one")
        .unwrap();
    let listed: Value = serde_json::from_str(&printed(&cache(folder.path(), &["list", "--json"]))).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 4);
    assert!(listed[0]["damage"].is_string() && listed[0]["stage"].is_null());
    assert_eq!(listed[3]["parts"]["predictor.hidden"], "16");
    assert!(printed(&cache(folder.path(), &["list"])).contains("UNUSABLE: it ends after 37 bytes"));
}

#[test]
fn the_oldest_results_go_first_and_clearing_takes_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = fill(folder.path());
    let text = printed(&cache(folder.path(), &["prune", "--limit", "3kB"]));
    assert!(text.ends_with(": results removed: 1 (1.2 kB); left: 2.4 kB\n"), "{text}");
    let left = store.list().unwrap();
    let hidden = |i: usize| left[i].description.as_ref().unwrap().parts["predictor.hidden"].clone();
    assert_eq!((left.len(), hidden(0), hidden(1)), (2, "64".into(), "32".into()));

    let used = KeyParts::new("predictors").text("predictor.hidden", 32).key().unwrap();
    let claim = store.claim(&used, |_| panic!("nobody has it")).unwrap().unwrap();
    let text = printed(&cache(folder.path(), &["clear"]));
    assert!(text.ends_with("in use or impossible to remove: 1\n"), "{text}");
    drop(claim);
    printed(&cache(folder.path(), &["clear"]));
    assert!(printed(&cache(folder.path(), &["list"])).ends_with(": nothing is stored\n"));
}

#[test]
fn looking_makes_no_folder_and_what_is_wrong_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("none");
    assert_eq!(printed(&cache(&folder, &["path"])), format!("{}\n", folder.display()));
    for what in ["list", "prune", "clear"] {
        printed(&cache(&folder, &[what]));
        assert!(!folder.exists(), "{what}");
    }
    std::fs::write(&folder, b"a file").unwrap();
    for (args, message) in
        [(&["list"][..], "hint: name a folder with --cache"), (&["prune", "--limit", "many"], "e.g. 20GB")]
    {
        let output = cache(&folder, args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}
