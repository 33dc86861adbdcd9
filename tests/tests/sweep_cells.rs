//! Sweeps of many cells on this machine: failures, kills, stops, and going on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quee_tests::{QUICK, call, cells, quee, stderr, sweep_recipe, weights_of_digits};
use serde_json::Value;

/// Four cells, the third with weights that are not there.
fn list(later: &Path) -> String {
    let entry = |hidden: usize| format!("[[sweep.list]]\npredictor.hidden = {hidden}\n");
    let odd = format!("backbone.weights = {:?}\n", later.to_str().unwrap());
    format!("{}{}{}{odd}{}", entry(4), entry(6), entry(8), entry(10))
}

fn sweep(recipe: &Path, folder: &Path, cache: &Path, more: &[&str]) -> Command {
    let mut args = vec!["sweep", recipe.to_str().unwrap(), "--into", folder.to_str().unwrap()];
    args.extend(["--cache", cache.to_str().unwrap()]);
    args.extend(QUICK);
    args.extend(more);
    call(&args)
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))).unwrap()
}

/// The folders of all cells, in order.
fn folders(sweep: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(sweep.join("cells")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

fn states(sweep: &Path) -> Vec<String> {
    let output = quee(&["sweep", "status", sweep.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    all.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

fn rows(sweep: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(sweep.join("cells.csv")).unwrap();
    text.lines().map(cells).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_failing_cell_is_reported_and_only_what_is_missing_is_run_again() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, cache) = (scratch.path().join("sweep"), scratch.path().join("cache"));
    let later = scratch.path().join("later.safetensors");
    let recipe = sweep_recipe(scratch.path(), &list(&later));
    let output = sweep(&recipe, &folder, &cache, &["--jobs", "2", "--memory", "100GB"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("4 cells: 3 done, 1 failed"), "{said}");
    assert!(said.contains("exit code 2") && said.contains("later.safetensors") && said.contains("resume"), "{said}");
    assert_eq!(states(&folder), ["done", "done", "failed", "done"]);

    let table = rows(&folder);
    assert!(table.len() == 5 && table.iter().all(|row| row.len() == table[0].len()), "{table:?}");
    let column = |name: &str| table[0].iter().position(|cell| cell == name).unwrap();
    let (area, hidden) = (column("area"), column("predictor.hidden"));
    assert_eq!(table.iter().skip(1).map(|row| row[hidden].as_str()).collect::<Vec<_>>(), ["4", "6", "8", "10"]);
    assert!(table[3][area].is_empty() && table[1][area].parse::<f64>().unwrap() > 0.3, "{table:?}");
    assert!(fs::read_to_string(folder.join("report.html")).unwrap().contains("1 of 4 cells have no results"));
    let first = folders(&folder)[0].join("state.json");
    let before = fs::read(&first).unwrap();
    assert!(json(&first)["memory"].as_u64().unwrap() > 1_000_000 || !cfg!(target_os = "linux"));

    // What is collected is not complete either.
    let collect = ["sweep", "collect", folder.to_str().unwrap()];
    assert_eq!(quee(&collect).status.code(), Some(1));
    // Another sweep does not get into the folder.
    let other = sweep(&recipe, &folder, &cache, &["--set", "exits.epochs=3"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("other settings"), "{}", stderr(&other));

    fs::copy(weights_of_digits(), &later).unwrap();
    let output = quee(&["sweep", "resume", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches(": started").count(), 1, "{}", stderr(&output));
    assert_eq!(fs::read(&first).unwrap(), before, "a cell that is done is left alone");
    assert_eq!(states(&folder), ["done"; 4]);
    let output = quee(&collect);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(Path::new(text(&output).trim()).is_file());
    assert!(rows(&folder).iter().skip(1).all(|row| !row[area].is_empty()));
    let log = fs::read_to_string(folders(&folder)[2].join("log.txt")).unwrap();
    assert_eq!(log.matches("--- ").count(), 2, "both attempts are in the log: {log}");
}

/// A sweep of four cells; waits until one of them is done.
fn started(scratch: &Path, folder: &Path) -> (std::process::Child, PathBuf) {
    let recipe = sweep_recipe(
        scratch,
        "timing.measure = false\n[sweep]\nseeds = [0, 1]\n[sweep.grid]\npredictor.hidden = [4, 8]\n",
    );
    let mut command = sweep(&recipe, folder, Path::new("none"), &[]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !folder.join("cells/000-predictor.hidden=4-seed=0/results/summary.json").is_file() {
        assert!(start.elapsed() < Duration::from_secs(300), "the first cell does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, recipe)
}

#[test]
fn a_sweep_that_was_killed_goes_on_and_has_the_figures_of_an_undisturbed_one() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("sweep");
    let (mut child, recipe) = started(scratch.path(), &folder);
    child.kill().unwrap();
    child.wait().unwrap();
    // What a process leaves that is killed while it writes, of a cell that is done and of one that is not.
    for cell in ["000-predictor.hidden=4-seed=0", "003-predictor.hidden=8-seed=1"] {
        fs::write(folder.join("cells").join(cell).join(".state.json.a1b2c3.partial"), b"{").unwrap();
    }
    // The cell that ran may run on, and is not started a second time meanwhile.
    let output = sweep(&recipe, &folder, Path::new("none"), &[]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("of 4 cells are done already"), "{}", stderr(&output));
    assert_eq!(states(&folder), ["done"; 4]);
    let log = fs::read_to_string(folders(&folder)[0].join("log.txt")).unwrap();
    assert_eq!(log.matches("--- ").count(), 1, "{log}");
    for folder in folders(&folder) {
        let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
        let left: Vec<PathBuf> = quee_tests::entries(&folder).into_iter().filter(hidden).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    let whole = scratch.path().join("whole");
    let output = sweep(&recipe, &whole, Path::new("none"), &["--jobs", "2"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for (a, b) in folders(&folder).iter().zip(folders(&whole)) {
        let curve = |cell: &Path| fs::read(cell.join("results/curve.csv")).unwrap();
        assert!(curve(a) == curve(&b), "{} differs", a.display());
    }
    let seeds = &json(&whole.join("summary.json"))["seeds"];
    assert_eq!(seeds.as_array().map(Vec::len), Some(2), "{seeds}");
}

#[cfg(unix)]
#[test]
fn a_wish_to_stop_ends_the_run_and_leaves_the_rest_waiting() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("sweep");
    let (mut child, _) = started(scratch.path(), &folder);
    // The second cell is on its way.
    let start = Instant::now();
    while !fs::read_to_string(folders(&folder)[1].join("state.json")).unwrap_or_default().contains("running") {
        assert!(start.elapsed() < Duration::from_secs(60), "the second cell does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let told = Command::new("sh").args(["-c", "kill -INT \"$0\""]).arg(child.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let found = states(&folder);
    assert!(found.iter().all(|state| state == "done" || state == "waiting"), "{found:?}");
    assert_eq!(found[3], "waiting", "{found:?}");
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("sweep");
    let recipe = sweep_recipe(scratch.path(), "[sweep.grid]\npredictor.hiden = [4, 8]\n");
    let output = sweep(&recipe, &folder, Path::new("none"), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean `predictor.hidden`"), "{}", stderr(&output));
    assert!(!folder.exists());

    let recipe = sweep_recipe(scratch.path(), "[sweep]\nseeds = [0]\n");
    let refused = |more: &[&str], words: &str| {
        let output = sweep(&recipe, &folder, Path::new("none"), more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    };
    refused(&["--partition", "main"], "--engine slurm");
    refused(&["--jobs", "0"], "--jobs");
    let output = quee(&["sweep", quee_tests::DIGITS, "--into", scratch.path().join("x").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("[sweep]") && stderr(&output).contains("hint"), "{}", stderr(&output));
    for args in [&["sweep", "status", "/no/such"][..], &["sweep", "cell", folder.to_str().unwrap(), "7"]] {
        let output = quee(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("hint") || stderr(&output).contains("number 7"), "{}", stderr(&output));
    }
    // That which comes with the program is one that can be.
    let example = quee_tests::workspace().join("experiments/digits/sweep.toml");
    let base = quee::recipe::load(&example, None, &[]).unwrap();
    assert_eq!(quee::cells::table::cells(&example, &base).unwrap().len(), 6);
    // The recipe is one like any other for those who do not sweep.
    let output = quee(&["recipe", "show", recipe.to_str().unwrap()]);
    assert!(output.status.success() && !text(&output).contains("[sweep]"), "{}", stderr(&output));
}
