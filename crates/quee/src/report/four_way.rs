//! What going on would change at each gate, as stacked bars.

use super::model::{GateReport, Report};
use super::svg::{Drawing, FONT, Size};
use super::text::{percent, width_of};

/// Name, fill, class of text on it.
const PARTS: [(&str, &str, &str); 4] = [
    ("right now and later", "#9ecae9", "on-light"),
    ("rescued by going on", "#00795a", "on-dark"),
    ("hurt by going on", "#d55e00", "on-dark"),
    ("wrong both ways", "#b9bfc4", "on-light"),
];

/// The figure.
pub fn figure(report: &Report, size: Size) -> String {
    let label = "Share of samples at each gate that going on would leave right, rescue, hurt, or leave wrong";
    let id = format!("four-way-{}", size.class());
    let mut drawing = Drawing::new(size.width(), 60.0, id);
    if report.gates.is_empty() {
        drawing.text((0.5 * size.width(), 34.0), "note mid", "The tree has a single segment, so there are no gates.");
        return drawing.inline(size, label);
    }
    let entries: Vec<(String, String)> = PARTS
        .iter()
        .map(|(name, fill, _)| (format!(r#"<rect width="14" height="10" fill="{fill}"/>"#), (*name).to_owned()))
        .collect();
    let (left, right) = (58.0, size.width() - 14.0);
    let mut y = drawing.legend(left, 6.0, right, &entries) + 24.0;
    for gate in &report.gates {
        drawing.text((left - 8.0, y + 20.0), "label end", &format!("Gate {}", gate.gate));
        bar(&mut drawing, (left, y), (right - left, 30.0), gate);
        y += 58.0;
    }
    drawing.text((left, y - 12.0), "note", "numbers: % of samples, over all prefixes of the path");
    drawing.with_height(y).inline(size, label)
}

/// Shares from left to right. A number that does not fit into its part stands above it, with a stroke down to it.
fn bar(drawing: &mut Drawing, at: (f64, f64), size: (f64, f64), gate: &GateReport) {
    let shares = gate.four_way.map(|share| if share.is_finite() { share.max(0.0) } else { 0.0 });
    let total: f64 = shares.iter().sum();
    if total <= 0.0 {
        drawing.rect(at, size, r#"class="gone""#);
        drawing.text((at.0 + 8.0, at.1 + 20.0), "note", "no samples");
        return;
    }
    let mut x = at.0;
    let mut outside: Vec<(f64, String)> = Vec::new();
    for (share, (name, fill, class)) in shares.into_iter().zip(PARTS) {
        let wide = size.0 * share / total;
        let number = percent(share);
        let room = width_of(&number) * FONT;
        drawing.push(&format!("<g><title>{name}: {number}%</title>"));
        drawing.rect((x, at.1), (wide, size.1), &format!(r#"class="area" fill="{fill}""#));
        drawing.end_group();
        let middle = x + 0.5 * wide;
        if wide > room + 6.0 {
            drawing.text((middle, at.1 + 20.0), &format!("{class} mid"), &number);
        } else {
            outside.push((middle, number));
        }
        x += wide;
    }
    let mut limit = at.0 + size.0;
    let mut places: Vec<f64> = outside
        .iter()
        .rev()
        .map(|(middle, number)| {
            let half = 0.5 * width_of(number) * FONT;
            let place = middle.min(limit - half);
            limit = place - half - 8.0;
            place
        })
        .collect();
    places.reverse();
    let mut limit = at.0;
    for ((middle, number), place) in outside.iter().zip(places) {
        let half = 0.5 * width_of(number) * FONT;
        let place = place.max(limit + half);
        limit = place + half + 8.0;
        drawing.line((*middle, at.1), (place, at.1 - 5.0), "leader");
        drawing.text((place, at.1 - 8.0), "label mid", number);
    }
}
