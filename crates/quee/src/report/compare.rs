//! The page of a comparison of runs: what it says, and its tables.

use std::fmt::Write as _;

use quee_policy::bootstrap::Interval;
use serde::Serialize;

use super::compare_figure;
use super::style;
use super::svg::Size;
use super::text::{DASH, cost, count, escape, fixed, percent, plural, short};

/// Runs, their methods, and their differences to the first run.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// Unit of absolute costs.
    pub unit: String,
    /// Absolute cost of relative cost 1.0, the dearest float backbone of the runs.
    pub float_cost: f64,
    /// Relative cost at which the axis of the areas begins; `None` where no run has choices.
    pub least_cost: Option<f64>,
    /// Bootstrap resamples of areas and differences.
    pub resamples: usize,
    /// What a reader must know first.
    pub warnings: Vec<String>,
    /// The runs; the first is what others are compared to.
    pub runs: Vec<RunFacts>,
    /// Titles of the slots: methods that runs have in common.
    pub methods: Vec<String>,
    /// By slot, then by run.
    pub rows: Vec<MethodRow>,
    /// Differences to the first run, by slot, then by run.
    pub differences: Vec<DifferenceRow>,
    /// Settings that are not the same in all runs.
    pub settings: Vec<Differing>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunFacts {
    /// Recipe and id.
    pub name: String,
    /// Where it is.
    pub folder: String,
    /// Data set.
    pub dataset: String,
    /// How many of the published pictures there are, where some are missing.
    pub subset: Option<String>,
    /// Pictures tested.
    pub test_pictures: usize,
    /// Backbone.
    pub backbone: String,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Accuracy of float on *test*.
    pub float_accuracy: f64,
    /// Relative cost of float.
    pub float_cost: f64,
    /// Backend.
    pub backend: String,
}

/// One method of one run.
#[derive(Clone, Debug, Serialize)]
pub struct MethodRow {
    /// Index of the run.
    pub run: usize,
    /// Index of the slot.
    pub slot: usize,
    /// Name of the method.
    pub method: String,
    /// Area on *test*; `None` where the run's axis is not the common one and there are no choices to take it again.
    pub area: Option<Interval>,
    /// Test cost and test drop in points of the cheapest setting within 0.5 points on *cal-a*.
    pub at_drop_0_5: Option<(f64, f64)>,
    /// The same within 1.0 points.
    pub at_drop_1_0: Option<(f64, f64)>,
    /// Test cost of an accuracy 0.5 points below the run's float on *test*.
    pub cost_of_0_5: Option<Interval>,
    /// Cost and accuracy on *test* along the front, mean over seeds.
    pub curve: Vec<(f64, f64)>,
}

/// A method of a run minus that of the first run.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceRow {
    /// Index of the run.
    pub run: usize,
    /// Index of the slot.
    pub slot: usize,
    /// Method of the run.
    pub method: String,
    /// Method of the first run.
    pub against: String,
    /// Whether both were tested on the same pictures.
    pub paired: bool,
    /// Difference in area.
    pub area: Interval,
    /// Share of the first run's cost that is saved at an accuracy 0.5 points below the first run's float; `None` if unpaired or never reached.
    pub saved_0_5: Option<Interval>,
    /// The same 1.0 points below.
    pub saved_1_0: Option<Interval>,
    /// Difference in accuracy at costs that both have settings for.
    pub accuracy: Vec<AtCost>,
}

/// Difference in accuracy at one cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtCost {
    /// Relative cost.
    pub cost: f64,
    /// Percentage points.
    pub points: Interval,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// Key with its tables.
    pub key: String,
    /// `[run]`; `None` where a run does not have it.
    pub values: Vec<Option<String>>,
}

/// Letter of a run.
pub fn letter(run: usize) -> String {
    char::from(b'A' + (run % 26) as u8).to_string()
}

/// A number with its sign.
pub fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    if text.starts_with('−') || text == DASH { text } else { format!("+{text}") }
}

impl RunFacts {
    /// What was measured, in one line.
    pub fn sentence(&self) -> String {
        let subset = self.subset.as_ref().map_or(String::new(), |subset| format!(" ({subset})"));
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        format!(
            "{}{subset}, {}, {}, seeds {}, float {}%, backend {}",
            self.dataset,
            plural(self.test_pictures, "test picture"),
            self.backbone,
            seeds.join(" "),
            percent(self.float_accuracy),
            self.backend
        )
    }
}

impl DifferenceRow {
    /// What the interval of the area says.
    pub fn verdict(&self) -> &'static str {
        match (self.area.low > 0.0, self.area.high < 0.0) {
            _ if self.area.low == 0.0 && self.area.high == 0.0 => "equal",
            (true, _) => "better",
            (_, true) => "worse",
            _ => "undecided",
        }
    }
}

/// Most stretches that are told for each direction.
const STRETCHES: usize = 3;

/// Where along the axis the accuracies differ beyond their intervals, each taken by itself.
pub fn places(accuracy: &[AtCost]) -> String {
    let sign = |at: &AtCost| i8::from(at.points.low > 0.0) - i8::from(at.points.high < 0.0);
    let stretches = accuracy.chunk_by(|a, b| sign(a) == sign(b));
    let told = |wanted: i8, word: &str| {
        let mut found: Vec<&[AtCost]> = stretches.clone().filter(|stretch| sign(&stretch[0]) == wanted).collect();
        found.sort_by_key(|stretch| std::cmp::Reverse(stretch.len()));
        found.truncate(STRETCHES);
        found.sort_by(|a, b| a[0].cost.total_cmp(&b[0].cost));
        let most =
            found.iter().flat_map(|s| s.iter()).max_by(|a, b| a.points.value.abs().total_cmp(&b.points.value.abs()))?;
        let range = |stretch: &&[AtCost]| match (stretch[0].cost, stretch[stretch.len() - 1].cost) {
            (from, to) if from == to => cost(from),
            (from, to) => format!("{} to {}", cost(from), cost(to)),
        };
        let ranges: Vec<String> = found.iter().map(range).collect();
        let most = format!("{} points at {}", signed(most.points.value, 2), cost(most.cost));
        Some(format!("{word} accurate at costs {} (most: {most})", ranges.join(", ")))
    };
    let both: Vec<String> = [told(1, "more"), told(-1, "less")].into_iter().flatten().collect();
    if both.is_empty() {
        "no cost at which the accuracies differ beyond their intervals".to_owned()
    } else {
        both.join("; ")
    }
}

fn bracketed(value: &Interval, number: impl Fn(f64) -> String) -> String {
    format!("{} [{}, {}]", number(value.value), number(value.low), number(value.high))
}

fn maybe(value: Option<&Interval>, number: impl Fn(f64) -> String) -> String {
    value.map_or(DASH.to_owned(), |value| bracketed(value, number))
}

/// The page.
pub fn document(report: &CompareReport) -> String {
    let warning = |text: &String| format!(r#"<p class="warning">⚠ {}</p>"#, escape(text));
    let run = |(at, run): (usize, &RunFacts)| {
        format!(
            r#"<li><span><b class="{}">{}</b> {}: {}</span></li>"#,
            compare_figure::colour(at),
            letter(at),
            escape(&run.name),
            escape(&run.sentence())
        )
    };
    let title: Vec<&str> = report.runs.iter().map(|run| run.name.as_str()).collect();
    let figure = [Size::Wide, Size::Narrow].map(|size| compare_figure::figure(report, size)).concat();
    format!(
        concat!(
            "<!DOCTYPE html>\n",
            r#"<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">"#,
            "<title>{title} – quee</title>\n<style>\n{css}</style></head>\n<body><main>",
            r#"<header><p class="kicker">quee: finished runs on one axis</p><h1>{heading}</h1><ul class="findings">{runs}{findings}</ul>{warnings}</header>"#,
            "<figure>{figure}<figcaption>{caption}</figcaption></figure>",
            r#"<section><h2>Methods</h2>{methods}<p class="footnote">{note}</p></section>{differences}"#,
            "<section><h2>Settings that differ</h2>{settings}</section></main></body></html>\n"
        ),
        title = escape(&title.join(", ")),
        css = style::page_css(),
        heading = format_args!("{} compared", plural(report.runs.len(), "run")),
        runs = report.runs.iter().enumerate().map(run).collect::<String>(),
        findings = report.differences.iter().map(finding).collect::<String>(),
        warnings = report.warnings.iter().map(warning).collect::<String>(),
        figure = figure,
        caption = caption(report),
        methods = methods(report),
        note = "Area: mean accuracy over the log axis of costs, a fraction. Cost within a drop: relative cost on test of the cheapest setting that loses at most \
                that much against float on the choosing pictures, and, in brackets, what it loses on test in points. The last column reads the cost of an accuracy 0.5 \
                points below the run's own float off the curve on test; no policy can choose by it. 95% intervals in brackets; a dash: no such figure.",
        differences = differences(report),
        settings = settings(report),
    )
}

fn caption(report: &CompareReport) -> String {
    escape(&format!(
        "Accuracy on test against mean cost, relative to {} {}, means over seeds; colours are runs, dashes and markers methods. Below: how much more accurate \
         a run is than A at equal cost, shaded the 95% interval at each cost by itself, from {} of the test pictures; it does not hold the spread of seeds. Beyond its last \
         setting a method keeps its accuracy, up to cost 1.0.",
        short(report.float_cost),
        report.unit,
        plural(report.resamples, "resample")
    ))
}

fn finding(row: &DifferenceRow) -> String {
    let (class, mark) = match row.verdict() {
        "better" => ("for", "✓ better"),
        "worse" => ("against", "✗ worse"),
        "equal" => ("open", "= equal"),
        _ => ("open", "○ undecided"),
    };
    let text = format!(
        "{} {} against A {}: difference in area {}{}; {}.",
        letter(row.run),
        row.method,
        row.against,
        bracketed(&row.area, |v| signed(v, 4)),
        if row.paired { "" } else { ", unpaired" },
        places(&row.accuracy)
    );
    format!(r#"<li><span class="verdict {class}">{mark}</span><span>{}</span></li>"#, escape(&text))
}

fn methods(report: &CompareReport) -> String {
    let mut rows = String::new();
    for (slot, title) in report.methods.iter().enumerate() {
        let _ = write!(rows, r#"<tr class="group"><td colspan="6">{}</td></tr>"#, escape(title));
        for row in report.rows.iter().filter(|row| row.slot == slot) {
            let at_drop = |found: Option<(f64, f64)>| {
                let shown =
                    |(relative, drop)| format!(r#"{} <span class="small">({})</span>"#, cost(relative), fixed(drop, 2));
                found.map_or(DASH.to_owned(), shown)
            };
            let _ = write!(
                rows,
                r#"<tr><td class="words"><b class="{}">{}</b></td><td class="words">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
                compare_figure::colour(row.run),
                letter(row.run),
                escape(&row.method),
                maybe(row.area.as_ref(), |v| fixed(v, 4)),
                at_drop(row.at_drop_0_5),
                at_drop(row.at_drop_1_0),
                maybe(row.cost_of_0_5.as_ref(), cost),
            );
        }
    }
    format!(
        concat!(
            r#"<div class="scroll"><table><thead><tr><th class="words">Run</th><th class="words">Method</th><th>Area</th><th>Cost within<br>0.5 points<br>(test drop)</th>"#,
            "<th>Cost within<br>1.0 points<br>(test drop)</th><th>Cost of 0.5 points<br>below float on test</th></tr></thead><tbody>{}</tbody></table></div>"
        ),
        rows
    )
}

fn differences(report: &CompareReport) -> String {
    if report.differences.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for row in &report.differences {
        let share = |v: f64| signed(100.0 * v, 1);
        let _ = write!(
            rows,
            r#"<tr><td class="words"><b class="{}">{}</b> {} − A {}</td><td>{}</td><td>{}</td><td>{}</td><td class="words">{}</td></tr>"#,
            compare_figure::colour(row.run),
            letter(row.run),
            escape(&row.method),
            escape(&row.against),
            bracketed(&row.area, |v| signed(v, 4)),
            maybe(row.saved_0_5.as_ref(), share),
            maybe(row.saved_1_0.as_ref(), share),
            if row.paired { "paired" } else { "unpaired" },
        );
    }
    let pictures = report.runs.first().map_or(0, |run| run.test_pictures);
    format!(
        concat!(
            r#"<section><h2>Differences to A</h2><div class="scroll"><table><thead><tr><th class="words">Methods</th><th>Area</th><th>Cost saved at 0.5 points<br>"#,
            r#"below float, %</th><th>at 1.0 points<br>below float, %</th><th class="words">Pictures</th></tr></thead><tbody>{rows}</tbody></table></div>"#,
            r#"<p class="footnote">Paired: on the same {pictures} test pictures, resampled together. Cost saved: share of A's cost at equal accuracy on test, which no policy can choose by.</p></section>"#
        ),
        rows = rows,
        pictures = count(pictures)
    )
}

fn settings(report: &CompareReport) -> String {
    if report.settings.is_empty() {
        return "<p>None.</p>".to_owned();
    }
    let head: String = (0..report.runs.len()).map(|run| format!(r#"<th class="words">{}</th>"#, letter(run))).collect();
    let mut rows = String::new();
    for setting in &report.settings {
        let value = |value: &Option<String>| {
            format!(r#"<td class="words wrap">{}</td>"#, value.as_ref().map_or(DASH.to_owned(), |value| escape(value)))
        };
        let values: String = setting.values.iter().map(value).collect();
        let _ = write!(rows, r#"<tr><td class="words soft">{}</td>{values}</tr>"#, escape(&setting.key));
    }
    format!(
        r#"<div class="scroll"><table><thead><tr><th class="words">Key</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"#
    )
}
