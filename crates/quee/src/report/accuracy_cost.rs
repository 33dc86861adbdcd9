//! The main figure: accuracy against relative cost.

use super::model::{CurvePoint, MethodReport, Report};
use super::series::{FAMILIES, Look, looks};
use super::style;
use super::svg::{Axes, Drawing, FONT, Frame, Size};
use super::text::{cost, escape, percent, short, shorten};
use super::windows::{Window, clean, close_up, overview, refine};

/// Curves of at most this many points get a marker and a whisker at every point, longer ones a band and some markers.
const FEW: usize = 12;

/// The figure for the page.
pub fn figure(report: &Report, size: Size) -> String {
    let mut drawing = Drawing::new(size.width(), height(report, size), format!("accuracy-cost-{}", size.class()));
    draw(&mut drawing, report, size, 0.0);
    drawing.inline(size, "Accuracy against relative cost, one line for each method")
}

/// The figure as a file of its own, with a headline and the circumstances.
pub fn standalone(report: &Report, circumstances: &str) -> String {
    let (size, top) = (Size::Wide, 46.0);
    let width = size.width() + 2.0 * MARGIN;
    let mut drawing = Drawing::new(width, height(report, size) + top + 34.0, "accuracy-cost".to_owned());
    drawing.push(&format!(r#"<g transform="translate({MARGIN} 0)">"#));
    drawing.text((0.0, 30.0), "headline", &format!("Accuracy against cost: {}", shorten(&report.recipe, 48.0)));
    draw(&mut drawing, report, size, top);
    let note = shorten(&format!("{circumstances} Shaded or whiskers: 95% intervals."), 0.98 * width / 12.0);
    drawing.text((0.0, height(report, size) + top + 16.0), "note", &note);
    drawing.end_group();
    drawing.standalone(&style::standalone_css(), "Accuracy against relative cost, one line for each method")
}

const MARGIN: f64 = 16.0;
/// Room for the numbers of the axis of accuracies.
pub const LEFT: f64 = 58.0;
/// Width of the legend beside a panel.
pub const LEGEND_WIDTH: f64 = 240.0;
/// Height of a row of the legend.
const ROW: f64 = 21.0;

struct Plan {
    whole: (f64, Window),
    near: Option<(f64, Window)>,
    legend: (f64, f64),
    height: f64,
}

/// Places of panels and legend from the top, by size.
fn plan(report: &Report, size: Size) -> Plan {
    let whole = overview(report);
    let near = close_up(report, &whole);
    let (first, second) = (size.pick(400.0, 300.0), size.pick(300.0, 260.0));
    let (gap, below) = (44.0 + 42.0, 46.0);
    let panels: f64 = 30.0 + first + below + near.map_or(0.0, |_| gap + second);
    let rows = legend_height(report);
    let (legend, height) = match size {
        Size::Wide => ((size.width() - LEGEND_WIDTH + 24.0, 30.0), panels.max(30.0 + rows)),
        Size::Narrow => ((4.0, panels + 18.0), panels + 18.0 + rows),
    };
    Plan { whole: (30.0, whole), near: near.map(|window| (30.0 + first + gap, window)), legend, height }
}

fn height(report: &Report, size: Size) -> f64 {
    plan(report, size).height
}

/// Height of the [`legend`].
pub fn legend_height(report: &Report) -> f64 {
    let drawn = || report.methods.iter().filter(|m| m.is_drawn());
    let headings = FAMILIES.iter().filter(|(family, _)| drawn().any(|m| m.family == *family)).count();
    ROW * drawn().count() as f64 + (ROW + 10.0) * headings as f64 + 10.0
}

fn draw(drawing: &mut Drawing, report: &Report, size: Size, top: f64) {
    let plan = plan(report, size);
    let width = size.width() - LEFT - size.pick(LEGEND_WIDTH, 12.0);
    let frame = |(y, window): (f64, Window), height: f64| {
        Frame::new(
            (LEFT, top + y),
            (width, height),
            (true, window.cost.0, window.cost.1),
            (window.accuracy.0, window.accuracy.1),
        )
    };
    let unit = format!("{} {}", short(report.float_cost), report.cost_unit);
    let x_title = size.pick(
        format!("cost per picture, relative to float (1.0 = {unit}; log scale)"),
        format!("relative cost (1.0 = {unit}; log scale)"),
    );
    let whole = frame(plan.whole, size.pick(400.0, 300.0));
    panel(drawing, report, &whole, &x_title, if plan.near.is_some() { "A · The whole axis of costs" } else { "" });
    if let Some(near) = plan.near {
        let close = frame(near, size.pick(300.0, 260.0));
        let (a, b) = (near.1.cost, near.1.accuracy);
        let corner = (whole.x.at(a.0), whole.y.at(b.1));
        let extent = (whole.x.at(a.1) - corner.0, whole.y.at(b.0) - corner.1);
        drawing.rect(corner, extent, r#"class="window""#);
        drawing.text((corner.0 + extent.0 + 4.0, corner.1 + extent.1 - 3.0), "note halo", "B");
        panel(drawing, report, &close, &x_title, "B · Close-up of the dotted rectangle in A");
    }
    legend(drawing, report, (plan.legend.0, top + plan.legend.1), size);
}

fn panel(drawing: &mut Drawing, report: &Report, frame: &Frame, x_title: &str, heading: &str) {
    drawing.text((frame.left, frame.top - 11.0), "heading", heading);
    let y_ticks = (frame.height / 55.0) as usize;
    frame.draw(drawing, Axes { x: Some(x_title), y: "accuracy (%)", y_factor: 100.0, y_ticks });
    if report.methods.iter().all(|m| clean(&m.curve).is_empty()) {
        let middle = (frame.left + 0.5 * frame.width, frame.top + 0.5 * frame.height);
        drawing.text(middle, "note mid", "no points to show");
    }
    let looks = looks(&report.methods);
    let series: Vec<(&MethodReport, &Look, Vec<CurvePoint>)> =
        report.methods.iter().zip(&looks).map(|(m, look)| (m, look, clean(&m.curve))).collect();
    drawing.begin_clip(frame, 0.0);
    for (_, look, points) in series.iter().rev().filter(|(.., points)| points.len() > FEW) {
        drawing.push(&band(frame, look, &refine(points)));
    }
    for (_, look, points) in series.iter().rev().filter(|(.., points)| points.len() <= FEW) {
        for point in points {
            let x = frame.x.at(point.cost);
            drawing.push(&format!(r#"<g class="{}">"#, look.colour));
            drawing.line((x, frame.y.at(point.low)), (x, frame.y.at(point.high)), "whisker");
            drawing.end_group();
        }
    }
    if report.float_accuracy.is_finite() {
        let y = frame.y.at(report.float_accuracy);
        drawing.line((frame.left, y), (frame.right(), y), "reference");
    }
    for (_, look, points) in series.iter().rev() {
        drawing.push(&format!(r#"<g class="{}"><path {} d="{}"/></g>"#, look.colour, look.line(), line(frame, points)));
    }
    drawing.end_group();
    drawing.begin_clip(frame, 6.0);
    for (at, (method, look, points)) in series.iter().enumerate().rev() {
        drawing.push(&format!(r#"<g class="{}">"#, look.colour));
        for point in marked(frame, points, at, series.len()) {
            let mark = look.mark((frame.x.at(point.cost), frame.y.at(point.accuracy)), 4.2);
            drawing.push(&format!("<g><title>{}</title>{mark}</g>", tooltip(method, &point)));
        }
        drawing.end_group();
    }
    drawing.end_group();
    float_label(drawing, report, frame);
}

/// Above the float line at the right end, where the axis of costs ends in 1.0.
fn float_label(drawing: &mut Drawing, report: &Report, frame: &Frame) {
    let y = frame.y.at(report.float_accuracy);
    if report.float_accuracy.is_finite() && y > frame.top && y < frame.bottom() {
        let label = format!("float {}%", percent(report.float_accuracy));
        drawing.text((frame.right() - 5.0, y - 6.0), "note end halo", &label);
    }
}

fn tooltip(method: &MethodReport, point: &CurvePoint) -> String {
    format!(
        "{}: {}% ({}–{}%) at cost {}",
        escape(&method.title),
        percent(point.accuracy),
        percent(point.low),
        percent(point.high),
        cost(point.cost)
    )
}

fn line(frame: &Frame, points: &[CurvePoint]) -> String {
    frame.path(refine(points).iter().map(|point| (point.cost, point.accuracy)))
}

fn band(frame: &Frame, look: &Look, points: &[CurvePoint]) -> String {
    let upper = points.iter().map(|p| (p.cost, p.high));
    let lower = points.iter().rev().map(|p| (p.cost, p.low));
    let d = frame.path(upper.chain(lower));
    let class = if look.colour == "c-grey" || look.colour == "c-ink" { "band faint" } else { "band" };
    format!(r#"<g class="{}"><path class="{class}" d="{d}Z"/></g>"#, look.colour)
}

/// Points that get a marker: all of a few; otherwise one every so often along the line within the frame, offset from
/// method to method so that markers of neighbouring lines do not coincide.
fn marked(frame: &Frame, points: &[CurvePoint], method: usize, methods: usize) -> Vec<CurvePoint> {
    if points.len() <= FEW {
        return points.to_vec();
    }
    let spacing = (0.16 * frame.width).max(60.0);
    let mut next = spacing * (0.15 + 0.8 * method as f64 / methods.max(1) as f64);
    let (mut run, mut chosen) = (0.0, Vec::new());
    let mut previous: Option<(f64, f64)> = None;
    for point in points {
        let at = (frame.x.at(point.cost), frame.y.at(point.accuracy));
        let inside = at.0 >= frame.left && at.0 <= frame.right() && at.1 >= frame.top && at.1 <= frame.bottom();
        if let (Some(before), true) = (previous, inside) {
            run += (at.0 - before.0).hypot(at.1 - before.1);
            if run >= next {
                chosen.push(*point);
                next = run + spacing;
            }
        }
        previous = inside.then_some(at);
    }
    chosen
}

/// Methods by family, one below the other.
pub fn legend(drawing: &mut Drawing, report: &Report, at: (f64, f64), size: Size) {
    let looks = looks(&report.methods);
    let (x, mut y) = at;
    for (family, heading) in FAMILIES {
        let drawn = report.methods.iter().zip(&looks).filter(|(m, _)| m.is_drawn());
        let members: Vec<_> = drawn.filter(|(m, _)| m.family == family).collect();
        if members.is_empty() {
            continue;
        }
        drawing.text((x, y + 4.0), "heading", heading);
        for (method, look) in members {
            y += ROW;
            drawing.push(&format!(r#"<g transform="translate({x:.1} {y:.1})">{}</g>"#, look.sample()));
            let room = size.pick(LEGEND_WIDTH - 24.0, size.width() - 8.0) - 42.0;
            drawing.text((x + 42.0, y + 4.5), "label", &shorten(&method.title, room / FONT));
        }
        y += ROW + 10.0;
    }
    drawing.line((x, y), (x + 34.0, y), "reference");
    drawing.text((x + 42.0, y + 4.5), "label", "backbone in float");
}
