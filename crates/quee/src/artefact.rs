//! `policy.safetensors`: everything that is needed to run a policy later.
//!
//! Tensors: the backbone under `backbone.<name in checkpoints>`, exits under `exit<s>.weight|bias` (`exit<s>.hidden.weight|bias`), what calibration made of single layers under
//! `quant.` (see [`quee_backbone::quant_file`]). Notes (JSON): the recipe, the quantizers,
//! the gates with their networks and how their predictions are pooled, the rates at gate 0, the settings of λ with their cost on *cal-a*, the costs of all parts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::presets;
use quee_backbone::quant_file::PlanNotes;
use quee_backbone::tensor_file::{TensorData, encode};
use quee_backbone::{Backbone, QuantPlan};
use quee_data::Transform;
use quee_heads::{ExitHead, GatePredictor, Mlp};
use quee_policy::cost::{BitTable, CostTable, Ledger};
use quee_policy::open_loop::OpenLoop;
use quee_policy::pooling::Pooling;
use quee_policy::tree::{NodeId, PathTree};
use serde::{Deserialize, Serialize};

use crate::recipe::{Continuations, ExitKind, Recipe};
use crate::results::Study;
use crate::run::path_tree;
use crate::stages::answers::ExitHeads;
use crate::stages::gates;
use crate::stages::prepare::transform_of;
use crate::stages::study::OPEN_LOOP;
use crate::stages::walk::exit_dim;

const FORMAT: &str = "quee policy 4";
/// What the names of the quantizers' tensors begin with.
const QUANT: &str = "quant.";

/// A λ and what it costs on *cal-a*.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LambdaSetting {
    /// λ; `None` stands for infinity, which JSON cannot write.
    pub lambda: Option<f64>,
    /// Mean cost relative to float on *cal-a*.
    pub cal_cost: f64,
    /// Accuracy on *cal-a*.
    pub cal_accuracy: f64,
    /// Node of the tree that gate 0 commits to at this λ, if it does.
    pub commit: Option<NodeId>,
}

/// What the notes of the file hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Notes {
    recipe: Recipe,
    plan: PlanNotes,
    gates: Vec<GatePredictor>,
    root_rates: Vec<f32>,
    settings: Vec<LambdaSetting>,
    cost: CostTable,
    bits: BitTable,
    candidates: Option<Vec<Vec<usize>>>,
    /// None in files whose recipe has no `policy.continuations`.
    #[serde(default)]
    pooling: Option<Pooling>,
    class_names: Vec<String>,
    seed: u64,
    weights_origin: String,
}

/// A policy read back.
pub struct StoredPolicy {
    /// Settings of the run.
    pub recipe: Recipe,
    /// Frozen backbone.
    pub backbone: Box<dyn Backbone>,
    /// From a picture to what the backbone takes, as in the run.
    pub transform: Transform,
    /// Quantizers.
    pub plan: Arc<QuantPlan>,
    /// Exits.
    pub heads: ExitHeads,
    /// Gates 1 to segments − 1.
    pub gates: Vec<GatePredictor>,
    /// How predictions at the gates are pooled, if they are.
    pub pooling: Option<Pooling>,
    /// Predictions at gate 0.
    pub root_rates: Vec<f32>,
    /// What chooses at gates.
    pub policy: OpenLoop,
    /// Settings of λ, ascending.
    pub settings: Vec<LambdaSetting>,
    /// Costs of all parts, in the unit of the recipe's cost model.
    pub cost: CostTable,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Seed of exits and gates.
    pub seed: u64,
    /// Paths.
    pub tree: PathTree,
}

impl StoredPolicy {
    /// What the gate behind `node` says of a picture with `features`, as the policy takes it, by place, written over `out`.
    ///
    /// # Panics
    /// For the root, a node at the last exit, or another number of features.
    pub fn predict(&self, node: NodeId, features: &[f32], out: &mut Vec<f32>) {
        let gate = &self.gates[self.tree.node(node).depth - 1];
        gate.predict(features, self.tree.prefix_index(node), out);
        if let Some(pooling) = &self.pooling {
            pooling.apply(node, out);
        }
    }
}

/// The bytes of the file: the first seed's policy.
///
/// # Errors
/// When the parts cannot be represented.
pub fn write(study: &Study) -> Result<Vec<u8>> {
    let seed = &study.seeds[0];
    let method =
        seed.result.methods.iter().find(|m| m.name == OPEN_LOOP).context("the study has no open-loop policy")?;
    let settings = method.settings.iter().zip(&method.commits).map(|(s, commit)| LambdaSetting {
        lambda: s.parameter.is_finite().then_some(s.parameter),
        cal_cost: s.cal.mean_cost(),
        cal_accuracy: s.cal.accuracy(),
        commit: *commit,
    });
    let mut tensors = Vec::new();
    let plan = study.quantizers.plan.store(QUANT, &mut tensors);
    let notes = Notes {
        recipe: study.recipe.clone(),
        plan,
        gates: seed.trained.gates.iter().map(|gate| gate.predictor.clone()).collect(),
        root_rates: seed.trained.root_rates.clone(),
        settings: settings.collect(),
        cost: seed.ledger.cost().clone(),
        bits: seed.ledger.bits().clone(),
        candidates: seed.candidates.clone(),
        pooling: seed.pooling.clone(),
        class_names: study.prepared.data.class_names.clone(),
        seed: seed.seed,
        weights_origin: study.prepared.weights_origin.clone(),
    };
    let backbone = &study.prepared.backbone;
    let values: Vec<Vec<f32>> = backbone.params().iter().map(|param| param.data.to_vec()).collect();
    for (name, shape, values) in backbone.export(&values) {
        tensors.push(TensorData::f32(format!("backbone.{name}"), shape, values));
    }
    for (index, head) in seed.trained.exits.heads.0.iter().enumerate() {
        let (exit, network) = (index + 1, &head.network);
        let mut layer = |name: &str, inputs: usize, weight: &[f32], bias: &[f32]| {
            let shape = vec![bias.len(), inputs];
            tensors.push(TensorData::f32(format!("exit{exit}{name}.weight"), shape, weight.iter().copied()));
            tensors.push(TensorData::f32(format!("exit{exit}{name}.bias"), vec![bias.len()], bias.iter().copied()));
        };
        if network.hidden > 0 {
            layer(".hidden", network.inputs, &network.w1, &network.b1);
        }
        layer("", network.last_inputs(), &network.w2, &network.b2);
    }
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("policy".to_owned(), serde_json::to_string(&notes).context("the policy is not representable in JSON")?),
    ]);
    Ok(encode(&tensors, &metadata))
}

/// Reads the policy of the run in `folder`.
///
/// # Errors
/// When the file is missing, damaged, or of another version.
pub fn read(folder: &Path) -> Result<StoredPolicy> {
    let path = folder.join("policy.safetensors");
    let file = path.display().to_string();
    ensure!(
        path.is_file(),
        "{file}: no such file; hint: --run takes the results folder of a finished run, e.g. runs/digits/latest"
    );
    let mut checkpoint = Checkpoint::read(&path)?;
    let damaged = || format!("{file}: the policy is damaged or of another version; hint: run the recipe again");
    let format = checkpoint.metadata().get("format").cloned().unwrap_or_default();
    ensure!(
        format == FORMAT,
        "{file}: format `{format}`, expected `{FORMAT}`; hint: run the recipe again with this version"
    );
    let notes = checkpoint.metadata().get("policy").with_context(damaged)?;
    let notes: Notes = serde_json::from_str(notes).with_context(damaged)?;
    let Notes {
        recipe,
        plan,
        gates,
        root_rates,
        settings,
        cost,
        bits,
        candidates,
        pooling,
        class_names,
        seed,
        weights_origin,
    } = notes;

    let preset = presets::find(&recipe.backbone.preset)?;
    let weights = checkpoint.split_prefix("backbone.", &weights_origin);
    let backbone = preset.load(&recipe.backbone.variant(), weights)?;
    ensure!(backbone.classes() == class_names.len(), "{}", damaged());
    let classes = backbone.classes();
    let mut heads = Vec::new();
    let (exits, last) = (&recipe.exits, recipe.paths.segments.len());
    for index in 1..=last {
        let dim = exit_dim(backbone.as_ref(), &recipe, index - 1);
        // The last exit is the backbone's own classifier, and the first has nothing before it.
        let inputs = dim + if exits.cascade && index > 1 && index < last { classes } else { 0 };
        let hidden = if exits.head == ExitKind::Hidden && index < last { exits.hidden } else { 0 };
        let mut layer = |name: &str, outputs: usize, inputs: usize| -> Result<(Vec<f32>, Vec<f32>)> {
            let weight = checkpoint.take(&format!("exit{index}{name}.weight"), &[outputs, inputs])?.to_vec();
            Ok((weight, checkpoint.take(&format!("exit{index}{name}.bias"), &[outputs])?.to_vec()))
        };
        let (w1, b1) = if hidden > 0 { layer(".hidden", hidden, inputs)? } else { Default::default() };
        let (w2, b2) = layer("", classes, if hidden > 0 { hidden } else { inputs })?;
        let head = ExitHead { dim, network: Mlp { inputs, hidden, outputs: classes, w1, b1, w2, b2 } };
        head.check().with_context(damaged)?;
        heads.push(head);
    }
    let plan = QuantPlan::load(plan, QUANT, &mut checkpoint)?;
    checkpoint.finish()?;
    let tree = path_tree(&recipe)?;
    let ledger = Ledger::new(&tree, cost.clone(), bits, None).with_context(damaged)?;
    let mut policy = OpenLoop::new(&tree, &ledger, root_rates.clone()).with_context(damaged)?;
    if let Some(candidates) = candidates {
        policy = policy.with_candidates(&candidates).with_context(damaged)?;
    }
    if let Some(pooling) = &pooling {
        pooling.check(&tree).with_context(damaged)?;
    }
    ensure!(pooling.is_some() == (recipe.policy.continuations == Continuations::Pooled), "{}", damaged());
    let fits = gates.len() + 1 == tree.segments()
        && gates.iter().enumerate().all(|(i, gate)| *gate.paths() == gates::paths(&tree, i + 1))
        && !settings.is_empty()
        && settings.iter().all(|s| s.commit.is_none_or(|node| tree.paths().contains(&node)));
    ensure!(fits, "{}", damaged());
    let transform = transform_of(&preset, backbone.image_shape());
    let (plan, heads) = (Arc::new(plan), ExitHeads(heads));
    Ok(StoredPolicy {
        recipe,
        backbone,
        transform,
        plan,
        heads,
        gates,
        pooling,
        root_rates,
        policy,
        settings,
        cost,
        class_names,
        seed,
        tree,
    })
}
