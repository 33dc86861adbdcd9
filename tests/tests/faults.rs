//! Runs that are killed, disturbed, or meet a cache that is damaged, full or not to be written: the results are those of an undisturbed run.
//!
//! `just torture` takes more of everything (`QUEE_TORTURE`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quee_tests::{DIGITS, QUICK, call, entries, skipped, stderr};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Files that must be the same to the last bit. `env.json`, the report and the times of `summary.json` tell of the run itself.
const SAME: &[&str] = &[
    "curve.csv",
    "predictor.csv",
    "risk.csv",
    "recipe.toml",
    "splits.json",
    "paths.safetensors",
    "choices.safetensors",
    "policy.safetensors",
];

/// `few` in the suite, `many` for `just torture`.
fn times(few: usize, many: usize) -> usize {
    if std::env::var_os("QUEE_TORTURE").is_some() { many } else { few }
}

fn run(out: &Path, cache: &Path, more: &[&str]) -> Command {
    let mut args = vec!["run", DIGITS, "--set", "timing.measure=false"];
    args.extend(QUICK);
    // Cross-fitting trains more of what is kept.
    args.extend(["--set", "data.folds=3", "--out", out.to_str().unwrap()]);
    args.extend(more);
    let mut command = call(&args);
    command.env("QUEE_CACHE", cache);
    command
}

fn done(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", stderr(output));
    PathBuf::from(String::from_utf8(output.stdout.clone()).unwrap().trim())
}

fn results(folder: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    SAME.iter().map(|name| (*name, fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")))).collect()
}

fn undisturbed(scratch: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let found = results(&done(&run(&scratch.join("undisturbed"), Path::new("none"), &[]).output().unwrap()));
    assert!(found["curve.csv"].len() > 1000);
    found
}

fn assert_same(found: &BTreeMap<&str, Vec<u8>>, expected: &BTreeMap<&str, Vec<u8>>, when: &str) {
    for (name, bytes) in expected {
        assert!(&found[name] == bytes, "{name} differs {when}");
    }
}

fn stored(cache: &Path) -> Vec<PathBuf> {
    entries(cache).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "entry")).collect()
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let scratch = tempfile::tempdir().unwrap();
    let expected = undisturbed(scratch.path());
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let whole = {
        let start = Instant::now();
        done(&run(&scratch.path().join("timed"), Path::new("none"), &[]).output().unwrap());
        start.elapsed()
    };
    for round in 0..times(2, 15) {
        let (out, cache) = (scratch.path().join(format!("out{round}")), scratch.path().join(format!("cache{round}")));
        let mut kills = 0;
        for _ in 0..times(3, 6) {
            let mut child =
                run(&out, &cache, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
            std::thread::sleep(whole.mul_f64(rng.random_range(0.05..0.9)));
            kills += usize::from(child.try_wait().unwrap().is_none());
            let _ = child.kill();
            child.wait().unwrap();
        }
        let folder = done(&run(&out, &cache, &[]).output().unwrap());
        assert_same(&results(&folder), &expected, &format!("after {kills} kills"));
        let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
        let left: Vec<PathBuf> = entries(&out).into_iter().chain(entries(&cache)).filter(hidden).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(entries(&cache).iter().all(|path| path.extension().is_none_or(|kind| kind != "partial")));
    }
}

/// A small training, whose test pictures the embedded weights have not seen. Without validation the last epoch is written, on which every step
/// has left its mark.
const TRAINING: &str = r#"
dataset = "digits"
preset = "vit_d6_w80_p2_8"
weights = "assets/digits/vit_d6_w80_p2_8.safetensors"
train_pictures = 200
test_pictures = 360
epochs = 5
batch = 50
learning_rate = 0.0003
mixup = 0.2
[augment]
shift = 1.0
"#;

#[test]
fn a_training_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let scratch = tempfile::tempdir().unwrap();
    let recipe = scratch.path().join("finetune.toml");
    fs::write(&recipe, TRAINING).unwrap();
    let train = |out: &Path, cache: &Path| {
        let mut command = call(&[Path::new("finetune"), &recipe, Path::new("--out"), out]);
        command.env("QUEE_CACHE", cache);
        command
    };
    let finished = |out: &Path, cache: &Path| {
        let output = train(out, cache).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (fs::read(out).unwrap(), stderr(&output))
    };
    let start = Instant::now();
    let (expected, _) = finished(&scratch.path().join("undisturbed"), Path::new("none"));
    let whole = start.elapsed();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut went_on = 0;
    for round in 0..times(1, 15) {
        let folder = scratch.path().join(format!("round{round}"));
        let (out, cache) = (folder.join("weights"), folder.join("cache"));
        for _ in 0..times(4, 6) {
            let mut child = train(&out, &cache).stderr(Stdio::null()).spawn().expect("the program starts");
            std::thread::sleep(whole.mul_f64(rng.random_range(0.05..0.6)));
            let _ = child.kill();
            child.wait().unwrap();
        }
        let (weights, told) = finished(&out, &cache);
        assert!(weights == expected, "other bits in round {round}: {told}");
        went_on += usize::from(told.contains("going on where") || told.contains("(stored)"));
        assert_eq!(stored(&cache).len(), 1, "the result, and no state: {:?}", entries(&cache));
        let left = entries(&folder).into_iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with('.') || name.ends_with(".parts") || name.ends_with(".partial")
        });
        assert_eq!(left, None);
    }
    assert!(went_on > 0, "no kill came after the first state");
}

#[test]
fn what_was_computed_is_not_computed_again_and_a_change_says_what_it_costs() {
    let scratch = tempfile::tempdir().unwrap();
    let (out, cache) = (scratch.path().join("out"), scratch.path().join("cache"));
    let first = run(&out, &cache, &[]).output().unwrap();
    assert!(!stderr(&first).contains("(stored)"), "{}", stderr(&first));
    let explained = |more: &[&str]| {
        let output = run(&out, &cache, &[&["--explain"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let runs = |text: &str| -> Vec<String> {
        let computed = text.lines().filter(|line| line.contains(" runs: "));
        computed.map(|line| line.split("  ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(runs(&explained(&[])), [""; 0]);
    let other = explained(&["--set", "predictor.hidden=16"]);
    assert_eq!(runs(&other), ["train gates, seed 0"], "{other}");
    assert!(other.contains("predictor.hidden: 8 -> 16"), "{other}");
    let other = explained(&["--set", "exits.epochs=5"]);
    assert_eq!(runs(&other), ["train exits, seed 0", "train gates, seed 0"], "{other}");
    let other = explained(&["--set", "quant.widths=[\"w4a4\",\"w8a8\"]"]);
    assert_eq!(runs(&other).len(), 4, "{other}");
    assert!(runs(&explained(&["--cache", "none"])).len() == 4);

    let again = run(&out, &cache, &[]).output().unwrap();
    for stage in ["calibrate quantizers", "run backbone on paths"] {
        let said = stderr(&again);
        let line = said.lines().find(|line| line.starts_with(stage)).unwrap();
        assert!(line.ends_with("(stored)"), "{said}");
    }
    assert_same(&results(&done(&again)), &results(&done(&first)), "when stages are stored");
    let changed = done(&run(&out, &cache, &["--set", "predictor.hidden=16"]).output().unwrap());
    let fresh = done(&run(&out, Path::new("none"), &["--set", "predictor.hidden=16"]).output().unwrap());
    assert_same(&results(&changed), &results(&fresh), "when only the predictor is new");
}

#[test]
fn damaged_results_are_found_said_and_computed_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let (out, cache) = (scratch.path().join("out"), scratch.path().join("cache"));
    let expected = results(&done(&run(&out, &cache, &[]).output().unwrap()));
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let count = stored(&cache).len();
    assert!(count >= 4, "{count}");
    for round in 0..times(1, 10) {
        for (index, file) in stored(&cache).into_iter().enumerate() {
            let mut bytes = fs::read(&file).unwrap();
            let at = rng.random_range(0..bytes.len());
            match (index + round) % 3 {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes.truncate(at),
                _ => bytes.clear(),
            }
            fs::write(&file, bytes).unwrap();
        }
        let output = run(&out, &cache, &[]).output().unwrap();
        let said = stderr(&output).matches("computing it anew").count();
        assert_eq!(said, count, "{}", stderr(&output));
        assert_same(&results(&done(&output)), &expected, "after damage");
    }
    // A clock that goes back: results from the future.
    for file in stored(&cache) {
        let future = std::time::SystemTime::now() + Duration::from_secs(1_000_000_000);
        fs::File::options().append(true).open(file).unwrap().set_modified(future).unwrap();
    }
    let output = run(&out, &cache, &[]).output().unwrap();
    assert!(stderr(&output).contains("(stored)"), "{}", stderr(&output));
    assert_same(&results(&done(&output)), &expected, "when the clock went back");
}

#[test]
fn runs_at_once_share_a_cache() {
    let scratch = tempfile::tempdir().unwrap();
    let (out, cache) = (scratch.path().join("out"), scratch.path().join("cache"));
    let start = || run(&out, &cache, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..times(8, 50)).map(|_| start()).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let folders: Vec<PathBuf> = outputs.iter().map(done).collect();
    let expected = results(&folders[0]);
    for folder in &folders {
        assert_same(&results(folder), &expected, "in a run beside others");
    }
    let distinct: std::collections::BTreeSet<&PathBuf> = folders.iter().collect();
    assert_eq!(distinct.len(), folders.len(), "each has a folder of its own");
    let computed = |stage: &str| {
        let fresh = |output: &&Output| {
            stderr(output).lines().any(|line| line.starts_with(stage) && !line.ends_with("(stored)"))
        };
        outputs.iter().filter(fresh).count()
    };
    assert_eq!(computed("run backbone on paths"), 1, "one computes, the others wait");
}

#[test]
fn a_cache_that_cannot_be_used_is_said_and_does_without() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"").unwrap();
    let output = run(&scratch.path().join("out"), &file.join("cache"), &[]).output().unwrap();
    assert!(stderr(&output).contains("going on without") && stderr(&output).contains("hint"), "{}", stderr(&output));
    done(&output);
}

/// Needs the right to mount file systems, as root has it.
#[test]
fn a_full_disk_and_a_read_only_cache_cost_nothing_but_the_cache() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !mount("size=64k") {
        return skipped("a full disk and a read-only cache: file systems cannot be mounted here");
    }
    let unmount = Unmount(disk.clone());
    let out = scratch.path().join("out");
    let expected = results(&done(&run(&out, Path::new("none"), &[]).output().unwrap()));
    // From room for a few small results to room for all but the largest.
    for kilobytes in [64, 256, 1024] {
        assert!(mount(&format!("remount,size={kilobytes}k")));
        let output = run(&out, &disk, &[]).output().unwrap();
        assert!(stderr(&output).contains("not kept"), "{kilobytes} kB: {}", stderr(&output));
        assert_same(&results(&done(&output)), &expected, "when the cache's disk is full");
    }
    let before = stored(&disk).len();
    assert!(mount("remount,ro"));
    let output = run(&out, &disk, &[]).output().unwrap();
    assert_same(&results(&done(&output)), &expected, "when the cache is read-only");
    assert_eq!(stored(&disk).len(), before);
    // Results themselves need room, and say so.
    drop(unmount);
    assert!(mount("size=16k"));
    let unmount = Unmount(disk.clone());
    let output = run(&disk.join("out"), Path::new("none"), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint"), "{}", stderr(&output));
    drop(unmount);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
