//! `quee ladder`: which widths a recipe should offer, measured on pictures of *exit-train*.
//!
//! Under bit operations a width that is no more accurate than a cheaper one gives a policy nothing to choose. The ladder is measured
//! where nothing else is decided: *fit*, *cal* and *test* stay unseen.

use anyhow::{Result, ensure};
use quee_policy::ladder::{LadderRule, Rung, Verdict, accuracy, paired_difference};
use quee_quant::Width;
use serde::Serialize;

use crate::backend::Device;
use crate::cancel::Cancel;
use crate::progress::Stage;
use crate::recipe::{CostModel, Recipe};
use crate::run::{Options, Quality, calibrate, program};
use crate::stages::answers::{NodeAnswers, own_head};
use crate::stages::costs::Counted;
use crate::stages::prepare::prepare;
use crate::stages::walk::Drive;

/// What the command line adds to a recipe.
#[derive(Clone, Debug)]
pub struct LadderOptions {
    /// Widths to measure; every equal pair from 2 to 8 bits where there are none.
    pub widths: Vec<Width>,
    /// Most pictures of *exit-train* to measure on.
    pub pictures: usize,
    /// Most rungs to propose.
    pub rungs: usize,
    /// Print JSON.
    pub json: bool,
}

/// One width, measured.
#[derive(Serialize)]
struct Row {
    width: Width,
    relative_cost: f64,
    accuracy: f64,
    /// Accuracy that float has and this width lacks, in points.
    loss_points: f64,
    verdict: Verdict,
}

/// What was measured and what follows.
#[derive(Serialize)]
struct Ladder {
    dataset: String,
    backbone: String,
    backend: String,
    pictures: usize,
    float_accuracy: f64,
    widths: Vec<Row>,
    proposal: Vec<Width>,
}

/// Measures the widths at full depth and proposes a ladder; the text to print.
///
/// # Errors
/// When something from outside is missing or wrong, or a wish to stop.
pub fn ladder(recipe: &Recipe, options: &Options, ladder: &LadderOptions, cancel: &Cancel) -> Result<String> {
    // Calibration and costs know the widths of the recipe, so these become the measured ones.
    let mut recipe = recipe.clone();
    let mut widths = ladder.widths.clone();
    if widths.is_empty() {
        widths = (2..=8).map(|bits| Width::new(bits, bits)).collect::<Result<_, _>>()?;
    }
    widths.retain(|width| !width.is_float());
    ensure!(
        !widths.is_empty() && ladder.rungs > 0,
        "nothing to measure; hint: name integer widths and at least one rung"
    );
    recipe.quant.widths = widths.clone();

    let prepared = prepare(&recipe, options.data.as_deref(), options.weights.as_deref())?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let (quantizers, _) = calibrate(&recipe, &prepared, &device, Quality::Left, cancel, &|text| eprintln!("{text}"))?;
    let engine = device.engine(quantizers.plan.into());
    let chosen: Vec<usize> = prepared.splits.exit_train.iter().copied().take(ladder.pictures).collect();
    let labels = prepared.data.labels_of(&chosen);
    let segments = recipe.paths.segments.len();
    // Widths are compared by what they save, which other cost models do not see.
    let counted = Counted::new(CostModel::Bops, &prepared.cost, &recipe.paths.segments, None);
    let head = own_head(prepared.backbone.head());

    let stage = Stage::start("measure widths", chosen.len() * (widths.len() + 1));
    let drive = Drive::new(engine.as_ref(), recipe.paths.batch, cancel, &stage);
    let correct = |width: Width| -> Result<Vec<bool>> {
        let path = vec![width; segments];
        let features = program(&recipe, &prepared).path_features(&drive, &prepared.pictures(&chosen), &path)?;
        let last = features.lists().last()?;
        let answers = NodeAnswers::compute(&head, &last).answers;
        Ok(answers.iter().zip(&labels).map(|(answer, label)| answer == label).collect())
    };
    let float = correct(Width::FLOAT)?;
    let cost = |width: Width| {
        let parts = counted.stem(recipe.quant.stem) + counted.segments(width).iter().sum::<f64>();
        parts / counted.float_total()
    };
    let mut rungs: Vec<(Width, Rung)> = Vec::new();
    for &width in &widths {
        rungs.push((width, Rung { cost: cost(width), correct: correct(width)? }));
    }
    rungs.sort_by(|a, b| a.1.cost.total_cmp(&b.1.cost).then(a.0.cmp(&b.0)));
    let (widths, rungs): (Vec<Width>, Vec<Rung>) = rungs.into_iter().unzip();
    let rule = LadderRule { rungs: ladder.rungs, ..LadderRule::default() };
    let verdicts = rule.choose(&rungs, &float, prepared.data.classes);
    stage.finish(&format!("{} widths on {} pictures of exit-train", widths.len(), chosen.len()));

    let rows = widths.iter().zip(&rungs).zip(&verdicts).map(|((&width, rung), &verdict)| Row {
        width,
        relative_cost: rung.cost,
        accuracy: accuracy(&rung.correct),
        loss_points: paired_difference(&float, &rung.correct).0,
        verdict,
    });
    let mut proposal: Vec<Width> =
        widths.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Chosen).map(|(w, _)| *w).collect();
    proposal.sort();
    let measured = Ladder {
        dataset: prepared.data.name.clone(),
        backbone: prepared.backbone.name().to_owned(),
        backend: engine.describe(),
        pictures: chosen.len(),
        float_accuracy: accuracy(&float),
        widths: rows.collect(),
        proposal,
    };
    if ladder.json { Ok(serde_json::to_string_pretty(&measured)? + "\n") } else { Ok(text(&measured, &rule)) }
}

/// The table and the line for the recipe.
fn text(ladder: &Ladder, rule: &LadderRule) -> String {
    let mut out = format!(
        "{} on {}, {} pictures of exit-train, backend {}: full depth, float {:.2}%\n\n  width   relative cost  accuracy  loss in points\n",
        ladder.backbone,
        ladder.dataset,
        ladder.pictures,
        ladder.backend,
        100.0 * ladder.float_accuracy
    );
    for row in &ladder.widths {
        let said = match row.verdict {
            Verdict::Chosen => "chosen",
            Verdict::NoBetterThanCheaper => "no more accurate than a cheaper one",
            Verdict::TooInaccurate => "too little accuracy is left",
            Verdict::NotNeeded => "not needed",
        };
        out += &format!(
            "  {:6}  {:13.5}  {:7.2}%  {:14.2}  {said}\n",
            row.width.to_string(),
            row.relative_cost,
            100.0 * row.accuracy,
            row.loss_points
        );
    }
    out += &format!(
        "\nThe top is the cheapest width that loses at most {} points; neighbours differ by at least {} points and {} standard errors.\n",
        rule.top_loss, rule.least_step, rule.least_z
    );
    if ladder.proposal.len() < 2 {
        out += "A single width is left: on this data early exits alone can save anything.\n";
    }
    let names: Vec<String> = ladder.proposal.iter().map(|width| format!("\"{width}\"")).collect();
    out + &format!("quant.widths = [{}]\n", names.join(", "))
}
