//! One policy on two backends: the same answers and the same decisions.
//!
//! Exits and gates are trained once, on what the processor computed; then the test split runs along the whole tree on every other device.
//! `cargo test --release --workspace --test agreement -- --nocapture` prints the shares.

use std::path::PathBuf;
use std::sync::Arc;

use quee::artefact::{self, StoredPolicy};
use quee::stages::gates::{self, GateInput};
use quee::stages::prepare::{Prepared, prepare};
use quee::stages::route::Router;
use quee::stages::said::{Speakers, TreeSaid};
use quee::stages::tables::Table;
use quee::stages::walk::Program;
use quee_heads::FeatureSpec;
use quee_policy::open_loop::PredictionTable;
use quee_policy::tree::NodeId;
use quee_tests::devices::{Executors, devices};
use quee_tests::{DIGITS, QUICK, quee, stderr};

/// Least share of equal answers, and of equal decisions.
const LEAST: f64 = 0.999;
/// Pictures of a batch.
const BATCH: usize = 60;

/// Features of the test split behind every node of the tree.
fn features(policy: &StoredPolicy, prepared: &Prepared, executors: &Executors) -> Table {
    let recipe = &policy.recipe;
    let program = Program::new(policy.backbone.as_ref(), recipe);
    let mut nodes = vec![Vec::new(); policy.tree.node_count()];
    let mut executor = executors();
    for batch in prepared.splits.test.chunks(BATCH) {
        let images = prepared.images(batch).unwrap();
        let visit = &mut |node: NodeId, features: Vec<f32>| nodes[node].extend(features);
        program.run_tree(executor.as_mut(), &images, &policy.tree, &recipe.quant.widths, visit).unwrap();
    }
    nodes.into()
}

/// What the exits say of the test split, from its features.
fn said(policy: &StoredPolicy, features: &Table) -> (FeatureSpec, TreeSaid) {
    let recipe = &policy.recipe;
    let spec = FeatureSpec {
        classes: policy.class_names.len(),
        widths: recipe.quant.widths.clone(),
        segments: recipe.paths.segments.len(),
        projection: recipe.features.projection,
        token_dim: policy.heads.0[0].dim,
        projection_seed: recipe.data.split_seed,
    };
    let heads = &policy.heads;
    // Nobody asks gate 0; any classifier may stand for its probe.
    let probe = |_| &heads.0[0];
    let said = Speakers { tree: &policy.tree, spec: &spec, heads: |_| heads, probe, keep_probabilities: false }
        .listen(features);
    (spec, said.unwrap())
}

/// Where the policy stops for every picture, `[λ][picture]`.
fn decisions(policy: &StoredPolicy, spec: &FeatureSpec, said: &TreeSaid, labels: &[u16]) -> Vec<Vec<NodeId>> {
    let predict = |predictor: &quee_heads::GatePredictor| {
        let input = GateInput { said, labels, pictures: None };
        let rows = gates::rows(&policy.tree, spec, predictor.gate(), input);
        gates::predict(&policy.tree, predictor, &rows, labels.len())
    };
    let predictions = policy.gates.iter().flat_map(predict).collect();
    let table = PredictionTable::new(&policy.tree, labels.len(), predictions).unwrap();
    let table = policy.pooling.as_ref().expect("predictions are pooled by default").table(table);
    let run = |lambda: Option<f64>| policy.policy.run(&table, lambda.unwrap_or(f64::INFINITY));
    policy.settings.iter().map(|setting| run(setting.lambda)).collect()
}

/// Where pictures stop that run in batches and are asked at every gate, `[picture]`.
fn routed(policy: &StoredPolicy, prepared: &Prepared, executors: &Executors, lambda: f64) -> Vec<NodeId> {
    let (router, mut executor) = (Router::new(policy, lambda, None), executors());
    let run = |batch: &[usize]| router.run(executor.as_mut(), &prepared.images(batch).unwrap()).unwrap();
    prepared.splits.test.chunks(BATCH).flat_map(run).map(|routed| routed.node).collect()
}

/// Number of pairs, and of those that are equal.
fn equal<T: PartialEq>(pairs: impl Iterator<Item = (T, T)>) -> (usize, usize) {
    pairs.fold((0, 0), |(all, same), (a, b)| (all + 1, same + usize::from(a == b)))
}

#[test]
fn answers_and_decisions_are_the_same_on_every_device() {
    let out = tempfile::tempdir().unwrap();
    let mut args = vec!["run", DIGITS, "--backend", "cpu", "--out", out.path().to_str().unwrap()];
    args.extend(QUICK);
    args.extend(["--set", "quant.widths=[\"w2a2\",\"w3a3\",\"w8a8\"]", "--set", "paths.segments=[2,4]"]);
    // An exit weak enough that going on pays for some pictures, and gates that are asked at every setting.
    args.extend(["--set", "exits.tokens=class", "--set", "policy.commit=false"]);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let policy = artefact::read(&folder).unwrap();
    let prepared = prepare(&policy.recipe, None, None).unwrap();
    let labels = prepared.data.labels_of(&prepared.splits.test);

    let devices = devices();
    let results: Vec<_> = devices
        .iter()
        .map(|device| {
            let tokens = features(&policy, &prepared, &device.engine(&Arc::clone(&policy.plan)));
            let (spec, said) = said(&policy, &tokens);
            let stops = decisions(&policy, &spec, &said, &labels);
            (&device.name, said, stops)
        })
        .collect();
    let (_, answers, stops) = &results[0];
    let on_cpu = devices[0].engine(&Arc::clone(&policy.plan));
    for at in [0, policy.settings.len() / 2, policy.settings.len() - 1] {
        let lambda = policy.settings[at].lambda.unwrap_or(f64::INFINITY);
        assert_eq!(
            routed(&policy, &prepared, &on_cpu, lambda),
            stops[at],
            "at λ = {lambda} pictures part ways as tables say"
        );
    }
    assert!(stops.iter().any(|stops| stops.iter().any(|node| *node != stops[0])), "no gate tells pictures apart");
    for (name, other_answers, other_stops) in &results[1..] {
        let paths = answers.answers.iter().zip(&other_answers.answers).flat_map(|(a, b)| a.iter().zip(b));
        let (all, same) = equal(paths);
        let settings = stops.iter().zip(other_stops).flat_map(|(a, b)| a.iter().zip(b));
        let (choices, same_choices) = equal(settings);
        eprintln!("{name}: {same} of {all} answers, {same_choices} of {choices} decisions as on {}", results[0].0);
        assert!(same as f64 >= LEAST * all as f64, "{name}: {same} of {all} answers");
        assert!(same_choices as f64 >= LEAST * choices as f64, "{name}: {same_choices} of {choices} decisions");
        assert!(all > 4000 && choices > 10_000, "{all} answers, {choices} decisions");
    }
}
