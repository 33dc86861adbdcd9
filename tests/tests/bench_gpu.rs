//! `quee bench gpu` and `quee tune` from end to end, in their quick modes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quee_tests::{entries, program, skipped, stderr, workspace};

/// Runs the program with a folder of caches of its own; `None` and a visible line where there is no adapter.
fn quee(cache: &Path, args: &[&str]) -> Option<Output> {
    let mut command = Command::new(program());
    command.current_dir(workspace()).env("XDG_CACHE_HOME", cache).env_remove("QUEE_LOG").args(args);
    // Compiled kernels may stay from one run to the next.
    command.env("MESA_SHADER_CACHE_DIR", workspace().join("target"));
    let output = command.output().expect("the program starts");
    let text = stderr(&output);
    if text.contains("no Vulkan loader") || text.contains("no graphics adapter") {
        skipped(text.trim_end());
        return None;
    }
    assert!(output.status.success(), "{text}");
    Some(output)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("one at least").push(c),
        }
    }
    fields
}

fn files(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_file()).collect()
}

#[test]
fn figures_are_complete_and_say_where_they_are_from() {
    let (cache, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let args = ["bench", "gpu", "--quick", "--csv", out.path().to_str().unwrap()];
    let Some(output) = quee(cache.path(), &args) else { return };
    let [file] = &files(out.path())[..] else { panic!("{:?}", entries(out.path())) };
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().map(fields);
    let header = lines.next().unwrap();
    let rows: Vec<Vec<String>> = lines.collect();
    let column = |name: &str| header.iter().position(|known| known == name).unwrap_or_else(|| panic!("{name}"));
    let of = |row: &[String], name: &str| row[column(name)].clone();
    let software = of(&rows[0], "device_type") == "software";
    assert_eq!(stdout(&output).starts_with("WARNING: software adapter"), software, "{}", stdout(&output));
    for row in &rows {
        assert_eq!(row.len(), header.len(), "{row:?}");
        assert!(!of(row, "adapter").is_empty() && of(row, "adapter") == of(&rows[0], "adapter"), "{row:?}");
        assert_eq!(of(row, "quee_version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(of(row, "warning").contains("times of the processor, not of a GPU"), software, "{row:?}");
        if of(row, "section") != "peaks" {
            assert!(of(row, "median_ms").parse::<f64>().unwrap() > 0.0, "{row:?}");
        }
    }
    let count = |section: &str, name: &str| {
        let found = rows.iter().filter(|r| of(r, "section").starts_with(section) && of(r, "name").starts_with(name));
        found.count()
    };
    // Matrix units have a peak of their own, where there are some.
    assert_eq!(count("peaks", "") - count("peaks", "matrix units"), 3);
    for kernel in ["matmul_codes", "matmul_float", "rows_codes", "values_codes", "rows_float", "unfold", "add"] {
        assert!(count("kernels", kernel) > 0, "{kernel}");
    }
    // Three widths, two batches, on both backends.
    assert_eq!((count("networks", "gpu"), count("networks", "cpu"), count("blocks", "")), (6, 6, 6));
    assert_eq!(count("mixed batch", ""), 2);
}

#[test]
fn one_kernel_and_one_network_can_be_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let kernel = ["bench", "gpu", "--quick", "--part", "kernels", "--kernel", "matmul_float"];
    let Some(output) = quee(cache.path(), &kernel) else { return };
    let text = stdout(&output);
    assert!(text.contains("matmul_float_tiled") && !text.contains("matmul_codes"), "{text}");
    let network =
        ["bench", "gpu", "--quick", "--part", "networks", "--backbone", "mixer_d8_w128_p4_32", "--batch", "3"];
    let text = stdout(&quee(cache.path(), &network).expect("there is an adapter"));
    assert!(text.contains("mixer_d8_w128_p4_32") && !text.contains("peaks"), "{text}");
    let batches = text.lines().filter(|line| line.trim_start().starts_with("gpu backend"));
    assert_eq!(batches.count(), 3, "one batch at three widths: {text}");
}

#[test]
fn choices_are_kept_unless_the_run_is_dry() {
    let cache = tempfile::tempdir().unwrap();
    // What is in the folder of caches besides is the driver's.
    let kept = cache.path().join("quee");
    let tune = ["tune", "vit_d6_w80_p2_8", "--quick", "--batches", "1"];
    let dry: Vec<&str> = tune.iter().copied().chain(["--dry-run"]).collect();
    let Some(output) = quee(cache.path(), &dry) else { return };
    assert!(stdout(&output).contains("nothing was kept"), "{}", stdout(&output));
    assert!(!kept.exists(), "{:?}", entries(&kept));

    let text = stdout(&quee(cache.path(), &tune).expect("there is an adapter"));
    let [file] = &files(&kept)[..] else { panic!("{:?}", entries(&kept)) };
    let content: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let choices = content["choices"].as_array().unwrap();
    assert_eq!(text.lines().last().unwrap(), format!("{}: {} choices", file.display(), choices.len()));
    assert!(choices.iter().any(|choice| choice["n"] == 240 && choice["k"] == 80 && choice["operands"] == "codes"));
}
