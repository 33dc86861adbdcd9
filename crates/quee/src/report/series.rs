//! How each method looks: colour, dash, marker. The three together tell methods apart without colour, too.

use std::fmt::Write as _;

use super::model::{Family, MethodReport};

/// Families in the order of the legend, with their headings.
pub const FAMILIES: [(Family, &str); 4] = [
    (Family::Learned, "Learned policies"),
    (Family::Combination, "Combinations"),
    (Family::Single, "Single techniques"),
    (Family::Bound, "Floor and ceiling"),
];

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Disc.
    Circle,
    /// Square.
    Square,
    /// Triangle on its base.
    Triangle,
    /// Square on its corner.
    Diamond,
    /// Triangle on its tip.
    Wedge,
    /// Two strokes, upright.
    Plus,
    /// Two strokes, slanted.
    Cross,
    /// Disc with a hole.
    Ring,
}

/// Every marker.
pub const MARKERS: [Marker; 8] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Wedge,
    Marker::Ring,
    Marker::Plus,
    Marker::Cross,
];

/// How one method looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Class that sets the colour.
    pub colour: &'static str,
    /// `stroke-dasharray`; empty for a solid line.
    pub dash: &'static str,
    /// Marker.
    pub marker: Marker,
    /// Width of the line.
    pub stroke: f64,
}

impl Look {
    /// The attributes of a line.
    pub fn line(&self) -> String {
        let dash = if self.dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{}""#, self.dash) };
        format!(r#"class="curve" stroke-width="{}"{dash}"#, self.stroke)
    }

    /// Markup of the marker at `at`.
    pub fn mark(&self, at: (f64, f64), size: f64) -> String {
        let (x, y) = at;
        let polygon = |corners: &[(f64, f64)]| {
            let mut points = String::new();
            for (dx, dy) in corners {
                let _ = write!(points, "{:.1},{:.1} ", x + size * dx, y + size * dy);
            }
            format!(r#"<polygon class="solid" points="{}"/>"#, points.trim_end())
        };
        let strokes = |a: (f64, f64), b: (f64, f64)| {
            let to = |(dx, dy): (f64, f64)| format!("{:.1} {:.1}", x + size * dx, y + size * dy);
            format!(r#"<path class="stroke" d="M{}L{}M{}L{}"/>"#, to(a), to((-a.0, -a.1)), to(b), to((-b.0, -b.1)))
        };
        match self.marker {
            Marker::Circle => format!(r#"<circle class="solid" cx="{x:.1}" cy="{y:.1}" r="{size:.1}"/>"#),
            Marker::Ring => format!(r#"<circle class="open" cx="{x:.1}" cy="{y:.1}" r="{:.1}"/>"#, 0.85 * size),
            Marker::Square => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            Marker::Diamond => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            Marker::Triangle => polygon(&[(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)]),
            Marker::Wedge => polygon(&[(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)]),
            Marker::Plus => strokes((0.0, 1.1), (1.1, 0.0)),
            Marker::Cross => strokes((0.9, 0.9), (0.9, -0.9)),
        }
    }

    /// A sample of line and marker, 34 units wide, around the origin's right.
    pub fn sample(&self) -> String {
        let mark = self.mark((17.0, 0.0), 4.2);
        format!(r#"<g class="{}"><path {} d="M0 0H34"/>{mark}</g>"#, self.colour, self.line())
    }
}

/// The look of each method; those that are not drawn have none of their own. A colour is used twice only when all are taken; then marker and dash differ.
pub fn looks(methods: &[MethodReport]) -> Vec<Look> {
    let mut used: Vec<&str> = Vec::new();
    let mut of_family = [0usize; 4];
    let mut looks = Vec::new();
    for (at, method) in methods.iter().enumerate() {
        if !method.is_drawn() {
            looks.push(Look { colour: "c-grey", dash: "1 4", marker: Marker::Plus, stroke: 1.0 });
            continue;
        }
        let (family, colours, dashes, stroke): (usize, &[&'static str], &[&'static str], f64) = match method.family {
            Family::Learned => (0, &["c-blue", "c-vermillion", "c-purple", "c-sky"], &["", "11 3"], 2.6),
            Family::Combination => (1, &["c-green", "c-orange", "c-purple"], &["8 4", "8 3 2 3"], 2.0),
            Family::Single => (2, &["c-orange", "c-purple", "c-sky", "c-green"], &["4 3", "10 3 3 3", "5 2 1 2"], 1.8),
            Family::Bound => (3, &["c-grey", "c-ink"], &["1.5 3", "2 2 6 2"], 1.8),
        };
        let place = of_family[family];
        of_family[family] += 1;
        let free = colours.iter().find(|colour| !used.contains(colour));
        let colour = free.copied().unwrap_or(colours[place % colours.len()]);
        used.push(colour);
        looks.push(Look { colour, dash: dashes[place % dashes.len()], marker: MARKERS[at % MARKERS.len()], stroke });
    }
    looks
}
