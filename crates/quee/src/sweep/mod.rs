//! `quee sweep`: one recipe in several cases, with a figure that answers a question.
//!
//! Cases that differ only in what is made on top of the backbone share its runs.

mod cases;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use quee_policy::bootstrap::Interval;
use quee_policy::gap::{Candidate, Parts, decompose, learning_curve};
use quee_policy::study::{MethodKind, NAIVE};
use quee_policy::summary::Summary;
use serde::Serialize;

pub use cases::{Case, Cases, Role};

use crate::cancel::Cancel;
use crate::experiment::{Base, Runner};
use crate::output::RunFolder;
use crate::recipe::Recipe;
use crate::report::sweep::{CaseReport, Gap, Row, SweepReport};
use crate::report::{sweep_page, sweep_svg};
use crate::results::skill;
use crate::run::Options;
use crate::stages::study::{DYNAMIC, OPEN_LOOP};

/// What the user asks for.
pub struct Request {
    /// File of the cases.
    pub file: PathBuf,
    /// Its content.
    pub cases: Cases,
    /// The recipe that they change.
    pub recipe: Recipe,
}

/// Runs all cases and returns the folder with the results.
///
/// # Errors
/// When something from outside is missing or wrong in any case, or a wish to stop. No results folder is left behind then.
pub async fn sweep(
    request: Request,
    options: Options,
    pool: Arc<rayon::ThreadPool>,
    cancel: Cancel,
) -> Result<PathBuf> {
    let Request { file, cases, recipe } = request;
    let recipes = cases.recipes(&recipe, &file)?;
    let folder = RunFolder::create(&options.out, &format!("{}-{}", recipe.name, stem(&file)))?;
    let mut runner = Runner::new(pool);
    let mut base: Option<Base> = None;
    let mut reports: Vec<CaseReport> = Vec::new();
    let mut environment = None;
    for (case, recipe) in cases.case.iter().zip(recipes) {
        eprintln!("case {} of {}: {}", reports.len() + 1, cases.case.len(), case.name);
        let recipe = Arc::new(recipe);
        let kept = base.take().filter(|base| base.serves(&recipe));
        let current = match kept {
            Some(base) => base,
            None => Base::compute(Arc::clone(&recipe), &options, &mut runner, &cancel).await?,
        };
        let results = current.evaluate(Arc::clone(&recipe), &mut runner, &cancel).await?;
        let mut report = case_report(&case.name, &results.summary);
        report.skill = skill(&results.seeds);
        report.fit_pictures = current.fit_pictures(&recipe);
        report.warning = results.seeds.iter().find_map(|seed| seed.foresight.clone());
        reports.push(report);
        environment.get_or_insert_with(|| current.environment().clone());
        base = Some(current);
    }
    let circumstances = base.as_ref().map_or(String::new(), Base::circumstances);
    let gap = gap(&cases, &reports)?;
    let report = SweepReport {
        gap,
        question: cases.question.clone(),
        axis: cases.axis.clone(),
        recipe: recipe.name.clone(),
        circumstances,
        cases: reports,
    };
    let written = runner.stage("write results", 0, move |_| {
        folder.write("cases.toml", &std::fs::read(&file)?)?;
        folder.write("recipe.toml", toml::to_string(&recipe)?.as_bytes())?;
        folder.write("env.json", &json(&environment)?)?;
        folder.write("cases.csv", csv(&report).as_bytes())?;
        folder.write("summary.json", &json(&report)?)?;
        folder.write("figure.svg", sweep_svg(&report).as_bytes())?;
        folder.write("report.html", sweep_page(&report).as_bytes())?;
        let target = folder.finish()?;
        Ok((target.clone(), format!("{}", target.join("report.html").display())))
    });
    written.await
}

/// The gap between the default and the oracle, taken apart; `None` where the cases have no roles.
fn gap(cases: &Cases, reports: &[CaseReport]) -> Result<Option<Gap>> {
    let of_role =
        |role| cases.case.iter().zip(reports).filter(move |(case, _)| case.role == Some(role)).map(|(_, r)| r);
    let Some(default) = of_role(Role::Default).next() else { return Ok(None) };
    let candidate = |case: &CaseReport, method: &str, name: &str| {
        let row = case.row(method)?;
        Some(Candidate { name: name.to_owned(), area_cal: row.area_cal?, area: row.area.value })
    };
    let sized = of_role(Role::Size).chain([default]);
    let points: Vec<(usize, f64)> =
        sized.filter_map(|case| Some((case.fit_pictures, case.row(&case.main)?.area.value))).collect();
    let curve = learning_curve(&points)?;
    let planners = default.rows.iter().filter(|row| row.learned && row.method != default.main);
    let (Some(oracle), Some(own)) = (default.row("oracle"), candidate(default, &default.main, &default.main)) else {
        return Ok(None);
    };
    let parts = Parts {
        oracle: oracle.area.value,
        default: own,
        planning_alternatives: planners.filter_map(|row| candidate(default, &row.method, &row.method)).collect(),
        class_alternatives: of_role(Role::Class).filter_map(|case| candidate(case, &case.main, &case.name)).collect(),
        limit: curve.limit,
        in_sample: None,
    };
    let gap = parts.oracle - parts.default.area;
    Ok(Some(Gap { gap, parts: decompose(&parts), curve, points }))
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(|| "sweep".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The figures of one case.
fn case_report(name: &str, summary: &Summary) -> CaseReport {
    let rows = summary.methods.iter().map(|method| Row {
        method: method.name.clone(),
        learned: method.kind == MethodKind::Learned,
        area: method.area,
        area_cal: method.area_cal,
        against_naive: difference(summary, &method.name, Some(NAIVE)),
        against_single: difference(summary, &method.name, summary.best_single.as_deref()),
        gap_closed: method.gap_closed,
        cost_at_drop_0_5: method.cost_at_drop_0_5.as_ref().map(|at| at.cost),
    });
    CaseReport {
        name: name.to_owned(),
        rows: rows.collect(),
        main: OPEN_LOOP.to_owned(),
        second: DYNAMIC.to_owned(),
        best_single: summary.best_single.clone(),
        float_accuracy: summary.float_accuracy,
        skill: f64::NAN,
        fit_pictures: 0,
        warning: None,
    }
}

fn difference(summary: &Summary, method: &str, against: Option<&str>) -> Option<Interval> {
    let against = against.filter(|other| *other != method)?;
    summary.difference(method, against).ok().map(|difference| difference.area)
}

/// `cases.csv`: one row per case and method.
fn csv(report: &SweepReport) -> String {
    let interval = |found: &Option<Interval>| match found {
        Some(i) => format!("{:.6},{:.6},{:.6}", i.value, i.low, i.high),
        None => ",,".to_owned(),
    };
    let mut text = String::from(
        "case,method,area_cal,area,area_low,area_high,against_naive,against_naive_low,against_naive_high,against_best_single,\
         against_best_single_low,against_best_single_high,cost_at_drop_0_5,cost_at_drop_0_5_low,cost_at_drop_0_5_high,predictor_skill\n",
    );
    for case in &report.cases {
        for row in &case.rows {
            let cells = [
                format!("\"{}\"", case.name.replace('"', "\"\"")),
                row.method.clone(),
                row.area_cal.map_or(String::new(), |area| format!("{area:.6}")),
                interval(&Some(row.area)),
                interval(&row.against_naive),
                interval(&row.against_single),
                interval(&row.cost_at_drop_0_5),
                format!("{:.6}", case.skill),
            ];
            text += &cells.join(",");
            text.push('\n');
        }
    }
    text
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok((serde_json::to_string_pretty(value)? + "\n").into_bytes())
}
