//! Accuracy against measured time: the settings of the main figure where they lie in milliseconds instead of counted costs.

use super::accuracy_cost::{LEFT, LEGEND_WIDTH, legend, legend_height};
use super::model::{MethodReport, Report, TimedPoint};
use super::series::{Look, looks};
use super::svg::{Axes, Drawing, Frame, Size};
use super::text::{escape, percent, short};
use super::windows::overview;

/// Methods of at most this many points get a marker at every point, longer ones at some.
const FEW: usize = 12;
/// Height of the panel.
const HEIGHT: (f64, f64) = (340.0, 280.0);

/// Whether there is anything to draw.
pub fn is_there(report: &Report) -> bool {
    report.methods.iter().any(|method| !timed(method).is_empty())
}

/// The figure for the page.
pub fn figure(report: &Report, size: Size) -> String {
    let panel = 20.0 + size.pick(HEIGHT.0, HEIGHT.1) + 46.0;
    let rows = legend_height(report);
    let height = size.pick(panel.max(20.0 + rows), panel + 18.0 + rows);
    let mut drawing = Drawing::new(size.width(), height, format!("accuracy-time-{}", size.class()));
    let series: Vec<(&MethodReport, Look, Vec<TimedPoint>)> =
        report.methods.iter().zip(looks(&report.methods)).map(|(method, look)| (method, look, timed(method))).collect();
    let all = || series.iter().flat_map(|(.., points)| points).map(|point| point.ms);
    let (least, most) = all().fold((f64::INFINITY, 0.0), |(least, most), ms| (ms.min(least), ms.max(most)));
    let window = overview(report).accuracy;
    let frame = Frame::new(
        (LEFT, 20.0),
        (size.width() - LEFT - size.pick(LEGEND_WIDTH, 12.0), size.pick(HEIGHT.0, HEIGHT.1)),
        (true, least / 1.05, most * 1.05),
        window,
    );
    let y_ticks = (frame.height / 55.0) as usize;
    let x = Some("measured milliseconds per picture (log scale)");
    frame.draw(&mut drawing, Axes { x, y: "accuracy (%)", y_factor: 100.0, y_ticks });
    drawing.begin_clip(&frame, 6.0);
    if report.float_accuracy.is_finite() {
        let y = frame.y.at(report.float_accuracy);
        drawing.line((frame.left, y), (frame.right(), y), "reference");
    }
    for (at, (method, look, points)) in series.iter().enumerate().rev() {
        drawing.push(&format!(r#"<g class="{}">"#, look.colour));
        if points.len() > 1 {
            let d = frame.path(points.iter().map(|point| (point.ms, point.accuracy)));
            drawing.push(&format!(r#"<path {} d="{d}"/>"#, look.line()));
        }
        let step = if points.len() <= FEW { 1 } else { points.len() / 6 };
        for point in points.iter().skip(if step > 1 { at % step } else { 0 }).step_by(step) {
            let mark = look.mark((frame.x.at(point.ms), frame.y.at(point.accuracy)), 4.2);
            let (name, accuracy) = (escape(&method.title), percent(point.accuracy));
            drawing.push(&format!("<g><title>{name}: {accuracy}% at {} ms</title>{mark}</g>", short(point.ms)));
        }
        drawing.end_group();
    }
    drawing.end_group();
    let place = size.pick((size.width() - LEGEND_WIDTH + 24.0, 20.0), (4.0, panel + 18.0));
    legend(&mut drawing, report, place, size);
    drawing.inline(size, "Accuracy against measured time, one line for each method")
}

/// The points of a method that can be drawn, in the order of their settings.
fn timed(method: &MethodReport) -> Vec<TimedPoint> {
    let usable = |point: &&TimedPoint| point.ms.is_finite() && point.ms > 0.0 && point.accuracy.is_finite();
    if method.is_drawn() { method.timed.iter().filter(usable).copied().collect() } else { Vec::new() }
}
