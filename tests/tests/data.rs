//! Data sets other than the embedded one, from their files to a report.

use std::path::{Path, PathBuf};

use quee_tests::{DIGITS, QUICK, entries, quee, stderr, workspace};
use serde_json::Value;

const WEIGHTS: &str = "assets/digits/vit_d6_w80_p2_8.safetensors";

fn run(out: &Path, more: &[&str]) -> std::process::Output {
    let mut args = vec!["run", DIGITS, "--out", out.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(["--set", "timing.measure=false"]);
    args.extend(more);
    quee(&args)
}

fn folder_of(output: &std::process::Output) -> PathBuf {
    assert!(output.status.success(), "{}", stderr(output));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn summary(folder: &Path) -> Value {
    serde_json::from_str(&read(folder, "summary.json")).unwrap()
}

/// Digits as PNG files, `train/` and `val/` with one folder per class.
fn digits_in_folders(root: &Path) {
    let data = quee_data::Dataset::digits().unwrap();
    for index in 0..900 {
        let part = if index < 700 { "train" } else { "val" };
        let folder = root.join(part).join(&data.class_names[usize::from(data.labels[index])]);
        std::fs::create_dir_all(&folder).unwrap();
        quee_data::write_picture(&data, index, &folder.join(format!("{index:04}.png"))).unwrap();
    }
}

#[test]
fn pictures_in_folders_are_decoded_while_the_run_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, out) = (scratch.path().join("mine"), scratch.path().join("runs"));
    digits_in_folders(&root);
    let settings = ["--data", root.to_str().unwrap(), "--set", "data.name=folder", "--weights", WEIGHTS];
    let with_threads = |threads| {
        let mut more = settings.to_vec();
        more.extend(["--threads", threads]);
        folder_of(&run(&out, &more))
    };
    let first = with_threads("1");
    let found = summary(&first);
    assert_eq!((found["dataset"].as_str(), found["test_samples"].as_u64()), (Some("mine"), Some(200)));
    assert_eq!(found["subset"], Value::Null);
    assert!(found["float_accuracy"].as_f64().unwrap() > 0.95, "{found}");
    let second = with_threads("3");
    for file in ["curve.csv", "predictor.csv", "splits.json"] {
        assert_eq!(read(&first, file), read(&second, file), "{file} with one and three threads");
    }

    // A damaged file in the middle of a split ends the run, whatever the threads.
    let victim = entries(&root.join("train/5"))[20].clone();
    std::fs::write(&victim, "no picture").unwrap();
    for threads in ["1", "2", "4"] {
        let mut more = settings.to_vec();
        more.extend(["--threads", threads]);
        let output = run(&out, &more);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(victim.to_str().unwrap()) && stderr(&output).contains("hint"),
            "{}",
            stderr(&output)
        );
    }
    let hidden = entries(&out).into_iter().any(|path| path.to_string_lossy().ends_with(".partial"));
    assert!(!hidden, "a failed run leaves nothing behind");

    let empty = root.join("train/5");
    entries(&empty).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let output = run(&out, &settings);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("train/5") && stderr(&output).contains("no PNG or JPEG"), "{}", stderr(&output));
}

#[test]
fn limits_are_kept_and_said() {
    let out = tempfile::tempdir().unwrap();
    let folder = folder_of(&run(out.path(), &["--set", "data.limit_train=400"]));
    let found = summary(&folder);
    assert_eq!(found["subset"].as_str(), Some("subset: 1,560 of 1,797 pictures"));
    let page = read(&folder, "report.html");
    assert!(page.contains("digits (development subset: 1,560 of 1,797 pictures)"));
}

#[test]
fn what_the_recipe_says_of_the_backbone_must_not_contradict_its_file() {
    let out = tempfile::tempdir().unwrap();
    for (seen, words) in [("0-3", "notes"), ("none", "notes"), ("some", "`some`")] {
        let output = run(out.path(), &["--set", &format!("backbone.seen={seen}")]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words) && stderr(&output).contains("hint"), "{}", stderr(&output));
    }
}

#[test]
fn a_data_set_that_is_not_there_is_looked_for_and_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cifar10", "cifar100", "svhn", "imagenet"] {
        let name = format!("data.name={name}");
        for more in [vec!["--set", &name], vec!["--set", &name, "--data", folder.path().to_str().unwrap()]] {
            let output = run(folder.path(), &more);
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains("hint"), "{}", stderr(&output));
        }
    }
}

/// The published formats, where a folder with data and backbones lies beside the project.
#[test]
fn published_formats_run_to_a_report() {
    let shared = std::env::var_os("QUEE_SHARED").map_or(workspace().join("../shared"), PathBuf::from);
    let (data, backbones) = (shared.join("data"), shared.join("backbones"));
    if !data.is_dir() || !backbones.is_dir() {
        quee_tests::skipped(&format!("no data and backbones in {}", shared.display()));
        return;
    }
    let out = tempfile::tempdir().unwrap();
    for (name, seen, least) in [("cifar10", "none", 0.6), ("cifar100", "none", 0.3), ("svhn", "0-4999", 0.6)] {
        let weights = backbones.join(format!("vit_d7_w192_p4_32.{name}.safetensors"));
        let (name, seen) = (format!("data.name={name}"), format!("backbone.seen={seen}"));
        let mut more = vec!["--data", data.to_str().unwrap(), "--weights", weights.to_str().unwrap()];
        for set in [
            name.as_str(),
            &seen,
            "backbone.preset=vit_d7_w192_p4_32",
            "paths.segments=[4,3]",
            "data.limit_train=300",
            "data.limit_test=100",
            "exits.path_draws=1",
        ] {
            more.extend(["--set", set]);
        }
        let folder = folder_of(&run(out.path(), &more));
        let found = summary(&folder);
        assert_eq!(found["test_samples"].as_u64(), Some(100));
        assert!(found["subset"].as_str().unwrap().contains("100 of "), "{found}");
        assert!(found["float_accuracy"].as_f64().unwrap() > least, "{name}: {found}");
    }
}
