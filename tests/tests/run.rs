//! The program from end to end, on the embedded data set.

use std::path::{Path, PathBuf};

use quee_tests::{DIGITS, QUICK, cells, quee, stderr, workspace};
use safetensors::SafeTensors;
use serde_json::Value;

/// Runs the quick digits recipe with further arguments; the results folder.
fn run(out: &Path, more: &[&str]) -> PathBuf {
    let mut args = vec!["run", DIGITS, "--out", out.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(more);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&read(folder, name)).unwrap()
}

#[test]
fn a_run_leaves_everything_behind_and_its_policy_works() {
    let out = tempfile::tempdir().unwrap();
    let folder = run(out.path(), &[]);
    assert_eq!(folder.canonicalize().unwrap(), out.path().join("digits/latest").canonicalize().unwrap());

    let header = "method,seed,setting,cal_accuracy,cal_relative_cost,accuracy,accuracy_low,accuracy_high,gbops,relative_cost,\
                  ms_per_image,mean_exit,mean_weight_bits";
    let curve = read(&folder, "curve.csv");
    assert_eq!(curve.lines().next(), Some(header));
    assert!(curve.lines().all(|line| cells(line).len() == 13), "every row has all columns");
    assert!(
        read(&folder, "predictor.csv")
            .starts_with("seed,gate,continuation,n,base_rate,brier,log_loss,ece,ece_floor,auroc\n")
    );

    let summary = json(&folder, "summary.json");
    let accuracy = |width: &str| summary["static_accuracy"][width].as_f64().unwrap();
    assert!(accuracy("float") >= 0.96, "{summary}");
    assert!((accuracy("float") - accuracy("w8a8")).abs() <= 0.005, "{summary}");
    let area = |name: &str| {
        let methods = summary["methods"].as_array().unwrap();
        methods.iter().find(|m| m["name"] == name).unwrap_or_else(|| panic!("no method {name}"))["area"]
            .as_f64()
            .unwrap()
    };
    for method in summary["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        assert!(area("oracle") >= area(name), "{name} beats the oracle");
    }
    assert!(area("naive combination") > area("random"), "{summary}");

    let page = read(&folder, "report.html");
    assert!(page.contains("naive combination") && page.contains("<svg"));
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the report loads nothing from the network");

    let bytes = std::fs::read(folder.join("paths.safetensors")).unwrap();
    let table = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(table.tensor("seed0.test.answers").unwrap().shape(), [14, 360]);
    assert_eq!(table.tensor("fit.labels").unwrap().shape(), [287]);

    predicts_with(&folder, out.path());
}

#[test]
fn the_unit_follows_the_cost_model() {
    let out = tempfile::tempdir().unwrap();
    for (model, column, unit) in [("macs", "million_macs", "million MACs"), ("dynn", "million_dynn", "million dynn")] {
        let folder = run(out.path(), &["--set", &format!("policy.cost={model}")]);
        let header = read(&folder, "curve.csv").lines().next().unwrap().to_owned();
        assert!(header.split(',').any(|name| name == column) && !header.contains("gbops"), "{header}");
        let summary = json(&folder, "summary.json");
        assert_eq!(summary["cost_model"], model);
        assert!(summary["cost_unit"].as_str().unwrap().starts_with(unit), "{summary}");
        let page = read(&folder, "report.html");
        assert!(page.contains(unit) && !page.contains("GBOPs"), "{model}");
        // Every width costs the same, so full depth costs at least as much as the float backbone without further exits.
        let row = read(&folder, "curve.csv").lines().find(|l| l.starts_with("static width")).unwrap().to_owned();
        let relative: f64 = row.split(',').nth(9).unwrap().parse().unwrap();
        assert!((relative - 1.0).abs() < 1e-5, "{row}");
    }
}

/// `quee predict` classifies a test picture as its label says, explains itself, and obeys λ.
fn predicts_with(folder: &Path, scratch: &Path) {
    let data = quee_data::Dataset::digits().unwrap();
    let splits = json(folder, "splits.json");
    let test: Vec<usize> = splits["test"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect();
    let mut right = 0;
    let mut exits = [0u64; 2];
    for (at, &index) in test.iter().take(20).enumerate() {
        let image = scratch.join(format!("{at}.png"));
        quee_data::write_picture(&data, index, &image).unwrap();
        for (setting, lambda) in ["0", "1000"].into_iter().enumerate() {
            let output = quee(&[
                "predict",
                "--run",
                folder.to_str().unwrap(),
                "--lambda",
                lambda,
                "--json",
                image.to_str().unwrap(),
            ]);
            assert!(output.status.success(), "{}", stderr(&output));
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            exits[setting] += told["exit"].as_u64().unwrap();
            if setting == 0 && told["class"] == data.class_names[usize::from(data.labels[index])].as_str() {
                right += 1;
            }
            let gates = told["gates"].as_array().unwrap();
            assert!(gates.iter().all(|gate| !gate["options"].as_array().unwrap().is_empty()));
        }
    }
    assert!(right >= 17, "{right} of 20 test pictures are right at λ = 0");
    assert!(exits[1] < exits[0], "a high price makes pictures leave earlier: {exits:?}");

    let image = scratch.join("0.png");
    let text = quee(&["predict", "--run", folder.to_str().unwrap(), "--budget", "0.5", image.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("gate 0") && text.contains("predicted error") && text.contains("ms"), "{text}");

    let broken = scratch.join("broken.png");
    std::fs::write(&broken, b"\x89PNG\r\n\x1a\nnot a picture").unwrap();
    for bad in ["/no/such.png", broken.to_str().unwrap()] {
        let output = quee(&["predict", "--run", folder.to_str().unwrap(), "--lambda", "1", bad]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(bad) && stderr(&output).contains("hint"), "{}", stderr(&output));
    }
    let capped = |cap: &str| {
        let image = image.to_str().unwrap();
        quee(&["predict", "--run", folder.to_str().unwrap(), "--cap", cap, "--json", image])
    };
    for cap in [0.03, 0.2] {
        let output = capped(&cap.to_string());
        assert!(output.status.success(), "{}", stderr(&output));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["relative_cost"].as_f64().unwrap() <= cap, "{told}");
    }
    let poor = capped("0.000001");
    assert_eq!(poor.status.code(), Some(2));
    assert!(stderr(&poor).contains("cheapest"), "{}", stderr(&poor));
    let greedy = quee(&["predict", "--run", folder.to_str().unwrap(), "--budget", "0.000001", image.to_str().unwrap()]);
    assert_eq!(greedy.status.code(), Some(2));
    assert!(stderr(&greedy).contains("cheapest"), "{}", stderr(&greedy));
}

#[test]
fn one_seed_gives_one_curve_whatever_the_threads() {
    let out = tempfile::tempdir().unwrap();
    let untimed = ["--set", "timing.measure=false"];
    let curve = |threads: &str| {
        let mut more = untimed.to_vec();
        more.extend(["--threads", threads]);
        let folder = run(out.path(), &more);
        (
            read(&folder, "curve.csv"),
            read(&folder, "predictor.csv"),
            std::fs::read(folder.join("policy.safetensors")).unwrap(),
        )
    };
    let first = curve("1");
    assert!(first == curve("1"), "the same seed twice");
    let two = curve("2");
    assert!(first.0 == two.0 && first.1 == two.1, "one thread and two threads");
}

/// A program before pooled predictions and exits that see the mean token wrote no such keys.
#[test]
fn a_run_of_an_older_program_is_repeated_as_it_was() {
    let out = tempfile::tempdir().unwrap();
    let later = ["exits.tokens=class", "policy.continuations=each", "policy.half_trust=0.0", "timing.measure=false"];
    let folder = run(out.path(), &later.map(|set| ["--set", set]).concat());
    let mut recipe: toml::Table = read(&folder, "recipe.toml").parse().unwrap();
    for (table, key) in [("exits", "tokens"), ("policy", "continuations"), ("policy", "half_trust")] {
        assert!(recipe[table].as_table_mut().unwrap().remove(key).is_some(), "{table}.{key}");
    }
    std::fs::write(folder.join("recipe.toml"), recipe.to_string()).unwrap();
    let again = out.path().join("again");
    let output = quee(&["repeat", folder.to_str().unwrap(), "--out", again.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && said.contains("the same"), "{said}{}", stderr(&output));
    assert!(!said.contains("differs"), "{said}");
}

#[test]
fn a_recipe_shown_is_a_recipe() {
    let shown = quee(&["recipe", "show", DIGITS]);
    assert!(shown.status.success());
    let folder = tempfile::tempdir_in(workspace().join("target")).unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, &shown.stdout).unwrap();
    let again = quee(&["recipe", "show", path.to_str().unwrap()]);
    assert_eq!(shown.stdout, again.stdout, "{}", stderr(&again));
}
