//! `quee bench profile` from end to end.

use quee_tests::{quee, stderr};
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
fn what_cannot_be_profiled_is_refused_with_a_hint() {
    let error = refused(&["bench", "profile", "--preset", PRESET, "--quantizer", "repq"]);
    assert!(error.contains("`repq`") && error.contains("hint"), "{error}");
    let error = refused(&["bench", "profile", "--weights", "no-such-file.safetensors"]);
    assert!(error.contains("no-such-file.safetensors"), "{error}");
}
