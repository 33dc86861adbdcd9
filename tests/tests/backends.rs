//! Backends as a program: the same experiment on the processor and on a graphics adapter, what is listed, and what is said where there is none.
//!
//! What needs an adapter is skipped without one, and says so; Mesa's software adapter does.

use std::path::{Path, PathBuf};

use quee_gpu::AdapterInfo;
use quee_tests::{DIGITS, QUICK, adapter, quee, quee_without_adapters, stderr};
use serde_json::Value;

/// Makes the quick recipe shorter still: software adapters are slow.
const SHORT: &[&str] = &[
    "--set",
    "paths.segments=[3,3]",
    "--set",
    "exits.path_draws=1",
    "--set",
    "data.test=120",
    "--set",
    "data.limit_train=200",
    "--set",
    "policy.max_settings=30",
];

fn args<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", DIGITS, "--out", out.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(SHORT);
    args.extend(more);
    args
}

fn run(out: &Path, more: &[&str]) -> PathBuf {
    let output = quee(&args(out, more));
    assert!(output.status.success(), "{}", stderr(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&read(folder, name)).unwrap()
}

/// Setting, cost in GBOPs and accuracy of each static width: those rows do not depend on anything that is trained.
fn static_widths(folder: &Path) -> Vec<(String, String, f64)> {
    let curve = read(folder, "curve.csv");
    let rows = curve.lines().filter(|line| line.starts_with("static width,"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(',').collect();
        (cells[2].to_owned(), cells[8].to_owned(), cells[5].parse().unwrap())
    })
    .collect()
}

#[test]
fn both_backends_give_the_same_experiment() {
    let Some(info) = adapter() else { return };
    let out = tempfile::tempdir().unwrap();
    let (cpu, gpu) = (run(out.path(), &["--backend", "cpu"]), run(out.path(), &["--backend", "gpu"]));

    let one = 1.0 / 120.0 + 1e-6;
    let (on_cpu, on_gpu) = (static_widths(&cpu), static_widths(&gpu));
    assert!(!on_cpu.is_empty() && on_cpu.len() == on_gpu.len(), "{on_cpu:?} {on_gpu:?}");
    for (a, b) in on_cpu.iter().zip(&on_gpu) {
        assert_eq!((&a.0, &a.1), (&b.0, &b.1), "setting and GBOPs");
        assert!((a.2 - b.2).abs() <= one, "accuracy of {}: {} and {}", a.0, a.2, b.2);
    }
    let (summary, other) = (json(&cpu, "summary.json"), json(&gpu, "summary.json"));
    assert_eq!(summary["float_cost"], other["float_cost"]);
    for (width, accuracy) in summary["static_accuracy"].as_object().unwrap() {
        let (a, b) = (accuracy.as_f64().unwrap(), other["static_accuracy"][width].as_f64().unwrap());
        assert!((a - b).abs() <= one, "{width}: {a} and {b}");
    }

    // Both say where they ran, and only the one with a device apart what that was asked to do.
    let env = json(&gpu, "env.json");
    assert_eq!(env["adapter"], info.name.as_str());
    assert_eq!(env["device_type"], info.kind.to_string());
    assert!(env["backend"].as_str().unwrap().starts_with("gpu ("), "{env}");
    assert!(env["driver"] == info.driver.as_str() && env["training_device"].as_str().unwrap().contains("cpu"));
    assert_eq!(json(&cpu, "env.json")["device_type"], "cpu");
    let (page, plain) = (read(&gpu, "report.html"), read(&cpu, "report.html"));
    assert!(page.contains("What the device was asked to do") && !plain.contains("What the device was asked to do"));
    assert!(summary.get("device_work").is_none());
    let work = &other["device_work"];
    let segment = work["parts"].as_array().unwrap().iter().find(|part| part["part"] == "segment 1").unwrap();
    assert!(segment["dispatches"].as_u64().unwrap() > 10, "{segment}");
    assert_eq!((&segment["submits"], &segment["readbacks"]), (&Value::from(1), &Value::from(0)));
    let exit = work["parts"].as_array().unwrap().iter().find(|part| part["part"] == "exit").unwrap();
    assert_eq!(exit["readbacks"], 1);
    assert!(work["all_runs"]["readbacks"].as_u64().unwrap() > 10, "{work}");

    // Times of a processor that plays a GPU are called so wherever they stand.
    let header = read(&gpu, "curve.csv").lines().next().unwrap().to_owned();
    assert_eq!(header.contains("ms_per_image_on_software_adapter"), info.is_software());
    assert_eq!(page.contains("times of a software adapter"), info.is_software());
    assert!(!plain.contains("software adapter"));

    // The stored policy runs where the run did, unless it is told otherwise.
    let image = out.path().join("digit.png");
    quee_data::write_picture(&quee_data::Dataset::digits().unwrap(), 1200, &image).unwrap();
    let predict = |more: &[&str]| {
        let mut args =
            vec!["predict", "--run", gpu.to_str().unwrap(), "--lambda", "0.1", image.to_str().unwrap(), "--json"];
        args.extend(more);
        let output = quee(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (there, here) = (predict(&[]), predict(&["--backend", "cpu"]));
    assert!(there["backend"].as_str().unwrap().contains(&info.name), "{there}");
    assert!(here["backend"].as_str().unwrap().starts_with("cpu ("), "{here}");
    assert_eq!((&there["class"], &there["path"]), (&here["class"], &here["path"]));
}

#[test]
fn an_adapter_that_nobody_knows_is_refused_with_the_names_of_those_there_are() {
    let Some(info) = adapter() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = quee(&args(out.path(), &["--backend", "gpu", "--adapter", "Voodoo2"]));
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("Voodoo2") && text.contains(&info.name) && text.contains("quee backends"), "{text}");
}

#[test]
fn an_adapter_for_the_processor_is_refused() {
    let output = quee(&["run", DIGITS, "--adapter", "Voodoo2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--backend gpu"), "{}", stderr(&output));
}

#[test]
fn without_an_adapter_gpu_is_refused_and_auto_takes_the_processor() {
    let out = tempfile::tempdir().unwrap();
    let output = quee_without_adapters(&args(out.path(), &["--backend", "gpu"]));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("Vulkan") && text.contains("hint") && text.contains("--backend cpu"), "{text}");

    let output = quee_without_adapters(&args(out.path(), &["--backend", "auto"]));
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("backend auto: cpu ("), "{text}");
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let env = json(&folder, "env.json");
    assert_eq!((&env["backend_asked"], &env["device_type"]), (&Value::from("auto"), &Value::from("cpu")));
    assert!(env["backend_reason"].as_str().unwrap().contains("no GPU"), "{env}");
}

#[test]
fn auto_never_takes_a_software_adapter() {
    let Some(info) = adapter().filter(AdapterInfo::is_software) else { return };
    let output = quee(&["backends", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&listed["gpu"], &listed["auto_gpu"]), (&Value::from(info.name.as_str()), &Value::Null));
    assert!(listed["auto_reason"].as_str().unwrap().contains(&info.name), "{listed}");
    let adapter = &listed["adapters"][0];
    assert_eq!((&adapter["kind"], &adapter["max_binding_bytes"]), (&"software".into(), &info.max_binding.into()));
    let text = String::from_utf8(quee(&["backends"]).stdout).unwrap();
    assert!(text.contains("--backend auto  takes cpu (") && text.contains(&info.driver), "{text}");
}

#[test]
fn no_adapter_is_no_error_when_listing() {
    let output = quee_without_adapters(&["backends"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("portable") && text.contains("hint") && text.contains("--backend auto  takes cpu"), "{text}");
    let output = quee_without_adapters(&["backends", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(listed["adapters"].as_array().unwrap().is_empty() && listed["no_adapter"].is_string(), "{listed}");
}
