//! The figure of a comparison: curves of all runs, and how much more accurate a run is than the first at equal cost.

use super::compare::{CompareReport, DifferenceRow, MethodRow, letter, signed};
use super::model::CurvePoint;
use super::series::{Look, MARKERS};
use super::svg::{Axes, Drawing, FONT, Frame, Size};
use super::text::{cost, escape, percent, short, shorten, width_of};
use super::windows::{clean, refine};

const COLOURS: [&str; 8] = ["c-blue", "c-vermillion", "c-green", "c-purple", "c-orange", "c-sky", "c-ink", "c-grey"];
const DASHES: [&str; 8] = ["", "8 4", "2 3", "11 3 2 3", "5 2", "14 4", "1.5 4", "7 2 2 2 2 2"];

const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const ROW: f64 = 21.0;
/// Curves of at most this many points are marked at each.
const FEW: usize = 12;

/// Class of a run's colour.
pub fn colour(run: usize) -> &'static str {
    COLOURS[run % COLOURS.len()]
}

fn look(run: usize, slot: usize) -> Look {
    let stroke = if slot == 0 { 2.6 } else { 1.8 };
    Look { colour: colour(run), dash: DASHES[slot % DASHES.len()], marker: MARKERS[slot % MARKERS.len()], stroke }
}

/// The figure for the page.
pub fn figure(report: &CompareReport, size: Size) -> String {
    let mut drawing = Drawing::new(size.width(), 0.0, format!("compare-{}", size.class()));
    let top = legend(&mut drawing, report, size) + 22.0;
    let width = size.width() - LEFT - RIGHT;
    let (costs, accuracies) = window(report);
    let frame = |top: f64, height: f64, y| Frame::new((LEFT, top), (width, height), (true, costs.0, costs.1), y);
    let title = format!("relative cost (1.0 = {} {}; log scale)", short(report.float_cost), report.unit);
    let whole = frame(top, size.pick(400.0, 300.0), accuracies);
    curves(&mut drawing, report, &whole, &title);
    let mut bottom = whole.bottom() + 50.0;
    let slot = report.differences.iter().find(|row| !row.accuracy.is_empty()).map(|row| row.slot);
    if let Some(slot) = slot {
        let rows: Vec<&DifferenceRow> = report.differences.iter().filter(|row| row.slot == slot).collect();
        let below = frame(bottom + 30.0, size.pick(200.0, 180.0), range(&rows));
        let heading = size.pick("accuracy minus that of A at equal cost", "minus A at equal cost");
        let heading = format!("{}: {heading}", report.methods[slot]);
        drawing.text((LEFT, below.top - 11.0), "heading", &shorten(&heading, 0.9 * width / FONT));
        leads(&mut drawing, &rows, &below, &title);
        bottom = below.bottom() + 50.0;
    }
    drawing
        .with_height(bottom)
        .inline(size, "Accuracy against relative cost, a colour for each run, a dash for each method")
}

/// Runs by colour, methods by dash, in rows; the y below them.
fn legend(drawing: &mut Drawing, report: &CompareReport, size: Size) -> f64 {
    let run = |(at, run): (usize, &super::compare::RunFacts)| {
        (Look { dash: "", ..look(at, 0) }.line(), colour(at), String::new(), format!("{} {}", letter(at), run.name))
    };
    let method = |(at, title): (usize, &String)| {
        let look = look(0, at);
        (look.line(), "c-ink", look.mark((17.0, 0.0), 4.2), title.clone())
    };
    let mut y = 12.0;
    let rows: [Vec<_>; 2] =
        [report.runs.iter().enumerate().map(run).collect(), report.methods.iter().enumerate().map(method).collect()];
    for entries in rows {
        let mut x = 4.0;
        for (line, class, mark, label) in entries {
            let label = shorten(&label, (size.width() - 60.0) / FONT);
            let wide = 42.0 + width_of(&label) * FONT + 20.0;
            if x > 4.0 && x + wide > size.width() {
                x = 4.0;
                y += ROW;
            }
            drawing.push(&format!(
                r#"<g transform="translate({x:.1} {y:.1})"><g class="{class}"><path {line} d="M0 0H34"/>{mark}</g></g>"#
            ));
            drawing.text((x + 42.0, y + 4.5), "label", &label);
            x += wide;
        }
        y += ROW;
    }
    y
}

fn points(row: &MethodRow) -> Vec<CurvePoint> {
    let point = |&(cost, accuracy): &(f64, f64)| CurvePoint { cost, accuracy, low: accuracy, high: accuracy };
    clean(&row.curve.iter().map(point).collect::<Vec<_>>())
}

/// Costs from the cheapest setting to the dearest, and the accuracies of all curves; the lowest twentieth of their length may fall off.
fn window(report: &CompareReport) -> ((f64, f64), (f64, f64)) {
    let all: Vec<CurvePoint> = report.rows.iter().flat_map(|row| refine(&points(row))).collect();
    let least = all.iter().map(|point| point.cost).chain(report.least_cost).fold(1.0, f64::min);
    // Beyond its last setting a method keeps its accuracy: there is nothing to see.
    let most = all.iter().map(|point| point.cost).fold(least, f64::max);
    let mut accuracies: Vec<f64> = all.iter().map(|point| point.accuracy).collect();
    accuracies.extend(report.runs.iter().map(|run| run.float_accuracy).filter(|accuracy| accuracy.is_finite()));
    accuracies.sort_by(f64::total_cmp);
    let (low, high) = (accuracies.get(accuracies.len() / 20), accuracies.last());
    let (low, high) = (low.copied().unwrap_or(0.0), high.copied().unwrap_or(1.0));
    let room = 0.06 * (high - low).max(0.02);
    ((least / 1.03, (1.15 * most).min(1.5)), ((low - room).max(0.0), high + room))
}

fn curves(drawing: &mut Drawing, report: &CompareReport, frame: &Frame, title: &str) {
    frame.draw(
        drawing,
        Axes { x: Some(title), y: "accuracy (%)", y_factor: 100.0, y_ticks: (frame.height / 55.0) as usize },
    );
    drawing.begin_clip(frame, 6.0);
    for row in report.rows.iter().rev() {
        let (look, points) = (look(row.run, row.slot), points(row));
        let d = frame.path(refine(&points).iter().map(|point| (point.cost, point.accuracy)));
        drawing.push(&format!(r#"<g class="{}"><path {} d="{d}"/>"#, look.colour, look.line()));
        // Markers of long lines stand apart from those of their neighbours.
        let step = if points.len() <= FEW { 1 } else { points.len().div_ceil(5) };
        let first = if step == 1 { 0 } else { (2 + 3 * row.run + 5 * row.slot) % step };
        for point in points.iter().skip(first).step_by(step) {
            let mark = look.mark((frame.x.at(point.cost), frame.y.at(point.accuracy)), 4.0);
            let name = format!("{} {}", letter(row.run), row.method);
            let text = format!("{}: {}% at cost {}", escape(&name), percent(point.accuracy), cost(point.cost));
            drawing.push(&format!("<g><title>{text}</title>{mark}</g>"));
        }
        drawing.end_group();
    }
    drawing.end_group();
    let mut drawn: Vec<f64> = Vec::new();
    for run in report.runs.iter().filter(|run| run.float_accuracy.is_finite()) {
        if drawn.contains(&run.float_accuracy) {
            continue;
        }
        drawn.push(run.float_accuracy);
        let same = report.runs.iter().enumerate().filter(|(_, other)| other.float_accuracy == run.float_accuracy);
        let letters: Vec<String> = same.map(|(at, _)| letter(at)).collect();
        let y = frame.y.at(run.float_accuracy);
        if y > frame.top && y < frame.bottom() {
            let label = format!("float {}: {}%", letters.join(", "), percent(run.float_accuracy));
            drawing.line((frame.left, y), (frame.right(), y), "reference");
            drawing.text((frame.left + 5.0, y - 6.0), "note halo", &label);
        }
    }
}

/// Points of difference to show: all intervals but the widest twentieth, and zero.
fn range(rows: &[&DifferenceRow]) -> (f64, f64) {
    let ends = |end: fn(&super::compare::AtCost) -> f64| {
        let mut all: Vec<f64> = rows.iter().flat_map(|row| row.accuracy.iter().map(end)).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (lows, highs) = (ends(|at| at.points.low), ends(|at| at.points.high));
    let low = lows.get(lows.len() / 20).copied().unwrap_or(0.0).min(0.0);
    let high = highs.get(highs.len().saturating_sub(1 + highs.len() / 20)).copied().unwrap_or(0.0).max(0.0);
    let room = 0.08 * (high - low).max(0.1);
    (low - room, high + room)
}

fn leads(drawing: &mut Drawing, rows: &[&DifferenceRow], frame: &Frame, title: &str) {
    let y_ticks = (frame.height / 45.0) as usize;
    frame.draw(drawing, Axes { x: Some(title), y: "difference (points)", y_factor: 1.0, y_ticks });
    drawing.line((frame.left, frame.y.at(0.0)), (frame.right(), frame.y.at(0.0)), "reference");
    drawing.begin_clip(frame, 0.0);
    for row in rows {
        let place = |cost: f64, points: f64| format!("{:.1} {:.1}", frame.x.at(cost), frame.y.at(points));
        let line: Vec<String> = row.accuracy.iter().map(|at| place(at.cost, at.points.value)).collect();
        let upper = row.accuracy.iter().map(|at| place(at.cost, at.points.high));
        let lower = row.accuracy.iter().rev().map(|at| place(at.cost, at.points.low));
        let band: Vec<String> = upper.chain(lower).collect();
        let name = format!("{}: {} in area", letter(row.run), signed(row.area.value, 4));
        drawing.push(&format!(
            r#"<g class="{}"><title>{}</title><path class="band" d="M{}Z"/><path {} d="M{}"/></g>"#,
            colour(row.run),
            escape(&name),
            band.join("L"),
            look(row.run, 0).line(),
            line.join("L")
        ));
    }
    drawing.end_group();
}
