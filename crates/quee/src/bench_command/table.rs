//! Rows of figures, as text for people and as CSV for programs.

use std::fmt::Write;

use quee_gpu::{Counts, Gpu};

/// A figure with what it belongs to; what does not apply is left out.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Part of the report.
    pub section: &'static str,
    /// Kernel, backend or library.
    pub name: String,
    /// Which form of it.
    pub variant: String,
    /// Shape of the operands.
    pub shape: String,
    /// Bit-widths.
    pub width: String,
    /// Samples.
    pub batch: Option<usize>,
    /// What the time was taken by.
    pub clock: &'static str,
    /// Runs whose median counts.
    pub runs: usize,
    /// Seconds.
    pub seconds: Option<f64>,
    /// Operations in a second, multiply and add counted as two.
    pub operations: Option<f64>,
    /// Bytes in a second.
    pub bytes: Option<f64>,
    /// Share of the measured peak.
    pub share: Option<f64>,
    /// Pictures in a second.
    pub images: Option<f64>,
    /// Work that the device was given.
    pub counts: Option<Counts>,
    /// Quotient of two figures; the section says which.
    pub ratio: Option<f64>,
}

const HEADER: [&str; 20] = [
    "section",
    "name",
    "variant",
    "shape",
    "width",
    "batch",
    "clock",
    "runs",
    "median_ms",
    "gop_per_s",
    "gb_per_s",
    "share_of_peak",
    "images_per_s",
    "dispatches",
    "submits",
    "readbacks",
    "bytes_up",
    "bytes_down",
    "ratio",
    "warning",
];
/// Columns of the machine, before all others.
const MACHINE: [&str; 5] = ["adapter", "driver", "interface", "device_type", "quee_version"];
/// Columns of the table on the screen: all but section and warning, without clock and runs.
const SHOWN: [usize; 16] = [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];

impl Row {
    fn cells(&self, warning: &str) -> [String; 20] {
        let number = |value: Option<f64>, unit: f64, digits: usize| {
            value.map_or(String::new(), |value| format!("{:.digits$}", value / unit))
        };
        let count = |of: fn(&Counts) -> u64| self.counts.map_or(String::new(), |counts| of(&counts).to_string());
        [
            self.section.to_owned(),
            self.name.clone(),
            self.variant.clone(),
            self.shape.clone(),
            self.width.clone(),
            self.batch.map_or(String::new(), |batch| batch.to_string()),
            self.clock.to_owned(),
            if self.runs > 0 { self.runs.to_string() } else { String::new() },
            number(self.seconds, 1e-3, 4),
            number(self.operations, 1e9, 2),
            number(self.bytes, 1e9, 2),
            number(self.share, 1.0, 3),
            number(self.images, 1.0, 1),
            count(|counts| counts.dispatches),
            count(|counts| counts.submits),
            count(|counts| counts.readbacks),
            count(|counts| counts.bytes_up),
            count(|counts| counts.bytes_down),
            number(self.ratio, 1.0, 3),
            warning.to_owned(),
        ]
    }
}

/// A table for each section, without the columns that are empty in it.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|row| row.section == first.section).count();
        let (section, after) = rest.split_at(count);
        out += &section_text(section);
        rest = after;
    }
    out
}

fn section_text(rows: &[Row]) -> String {
    let cells: Vec<[String; 20]> = rows.iter().map(|row| row.cells("")).collect();
    let columns: Vec<usize> =
        SHOWN.into_iter().filter(|&column| cells.iter().any(|row| !row[column].is_empty())).collect();
    let widths: Vec<usize> = columns
        .iter()
        .map(|&column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(HEADER[column].len()))
        .collect();
    let line = |row: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (&column, &width) in columns.iter().zip(&widths) {
            // Words to the left, figures to the right.
            let cell = row(column);
            let cell = if column < 5 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            line += &format!("  {cell}");
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut out = format!("\n{}\n", rows[0].section);
    out += &line(&|column| HEADER[column].to_owned());
    for row in &cells {
        out += &line(&|column| row[column].clone());
    }
    out
}

/// One line per row, with the machine in the first columns.
pub fn csv(rows: &[Row], gpu: &Gpu) -> String {
    let info = gpu.info();
    let warning = if info.is_software() { super::SOFTWARE } else { "" };
    let kind = info.kind.to_string();
    let machine = [&info.name, &info.driver, &info.interface, &kind, &env!("CARGO_PKG_VERSION").to_owned()]
        .map(|text| quoted(text));
    let mut out = format!("{},{}\n", MACHINE.join(","), HEADER.join(","));
    for row in rows {
        let cells = row.cells(warning).map(|cell| quoted(&cell));
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{},{}", machine.join(","), cells.join(","));
    }
    out
}

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_columns_are_not_shown() {
        let row = |section, seconds, ratio| Row { section, name: "x".into(), seconds, ratio, ..Row::default() };
        let text = text(&[row("first", Some(0.5), None), row("second", None, Some(2.0))]);
        assert_eq!(text, "\nfirst\n  name  median_ms\n  x      500.0000\n\nsecond\n  name  ratio\n  x     2.000\n");
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(quoted("llvmpipe (LLVM 15, 256 bits)"), "\"llvmpipe (LLVM 15, 256 bits)\"");
        assert_eq!(quoted("a \"b\""), "\"a \"\"b\"\"\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
