//! `quee sweep`: one recipe in several cases, with a figure that answers a question.
//!
//! Cases that differ only in what is made on top of the backbone share its runs.

mod cases;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use quee_policy::bootstrap::Interval;
use quee_policy::gap::{Candidate, Parts, decompose, learning_curve};
use quee_policy::study::{MethodKind, NAIVE};
use quee_policy::summary::{Difference, Summary};

pub use cases::{Case, Cases, Role};

use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::experiment::{Base, Runner};
use crate::output::RunFolder;
use crate::recipe::Recipe;
use crate::report::sweep::{CaseReport, Gap, Row, SweepReport};
use crate::report::{sweep_page, sweep_svg};
use crate::results::{json, skill};
use crate::run::Options;
use crate::stages::study::{DYNAMIC, OPEN_LOOP};

/// What the user asks for.
pub struct Request {
    /// Files of cases, and their content.
    pub questions: Vec<(PathBuf, Cases)>,
    /// The recipe that they change.
    pub recipe: Recipe,
}

/// Runs the cases of all questions and returns a folder with results for each.
///
/// # Errors
/// When something from outside is missing or wrong in any case, or a wish to stop. The questions answered before keep their folders.
pub async fn sweep(
    request: Request,
    options: Options,
    pool: Arc<rayon::ThreadPool>,
    cache: Arc<Cache>,
    cancel: Cancel,
) -> Result<Vec<PathBuf>> {
    let Request { questions, recipe } = request;
    let recipes: Vec<Vec<Recipe>> =
        questions.iter().map(|(file, cases)| cases.recipes(&recipe, file)).collect::<Result<_>>()?;
    let mut sweep = Sweep { recipe, options, cancel, runner: Runner::new(pool, cache), base: None };
    let mut folders = Vec::new();
    for ((file, cases), recipes) in questions.into_iter().zip(recipes) {
        folders.push(sweep.question(file, cases, recipes).await?);
    }
    Ok(folders)
}

/// A sweep on its way.
struct Sweep {
    recipe: Recipe,
    options: Options,
    cancel: Cancel,
    runner: Runner,
    /// Runs of the backbone for the last case.
    base: Option<Base>,
}

impl Sweep {
    async fn question(&mut self, file: PathBuf, cases: Cases, recipes: Vec<Recipe>) -> Result<PathBuf> {
        let folder = RunFolder::create(&self.options.out, &format!("{}-{}", self.recipe.name, stem(&file)))?;
        let mut reports: Vec<CaseReport> = Vec::new();
        let mut about = None;
        eprintln!("{}", cases.question);
        for (case, recipe) in cases.case.iter().zip(recipes) {
            eprintln!("case {} of {}: {}", reports.len() + 1, cases.case.len(), case.name);
            let recipe = Arc::new(recipe);
            let base = match self.base.take().filter(|base| base.serves(&recipe)) {
                Some(base) => base,
                None => Base::compute(Arc::clone(&recipe), &self.options, &mut self.runner, &self.cancel).await?,
            };
            let results = base.evaluate(Arc::clone(&recipe), &mut self.runner, &self.cancel).await?;
            let mut report = case_report(&case.name, &results.summary);
            report.skill = skill(&results.seeds);
            report.fit_pictures = base.fit_pictures(&recipe);
            report.warning = results.seeds.iter().find_map(|seed| seed.foresight.clone());
            reports.push(report);
            about.get_or_insert_with(|| (base.environment().clone(), base.circumstances()));
            self.base = Some(base);
        }
        let (environment, circumstances) = about.context("there is at least one case")?;
        let report = SweepReport {
            gap: gap(&cases, &reports)?,
            question: cases.question,
            axis: cases.axis,
            recipe: self.recipe.name.clone(),
            circumstances,
            cases: reports,
        };
        let recipe = toml::to_string(&self.recipe)?;
        let written = self.runner.stage("write results", 0, move |_| {
            folder.write("cases.toml", &std::fs::read(&file)?)?;
            folder.write("recipe.toml", recipe.as_bytes())?;
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
        against_naive: difference(summary, &method.name, Some(NAIVE)).map(|d| d.area),
        against_single: difference(summary, &method.name, summary.best_single.as_deref()).map(|d| d.area),
        saved_0_5: difference(summary, &method.name, summary.best_single.as_deref()).map(|d| d.saved_0_5),
        cost_of_0_5: method.cost_of_0_5,
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

fn difference(summary: &Summary, method: &str, against: Option<&str>) -> Option<Difference> {
    let against = against.filter(|other| *other != method)?;
    summary.difference(method, against).ok()
}

/// `cases.csv`: one row per case and method.
fn csv(report: &SweepReport) -> String {
    let interval = |found: &Option<Interval>| match found {
        Some(i) => format!("{:.6},{:.6},{:.6}", i.value, i.low, i.high),
        None => ",,".to_owned(),
    };
    let mut text = String::from(
        "case,method,area_cal,area,area_low,area_high,against_naive,against_naive_low,against_naive_high,against_best_single,\
         against_best_single_low,against_best_single_high,cost_at_drop_0_5,cost_at_drop_0_5_low,cost_at_drop_0_5_high,cost_of_0_5,cost_of_0_5_low,\
         cost_of_0_5_high,saved_0_5,saved_0_5_low,saved_0_5_high,predictor_skill\n",
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
                interval(&Some(row.cost_of_0_5)),
                interval(&row.saved_0_5),
                format!("{:.6}", case.skill),
            ];
            text += &cells.join(",");
            text.push('\n');
        }
    }
    text
}
