//! Comparisons of made-up runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quee_policy::bootstrap::Bootstrap;
use quee_policy::summary::{Summary, summarise};
use serde_json::{Value, json};

use super::stored::CompareError;
use super::{Asked, compare, text};
use crate::experiment::BOOTSTRAP_SEED;
use crate::report::compare_page;
use crate::results::choices;

const METHODS: [&str; 3] = ["QuEE open loop", "naive combination", "static width"];
const PICTURES: usize = 200;

/// A run as files: `skill` moves its accuracy, `least` the start of its axis.
struct MadeUp {
    skill: f64,
    least: f64,
    pictures: choices::Pictures,
    dataset: &'static str,
    cost_model: &'static str,
    float_cost: f64,
    hidden: usize,
}

impl Default for MadeUp {
    fn default() -> Self {
        let pictures = choices::tests::pictures(PICTURES);
        Self { skill: 0.0, least: 0.05, pictures, dataset: "made up", cost_model: "bops", float_cost: 5.0, hidden: 8 }
    }
}

impl MadeUp {
    fn write(&self, folder: &Path) -> (PathBuf, Summary) {
        std::fs::create_dir_all(folder).unwrap();
        let mut result = choices::tests::result(&METHODS, PICTURES, 12, self.skill, 3);
        result.least_cost = self.least;
        let summary = summarise(&[result.clone()], &Bootstrap { resamples: 200, seed: BOOTSTRAP_SEED }).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        let methods = summary.methods.iter().map(|m| {
            json!({ "name": m.name, "area": m.area.value, "area_low": m.area.low, "area_high": m.area.high, "cost_at_drop_0_5": 0.5,
                    "test_drop_points_0_5": 0.25, "cost_at_drop_1_0": null, "test_drop_points_1_0": null, "cost_of_0_5": m.cost_of_0_5.value,
                    "cost_of_0_5_low": m.cost_of_0_5.low, "cost_of_0_5_high": m.cost_of_0_5.high })
        });
        let file = json!({ "dataset": self.dataset, "subset": null, "test_samples": PICTURES, "backbone": "vit", "weights": "w", "seeds": [0],
                           "float_accuracy": summary.float_accuracy.value, "cost_model": self.cost_model, "float_cost": self.float_cost,
                           "best_single": "static width", "methods": methods.collect::<Vec<Value>>() });
        write("summary.json", file.to_string().as_bytes());
        write("env.json", br#"{"version": "1", "commit": "c", "backend": "cpu"}"#);
        let recipe = format!("seeds = [0]\n[predictor]\nhidden = {}\n[statistics]\nresamples = 200\n", self.hidden);
        write("recipe.toml", recipe.as_bytes());
        let mut curve = "method,seed,setting,accuracy,relative_cost\n".to_owned();
        for method in &summary.methods {
            for point in &method.front {
                let _ =
                    writeln!(curve, "{},0,{},{},{}", method.name, point.name, point.accuracy.value, point.cost.value);
            }
        }
        curve += "oracle,0,corner 0,0.9,0.05\n";
        write("curve.csv", curve.as_bytes());
        write("choices.safetensors", &choices::write(&self.pictures, &[(0, &result)]).unwrap());
        (folder.to_path_buf(), summary)
    }
}

/// Two runs side by side.
fn pair(a: &MadeUp, b: &MadeUp) -> (tempfile::TempDir, [PathBuf; 2], [Summary; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (a.write(&folder.path().join("r/a")), b.write(&folder.path().join("r/b")));
    (folder, [first.0, second.0], [first.1, second.1])
}

#[test]
fn areas_are_those_of_the_runs_and_the_better_run_is_found() {
    let (_folder, runs, summaries) = pair(&MadeUp::default(), &MadeUp { skill: 0.1, hidden: 16, ..MadeUp::default() });
    let report = compare(&runs, &Asked::Leading).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    for row in &report.rows {
        let own = summaries[row.run].methods.iter().find(|m| m.name == row.method).unwrap().area;
        let area = row.area.unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(area.value, own.value) && close(area.low, own.low) && close(area.high, own.high), "{row:?}");
    }
    assert_eq!(report.rows.len(), 6);
    assert_eq!(report.rows[5].method, "static width", "the best single technique");
    let difference = &report.differences[0];
    assert!(difference.paired && difference.verdict() == "better", "{difference:?}");
    let by_hand = summaries[1].methods[0].area.value - summaries[0].methods[0].area.value;
    assert!((difference.area.value - by_hand).abs() < 1e-6);
    assert!(difference.accuracy.iter().any(|at| at.points.low > 0.0));
    assert_eq!(report.settings.len(), 1);
    assert_eq!(report.settings[0].values, [Some("8".to_owned()), Some("16".to_owned())]);
    let told = text::text(&report);
    assert!(
        told.contains("better") && told.contains("predictor.hidden  8 | 16") && told.contains("more accurate at costs"),
        "{told}"
    );
    assert_eq!(text::csv(&report).lines().count(), 7);
    let columns = |line: &str| line.split(',').count();
    assert!(text::csv(&report).lines().all(|line| columns(line) == 22), "{}", text::csv(&report));
    let page = compare_page(&report);
    assert!(page.contains("✓ better") && page.contains("<svg") && !page.contains("NaN"));
}

#[test]
fn a_run_equals_itself() {
    let (_folder, [run, _], _) = pair(&MadeUp::default(), &MadeUp::default());
    let report = compare(&[run.clone(), run], &Asked::All).unwrap();
    assert!(report.differences.iter().all(|d| d.area.low == 0.0 && d.area.high == 0.0 && d.verdict() == "equal"));
    assert!(report.settings.is_empty() && report.methods.contains(&"oracle".to_owned()));
}

#[test]
fn what_is_not_alike_is_said() {
    let mut other = choices::tests::pictures(PICTURES);
    other.indices[7] += 1;
    let cases = [
        (MadeUp { pictures: other, ..MadeUp::default() }, "other pictures", 3, 0.05),
        (MadeUp { dataset: "svhn", ..MadeUp::default() }, "data sets differ", 0, 0.05),
        (MadeUp { least: 0.02, ..MadeUp::default() }, "cheapest one-segment", 3, 0.02),
        (MadeUp { float_cost: 10.0, ..MadeUp::default() }, "float backbones cost", 3, 0.025),
    ];
    for (other, warning, differences, least) in cases {
        let (_folder, runs, _) = pair(&MadeUp::default(), &other);
        let report = compare(&runs, &Asked::Leading).unwrap();
        assert!(report.warnings.iter().any(|text| text.contains(warning)), "{warning}: {:?}", report.warnings);
        assert_eq!(report.differences.len(), differences, "{warning}");
        assert!((report.least_cost.unwrap() - least).abs() < 1e-12, "{warning}");
        let unpaired = warning == "other pictures";
        assert!(report.differences.iter().all(|d| d.paired != unpaired && d.saved_0_5.is_some() != unpaired));
        if unpaired {
            assert!(
                report.differences[0].area.low < 0.0 && report.differences[0].area.high > 0.0,
                "independent resamples"
            );
        }
    }
    let (_folder, runs, _) = pair(&MadeUp::default(), &MadeUp { float_cost: 10.0, ..MadeUp::default() });
    let report = compare(&runs, &Asked::Leading).unwrap();
    assert_eq!(report.rows[0].at_drop_0_5, Some((0.25, 0.25)), "A's float costs half of B's");
}

#[test]
fn runs_of_earlier_versions_are_shown_without_differences() {
    let (_folder, runs, summaries) = pair(&MadeUp::default(), &MadeUp::default());
    std::fs::remove_file(runs[1].join("choices.safetensors")).unwrap();
    let report = compare(&runs, &Asked::Leading).unwrap();
    assert!(report.differences.is_empty() && report.warnings[0].starts_with("B: no choices.safetensors"));
    assert_eq!(report.rows[1].area.unwrap(), summaries[1].methods[0].area);
    compare_page(&report);
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_file() {
    let (folder, runs, _) = pair(&MadeUp::default(), &MadeUp { cost_model: "macs", ..MadeUp::default() });
    let refused = |runs: &[PathBuf], asked: &Asked| compare(runs, asked).unwrap_err();
    assert!(matches!(refused(&runs, &Asked::Leading), CompareError::CostModels { .. }));
    assert!(matches!(refused(&runs[..1], &Asked::Leading), CompareError::Number { given: 1, .. }));
    let empty = folder.path().to_path_buf();
    let error = refused(&[runs[0].clone(), empty], &Asked::Leading);
    assert!(matches!(error, CompareError::NoRun { missing: "summary.json", .. }), "{error}");
    let twice = [runs[0].clone(), runs[0].clone()];
    assert!(matches!(refused(&twice, &Asked::Named(vec!["no such".into()])), CompareError::Method { .. }));
    for (file, bytes) in [
        ("summary.json", &b"{"[..]),
        ("recipe.toml", b"a = "),
        ("env.json", b"[]"),
        ("curve.csv", b"method,seed\n"),
        ("choices.safetensors", b"\x00\x01"),
        ("curve.csv", b"\xff\xfe"),
    ] {
        let kept = std::fs::read(runs[0].join(file)).unwrap();
        std::fs::write(runs[0].join(file), bytes).unwrap();
        let message = refused(&twice, &Asked::Leading).to_string();
        assert!(message.contains(file) && message.contains("hint"), "{file}: {message}");
        std::fs::write(runs[0].join(file), kept).unwrap();
    }
    assert!(compare(&twice, &Asked::Leading).is_ok());
}
