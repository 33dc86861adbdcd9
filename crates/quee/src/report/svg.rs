//! SVG by hand: drawings, scales, ticks, frames with axes.
//!
//! Lengths are in units of the drawing, which are CSS pixels when it is shown at its own size. Colours come from the
//! classes of [`style`](super::style).

use std::fmt::Write as _;

use super::text::{escape, fixed, short, width_of};

/// Size of the figures' text.
pub const FONT: f64 = 13.0;

/// For which screens a figure is drawn. Text keeps its size in both; shapes adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Desk and paper.
    Wide,
    /// Telephone.
    Narrow,
}

impl Size {
    /// Width of the drawing.
    pub fn width(self) -> f64 {
        match self {
            Size::Wide => 920.0,
            Size::Narrow => 400.0,
        }
    }

    /// `wide` or `narrow`: the class that shows or hides the drawing, and the start of its ids.
    pub fn class(self) -> &'static str {
        match self {
            Size::Wide => "wide",
            Size::Narrow => "narrow",
        }
    }

    /// One of two, by size.
    pub fn pick<T>(self, wide: T, narrow: T) -> T {
        match self {
            Size::Wide => wide,
            Size::Narrow => narrow,
        }
    }
}

/// A drawing under construction.
pub struct Drawing {
    width: f64,
    height: f64,
    id: String,
    clips: usize,
    body: String,
}

impl Drawing {
    /// An empty drawing. `id` starts the ids within and must be unique on the page.
    pub fn new(width: f64, height: f64, id: String) -> Self {
        Self { width, height, id, clips: 0, body: String::new() }
    }

    /// Appends markup as it is.
    pub fn push(&mut self, markup: &str) {
        self.body.push_str(markup);
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// Text; `class` sets size, weight and, by `mid` and `end`, the anchor.
    pub fn text(&mut self, at: (f64, f64), class: &str, text: &str) {
        let _ = write!(self.body, r#"<text class="{class}" x="{:.1}" y="{:.1}">{}</text>"#, at.0, at.1, escape(text));
    }

    /// Text that runs upwards, centred.
    pub fn text_upwards(&mut self, at: (f64, f64), class: &str, text: &str) {
        let (x, y) = at;
        let text = escape(text);
        let _ = write!(
            self.body,
            r#"<text class="{class} mid" transform="rotate(-90 {x:.1} {y:.1})" x="{x:.1}" y="{y:.1}">{text}</text>"#
        );
    }

    /// A rectangle; `attributes` are written as they are.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), attributes: &str) {
        let ((x, y), (width, height)) = (at, (size.0.max(0.0), size.1.max(0.0)));
        let _ =
            write!(self.body, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {attributes}/>"#);
    }

    /// Opens a group that shows only what lies within `frame`, with `margin` around it; [`end_group`](Self::end_group)
    /// closes it.
    pub fn begin_clip(&mut self, frame: &Frame, margin: f64) {
        let id = format!("{}-{}", self.id, self.clips);
        self.clips += 1;
        let _ = write!(self.body, r#"<clipPath id="{id}">"#);
        let size = (frame.width + 2.0 * margin, frame.height + 2.0 * margin);
        self.rect((frame.left - margin, frame.top - margin), size, "");
        let _ = write!(self.body, r#"</clipPath><g clip-path="url(#{id})">"#);
    }

    /// Closes a group.
    pub fn end_group(&mut self) {
        self.body.push_str("</g>");
    }

    /// Labelled swatches in rows from (`left`, `top`) on, wrapped at `right`. A swatch is 14 by 10 units, drawn by the
    /// markup that comes with each label. Returns the y below the last row.
    pub fn legend(&mut self, left: f64, top: f64, right: f64, entries: &[(String, String)]) -> f64 {
        let (mut x, mut y) = (left, top);
        for (swatch, label) in entries {
            let wide = 20.0 + width_of(label) * FONT + 16.0;
            if x > left && x + wide - 16.0 > right {
                x = left;
                y += 20.0;
            }
            let _ = write!(self.body, r#"<g transform="translate({x:.1} {y:.1})">{swatch}</g>"#);
            self.text((x + 20.0, y + 9.5), "label", label);
            x += wide;
        }
        y + 20.0
    }

    /// Sets the height, once it is known how much room the content takes.
    pub fn with_height(mut self, height: f64) -> Self {
        self.height = height;
        self
    }

    /// The element, for a page that has the style; `label` says what there is to see.
    pub fn inline(self, size: Size, label: &str) -> String {
        let (width, height, class, label) = (self.width, self.height, size.class(), escape(label));
        format!(
            r#"<svg class="figure {class}" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{label}">{}</svg>"#,
            self.body
        )
    }

    /// A file of its own, with `css` inside and the background drawn.
    pub fn standalone(self, css: &str, label: &str) -> String {
        let (width, height, label) = (self.width, self.height, escape(label));
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" class="figure" width="{w:.0}" height="{h:.0}" "#,
                r#"viewBox="0 0 {w:.0} {h:.0}" role="img">"#,
                "<title>{label}</title><style>{css}</style>",
                r#"<rect class="page" width="{w:.0}" height="{h:.0}"/>{body}</svg>{end}"#
            ),
            w = width,
            h = height,
            label = label,
            css = css,
            body = self.body,
            end = "\n"
        )
    }
}

/// A map from values to lengths, linear or logarithmic.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    logarithmic: bool,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values `low` to `high` onto `from` to `to`. An empty or undefined range becomes one around `low`.
    pub fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = match (low.is_finite(), high.is_finite() && high > low) {
            (true, true) => (low, high),
            (true, false) => (low - 0.05, low + 0.05),
            _ => (0.0, 1.0),
        };
        Self { logarithmic: false, low, high, from, to }
    }

    /// As [`linear`](Self::linear), by logarithm; values must be above 0.
    pub fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = match (low.is_finite() && low > 0.0, high.is_finite() && high > 1.001 * low) {
            (true, true) => (low, high),
            (true, false) => (low / 1.2, low * 1.2),
            _ => (0.01, 1.0),
        };
        Self { logarithmic: true, low, high, from, to }
    }

    /// Where `value` lies. Far outside the range, a place well outside the frame.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(1e-300).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(-4.0, 5.0)
    }

    /// Values to label, about `wanted` of them.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.logarithmic {
            log_ticks(self.low, self.high, wanted)
        } else {
            linear_ticks(self.low, self.high, wanted)
        }
    }

    /// Values between the labelled ones that get a short stroke: 1 to 9 times every power of ten.
    pub fn minor_ticks(&self) -> Vec<f64> {
        let digits: Vec<f64> = (1..10).map(f64::from).collect();
        if self.logarithmic { of_decades(self.low, self.high, &digits) } else { Vec::new() }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, about `wanted` of them.
fn linear_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= 0.7 * rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil();
    let number = ((high / step + 1e-9).floor() - first).clamp(-1.0, 100.0) as i32 + 1;
    (0..number).map(|at| (first + f64::from(at)) * step).map(|v| (v / step).round() * step).collect()
}

/// The coarsest of some sets of leading digits that gives enough ticks; plain steps where even the finest does not.
fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let sets: [&[f64]; 4] = [
        &[1.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    ];
    let enough = wanted.clamp(3, 5);
    let found = sets.iter().map(|digits| of_decades(low, high, digits)).find(|ticks| ticks.len() >= enough);
    found.unwrap_or_else(|| linear_ticks(low, high, wanted))
}

fn of_decades(low: f64, high: f64, digits: &[f64]) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
    all.filter(|value| *value >= low * 0.9999 && *value <= high * 1.0001).collect()
}

/// A plot's rectangle and scales.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Scale of x.
    pub x: Scale,
    /// Scale of y, upwards.
    pub y: Scale,
}

/// What is written along a frame.
#[derive(Clone, Copy)]
pub struct Axes<'a> {
    /// Below; `None` leaves out the numbers, too.
    pub x: Option<&'a str>,
    /// On the left.
    pub y: &'a str,
    /// Factor from values of y to the numbers written: 100 for percent.
    pub y_factor: f64,
    /// About how many ticks of y.
    pub y_ticks: usize,
}

impl Frame {
    /// A frame with room for `x` and `y`, given as `(logarithmic, low, high)` and `(low, high)`.
    pub fn new(at: (f64, f64), size: (f64, f64), x: (bool, f64, f64), y: (f64, f64)) -> Self {
        let ((left, top), (width, height)) = (at, size);
        let (from, to) = (left, left + width);
        Self {
            left,
            top,
            width,
            height,
            x: if x.0 { Scale::log(x.1, x.2, from, to) } else { Scale::linear(x.1, x.2, from, to) },
            y: Scale::linear(y.0, y.1, top + height, top),
        }
    }

    /// Right edge.
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    /// Lower edge.
    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The `d` of a path through points `(x, y)`.
    pub fn path(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut d = String::new();
        for (x, y) in points {
            let command = if d.is_empty() { 'M' } else { 'L' };
            // Writing into a String cannot fail.
            let _ = write!(d, "{command}{:.1} {:.1}", self.x.at(x), self.y.at(y));
        }
        d
    }

    /// Grid, axes, numbers and titles. Numbers that would touch are left out.
    pub fn draw(&self, drawing: &mut Drawing, axes: Axes) {
        self.draw_y(drawing, axes);
        let minor = self.x.minor_ticks();
        for value in minor {
            let x = self.x.at(value);
            drawing.line((x, self.bottom()), (x, self.bottom() + 3.0), "axis");
        }
        let mut free = f64::NEG_INFINITY;
        for value in self.x.ticks((self.width / if self.x.logarithmic { 90.0 } else { 50.0 }) as usize) {
            let x = self.x.at(value);
            let label = short(if self.x.logarithmic { value } else { 100.0 * value });
            let half = 0.5 * width_of(&label) * FONT;
            drawing.line((x, self.top), (x, self.bottom()), "grid");
            drawing.line((x, self.bottom()), (x, self.bottom() + 5.0), "axis");
            if axes.x.is_some() && x - half > free {
                drawing.text((x, self.bottom() + 19.0), "tick mid", &label);
                free = x + half + 6.0;
            }
        }
        if let Some(title) = axes.x {
            drawing.text((self.left + 0.5 * self.width, self.bottom() + 39.0), "title mid", title);
        }
    }

    /// Both axes, and along y the grid, its numbers and its title.
    pub fn draw_y(&self, drawing: &mut Drawing, axes: Axes) {
        let ticks = self.y.ticks(axes.y_ticks);
        let step = ticks.windows(2).map(|pair| axes.y_factor * (pair[1] - pair[0])).fold(f64::INFINITY, f64::min);
        let decimals = if step.is_finite() { (-(step * 1.0001).log10().floor()).clamp(0.0, 6.0) as usize } else { 1 };
        let mut widest: f64 = 0.0;
        for value in ticks {
            let y = self.y.at(value);
            let label = fixed(axes.y_factor * value, decimals);
            widest = widest.max(width_of(&label) * FONT);
            drawing.line((self.left, y), (self.right(), y), "grid");
            drawing.text((self.left - 7.0, y + 4.2), "tick end", &label);
        }
        drawing.line((self.left, self.top), (self.left, self.bottom()), "axis");
        drawing.line((self.left, self.bottom()), (self.right(), self.bottom()), "axis");
        if !axes.y.is_empty() {
            drawing.text_upwards((self.left - widest - 16.0, self.top + 0.5 * self.height), "title", axes.y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let close = |got: Vec<f64>, want: &[f64]| {
            assert_eq!(got.len(), want.len(), "{got:?}");
            got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 1e-9, "{got:?}"));
        };
        close(log_ticks(0.008, 1.0, 7), &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        close(log_ticks(0.011, 0.03, 5), &[0.012, 0.015, 0.02, 0.025, 0.03]);
        close(linear_ticks(0.71, 0.98, 5), &[0.75, 0.8, 0.85, 0.9, 0.95]);
        close(linear_ticks(0.0, 1.0, 5), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
    }

    #[test]
    fn scales_survive_bad_ranges() {
        for (low, high) in [(f64::NAN, 1.0), (0.5, 0.5), (1.0, 0.0), (0.0, f64::INFINITY), (-1.0, -2.0)] {
            for scale in [Scale::linear(low, high, 0.0, 10.0), Scale::log(low, high, 0.0, 10.0)] {
                assert!(scale.high > scale.low, "{scale:?}");
                assert!(scale.at(0.3).is_finite() && scale.at(0.0).is_finite());
                assert!(scale.ticks(5).len() <= 101);
            }
        }
    }

    #[test]
    fn a_log_scale_is_even_in_ratios() {
        let scale = Scale::log(0.01, 1.0, 0.0, 100.0);
        assert!((scale.at(0.1) - 50.0).abs() < 1e-9 && (scale.at(1.0) - 100.0).abs() < 1e-9);
    }
}
