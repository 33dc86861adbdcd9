//! `quee predict`: a stored policy at work on pictures, gate by gate.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use quee_backbone::{Executor, Value};
use quee_gpu::AdapterInfo;
use quee_heads::ExitHead;
use quee_policy::cost::Charge;
use quee_policy::lambda::within_budget;
use quee_policy::tree::{Continuation, NodeId, ROOT};
use serde::Serialize;

use crate::artefact::{self, StoredPolicy};
use crate::backend::{Device, DeviceArgs};
use crate::stages::answers::NodeAnswers;
use crate::stages::attempts;
use crate::stages::walk::Program;

/// Which policy, which setting, which pictures.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
pub struct PredictArgs {
    /// Results folder of a run, e.g. runs/digits/latest
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Price of computing: errors that a whole float run is worth; 0 cares for accuracy alone
    #[arg(long, group = "setting", value_name = "L")]
    lambda: Option<f64>,
    /// Mean cost per picture, relative to the float backbone, e.g. 0.02
    #[arg(long, group = "setting", value_name = "R", conflicts_with = "lambda")]
    budget: Option<f64>,
    /// Most that any picture may cost, relative to the float backbone; alone, the price of computing below it is 0
    #[arg(long, group = "setting", value_name = "R")]
    cap: Option<f64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON, one object per picture
    #[arg(long)]
    json: bool,
    /// PNG or JPEG files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// What the policy considered at one gate.
#[derive(Serialize)]
struct GateStep {
    gate: usize,
    /// The exit's answer here; nothing at gate 0.
    answer: Option<String>,
    confidence: Option<f32>,
    options: Vec<GateOption>,
    choice: String,
    milliseconds: f64,
}

/// One continuation.
#[derive(Serialize)]
struct GateOption {
    continuation: String,
    predicted_error: f64,
    /// Cost still to be paid, relative to float.
    remaining_cost: f64,
    objective: f64,
}

/// One picture.
#[derive(Serialize)]
struct Prediction {
    image: String,
    class: String,
    probability: f32,
    predicted_error: f64,
    exit: usize,
    path: Vec<String>,
    relative_cost: f64,
    cost: f64,
    cost_unit: &'static str,
    milliseconds: f64,
    /// What the time was measured on; a software adapter is no GPU.
    backend: String,
    lambda: Option<f64>,
    /// Whether gate 0 sent the picture along a fixed path and no gate was asked.
    committed: bool,
    gates: Vec<GateStep>,
}

/// Classifies the pictures; the text to print.
///
/// # Errors
/// When the run or a picture cannot be read, or no setting is within the budget.
pub fn predict(args: &PredictArgs) -> Result<String> {
    let policy = artefact::read(&args.run)?;
    let lambda = choose_lambda(args, &policy)?;
    let cap = args.cap.unwrap_or(f64::INFINITY);
    let cheapest = policy.policy.ways(ROOT).iter().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min)
        + policy.cost.relative(policy.cost.stem);
    if cap.is_nan() || cap < cheapest {
        bail!("--cap {cap}: no path is that cheap; hint: the cheapest costs {cheapest:.4} of the float backbone");
    }
    let mut pictures = Vec::new();
    for image in &args.images {
        pictures.push(policy.transform.apply(quee_data::read_picture(image)?)?);
    }
    let mut recipe = policy.recipe.clone();
    args.device.apply(&mut recipe)?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let engine = device.engine(policy.plan.clone());
    let software = device.adapter().is_some_and(AdapterInfo::is_software);
    let mut predictions = attempts::whole(engine.as_ref(), 1, &|text| eprintln!("{text}"), |_| {
        let mut executor = engine.executor()?;
        warm_up(&policy, executor.as_mut())?;
        pictures
            .iter()
            .map(|pixels| classify(&policy, executor.as_mut(), pixels, lambda, cap))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut text = String::new();
    for (image, prediction) in args.images.iter().zip(&mut predictions) {
        prediction.image = image.display().to_string();
        prediction.backend = device.describe();
        if args.json {
            text += &serde_json::to_string(&prediction)?;
            text.push('\n');
        } else {
            text += &describe(prediction, software);
        }
    }
    Ok(text)
}

/// Runs every width once on a black picture, so that the times of pictures do not contain the packing of weights.
fn warm_up(policy: &StoredPolicy, executor: &mut dyn Executor) -> Result<()> {
    let recipe = &policy.recipe;
    let program = Program::new(policy.backbone.as_ref(), recipe);
    let black = vec![0.0; policy.backbone.image_shape().iter().product()];
    for &width in &recipe.quant.widths {
        program.run_path(executor, &black, &vec![width; recipe.paths.segments.len()])?;
    }
    Ok(())
}

/// λ as given, or the smallest one whose mean cost on *cal-a* is within the budget.
fn choose_lambda(args: &PredictArgs, policy: &StoredPolicy) -> Result<f64> {
    match (args.lambda, args.budget) {
        (Some(lambda), _) if lambda.is_nan() || lambda < 0.0 => bail!("--lambda {lambda}: must be 0 or larger"),
        (Some(lambda), _) => Ok(lambda),
        (None, Some(budget)) => {
            let settings: Vec<(f64, f64)> =
                policy.settings.iter().map(|s| (s.lambda.unwrap_or(f64::INFINITY), s.cal_cost)).collect();
            let least = settings.iter().map(|s| s.1).fold(f64::INFINITY, f64::min);
            let found = within_budget(&settings, budget).with_context(|| {
                format!("--budget {budget}: no setting is that cheap; hint: the cheapest costs {least:.4} of the float backbone on average")
            })?;
            Ok(settings[found].0)
        }
        // The command line asks for one of the three.
        (None, None) => Ok(0.0),
    }
}

/// The path that gate 0 commits to at `lambda`: that of the last setting of the run whose λ is not above it.
fn commitment(policy: &StoredPolicy, lambda: f64) -> Option<NodeId> {
    let known = policy.settings.iter().rfind(|setting| setting.lambda.unwrap_or(f64::INFINITY) <= lambda);
    known.and_then(|setting| setting.commit)
}

/// One picture on its way through the segments.
struct Walk<'a> {
    policy: &'a StoredPolicy,
    program: Program<'a>,
    tokens: Value,
    node: NodeId,
}

impl Walk<'_> {
    fn depth(&self) -> usize {
        self.policy.tree.node(self.node).depth
    }

    /// Runs the next segment, which leads to `node`.
    fn step(&mut self, executor: &mut dyn Executor, node: NodeId) -> Result<()> {
        let width = self.policy.tree.node(node).width.context("a step has a width")?;
        self.tokens =
            self.program.segment(executor, self.depth(), self.policy.recipe.quant.widths[width], &self.tokens)?;
        self.node = node;
        Ok(())
    }

    /// What the exit behind the last segment says, and the features it saw.
    fn exit(&self, executor: &mut dyn Executor, before: Option<&NodeAnswers>) -> Result<(NodeAnswers, Vec<f32>)> {
        let features = self.program.features(executor, self.depth() - 1, &self.tokens)?;
        Ok((NodeAnswers::compute_after(&self.policy.heads.0[self.depth() - 1], &features, before), features))
    }
}

/// Runs the policy on one picture, which may cost `cap` at most.
fn classify(
    policy: &StoredPolicy,
    executor: &mut dyn Executor,
    pixels: &[f32],
    lambda: f64,
    cap: f64,
) -> Result<Prediction> {
    let (tree, recipe) = (&policy.tree, &policy.recipe);
    let start = Instant::now();
    let program = Program::new(policy.backbone.as_ref(), recipe);
    let tokens = program.stem(executor, pixels, recipe.quant.stem)?;
    let mut walk = Walk { policy, program, tokens, node: ROOT };
    let affordable = |end: &NodeId| policy.cost.relative(policy.cost.path(tree, *end, Charge::Static)) <= cap;
    let (answer, expected, gates, charge) = match commitment(policy, lambda).filter(affordable) {
        Some(end) => {
            let mut node = ROOT;
            // A cascade needs every exit on the way, others only the last.
            let (mut answer, cascade) = (None, policy.heads.0.iter().any(ExitHead::is_cascade));
            for width in tree.widths_of(end) {
                node = tree.child(node, width).context("the path is one of the tree")?;
                walk.step(executor, node)?;
                if cascade || node == end {
                    answer = Some(walk.exit(executor, answer.as_ref())?.0);
                }
            }
            let way = tree.way(ROOT, end).context("the path is one of the tree")?;
            let expected = f64::from(policy.root_rates[way.place]);
            (answer.context("the path runs at least one segment")?, expected, Vec::new(), Charge::Static)
        }
        None => {
            let (answer, expected, gates) = decide_gate_by_gate(&mut walk, executor, lambda, cap)?;
            (answer, expected, gates, Charge::Learned)
        }
    };
    let class = *answer.answers.first().context("the policy runs at least one segment")?;
    let cost = policy.cost.relative(policy.cost.path(tree, walk.node, charge));
    Ok(Prediction {
        image: String::new(),
        class: policy.class_names[usize::from(class)].clone(),
        probability: answer.confidence[0],
        predicted_error: expected,
        exit: walk.depth(),
        path: tree.widths_of(walk.node).into_iter().map(|w| recipe.quant.widths[w].to_string()).collect(),
        relative_cost: cost,
        cost: cost * policy.cost.float_total,
        cost_unit: recipe.policy.cost.unit(),
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
        backend: String::new(),
        lambda: lambda.is_finite().then_some(lambda),
        committed: matches!(charge, Charge::Static),
        gates,
    })
}

/// Asks every gate on the way; the last exit's answer, the predicted error of the last choice, and the steps.
fn decide_gate_by_gate(
    walk: &mut Walk,
    executor: &mut dyn Executor,
    lambda: f64,
    cap: f64,
) -> Result<(NodeAnswers, f64, Vec<GateStep>)> {
    let policy = walk.policy;
    let (tree, names) = (&policy.tree, &policy.recipe.quant.widths);
    let mut predicted = policy.root_rates.clone();
    let mut answer = NodeAnswers::default();
    let (mut gates, mut expected) = (Vec::new(), 1.0);
    let mut since = Instant::now();
    while let Some(best) = policy.policy.choose_within(walk.node, &predicted, lambda, cap) {
        let depth = walk.depth();
        let node = walk.node;
        let label = |way: &Continuation| match tree.widths_between(node, way.end) {
            path if path.is_empty() => "exit".to_owned(),
            path => path.iter().map(|&w| names[w].to_string()).collect::<Vec<_>>().join(" > "),
        };
        let option = |(way, cost): &(Continuation, f64)| {
            let error = f64::from(predicted[way.place]);
            let price = if lambda.is_finite() { lambda * cost } else { 0.0 };
            GateOption {
                continuation: label(way),
                predicted_error: error,
                remaining_cost: *cost,
                objective: error + price,
            }
        };
        expected = f64::from(predicted[best.place]);
        gates.push(GateStep {
            gate: depth,
            answer: answer.answers.first().map(|&class| policy.class_names[usize::from(class)].clone()),
            confidence: answer.confidence.first().copied(),
            options: policy.policy.ways(walk.node).iter().map(option).collect(),
            choice: label(&best),
            milliseconds: since.elapsed().as_secs_f64() * 1e3,
        });
        let Some(next) = best.first else { break };
        since = Instant::now();
        walk.step(executor, next)?;
        let (now, features) = walk.exit(executor, (depth > 0).then_some(&answer))?;
        let previous = (depth > 0).then(|| std::mem::take(&mut answer.probabilities));
        answer = now;
        if let Some(gate) = policy.gates.get(depth) {
            let (mut row, so_far) = (Vec::new(), tree.widths_of(next));
            gate.spec().write(depth + 1, &answer.probabilities, previous.as_deref(), &so_far, &features, &mut row);
            policy.predict(next, &row, &mut predicted);
        }
    }
    Ok((answer, expected, gates))
}

/// Continuations printed per gate; `--json` has all.
const SHOWN: usize = 5;

fn describe(p: &Prediction, software: bool) -> String {
    let mut text = String::new();
    let time = if software { "ms on a software adapter" } else { "ms" };
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}", p.image);
    let _ = writeln!(
        text,
        "  class {} (probability {:.3}, predicted error {:.3})  exit {} via {}  cost {:.4} of float ({:.4} {})  {:.2} {time}",
        p.class,
        p.probability,
        p.predicted_error,
        p.exit,
        p.path.join(" > "),
        p.relative_cost,
        p.cost,
        p.cost_unit,
        p.milliseconds
    );
    if p.committed {
        let _ = writeln!(text, "  gate 0: at this price all pictures run this path; no other gate is asked");
    }
    for gate in &p.gates {
        let answer = match (&gate.answer, gate.confidence) {
            (Some(class), Some(confidence)) => format!("answer so far {class} ({confidence:.3})"),
            _ => "nothing seen yet".to_owned(),
        };
        let _ = writeln!(text, "  gate {}: {answer}, chooses {}", gate.gate, gate.choice);
        let mut order: Vec<&GateOption> = gate.options.iter().collect();
        order.sort_by(|a, b| a.objective.total_cmp(&b.objective));
        let _ = writeln!(
            text,
            "    {:<28} {:>15} {:>15} {:>12}",
            "continuation", "predicted error", "remaining cost", "objective"
        );
        for option in order.iter().take(SHOWN) {
            let _ = writeln!(
                text,
                "    {:<28} {:>15.4} {:>15.5} {:>12.5}",
                option.continuation, option.predicted_error, option.remaining_cost, option.objective
            );
        }
        if order.len() > SHOWN {
            let _ = writeln!(text, "    … and {} more", order.len() - SHOWN);
        }
    }
    text
}
