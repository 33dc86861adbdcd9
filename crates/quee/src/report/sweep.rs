//! The figure and page of a sweep: areas by case, and how far the policy is ahead.

use std::fmt::Write as _;

use quee_policy::bootstrap::Interval;
use quee_policy::gap::{Decomposition, Extrapolation};
use serde::Serialize;

use super::style;
use super::svg::{Axes, Drawing, FONT, Frame, Size};
use super::text::{DASH, cost, escape, fixed, percent, shorten, width_of};

/// A question, and the figures of every case.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// The question.
    pub question: String,
    /// What changes from case to case.
    pub axis: String,
    /// Recipe that the cases change.
    pub recipe: String,
    /// Data set and its size, seeds, backend.
    pub circumstances: String,
    /// The cases in order.
    pub cases: Vec<CaseReport>,
    /// The gap to the oracle taken apart, where cases were made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// The gap between the default policy and the oracle.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    /// Area of the oracle minus that of the default.
    pub gap: f64,
    /// Its parts.
    pub parts: Decomposition,
    /// Area of the default by the number of pictures it learns from, carried on without end.
    pub curve: Extrapolation,
    /// What that is made of: pictures and area.
    pub points: Vec<(usize, f64)>,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// All methods.
    pub rows: Vec<Row>,
    /// The method that the question is about.
    pub main: String,
    /// Another learned policy that the figure shows.
    pub second: String,
    /// Pictures that predictors learn from.
    pub fit_pictures: usize,
    /// Best single technique, judged on *cal-a*.
    pub best_single: Option<String>,
    /// Accuracy of float on *test*.
    pub float_accuracy: Interval,
    /// Share of the variance of errors that predictions explain.
    pub skill: f64,
    /// What makes the case no result, such as a view of outcomes.
    pub warning: Option<String>,
}

/// One method of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub method: String,
    /// Whether it is a learned policy.
    pub learned: bool,
    /// Area on *test*.
    pub area: Interval,
    /// Area on *cal-a*.
    pub area_cal: Option<f64>,
    /// Area minus that of the naive combination, paired.
    pub against_naive: Option<Interval>,
    /// Area minus that of the best single technique, paired.
    pub against_single: Option<Interval>,
    /// Share of the gap to the oracle that it closes.
    pub gap_closed: Option<Interval>,
    /// Cost at a drop of half a point.
    pub cost_at_drop_0_5: Option<Interval>,
    /// Cost of an accuracy half a point below float's on *test*.
    pub cost_of_0_5: Interval,
    /// Share of the best single technique's cost that it saves there.
    pub saved_0_5: Option<Interval>,
}

impl CaseReport {
    /// The figures of a method.
    pub fn row(&self, method: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.method == method)
    }

    fn area(&self, method: &str) -> Option<Interval> {
        self.row(method).map(|row| row.area)
    }
}

const WIDTH: f64 = 920.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 56.0;
const AREAS: f64 = 250.0;
const LEADS: f64 = 200.0;
const GAP: f64 = 92.0;

/// One line of a panel: colour, label, value by case.
struct Line {
    colour: &'static str,
    label: String,
    values: Vec<Option<Interval>>,
}

/// The figure as a file of its own.
pub fn standalone(report: &SweepReport) -> String {
    let height = TOP + AREAS + GAP + LEADS + 100.0;
    let mut drawing = Drawing::new(WIDTH, height, "sweep".to_owned());
    drawing.text((16.0, 28.0), "headline", &shorten(&report.question, 0.95 * WIDTH / 16.0));
    draw(&mut drawing, report);
    let note = format!("{} Whiskers: 95% intervals.", report.circumstances);
    drawing.text((16.0, height - 12.0), "note", &shorten(&note, 0.98 * WIDTH / 12.0));
    drawing.standalone(&style::standalone_css(), &report.question)
}

/// The figure for the page, which has headline and circumstances of its own.
fn inline(report: &SweepReport) -> String {
    let mut drawing = Drawing::new(WIDTH, TOP + AREAS + GAP + LEADS + 60.0, "sweep".to_owned());
    draw(&mut drawing, report);
    drawing.inline(Size::Wide, &report.question)
}

fn draw(drawing: &mut Drawing, report: &SweepReport) {
    let by_case = |f: &dyn Fn(&CaseReport) -> Option<Interval>| report.cases.iter().map(f).collect::<Vec<_>>();
    let main = report.cases.first().map_or(String::new(), |case| case.main.clone());
    let area = |method: &str| by_case(&|case| case.area(method));
    let mut areas = vec![Line { colour: "c-blue", label: main.clone(), values: area(&main) }];
    if let Some(second) = report.cases.first().map(|case| case.second.clone()) {
        areas.push(Line { colour: "c-vermillion", values: area(&second), label: second });
    }
    areas.push(Line { colour: "c-green", label: "naive combination".to_owned(), values: area("naive combination") });
    let single = by_case(&|case| case.area(case.best_single.as_deref()?));
    areas.push(Line { colour: "c-orange", label: "best single technique".to_owned(), values: single });
    let lead = |f: &dyn Fn(&Row) -> Option<Interval>| by_case(&|case| f(case.row(&case.main)?));
    let leads = vec![
        Line {
            colour: "c-green",
            label: format!("{main} − naive combination"),
            values: lead(&|row| row.against_naive),
        },
        Line {
            colour: "c-orange",
            label: format!("{main} − best single technique"),
            values: lead(&|row| row.against_single),
        },
    ];
    panel(drawing, report, (TOP, AREAS), "area (mean accuracy, %)", &areas, None);
    panel(drawing, report, (TOP + AREAS + GAP, LEADS), "difference (points)", &leads, Some(0.0));
}

/// One panel with its legend above, cases evenly spaced.
fn panel(
    drawing: &mut Drawing,
    report: &SweepReport,
    (top, height): (f64, f64),
    y: &str,
    lines: &[Line],
    zero: Option<f64>,
) {
    let known = || lines.iter().flat_map(|line| &line.values).flatten();
    let ends = known().flat_map(|i| [i.low, i.high, i.value]).chain(zero);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let room = 0.06 * (high - low).max(1e-3);
    let count = report.cases.len();
    let size = (WIDTH - LEFT - RIGHT, height);
    let frame = Frame::new((LEFT, top), size, (false, -0.5, count as f64 - 0.5), (low - room, high + room));
    frame.draw_y(drawing, Axes { x: None, y, y_factor: 100.0, y_ticks: (height / 50.0) as usize });
    let step = frame.width / count.max(1) as f64;
    for (at, case) in report.cases.iter().enumerate() {
        let x = frame.x.at(at as f64);
        drawing.line((x, frame.bottom()), (x, frame.bottom() + 5.0), "axis");
        drawing.text((x, frame.bottom() + 19.0), "tick mid", &shorten(&case.name, (step - 6.0) / FONT));
    }
    drawing.text((frame.left + 0.5 * frame.width, frame.bottom() + 39.0), "title mid", &report.axis);
    if let Some(zero) = zero {
        drawing.line((frame.left, frame.y.at(zero)), (frame.right(), frame.y.at(zero)), "reference");
    }
    let mut x = LEFT;
    for (index, line) in lines.iter().enumerate() {
        let shift = (index as f64 - 0.5 * (lines.len() as f64 - 1.0)) * (0.1 * step).min(9.0);
        drawing.push(&format!(r#"<g class="{}">"#, line.colour));
        let mut path = String::new();
        for (at, value) in line.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (px, py) = (frame.x.at(at as f64) + shift, frame.y.at(value.value));
            drawing.line((px, frame.y.at(value.low)), (px, frame.y.at(value.high)), "whisker");
            let _ = write!(path, "{}{px:.1} {py:.1}", if path.is_empty() { 'M' } else { 'L' });
            drawing.push(&format!(
                r#"<circle class="solid" cx="{px:.1}" cy="{py:.1}" r="4.2"><title>{}: {}</title></circle>"#,
                escape(&line.label),
                interval(value)
            ));
        }
        drawing.push(&format!(r#"<path class="curve" stroke-width="2" d="{path}"/>"#));
        drawing.push(&format!(r#"<circle class="solid" cx="{:.1}" cy="{:.1}" r="4.2"/>"#, x + 5.0, top - 14.0));
        drawing.end_group();
        drawing.text((x + 15.0, top - 9.5), "label", &line.label);
        x += 15.0 + width_of(&line.label) * FONT + 22.0;
    }
}

fn interval(value: &Interval) -> String {
    format!("{} [{}, {}]", fixed(100.0 * value.value, 2), fixed(100.0 * value.low, 2), fixed(100.0 * value.high, 2))
}

/// The gap to the oracle, part by part.
fn gap_table(gap: &Gap) -> String {
    let points = |value: f64| fixed(100.0 * value, 2);
    let Decomposition { irreducible, estimation, approximation, planning, class, planner, bracket } = &gap.parts;
    let curve = &gap.curve;
    let rows = [
        ("planning", *planning, format!("with {planner}, the best way of planning on the choosing pictures")),
        ("approximation", *approximation, format!("with {class}, the best class of predictors there")),
        (
            "estimation",
            *estimation,
            format!(
                "with endless pictures: the curve over {} ends at {} ± {} (at {} if it has the other shape)",
                gap.points.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>().join(", "),
                points(curve.limit),
                points(curve.standard_error),
                points(curve.other_limit)
            ),
        ),
        ("irreducible", *irreducible, "the rest: what no known change brings back".to_owned()),
    ];
    let mut text = String::new();
    for (name, value, what) in rows {
        let _ = write!(
            text,
            r#"<tr><td class="words">{name}</td><td>{}</td><td class="words">{}</td></tr>"#,
            points(value),
            escape(&what)
        );
    }
    format!(
        concat!(
            "<h2>The gap to the oracle</h2>",
            r#"<p>The oracle's area is {gap} points above the policy's. A policy that exists closes it to {high}.</p>"#,
            r#"<div class="scroll"><table><thead><tr><th class="words">part</th><th>points</th><th class="words">what the policy would gain</th></tr></thead>"#,
            r#"<tbody>{rows}</tbody></table></div><p class="footnote">Each part is measured from the policy as it is, so parts overlap, and a negative one means "#,
            "that the change which looked best where it was chosen is worse on test. The oracle knows the labels of test.</p>"
        ),
        gap = points(gap.gap),
        high = points(bracket.high),
        rows = text
    )
}

/// The page.
pub fn document(report: &SweepReport) -> String {
    let warnings: Vec<String> = report
        .cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.name, case.warning.as_ref()?)))
        .map(|text| format!(r#"<p class="warning">⚠ {}</p>"#, escape(&text)))
        .collect();
    let mut rows = String::new();
    for case in &report.cases {
        let _ = write!(
            rows,
            r#"<tr class="group"><td colspan="6">{}: {}, float {}%, skill of the predictors {}%</td></tr>"#,
            escape(&report.axis),
            escape(&case.name),
            percent(case.float_accuracy.value),
            percent(case.skill)
        );
        for row in &case.rows {
            let maybe = |found: &Option<Interval>| found.as_ref().map_or(DASH.to_owned(), interval);
            let _ = write!(
                rows,
                r#"<tr><td class="words">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
                escape(&row.method),
                interval(&row.area),
                maybe(&row.against_naive),
                maybe(&row.against_single),
                row.cost_at_drop_0_5.as_ref().map_or(DASH.to_owned(), |at| cost(at.value)),
                row.gap_closed.as_ref().map_or(DASH.to_owned(), |gap| percent(gap.value)),
            );
        }
    }
    format!(
        concat!(
            "<!DOCTYPE html>\n",
            r#"<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">"#,
            "<title>{question} – quee</title>\n<style>\n{css}</style></head>\n<body><main>",
            r#"<header><p class="kicker">quee: one recipe in several cases</p><h1>{question}</h1><p class="soft">{circumstances}</p>{warnings}</header>"#,
            "<figure>{figure}<figcaption>{circumstances} Whiskers: 95% intervals from resamples of the test pictures.</figcaption></figure>",
            r#"<div class="scroll"><table><thead><tr><th class="words">Method</th><th>Area, %</th><th>against the<br>naive combination</th>"#,
            "<th>against the best<br>single technique</th><th>cost at a drop of<br>0.5 points</th><th>gap closed, %</th></tr></thead>",
            "<tbody>{rows}</tbody></table></div>",
            r#"<p class="footnote">Areas and differences in percentage points, 95% intervals in brackets. A dash: no such figure.</p>"#,
            "{gap}</main></body></html>\n"
        ),
        question = escape(&report.question),
        css = style::page_css(),
        circumstances = escape(&report.circumstances),
        warnings = warnings.join(""),
        figure = inline(report),
        gap = report.gap.as_ref().map_or(String::new(), gap_table),
        rows = rows
    )
}
