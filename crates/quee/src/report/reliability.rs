//! Reliability diagrams: predicted against observed error, one panel for each gate.

use super::model::{GateReport, ReliabilityBin, Report};
use super::svg::{Axes, Drawing, Frame, Size};
use super::text::percent;

/// The figure.
pub fn figure(report: &Report, size: Size) -> String {
    let label = "Reliability diagrams: predicted against observed rate of error at each gate";
    let id = format!("reliability-{}", size.class());
    if report.gates.is_empty() {
        let mut drawing = Drawing::new(size.width(), 60.0, id);
        drawing.text((0.5 * size.width(), 34.0), "note mid", "The tree has a single segment, so there are no gates.");
        return drawing.inline(size, label);
    }
    let columns = size.pick(report.gates.len().clamp(2, 4), 1);
    let cell = size.width() / columns as f64;
    let (left, top, below) = (54.0, 52.0, 50.0);
    let side = (cell - left - 16.0).min(300.0);
    let rows = report.gates.len().div_ceil(columns);
    let cell_height = top + side + below;
    let mut drawing = Drawing::new(size.width(), rows as f64 * cell_height, id);
    let (limit, most) = extent(&report.gates);
    for (at, gate) in report.gates.iter().enumerate() {
        let corner = ((at % columns) as f64 * cell, (at / columns) as f64 * cell_height);
        let frame = Frame::new((corner.0 + left, corner.1 + top), (side, side), (false, 0.0, limit), (0.0, limit));
        panel(&mut drawing, &frame, gate, limit, most);
    }
    drawing.inline(size, label)
}

fn usable(bins: &[ReliabilityBin]) -> impl Iterator<Item = &ReliabilityBin> {
    bins.iter().filter(|bin| bin.predicted.is_finite() && bin.observed.is_finite())
}

/// End of both axes, the same for all gates: the largest rate, rounded up to a fifth; and the largest bin.
fn extent(gates: &[GateReport]) -> (f64, usize) {
    let bins = || gates.iter().flat_map(|gate| usable(&gate.reliability));
    let largest = bins().map(|bin| bin.predicted.max(bin.observed)).fold(0.0, f64::max);
    let most = bins().map(|bin| bin.count).max().unwrap_or(1).max(1);
    (((1.02 * largest / 0.2).ceil() * 0.2).clamp(0.2, 1.0), most)
}

fn panel(drawing: &mut Drawing, frame: &Frame, gate: &GateReport, limit: f64, most: usize) {
    drawing.text((frame.left, frame.top - 30.0), "heading", &format!("Gate {}", gate.gate));
    let figures = format!("ECE {}%, floor {}%", percent(gate.ece), percent(gate.ece_floor));
    drawing.text((frame.left, frame.top - 12.0), "label", &figures);
    let axes = Axes { x: Some("predicted error (%)"), y: "observed error (%)", y_factor: 100.0, y_ticks: 5 };
    frame.draw(drawing, axes);
    drawing.line((frame.x.at(0.0), frame.y.at(0.0)), (frame.x.at(limit), frame.y.at(limit)), "reference");
    if usable(&gate.reliability).next().is_none() {
        drawing.text(
            (frame.left + 0.5 * frame.width, frame.top + 0.5 * frame.height),
            "note mid halo",
            "no predictions",
        );
    }
    drawing.begin_clip(frame, 8.0);
    drawing.push(r#"<g class="c-blue">"#);
    for bin in usable(&gate.reliability) {
        let radius = 1.5 + 5.0 * (bin.count as f64 / most as f64).sqrt();
        drawing.push(&format!(
            r#"<circle class="bubble" cx="{:.1}" cy="{:.1}" r="{radius:.1}"><title>predicted {}%, observed {}%, {} predictions</title></circle>"#,
            frame.x.at(bin.predicted),
            frame.y.at(bin.observed),
            percent(bin.predicted),
            percent(bin.observed),
            bin.count
        ));
    }
    drawing.end_group();
    drawing.end_group();
}
