//! A comparison as text for the terminal and as CSV.

use std::fmt::Write as _;

use quee_policy::bootstrap::Interval;

use crate::report::compare::{CompareReport, letter, places, signed};
use crate::report::text::{DASH, cost, fixed, plural, short};

/// Columns of text, as wide as their widest cell; the first `left` of them flush left.
fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |row: &Vec<String>, at: usize| row.get(at).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..count).map(|at| rows.iter().map(|row| length(row, at)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let _ = match at < left {
                true => write!(line, "{gap}{cell:<width$}"),
                false => write!(line, "{gap}{cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn bracketed(value: &Interval, number: impl Fn(f64) -> String) -> String {
    format!("{} [{}, {}]", number(value.value), number(value.low), number(value.high))
}

fn at_drop(found: Option<(f64, f64)>) -> String {
    found.map_or(DASH.to_owned(), |(relative, drop)| format!("{} ({})", cost(relative), fixed(drop, 2)))
}

/// What is printed.
pub fn text(report: &CompareReport) -> String {
    let mut text = String::new();
    let runs: Vec<Vec<String>> =
        report.runs.iter().enumerate().map(|(at, run)| vec![letter(at), run.name.clone(), run.sentence()]).collect();
    text += &columns(&runs, 3);
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let head = [
        "run",
        "method",
        "area",
        "cost within 0.5 (test drop)",
        "within 1.0 (test drop)",
        "cost of 0.5 points below float on test",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.rows.iter().map(|row| {
        vec![
            letter(row.run),
            row.method.clone(),
            row.area.as_ref().map_or(DASH.to_owned(), |area| bracketed(area, |v| fixed(v, 4))),
            at_drop(row.at_drop_0_5),
            at_drop(row.at_drop_1_0),
            row.cost_of_0_5.as_ref().map_or(DASH.to_owned(), |found| bracketed(found, cost)),
        ]
    }));
    let _ = write!(text, "\n{}", columns(&rows, 2));
    if let Some(least) = report.least_cost {
        let _ = writeln!(
            text,
            "costs relative to float, 1.0 = {} {}; area: mean accuracy over the log axis from {} to 1.0; 95% intervals from {} of the test pictures",
            short(report.float_cost),
            report.unit,
            short(least),
            plural(report.resamples, "resample")
        );
    }
    if !report.differences.is_empty() {
        text += "\ndifferences to A\n";
    }
    for row in &report.differences {
        let against = if row.method == row.against { String::new() } else { format!(" − A {}", row.against) };
        let paired = if row.paired { "" } else { ", unpaired" };
        let _ = writeln!(
            text,
            "{} {}{against}: area {} ({}{paired})",
            letter(row.run),
            row.method,
            bracketed(&row.area, |v| signed(v, 4)),
            row.verdict()
        );
        if let Some(saved) = &row.saved_0_5 {
            let share = bracketed(saved, |v| signed(100.0 * v, 1));
            let _ = writeln!(text, "  cost saved at equal accuracy, 0.5 points below float on test: {share} %");
        }
        let _ = writeln!(text, "  {}", places(&row.accuracy));
    }
    text += "\nsettings that differ";
    if report.settings.is_empty() {
        text += ": none";
    }
    text.push('\n');
    let settings = report.settings.iter().map(|setting| {
        let values: Vec<String> = setting.values.iter().map(|value| value.clone().unwrap_or(DASH.to_owned())).collect();
        vec![format!("  {}", setting.key), values.join(" | ")]
    });
    text + &columns(&settings.collect::<Vec<_>>(), 2)
}

/// `compare.csv`: one row per run and method; the difference to the same method of the first run where there is one. Names stand in double quotes.
pub fn csv(report: &CompareReport) -> String {
    let mut text = String::from(
        "run,folder,method,area,area_low,area_high,cost_at_drop_0_5,test_drop_points_0_5,cost_at_drop_1_0,test_drop_points_1_0,cost_of_0_5,\
         cost_of_0_5_low,cost_of_0_5_high,against_run,against_method,paired,difference,difference_low,difference_high,saved_0_5,saved_0_5_low,saved_0_5_high\n",
    );
    let interval = |found: Option<&Interval>| match found {
        Some(i) => format!("{:.6},{:.6},{:.6}", i.value, i.low, i.high),
        None => ",,".to_owned(),
    };
    let pair = |found: Option<(f64, f64)>| found.map_or(",".to_owned(), |(a, b)| format!("{a:.6},{b:.6}"));
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for row in &report.rows {
        let difference = report.differences.iter().find(|other| (other.run, other.slot) == (row.run, row.slot));
        let against = difference.map_or(",,".to_owned(), |d| format!("A,{},{}", quoted(&d.against), d.paired));
        let cells = [
            letter(row.run),
            quoted(&report.runs[row.run].folder),
            quoted(&row.method),
            interval(row.area.as_ref()),
            pair(row.at_drop_0_5),
            pair(row.at_drop_1_0),
            interval(row.cost_of_0_5.as_ref()),
            against,
            interval(difference.map(|d| &d.area)),
            interval(difference.and_then(|d| d.saved_0_5.as_ref())),
        ];
        text += &cells.join(",");
        text.push('\n');
    }
    text
}
