//! Which crate may depend on which. Policies never see burn or wgpu, and nothing depends on the program.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crate, and the crates of this workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("quee-quant", &[]),
    ("quee-data", &[]),
    ("quee-store", &[]),
    ("quee-backbone", &["quee-quant"]),
    ("quee-cpu", &["quee-quant", "quee-backbone"]),
    ("quee-gpu", &["quee-quant", "quee-backbone"]),
    ("quee-heads", &["quee-quant"]),
    ("quee-train", &["quee-quant", "quee-backbone", "quee-heads"]),
    ("quee-policy", &["quee-heads"]),
    (
        "quee",
        &[
            "quee-quant",
            "quee-data",
            "quee-store",
            "quee-backbone",
            "quee-cpu",
            "quee-gpu",
            "quee-heads",
            "quee-train",
            "quee-policy",
        ],
    ),
];

/// Outside crates that only one crate may name.
const EXCLUSIVE: &[(&str, &str)] = &[("burn", "quee-train"), ("wgpu", "quee-gpu")];

/// `[crate]` → its direct dependencies, without those of tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata runs");
    let direct = |package: &cargo_metadata::Package| {
        let kept = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        kept.map(|d| d.name.to_string()).collect()
    };
    metadata.packages.iter().map(|p| (p.name.to_string(), direct(p))).collect()
}

#[test]
fn crates_depend_only_in_the_allowed_directions() {
    let all = dependencies();
    for (name, found) in all.iter().filter(|(name, _)| *name != "quee-tests") {
        let (_, allowed) =
            ALLOWED.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} is not in the list"));
        for dependency in found.iter().filter(|d| d.starts_with("quee")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    assert_eq!(all.len(), ALLOWED.len() + 1, "every crate of the list exists");
}

#[test]
fn only_one_crate_names_burn_and_only_one_wgpu() {
    for (name, found) in dependencies() {
        for (outside, owner) in EXCLUSIVE {
            let uses = found.iter().any(|d| d == outside || d.starts_with(&format!("{outside}-")));
            assert!(!uses || name == *owner, "{name} must not name {outside}");
        }
    }
}

/// Every package in a dependency tree with the features it is compiled with, one line each.
fn compiled(what: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tree = std::process::Command::new(cargo);
    tree.current_dir(quee_tests::workspace()).args(["tree", "--offline", "--format", "{p} {f}", "--prefix", "none"]);
    let output = tree.args(what).output().expect("cargo tree runs");
    assert!(output.status.success(), "{}", quee_tests::stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn the_program_and_the_tests_share_what_is_compiled() {
    let tests = compiled(&["--workspace", "--edges", "normal,build,dev"]);
    let program = compiled(&["--package", "quee", "--edges", "normal,build"]);
    let twice: Vec<&String> = program.difference(&tests).collect();
    assert!(twice.is_empty(), "compiled once more for the program, with other features: {twice:#?}");
}
