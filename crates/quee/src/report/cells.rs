//! The page of a sweep's cells: one row each.

use std::fmt::Write as _;

use quee_policy::bootstrap::Interval;
use serde::Serialize;

use super::style;
use super::text::{DASH, cost, escape, fixed, percent};
use crate::cache_command::Size;

/// All cells of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct CellsReport {
    /// Name of the recipe.
    pub recipe: String,
    /// How many cells are done, and how many are not.
    pub counts: String,
    /// The method that the figures are of.
    pub method: &'static str,
    /// What it is compared to.
    pub baseline: &'static str,
    /// Settings in which cells differ.
    pub settings: Vec<String>,
    /// Data sets, their sizes and backbones, each once.
    pub circumstances: Vec<String>,
    /// The cells in order.
    pub cells: Vec<CellRow>,
    /// Those that differ in nothing but the seed together, where seeds are a setting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<SeedGroup>,
}

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct CellRow {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: &'static str,
    /// Values of the settings, in their order; `None` for what the recipe says.
    pub settings: Vec<Option<String>>,
    /// What came out.
    pub figures: Option<Figures>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// Most bytes that its process held.
    pub memory: Option<u64>,
    /// Where it ran.
    pub host: Option<String>,
    /// Its results, from the page.
    pub folder: String,
}

/// What came out of a cell; intervals are 95% ones from resamples of the test pictures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Area on *test*.
    pub area: Interval,
    /// Area minus that of the baseline, paired.
    pub lead: Option<Interval>,
    /// Relative test cost of the setting chosen for a drop of half a point.
    pub cost_at_drop_0_5: Option<f64>,
    /// The same for a whole point.
    pub cost_at_drop_1_0: Option<f64>,
    /// Test accuracy of float.
    pub float_accuracy: f64,
}

/// Cells that differ in the seed only.
#[derive(Clone, Debug, Serialize)]
pub struct SeedGroup {
    /// Values of the other settings.
    pub settings: Vec<Option<String>>,
    /// Number of cells.
    pub seeds: usize,
    /// Mean area and its standard deviation over seeds.
    pub area: Option<(f64, Option<f64>)>,
    /// The same of the lead.
    pub lead: Option<(f64, Option<f64>)>,
}

/// Values of settings as cells of a table.
fn values(settings: &[Option<String>]) -> String {
    let cell = |value: &Option<String>| {
        format!(r#"<td class="words">{}</td>"#, value.as_deref().map_or(DASH.to_owned(), escape))
    };
    settings.iter().map(cell).collect()
}

/// Names of settings as the head of a table.
fn head<'a>(settings: impl Iterator<Item = &'a String>) -> String {
    settings.map(|name| format!(r#"<th class="words">{}</th>"#, escape(name))).collect()
}

fn interval(value: &Interval) -> String {
    let [value, low, high] = [value.value, value.low, value.high].map(|v| fixed(100.0 * v, 2));
    format!("{value} [{low}, {high}]")
}

/// Smallest and largest end of all leads, and nought.
fn bounds(report: &CellsReport) -> (f64, f64) {
    let leads = report.cells.iter().filter_map(|row| row.figures.as_ref()?.lead);
    let ends = leads.flat_map(|lead| [lead.low, lead.high]).filter(|end| end.is_finite());
    ends.fold((0.0, 1e-6), |(low, high), end| (f64::min(low, end), f64::max(high, end)))
}

/// A lead as a mark with its interval; the line across is nought.
fn forest(lead: &Interval, (low, high): (f64, f64)) -> String {
    if ![lead.value, lead.low, lead.high].iter().all(|value| value.is_finite()) {
        return String::new();
    }
    let x = |value: f64| 4.0 + 142.0 * (value - low) / (high - low);
    format!(
        concat!(
            r#"<svg class="forest figure" viewBox="0 0 150 16" aria-hidden="true"><line class="axis" x1="{zero:.1}" y1="0" x2="{zero:.1}" y2="16"/>"#,
            r#"<g class="c-blue"><path class="curve" stroke-width="2" d="M{from:.1} 8H{to:.1}"/>"#,
            r#"<circle class="solid" cx="{at:.1}" cy="8" r="4"/></g></svg>"#
        ),
        zero = x(0.0),
        from = x(lead.low),
        to = x(lead.high),
        at = x(lead.value)
    )
}

fn cell_rows(report: &CellsReport) -> String {
    let bounds = bounds(report);
    let mut rows = String::new();
    for row in &report.cells {
        let number = escape(row.name.split('-').next().unwrap_or_default());
        let figures = row.figures.as_ref();
        let name = match figures {
            Some(_) => format!(r#"<a href="{}/report.html">{number}</a>"#, escape(&row.folder)),
            None => format!("{number} {}", row.state),
        };
        let lead = figures.and_then(|figures| figures.lead);
        let dash = || DASH.to_owned();
        let drop = |at: Option<f64>| at.map_or_else(dash, cost);
        // Writing into a String cannot fail.
        let _ = write!(
            rows,
            r#"<tr><td class="words">{name}</td>{}<td>{}</td><td>{}</td><td class="words">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
            values(&row.settings),
            figures.map_or_else(dash, |figures| interval(&figures.area)),
            lead.as_ref().map_or_else(dash, interval),
            lead.as_ref().map_or_else(String::new, |lead| forest(lead, bounds)),
            drop(figures.and_then(|figures| figures.cost_at_drop_0_5)),
            drop(figures.and_then(|figures| figures.cost_at_drop_1_0)),
            figures.map_or_else(dash, |figures| percent(figures.float_accuracy)),
            row.seconds.map_or_else(dash, |seconds| fixed(seconds, 1)),
            row.memory.map_or_else(dash, |bytes| Size(bytes).to_string()),
        );
    }
    rows
}

/// Means over seeds; nothing where no group has two.
fn seed_table(report: &CellsReport) -> String {
    if report.seeds.iter().all(|group| group.seeds < 2) {
        return String::new();
    }
    let spread = |found: Option<(f64, Option<f64>)>| match found {
        None => DASH.to_owned(),
        Some((mean, None)) => fixed(100.0 * mean, 2),
        Some((mean, Some(deviation))) => format!("{} ± {}", fixed(100.0 * mean, 2), fixed(100.0 * deviation, 2)),
    };
    let row = |group: &SeedGroup| {
        format!(
            "<tr>{}<td>{}</td><td>{}</td><td>{}</td></tr>",
            values(&group.settings),
            group.seeds,
            spread(group.area),
            spread(group.lead)
        )
    };
    format!(
        concat!(
            "<h2>Over seeds</h2>",
            r#"<div class="scroll"><table><thead><tr>{head}<th>seeds</th><th>area, %</th><th>against the<br>{baseline}</th></tr></thead>"#,
            "<tbody>{rows}</tbody></table></div>",
            r#"<p class="footnote">Mean and standard deviation over cells that differ in nothing but the seed. They do not hold what the choice of test pictures adds.</p>"#
        ),
        head = head(report.settings.iter().filter(|name| *name != "seeds")),
        baseline = escape(report.baseline),
        rows = report.seeds.iter().map(row).collect::<String>()
    )
}

/// The page.
pub fn document(report: &CellsReport) -> String {
    // Parts of the runs on paths have no figures.
    let missing = report.cells.iter().filter(|row| row.figures.is_none() && row.state != "done").count();
    let warning = if missing > 0 {
        format!(r#"<p class="warning">⚠ {missing} of {} cells have no results.</p>"#, report.cells.len())
    } else {
        String::new()
    };
    format!(
        concat!(
            "<!DOCTYPE html>\n",
            r#"<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">"#,
            "<title>{recipe} by {by} – quee</title>\n<style>\n{css}</style></head>\n<body><main>",
            r#"<header><p class="kicker">quee: a sweep</p><h1>{recipe} by {by}</h1><p class="soft">{counts}. {circumstances}</p>{warning}</header>"#,
            r#"<div class="scroll"><table><thead><tr><th class="words">cell</th>{head}<th>area, %</th><th>against the<br>{baseline}</th><th class="words"></th>"#,
            "<th>cost at a drop of<br>0.5 points</th><th>1 point</th><th>float, %</th><th>seconds</th><th>memory</th></tr></thead>",
            "<tbody>{rows}</tbody></table></div>",
            r#"<p class="footnote">{method}. Areas and differences in percentage points with 95% intervals from resamples of the test pictures; the upright line is nought. "#,
            "Costs are relative to float. A dash in the column of a setting: as the recipe says. The best of many cells looks better than it is: choose on other pictures ",
            "(data.development), then test once.</p>",
            "{seeds}</main></body></html>\n"
        ),
        recipe = escape(&report.recipe),
        by = escape(&super::text::list(&report.settings)),
        css = style::page_css(),
        counts = escape(&report.counts),
        circumstances = report.circumstances.iter().map(|text| escape(text)).collect::<Vec<_>>().join("; "),
        warning = warning,
        head = head(report.settings.iter()),
        baseline = escape(report.baseline),
        rows = cell_rows(report),
        method = escape(report.method),
        seeds = seed_table(report),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_row_with_or_without_results() {
        let figures = Figures {
            area: Interval { value: 0.678, low: 0.67, high: 0.69 },
            lead: Some(Interval { value: -0.01, low: -0.02, high: 0.005 }),
            cost_at_drop_0_5: Some(0.0213),
            cost_at_drop_1_0: None,
            float_accuracy: 0.9,
        };
        let row = |name: &str, state, figures| CellRow {
            name: name.to_owned(),
            state,
            settings: vec![Some("<8>".to_owned())],
            figures,
            seconds: None,
            memory: Some(1_000_000),
            host: None,
            folder: format!("cells/{name}/results"),
        };
        let report = CellsReport {
            recipe: "digits".into(),
            counts: "2 cells: 1 done, 1 failed".into(),
            method: "QuEE open loop",
            baseline: "naive combination",
            settings: vec!["predictor.hidden".into()],
            circumstances: vec!["digits".into()],
            cells: vec![row("000-x", "done", Some(figures)), row("001-y", "failed", None)],
            seeds: Vec::new(),
        };
        let page = document(&report);
        for part in [
            "67.80 [67.00, 69.00]",
            "−1.00 [−2.00, 0.50]",
            "0.0213",
            "001 failed",
            r#"href="cells/000-x/results/report.html""#,
            "&lt;8&gt;",
            "1 of 2 cells have no results",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("NaN") && !page.contains("<h2>Over seeds"));
    }
}
