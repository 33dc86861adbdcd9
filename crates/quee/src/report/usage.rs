//! Where samples exit and at which widths segments run, along the settings of the main policy.

use std::fmt::Write as _;

use super::model::{Report, UsagePoint};
use super::style::{exit_colour, width_colour};
use super::svg::{Axes, Drawing, Frame, Size};
use super::text::short;

const LEFT: f64 = 58.0;

/// The figure: one panel of exits, one for each segment, all over the same costs.
pub fn figure(report: &Report, size: Size) -> String {
    let points = clean(&report.usage);
    let exits = points.iter().map(|p| p.exits.len()).max().unwrap_or(0);
    let segments = points.iter().map(|p| p.widths.len()).max().unwrap_or(0);
    let label = "Share of samples answered at each exit, and share that runs each segment at each width, by cost";
    let (tall, low) = (size.pick(190.0, 170.0), 92.0);
    if points.is_empty() {
        let mut drawing = Drawing::new(size.width(), 60.0, format!("usage-{}", size.class()));
        drawing.text((0.5 * size.width(), 34.0), "note mid", "The run has no settings to show.");
        return drawing.inline(size, label);
    }
    let mut body = Drawing::new(size.width(), 0.0, format!("usage-{}", size.class()));
    let right = size.width() - 14.0;
    let costs = (points[0].cost, points[points.len() - 1].cost);
    let frame =
        |top: f64, height: f64| Frame::new((LEFT, top), (right - LEFT, height), (true, costs.0, costs.1), (0.0, 1.0));
    let axes = |x, y_ticks| Axes { x, y: "samples (%)", y_factor: 100.0, y_ticks };
    let unit = format!("{} {}", short(report.float_cost), report.cost_unit);
    let x_title = size.pick(
        format!("mean cost per picture of the setting, relative to float (1.0 = {unit}; log scale)"),
        format!("relative cost (1.0 = {unit}; log scale)"),
    );

    body.text((LEFT, 16.0), "heading", "Answered at");
    let names: Vec<String> = (0..exits).map(|at| exit_name(at, exits)).collect();
    let colours: Vec<String> = (0..exits).map(|at| exit_colour(at, exits)).collect();
    let mut y = body.legend(LEFT, 26.0, right, &entries(&names, &colours, None)) + 10.0;
    let first = frame(y, tall);
    panel(&mut body, &first, &points, &colours, &|point, at| point.exits.get(at).copied(), axes(None, 5));
    settings(&mut body, &first, &points);
    y += tall + 34.0;

    let widths = report.widths.len().max(points.iter().flat_map(|p| &p.widths).map(Vec::len).max().unwrap_or(0));
    let names: Vec<String> =
        (0..widths).map(|at| report.widths.get(at).cloned().unwrap_or_else(|| format!("width {}", at + 1))).collect();
    let colours: Vec<String> = (0..widths).map(|at| width_colour(at, widths)).collect();
    body.text((LEFT, y), "heading", "Run at");
    y = body.legend(LEFT, y + 10.0, right, &entries(&names, &colours, Some("had left before"))) + 22.0;
    for segment in 0..segments {
        let last = segment + 1 == segments;
        body.text((LEFT, y - 8.0), "label", &segment_name(report, segment));
        let frame = frame(y, low);
        let share = |point: &UsagePoint, at: usize| point.widths.get(segment).and_then(|w| w.get(at)).copied();
        panel(&mut body, &frame, &points, &colours, &share, axes(last.then_some(&x_title), 2));
        y += low + 32.0;
    }
    let height = y + 22.0;
    body.with_height(height).inline(size, label)
}

/// Settings with a cost, from cheap to dear; of settings of equal cost the last.
pub fn clean(usage: &[UsagePoint]) -> Vec<UsagePoint> {
    let mut points: Vec<UsagePoint> = usage.iter().filter(|p| p.cost.is_finite() && p.cost > 0.0).cloned().collect();
    points.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    points.dedup_by(|later, kept| later.cost < 1.0002 * kept.cost);
    points
}

fn exit_name(at: usize, exits: usize) -> String {
    if at + 1 == exits { format!("exit {} (full depth)", at + 1) } else { format!("exit {}", at + 1) }
}

fn segment_name(report: &Report, segment: usize) -> String {
    let blocks = report.segments.get(segment).copied().unwrap_or(0);
    let first = 1 + report.segments.iter().take(segment).sum::<usize>();
    match blocks {
        0 => format!("Segment {}", segment + 1),
        1 => format!("Segment {} (block {first})", segment + 1),
        _ => format!("Segment {} (blocks {first}–{})", segment + 1, first + blocks - 1),
    }
}

fn entries(names: &[String], colours: &[String], rest: Option<&str>) -> Vec<(String, String)> {
    let swatch = |fill: &str| format!(r#"<rect width="14" height="10" {fill}/>"#);
    let named = names.iter().zip(colours).map(|(name, colour)| (swatch(&format!(r#"fill="{colour}""#)), name.clone()));
    named.chain(rest.map(|name| (swatch(r#"class="gone""#), name.to_owned()))).collect()
}

/// Areas stacked from the first share upwards; what is missing to 1 stays in the colour of samples that are gone.
fn panel(
    drawing: &mut Drawing,
    frame: &Frame,
    points: &[UsagePoint],
    colours: &[String],
    share: &dyn Fn(&UsagePoint, usize) -> Option<f64>,
    axes: Axes,
) {
    drawing.rect((frame.left, frame.top), (frame.width, frame.height), r#"class="gone""#);
    let mut floor = vec![0.0; points.len()];
    for (at, colour) in colours.iter().enumerate() {
        let sum = |(point, below): (&UsagePoint, &f64)| {
            let value = share(point, at).filter(|v| v.is_finite()).unwrap_or(0.0);
            (below + value.max(0.0)).min(1.0)
        };
        let ceiling: Vec<f64> = points.iter().zip(&floor).map(sum).collect();
        if ceiling.iter().zip(&floor).any(|(top, bottom)| top > bottom) {
            let d = area(frame, points, &floor, &ceiling);
            drawing.push(&format!(r#"<path class="area" fill="{colour}" d="{d}"/>"#));
        }
        floor = ceiling;
    }
    frame.draw(drawing, axes);
}

fn area(frame: &Frame, points: &[UsagePoint], floor: &[f64], ceiling: &[f64]) -> String {
    // One setting has no extent in cost: its bar takes the whole frame.
    let place = |at: usize| if points.len() == 1 { frame.left } else { frame.x.at(points[at].cost) };
    let mut corners: Vec<(f64, f64)> = (0..points.len()).map(|at| (place(at), ceiling[at])).collect();
    if points.len() == 1 {
        corners.extend([(frame.right(), ceiling[0]), (frame.right(), floor[0])]);
    }
    corners.extend((0..points.len()).rev().map(|at| (place(at), floor[at])));
    let mut d = String::new();
    for (at, (x, share)) in corners.into_iter().enumerate() {
        let _ = write!(d, "{}{x:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, frame.y.at(share));
    }
    d + "Z"
}

/// A stroke above the frame for each setting.
fn settings(drawing: &mut Drawing, frame: &Frame, points: &[UsagePoint]) {
    if points.len() > 1 {
        for point in points {
            let x = frame.x.at(point.cost);
            drawing.line((x, frame.top - 6.0), (x, frame.top - 1.0), "leader");
        }
        drawing.text((frame.right(), 16.0), "note end", "strokes along the top: settings");
    }
}
