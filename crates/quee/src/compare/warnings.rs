//! What a reader must know before comparing runs.

use super::contest::{ROUNDING, Scale};
use super::slots::Slot;
use super::stored::StoredRun;
use crate::report::compare::letter;
use crate::report::text::{count, percent, short};

/// One sentence for each way in which the runs are not alike in what they are measured by. `groups` `[run]` is the first run with the same test
/// pictures, `None` without choices.
pub fn warnings(runs: &[StoredRun], slots: &[Slot], scale: &Scale, groups: &[Option<usize>]) -> Vec<String> {
    let each = |fact: &dyn Fn(&StoredRun) -> String| {
        let facts: Vec<String> =
            runs.iter().enumerate().map(|(at, run)| format!("{} {}", letter(at), fact(run))).collect();
        facts.join(", ")
    };
    let differ = |fact: &dyn Fn(&StoredRun) -> String| runs.iter().any(|run| fact(run) != fact(&runs[0]));
    let letters = |wanted: &dyn Fn(usize) -> bool| {
        let found: Vec<String> = (0..runs.len()).filter(|run| wanted(*run)).map(letter).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    let mut all = Vec::new();
    let dataset = |run: &StoredRun| run.summary.dataset.clone();
    let pictures = |run: &StoredRun| format!("{} of {}", count(run.summary.test_samples), run.summary.dataset);
    if differ(&dataset) {
        all.push(format!(
            "The data sets differ ({}): accuracies of different data sets cannot be compared, and no differences are taken between them.",
            each(&dataset)
        ));
    } else if differ(&pictures) {
        all.push(format!("The numbers of test pictures differ: {}.", each(&pictures)));
    }
    let apart = |run: usize| {
        dataset(&runs[run]) == dataset(&runs[0]) && groups[run].zip(groups[0]).is_some_and(|(own, first)| own != first)
    };
    if let Some(others) = letters(&apart) {
        all.push(format!("{others}: tested on other pictures than A, so that differences to A are unpaired and their intervals wider."));
    }
    if let Some(others) = letters(&|run| groups[run].is_none()) {
        all.push(format!(
            "{others}: no choices.safetensors, which runs of earlier versions do not have. Their areas are those of their own reports, on axes of \
             their own, and there are no differences. Run the recipe again to have them."
        ));
    }
    let seeds = |run: &StoredRun| format!("{:?}", run.summary.seeds);
    if differ(&seeds) {
        all.push(format!("The seeds differ ({}); intervals do not hold the spread of seeds.", each(&seeds)));
    }
    if scale.factors.iter().any(|factor| *factor < 1.0) {
        all.push(format!(
            "The float backbones cost {} {}: relative costs are those of the dearest, and differ from the runs' own reports.",
            each(&|run| short(run.summary.float_cost)),
            runs[0].summary.cost_model.unit()
        ));
    }
    let float = |run: &StoredRun| format!("{}%", percent(run.summary.float_accuracy));
    let unlike = |run: &StoredRun| (run.summary.float_accuracy - runs[0].summary.float_accuracy).abs() > ROUNDING;
    if !differ(&dataset) && runs.iter().any(unlike) {
        all.push(format!(
            "The float backbones are right on different shares ({}): costs within a drop refer to each run's own, savings at equal accuracy to that of A.",
            each(&float)
        ));
    }
    let own = runs.iter().zip(&scale.factors);
    let starts: Vec<f64> = own.filter_map(|(run, factor)| Some(run.choices.as_ref()?.least_cost * factor)).collect();
    if let Some(common) = scale.least_cost.filter(|common| starts.iter().any(|own| own - common > ROUNDING)) {
        all.push(format!(
            "The cheapest one-segment paths differ: areas begin at the least of their costs, {}, and differ from the runs' own reports.",
            short(common)
        ));
    }
    for slot in slots {
        if let Some(others) = letters(&|run| slot.methods[run].is_none()) {
            all.push(format!("{others}: no method `{}`.", slot.title));
        }
    }
    let foresight = |run: usize| {
        let setting = runs[run].recipe.get("predictor").and_then(|table| table.get("foresight"));
        setting.and_then(toml::Value::as_float).is_some_and(|share| share != 0.0)
    };
    if let Some(others) = letters(&foresight) {
        all.push(format!("{others}: predictions with predictor.foresight, a diagnosis and no result."));
    }
    all
}
