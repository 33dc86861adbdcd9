//! Helpers shared by the workspace tests.

pub mod counting;
pub mod devices;
pub mod random;
pub mod small;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use quee_gpu::{AdapterInfo, Power};

/// The workspace folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie inside the workspace").to_path_buf()
}

/// The `quee` program, built with the same profile as the tests.
///
/// # Panics
/// When it cannot be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/release/deps/<test> → target/release
        let test = std::env::current_exe().expect("a running test has a path");
        let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps").to_path_buf();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(workspace()).args(["build", "--quiet", "-p", "quee", "--bin", "quee"]);
        build.arg("--target-dir").arg(profile.parent().expect("the profile lies in the target folder"));
        // What cargo tells this test about its own package: build scripts that look at it would run anew, and everything above them with them.
        let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
            build.env_remove(name);
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the program builds");
        profile.join(format!("quee{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A call of the program in the workspace folder, to be started.
///
/// # Panics
/// When the program cannot be built.
pub fn call<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    command(args)
}

/// Runs the program in the workspace folder.
///
/// # Panics
/// When it cannot be started.
pub fn quee<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    command(args).output().expect("the program starts")
}

/// As [`quee()`], on a machine whose Vulkan drivers are not found.
///
/// # Panics
/// When it cannot be started.
pub fn quee_without_adapters<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    let mut command = command(args);
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(name, "/no/such/driver.json");
    }
    command.output().expect("the program starts")
}

fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(program());
    command.current_dir(workspace()).env_remove("QUEE_DATA").args(args);
    // Nor what this machine's user has in the folder for the data of programs.
    // Nor what earlier tests have computed; tests of the cache name one.
    command.env("QUEE_CACHE", "none");
    command.env("XDG_DATA_HOME", workspace().join("target/no-such-folder"));
    command
}

/// The graphics adapter that would be taken. Without one, says on the error stream, past the test harness, why the test is skipped.
pub fn adapter() -> Option<AdapterInfo> {
    match quee_gpu::list(Power::High) {
        Ok(mut found) => Some(found.swap_remove(0)),
        Err(error) => {
            skipped(&error.to_string());
            None
        }
    }
}

/// What a command wrote on its error stream.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Cells of a row of a CSV file: commas in double quotes separate nothing.
pub fn cells(row: &str) -> Vec<String> {
    let mut quoted = false;
    let separates = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    row.split(separates).map(|cell| cell.trim_matches('"').to_owned()).collect()
}

/// Says that a check did not run, past the test harness, which shows no output of tests that pass.
pub fn skipped(what: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {what}\n"));
}

/// Settings that make a run of the digits recipe small enough for a test: 14 paths, one seed, few passes.
pub const QUICK: &[&str] = &[
    "--seed",
    "0",
    "--set",
    "quant.widths=[\"w3a3\",\"w8a8\"]",
    "--set",
    "paths.segments=[2,2,2]",
    "--set",
    "exits.epochs=4",
    "--set",
    "exits.path_draws=2",
    "--set",
    "predictor.epochs=4",
    "--set",
    "predictor.members=1",
    "--set",
    "cells.count=16",
    "--set",
    "statistics.resamples=100",
    "--set",
    "policy.max_settings=70",
    "--set",
    "policy.methods=few",
    "--set",
    "data.folds=0",
];

/// The digits recipe.
pub const DIGITS: &str = "experiments/digits/recipe.toml";

/// Files and folders below `folder`, hidden ones included.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Writes a recipe that differs from that of the digits in `text`, and returns its path.
///
/// # Panics
/// When it cannot be written.
pub fn sweep_recipe(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("recipe.toml");
    let base = workspace().join(DIGITS);
    let base = base.to_str().expect("the workspace has a name in Unicode");
    std::fs::write(&path, format!("extends = {base:?}\nname = \"digits\"\n{text}")).expect("the folder is writable");
    path
}

/// The file of the embedded backbone's weights.
pub fn weights_of_digits() -> PathBuf {
    workspace().join("assets/digits/vit_d6_w80_p2_8.safetensors")
}
