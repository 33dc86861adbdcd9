//! One recipe in several cases, and runs beside each other.

use std::path::PathBuf;

use quee_tests::{DIGITS, QUICK, cells, quee, stderr, workspace};

const CASES: &str = r#"
question = "Do cells matter?"
axis = "cells"
[[case]]
name = "few, or more"
set = { predictor.kind = "cells", cells.count = 2 }
[[case]]
name = "many"
set = { predictor.kind = "cells", cells.count = 32 }
"#;

/// Arguments of a quick sweep of `cases` below `out`.
fn sweep(cases: &str, out: &std::path::Path, more: &[&str]) -> std::process::Output {
    let file = out.join("question.toml");
    std::fs::write(&file, cases).unwrap();
    let mut args = vec!["sweep", DIGITS, file.to_str().unwrap(), "--out", out.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(more);
    quee(&args)
}

#[test]
fn a_sweep_runs_the_backbone_once_and_compares_its_cases() {
    let out = tempfile::tempdir().unwrap();
    let output = sweep(CASES, out.path(), &["--set", "timing.measure=false"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert_eq!(said.matches("run backbone on paths").count(), 1, "{said}");
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let text = std::fs::read_to_string(folder.join("cases.csv")).unwrap();
    let rows: Vec<Vec<String>> = text.lines().map(cells).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    for case in ["few, or more", "many"] {
        assert!(rows.iter().any(|row| row[0] == case && row[1] == "QuEE open loop"), "{text}");
    }
    for name in ["figure.svg", "report.html", "summary.json", "recipe.toml", "cases.toml", "env.json"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("Do cells matter?") && page.contains("few, or more"));
}

#[test]
fn a_case_that_cannot_be_is_refused_before_anything_runs() {
    let out = tempfile::tempdir().unwrap();
    let output = sweep(&CASES.replace("cells.count = 32", "cells.cuont = 32"), out.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("case `many`") && said.contains("did you mean `cells.count`"), "{said}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "only the cases are there");
}

#[test]
fn runs_are_compared_on_the_same_pictures() {
    let out = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--set", "timing.measure=false"];
        args.extend(QUICK);
        args.extend(more);
        let output = quee(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (a, b) = (run(&[]), run(&["--set", "predictor.kind=logistic"]));
    let output = quee(&["compare", &a, &b, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("predictor.kind") && text.contains("logistic"), "{text}");
    let output = quee(&["compare", &a, "/no/such/run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/no/such/run") && stderr(&output).contains("hint"), "{}", stderr(&output));
}

#[test]
fn exits_that_see_something_else_need_runs_of_their_own() {
    let out = tempfile::tempdir().unwrap();
    let cases = ["class", "class-and-mean", "class"].into_iter().enumerate();
    let case = |(at, tokens)| format!("[[case]]\nname = \"{at}\"\nset = {{ exits.tokens = \"{tokens}\" }}\n");
    let text = "question = \"Which tokens?\"\naxis = \"exits\"\n".to_owned() + &cases.map(case).collect::<String>();
    let output = sweep(&text, out.path(), &["--set", "timing.measure=false"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // The third case differs from the second, which is the base by then.
    assert_eq!(stderr(&output).matches("run backbone on paths").count(), 3, "{}", stderr(&output));
}

#[test]
fn cross_fitting_and_all_methods_and_promises() {
    let out = tempfile::tempdir().unwrap();
    let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap()];
    args.extend(QUICK);
    for set in [
        "data.folds=3",
        "predictor.share=0.6",
        "paths.store_tokens=true",
        "policy.methods=all",
        "policy.sets=0.2",
        "policy.risk_checks=40",
        "exits.cascade=true",
        "exits.tokens=class-and-mean",
    ] {
        args.extend(["--set", set]);
    }
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let summary: serde_json::Value = serde_json::from_str(&read("summary.json")).unwrap();
    let names: Vec<&str> = summary["methods"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    for method in [
        "JEI-DNN gates",
        "MAQEE-like",
        "per-input width",
        "QuEE fitted induction",
        "QuEE one step",
        "QuEE with gate zero",
    ] {
        assert!(names.contains(&method), "{names:?}");
    }
    let risk = read("risk.csv");
    for line in risk.lines().skip(1) {
        let row = cells(line);
        let (delta, violations): (f64, f64) = (row[3].parse().unwrap(), row[5].parse().unwrap());
        // 40 resamplings: far more than the bound allows would be a defect.
        assert!(violations <= delta + 4.0 * (delta * (1.0 - delta) / 40.0f64).sqrt(), "{line}");
    }
    let sets = read("sets.csv");
    assert_eq!(sets.lines().count(), 1 + 14 + 2, "a row for every path and two for the policy");
    assert!(sets.lines().skip(1).all(|line| cells(line).len() == 11), "{sets}");
    // A stored cascade answers pictures.
    let data = quee_data::Dataset::digits().unwrap();
    let image = out.path().join("0.png");
    quee_data::write_picture(&data, 0, &image).unwrap();
    let output = quee(&["predict", "--run", folder.to_str().unwrap(), "--lambda", "1", image.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A tree that is too large is drawn from, and the policy on it is stored and used like any other.
#[test]
fn a_drawn_tree_runs_and_predicts() {
    let out = tempfile::tempdir().unwrap();
    let large = ["paths.segments=[1,1,1,1,1,1]", "quant.widths=['w2a2','w3a3','w4a4','w6a6','w8a8']"];
    let run = |more: &[&str]| {
        let mut args = vec!["run", DIGITS, "--out", out.path().to_str().unwrap(), "--set", "timing.measure=false"];
        args.extend(QUICK);
        for set in large.iter().chain(more) {
            args.extend(["--set", set]);
        }
        quee(&args)
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("19530 paths") && stderr(&output).contains("sample = 100"), "{}", stderr(&output));
    let output = run(&["paths.sample=12", "paths.limit=20"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("paths.sample = 12") && stderr(&output).contains("hint"), "{}", stderr(&output));

    for kind in ["networks", "shared-networks"] {
        let output = run(&["paths.sample=12", &format!("predictor.kind={kind}")]);
        assert!(output.status.success(), "{}", stderr(&output));
        let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let summary = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        let paths = summary["paths"].as_u64().unwrap();
        assert!((17..=72).contains(&paths) && summary["paths_in_all"] == 19_530, "{paths}");
        let image = out.path().join("0.png");
        quee_data::write_picture(&quee_data::Dataset::digits().unwrap(), 0, &image).unwrap();
        let output = quee(&["predict", "--run", folder.to_str().unwrap(), "--lambda", "1", image.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn the_questions_that_come_with_the_program_fit_its_recipes() {
    let recipe = quee::recipe::load(&workspace().join(DIGITS), None, &[]).unwrap();
    let folder = workspace().join("experiments/conditions");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let cases = quee::sweep::Cases::read(&file).unwrap();
        // Segments that do not add up to the backbone's blocks are found only when it is loaded.
        let recipes = cases.recipes(&recipe, &file).unwrap();
        assert!(recipes.len() >= 2 && cases.question.ends_with('?'), "{}", file.display());
    }
}
