//! A sweep as an array of Slurm jobs, on a real cluster of one node (`tests/slurm/one-node.sh`); skipped where it cannot be started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use quee_tests::{QUICK, call, cells, skipped, stderr, sweep_recipe, weights_of_digits, workspace};
use serde_json::Value;

/// The cluster; ends with it.
struct Cluster {
    folder: PathBuf,
    conf: PathBuf,
}

impl Cluster {
    fn script(verb: &str, folder: &Path) -> Output {
        let script = workspace().join("tests/slurm/one-node.sh");
        Command::new(script).arg(verb).arg(folder).output().expect("the script starts")
    }

    /// `None` where there is none to be had, which is said.
    fn start(folder: &Path) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            skipped("Slurm: its daemons run on Linux only");
            return None;
        }
        let output = Self::script("start", folder);
        if output.status.code() == Some(3) {
            skipped(&format!("Slurm: {}", stderr(&output).trim()));
            return None;
        }
        assert!(output.status.success(), "{}", stderr(&output));
        let conf = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Some(Self { folder: folder.to_path_buf(), conf })
    }

    fn quee(&self, args: &[&str]) -> Output {
        call(args).env("SLURM_CONF", &self.conf).output().unwrap()
    }

    fn slurm(&self, command: &str, args: &[&str]) {
        let output = Command::new(command).args(args).env("SLURM_CONF", &self.conf).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn statuses(&self, sweep: &Path) -> Vec<Value> {
        let output = self.quee(&["sweep", "status", sweep.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until no cell waits or runs, and returns their states.
    fn settled(&self, sweep: &Path) -> Vec<String> {
        let start = Instant::now();
        loop {
            let all = self.statuses(sweep);
            let states: Vec<String> = all.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
            if states.iter().all(|state| state == "done" || state == "failed") {
                return states;
            }
            assert!(start.elapsed() < Duration::from_secs(500), "{all:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        Self::script("stop", &self.folder);
    }
}

fn said(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(words), "{}", stderr(output));
}

#[test]
fn an_array_of_cells_is_submitted_collected_and_completed() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(&scratch.path().join("slurm")) else { return };
    let later = scratch.path().join("later.safetensors");
    let entries: String =
        [4, 5, 6, 7, 8].map(|hidden| format!("[[sweep.list]]\npredictor.hidden = {hidden}\n")).concat();
    let odd = format!("[[sweep.list]]\nbackbone.weights = {:?}\n", later.to_str().unwrap());
    let recipe = sweep_recipe(scratch.path(), &(entries + &odd));
    // A path with a space goes through the shell and the options of the script.
    let folder = scratch.path().join("the sweep");
    let folder_text = folder.to_str().unwrap().to_owned();
    let cache = scratch.path().join("cache");
    let mut args = vec!["sweep", recipe.to_str().unwrap(), "--into", &folder_text, "--cache", cache.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(["--engine", "slurm", "--partition", "main", "--time", "30", "--cpus", "1", "--jobs", "2"]);
    let output = cluster.quee(&args);
    said(&output, 0, "6 of 6 cells submitted");
    assert!(String::from_utf8_lossy(&output.stdout).contains("the sweep"));
    let script = fs::read_to_string(folder.join("slurm/batch-1.sh")).unwrap();
    assert!(script.contains("#SBATCH --array=0-5%2\n") && !script.contains("--gres"), "{script}");

    // While they run, nothing is submitted twice.
    said(&cluster.quee(&["sweep", "resume", &folder_text]), 0, "nothing to submit");
    assert_eq!(cluster.settled(&folder), ["done", "done", "done", "done", "done", "failed"]);
    let failed = &cluster.statuses(&folder)[5];
    assert!(failed["ended"] == "exit code 2" && failed["lines"].to_string().contains("later.safetensors"), "{failed}");
    let collect = ["sweep", "collect", &folder_text];
    said(&cluster.quee(&collect), 1, "6 cells: 5 done, 1 failed");

    fs::copy(weights_of_digits(), &later).unwrap();
    said(&cluster.quee(&["sweep", "resume", &folder_text]), 0, "1 of 6 cells submitted");
    assert_eq!(cluster.settled(&folder), ["done"; 6]);
    let output = cluster.quee(&collect);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(folder.join("cells.csv")).unwrap();
    let rows: Vec<Vec<String>> = text.lines().map(cells).collect();
    let area = rows[0].iter().position(|name| name == "area").unwrap();
    assert!(rows.len() == 7 && rows.iter().skip(1).all(|row| row[area].parse::<f64>().unwrap() > 0.3), "{text}");
    said(&cluster.quee(&["sweep", "resume", &folder_text]), 0, "nothing to submit");
}

#[test]
fn a_cell_whose_job_is_gone_has_failed_and_can_be_submitted_again() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(&scratch.path().join("slurm")) else { return };
    let recipe = sweep_recipe(scratch.path(), "[sweep]\nseeds = [1, 2]\n");
    let folder = scratch.path().join("sweep");
    let folder_text = folder.to_str().unwrap().to_owned();
    let template = scratch.path().join("template.sh");
    // Long enough to be cancelled.
    let slow = "#!/bin/sh\n#SBATCH --array=@array@\n#SBATCH --output=\"@output@\"\nsleep 600\nexec @command@\n";
    fs::write(&template, slow).unwrap();
    let mut args = vec!["sweep", recipe.to_str().unwrap(), "--into", &folder_text, "--cache", "none"];
    args.extend(QUICK);
    args.extend(["--engine", "slurm", "--slurm-template", template.to_str().unwrap(), "--jobs", "1"]);
    said(&cluster.quee(&args), 0, "2 of 2 cells submitted");
    let start = Instant::now();
    while cluster.statuses(&folder)[0]["state"] != "running" {
        assert!(start.elapsed() < Duration::from_secs(60), "the first task does not start");
        std::thread::sleep(Duration::from_millis(200));
    }
    let waiting = &cluster.statuses(&folder)[1];
    assert!(waiting["state"] == "waiting" && waiting["queued"].to_string().contains("pending"), "{waiting}");
    let jobs: Value = serde_json::from_slice(&fs::read(folder.join("slurm.json")).unwrap()).unwrap();
    cluster.slurm("scancel", &[jobs["jobs"][0]["id"].as_str().unwrap()]);
    assert_eq!(cluster.settled(&folder), ["failed", "failed"]);
    let lost = &cluster.statuses(&folder)[0];
    assert!(lost["ended"].to_string().contains("CANCELLED"), "{lost}");

    // With another template, which is kept for the rest.
    fs::write(&template, slow.replace("sleep 600\n", "")).unwrap();
    let again = ["sweep", "resume", &folder_text, "--slurm-template", template.to_str().unwrap()];
    said(&cluster.quee(&again), 0, "2 of 2 cells submitted");
    assert_eq!(cluster.settled(&folder), ["done"; 2]);

    fs::write(&template, "#!/bin/sh\nexec @command@\n").unwrap();
    let other = scratch.path().join("other");
    args[3] = other.to_str().unwrap();
    said(&cluster.quee(&args), 2, "no @array@");
}
