//! `quee quantize`, `quee inspect quant` and runs with stored quantizers, from end to end on the embedded data set.

use std::path::{Path, PathBuf};

use quee_tests::{DIGITS, QUICK, cells, quee, stderr};
use safetensors::{Dtype, SafeTensors};

const SETTINGS: [&str; 6] = [
    "--set",
    "quant.activations=combined",
    "--set",
    "quant.rounding=gptq",
    "--set",
    "quant.wider=[\"blocks.0.mlp.fc2\"]",
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn quantize(out: &Path, more: &[&str]) -> String {
    let mut args = vec!["quantize", DIGITS, "--out", text(out)];
    args.extend(SETTINGS);
    args.extend(["--set", "quant.bias_correction=true"]);
    args.extend(more);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn run(out: &Path, more: &[&str]) -> PathBuf {
    let mut args = vec!["run", DIGITS, "--out", text(out)];
    args.extend(QUICK);
    args.extend(SETTINGS);
    args.extend(["--set", "quant.bias_correction=true"]);
    args.extend(more);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn refused(args: &[&str]) -> String {
    let output = quee(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn stored_quantizers_give_the_bits_of_those_that_a_run_makes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quantizers.safetensors");
    let said = quantize(&file, &[]);
    assert!(said.contains("w3a3") && said.contains("MB of"), "{said}");

    let made = run(folder.path(), &[]);
    let setting = format!("quant.file={}", text(&file));
    let stored = run(folder.path(), &["--set", &setting]);
    for name in ["curve.csv", "predictor.csv"] {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).unwrap();
        let without_time = |text: String| -> Vec<String> {
            text.lines()
                .map(|line| cells(line).into_iter().enumerate().filter(|(at, _)| *at != 10).map(|(_, x)| x).collect())
                .collect()
        };
        assert_eq!(without_time(read(&made)), without_time(read(&stored)), "{name}");
    }

    // The size shows the bits.
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |bits: u8| {
        let codes = tensors.tensor(&format!("blocks.1.attn.qkv.w{bits}.codes")).unwrap();
        assert_eq!(codes.dtype(), Dtype::U32);
        codes.data().len()
    };
    assert_eq!((words(3) * 8, words(4) * 8), (words(8) * 3, words(8) * 4));
    assert!(tensors.tensor("blocks.1.attn.qkv.norm.factors").is_ok());

    for what in [text(&file), text(&made)] {
        let output = quee(&["inspect", "quant", what]);
        let page = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        for word in [
            "blocks.0.attn.softmax",
            "blocks.5.mlp.fc2",
            "patch_embed.proj",
            "Places at other widths",
            "w5a5 for w3a3",
            "changed normalisation",
        ] {
            assert!(page.contains(word), "{word}: {page}");
        }
    }
    let output = quee(&["inspect", "quant", "--json", text(&file)]);
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let decibels = &page["activation_quality"]["blocks.0.attn.qkv"];
    assert!(decibels["8"].as_f64().unwrap() > 30.0 && decibels["3"].as_f64().unwrap() < 25.0, "{decibels}");
}

#[test]
fn wrong_quantizers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let runs = tempfile::tempdir().unwrap();
    let file = folder.path().join("quantizers.safetensors");
    quantize(&file, &["--widths", "w4a4"]);
    let set = format!("quant.file={}", text(&file));
    let with = |more: &[&str]| {
        let mut args = vec!["run", DIGITS, "--out", text(runs.path())];
        args.extend(QUICK);
        args.extend(SETTINGS);
        args.extend(["--set", &set]);
        args.extend(more);
        refused(&args)
    };
    let good = ["--set", "quant.bias_correction=true"];
    assert!(with(&[]).contains("`quant.bias_correction` = true"));
    assert!(with(&good).contains("not made for w3a3") || with(&good).contains("not made for w2a2"), "{}", with(&good));
    let other = [&good[..], &["--set", "quant.activations=mse"]].concat();
    assert!(with(&other).contains("`quant.activations` = combined"), "{}", with(&other));

    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(with(&good).contains("quantizers.safetensors"));
    let message = refused(&["inspect", "quant", "assets/digits/vit_d6_w80_p2_8.safetensors"]);
    assert!(message.contains("expected `quee quantizers 1`"), "{message}");
    assert!(refused(&["inspect", "quant", text(folder.path())]).contains("quant.json"));
    let message = refused(&["quantize", DIGITS, "--out", text(&file), "--set", "quant.wider=[\"nowhere\"]"]);
    assert!(message.contains("`nowhere` is no place"), "{message}");
    let message = refused(&["quantize", DIGITS, "--out", "no/such/folder/file"]);
    assert!(message.contains("no/such/folder/file"), "{message}");
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 1, "nothing half-written");
}

#[test]
fn quantizers_are_compared_and_places_measured() {
    let args = [
        "quantize",
        DIGITS,
        "--compare",
        "--widths",
        "w8a8,w3a3",
        "--quantizers",
        "minmax,combined",
        "--draws",
        "2",
        "--csv",
    ];
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = page.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + 4, "{page}");
    let accuracy = |quantizer: &str, width: &str| -> f64 {
        let row = rows.iter().find(|row| row[1] == quantizer && row[2] == width).unwrap_or_else(|| panic!("{page}"));
        row[3].parse().unwrap()
    };
    assert!(accuracy("float", "float") - accuracy("combined", "w8a8") < 0.01, "{page}");
    assert!(accuracy("combined", "w3a3") > accuracy("minmax", "w3a3"), "{page}");

    let output = quee(&["quantize", DIGITS, "--speed", "--widths", "w4a4", "--quantizers", "minmax,repq", "--csv"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = page.lines().collect();
    assert!(rows.len() == 3 && rows[1].starts_with("minmax,w4a4,") && rows[1].ends_with(",1"), "{page}");

    let output = quee(&["quantize", DIGITS, "--sensitivity", "--widths", "w2a2", "--pictures", "40", "--csv"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(page.lines().count(), 1 + 1 + 6 * 8, "{page}");
    assert!(page.lines().skip(1).all(|line| line.split(',').nth(2).unwrap().parse::<f64>().unwrap() >= 0.0), "{page}");
}
