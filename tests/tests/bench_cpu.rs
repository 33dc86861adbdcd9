//! `quee bench profile` and `quee bench peers` from end to end.

use std::path::{Path, PathBuf};

use quee_tests::{adapter, quee, stderr};
use serde_json::Value;

/// A small backbone.
const PRESET: &str = "vit_d6_w80_p2_8";

fn stdout(args: &[&str]) -> String {
    let output = quee(args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let output = quee(args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_profile_accounts_for_the_pass_and_names_every_product() {
    let args = ["bench", "profile", "--preset", PRESET, "--batch", "2", "--runs", "3"];
    for quantizer in ["dynamic-token", "minmax"] {
        let json: Vec<&str> = args.iter().copied().chain(["--quantizer", quantizer, "--json"]).collect();
        let report: Value = serde_json::from_str(&stdout(&json)).unwrap();
        let rows = report["rows"].as_array().unwrap();
        let ms = |value: &Value| value.as_f64().unwrap();
        let sum: f64 = rows.iter().map(|row| ms(&row["ms"])).sum();
        assert!(sum > 0.0 && sum <= ms(&report["fastest_ms"]) && ms(&report["fastest_ms"]) <= ms(&report["median_ms"]));
        for place in ["patch_embed.proj", "attn.qkv", "attn", "attn.proj", "mlp.fc1", "mlp.fc2", "head"] {
            assert!(rows.iter().any(|row| row["place"] == place && row["width"] == "w8a8"), "{place}: {rows:?}");
        }
    }
    let text = stdout(&args);
    for part in ["attention", "MLP", "around the blocks", "between operations"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_adapter_is_profiled_kernel_by_kernel() {
    let Some(info) = adapter() else { return };
    let args = ["bench", "profile", "--backend", "gpu", "--preset", PRESET, "--batch", "2", "--runs", "2"];
    let json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let report: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let at = |place: &str| rows.iter().filter(|row| row["place"] == place).collect::<Vec<_>>();
    for place in ["patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "head"] {
        let products = at(place).into_iter().filter(|row| row["operation"].as_str().unwrap().starts_with("matmul_"));
        let calls: u64 = products.map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!(calls, if place.contains("patch") || place == "head" { 1 } else { 6 }, "{place}: {rows:?}");
    }
    assert!(rows.iter().all(|row| row["workgroups"].as_str().unwrap().split('x').count() == 3), "{rows:?}");
    let text = stdout(&args);
    assert!(text.contains("workgroups") && text.contains(&info.name), "{text}");
    assert_eq!(text.contains("times of the processor, not of a GPU"), info.is_software());
}

#[test]
fn what_cannot_be_profiled_is_refused_with_a_hint() {
    let error = refused(&["bench", "profile", "--preset", PRESET, "--quantizer", "repq"]);
    assert!(error.contains("`repq`") && error.contains("hint"), "{error}");
    if adapter().is_some() {
        let error = refused(&["bench", "gpu", "--quick", "--part", "kernels", "--kernel", "no_such_kernel"]);
        assert!(error.contains("no_such_kernel") && error.contains("hint"), "{error}");
    }
    let error = refused(&["bench", "profile", "--weights", "no-such-file.safetensors"]);
    assert!(error.contains("no-such-file.safetensors"), "{error}");
}

/// A script for a shell, which stands for Python here.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[cfg(unix)]
#[test]
fn peers_run_in_turns_on_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let text = format!(
        "echo \"$@\" >> '{}'\ntest -s \"$4\" || exit 1\necho a warning\necho '{{\"batch\": 2, \"slow\": 1e6}}'\n",
        log.display()
    );
    let peer = script(folder.path(), "peer.sh", &text);
    let args = [
        "bench",
        "peers",
        "--python",
        "/bin/sh",
        "--script",
        peer.to_str().unwrap(),
        "--preset",
        PRESET,
        "--batch",
        "2",
    ];
    let more = ["--rounds", "2", "--runs", "1", "--threads", "2"];
    let json: Vec<&str> = args.iter().chain(&more).copied().chain(["--json"]).collect();
    let tables: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let rows = tables[0]["rows"].as_array().unwrap();
    assert_eq!(rows[0]["times_ours"], 1.0);
    let slow = rows.iter().find(|row| row["name"] == "slow").unwrap();
    assert!(slow["ms"] == 1e6 && slow["times_ours"].as_f64().unwrap() > 1.0, "{slow}");
    let calls = std::fs::read_to_string(&log).unwrap();
    assert_eq!(calls.lines().count(), 2, "one call a round: {calls}");
    let told = format!("--model {PRESET} --weights ");
    assert!(
        calls.lines().all(|call| call.starts_with(&told) && call.ends_with("--batch 2 --threads 2 --runs 1")),
        "{calls}"
    );
}

#[cfg(unix)]
#[test]
fn a_missing_environment_or_a_failing_script_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let peers = |python: &str, script: &Path| {
        let script = script.to_str().unwrap();
        refused(&[
            "bench", "peers", "--python", python, "--script", script, "--preset", PRESET, "--batch", "1", "--rounds",
            "1",
        ])
    };
    let fails = script(folder.path(), "fails.sh", "echo no module named torch >&2\nexit 3\n");
    let error = peers("/no/such/python", &fails);
    assert!(error.contains("/no/such/python") && error.contains("--python"), "{error}");
    let error = peers("/bin/sh", &folder.path().join("none.py"));
    assert!(error.contains("none.py: no such script"), "{error}");
    let error = peers("/bin/sh", &fails);
    assert!(error.contains("fails.sh: failed") && error.contains("no module named torch"), "{error}");
    let error = peers("/bin/sh", &script(folder.path(), "talks.sh", "echo done\n"));
    assert!(error.contains("talks.sh") && error.contains("JSON"), "{error}");
}
