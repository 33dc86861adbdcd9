//! The figures of all cells in one place: `cells.csv`, `summary.json`, `report.html`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use quee_policy::bootstrap::Interval;
use quee_policy::study::NAIVE;

use super::folder::SweepFolder;
use super::state::RESULTS;
use super::status::{Status, counts};
use crate::compare::stored;
use crate::report::cells::{CellRow, CellsReport, Figures, SeedGroup};
use crate::report::cells_page;
use crate::results::json;
use crate::stages::study::OPEN_LOOP;

/// Writes the three files, with a row for every cell, and returns the path of the page. Cells whose results cannot be read become failed ones in
/// `all`.
///
/// # Errors
/// When the folder cannot be written to.
pub fn collect(sweep: &SweepFolder, all: &mut [Status]) -> Result<PathBuf> {
    let report = report(sweep, all);
    sweep.write("cells.csv", csv(&report).as_bytes())?;
    sweep.write("summary.json", &json(&report)?)?;
    sweep.write("report.html", cells_page(&report).as_bytes())
}

fn report(sweep: &SweepFolder, all: &mut [Status]) -> CellsReport {
    let settings: Vec<BTreeMap<String, String>> = sweep.cells.iter().map(|cell| cell.settings()).collect();
    let names: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let mut circumstances = BTreeSet::new();
    let mut rows = Vec::new();
    for (index, cell) in sweep.cells.iter().enumerate() {
        let mut figures = None;
        if matches!(all[index], Status::Done { .. }) {
            match figures_of(&sweep.cell(index).join(RESULTS)) {
                Ok((found, about)) => {
                    figures = found;
                    circumstances.insert(about);
                }
                Err(error) => {
                    let ran = all[index].ran().cloned();
                    all[index] = Status::Failed { ended: error.to_string(), lines: Vec::new(), ran };
                }
            }
        }
        let ran = all[index].ran();
        rows.push(CellRow {
            name: cell.name.clone(),
            state: all[index].word(),
            settings: names.iter().map(|name| settings[index].get(*name).cloned()).collect(),
            figures,
            seconds: ran.map(|ran| ran.seconds),
            memory: ran.and_then(|ran| ran.memory),
            host: ran.map(|ran| ran.host.clone()),
            folder: format!("cells/{}/{RESULTS}", cell.name),
        });
    }
    let settings: Vec<String> = names.into_iter().cloned().collect();
    CellsReport {
        recipe: sweep.recipe.clone(),
        counts: counts(all),
        method: OPEN_LOOP,
        baseline: NAIVE,
        seeds: by_seed(&settings, &rows),
        settings,
        circumstances: circumstances.into_iter().collect(),
        cells: rows,
    }
}

/// What a finished run says, if it is more than a part of the runs on paths; also its data set and size.
fn figures_of(folder: &std::path::Path) -> Result<(Option<Figures>, String), stored::CompareError> {
    if let Ok(part) = stored::PartSummary::read(folder) {
        return Ok((None, format!("parts of the runs on paths: {}, {}", part.dataset, part.backbone)));
    }
    let summary = stored::Summary::read(folder)?;
    let method = summary.methods.iter().find(|method| method.name == OPEN_LOOP);
    let Some(method) = method else {
        let (file, reason) = (folder.join("summary.json"), format!("no method `{OPEN_LOOP}`"));
        return Err(stored::CompareError::Damaged { file: file.display().to_string(), reason });
    };
    let [half, one] = method.at_drop();
    let figures = Figures {
        area: method.area(),
        lead: summary.lead(OPEN_LOOP, NAIVE),
        cost_at_drop_0_5: half.map(|(cost, _)| cost),
        cost_at_drop_1_0: one.map(|(cost, _)| cost),
        float_accuracy: summary.float_accuracy,
    };
    let subset = summary.subset.as_ref().map_or(String::new(), |subset| format!(" ({subset})"));
    Ok((
        Some(figures),
        format!("{}{subset}, {} test pictures, {}", summary.dataset, summary.test_samples, summary.backbone),
    ))
}

/// Cells that differ in nothing but the seed, together: mean and standard deviation over seeds.
fn by_seed(settings: &[String], rows: &[CellRow]) -> Vec<SeedGroup> {
    let Some(at) = settings.iter().position(|name| name == "seeds") else { return Vec::new() };
    let mut groups: Vec<(Vec<Option<String>>, Vec<&Figures>)> = Vec::new();
    for row in rows {
        let Some(figures) = &row.figures else { continue };
        let mut others = row.settings.clone();
        others.remove(at);
        match groups.iter_mut().find(|(known, _)| *known == others) {
            Some((_, members)) => members.push(figures),
            None => groups.push((others, vec![figures])),
        }
    }
    let of_group = |(settings, members): (Vec<Option<String>>, Vec<&Figures>)| {
        let leads: Vec<f64> = members.iter().filter_map(|figures| Some(figures.lead?.value)).collect();
        let areas: Vec<f64> = members.iter().map(|figures| figures.area.value).collect();
        SeedGroup { settings, seeds: members.len(), area: spread(&areas), lead: spread(&leads) }
    };
    groups.into_iter().map(of_group).collect()
}

/// Mean, and standard deviation where there are two values or more.
fn spread(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (!values.is_empty()).then(|| (mean, (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())))
}

/// One row per cell.
fn csv(report: &CellsReport) -> String {
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
    };
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
    let interval = |found: Option<Interval>| {
        [found.map(|i| i.value), found.map(|i| i.low), found.map(|i| i.high)].map(number).join(",")
    };
    let mut head: Vec<String> = vec!["cell".to_owned(), "state".to_owned()];
    head.extend(report.settings.iter().map(|name| quoted(name)));
    let mut text = head.join(",");
    text += ",area,area_low,area_high,against_naive,against_naive_low,against_naive_high,relative_cost_at_drop_0_5,\
             relative_cost_at_drop_1_0,float_accuracy,seconds,memory_bytes,host\n";
    for row in &report.cells {
        let mut line = vec![quoted(&row.name), row.state.to_owned()];
        line.extend(row.settings.iter().map(|value| quoted(value.as_deref().unwrap_or_default())));
        let figures = row.figures.as_ref();
        line.push(interval(figures.map(|f| f.area)));
        line.push(interval(figures.and_then(|f| f.lead)));
        line.push(number(figures.and_then(|f| f.cost_at_drop_0_5)));
        line.push(number(figures.and_then(|f| f.cost_at_drop_1_0)));
        line.push(number(figures.map(|f| f.float_accuracy)));
        line.push(row.seconds.map_or(String::new(), |seconds| format!("{seconds:.2}")));
        line.push(row.memory.map_or(String::new(), |bytes| bytes.to_string()));
        line.push(quoted(row.host.as_deref().unwrap_or_default()));
        text += &line.join(",");
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(settings: &[&str], area: f64) -> CellRow {
        let interval = Interval { value: area, low: area - 0.01, high: area + 0.01 };
        let figures = Figures {
            area: interval,
            lead: None,
            cost_at_drop_0_5: None,
            cost_at_drop_1_0: Some(0.1),
            float_accuracy: 0.9,
        };
        CellRow {
            name: "000".into(),
            state: "done",
            settings: settings.iter().map(|text| Some((*text).to_owned())).collect(),
            figures: Some(figures),
            seconds: Some(1.0),
            memory: None,
            host: Some("a, b".into()),
            folder: "cells/000/results".into(),
        }
    }

    #[test]
    fn cells_that_differ_in_the_seed_are_taken_together() {
        let settings = ["predictor.hidden".to_owned(), "seeds".to_owned()];
        let rows = [row(&["8", "0"], 0.5), row(&["8", "1"], 0.7), row(&["16", "0"], 0.9)];
        let groups = by_seed(&settings, &rows);
        assert_eq!(groups.iter().map(|group| group.seeds).collect::<Vec<_>>(), [2, 1]);
        let (mean, deviation) = groups[0].area.unwrap();
        assert!((mean - 0.6).abs() < 1e-12 && (deviation.unwrap() - 0.02f64.sqrt()).abs() < 1e-12);
        assert_eq!((groups[1].area, groups[1].lead), (Some((0.9, None)), None));
        assert!(by_seed(&settings[..1], &rows).is_empty());
    }

    #[test]
    fn rows_have_as_many_cells_as_the_head() {
        let report = CellsReport {
            recipe: "x".into(),
            counts: String::new(),
            method: OPEN_LOOP,
            baseline: NAIVE,
            settings: vec!["quant.widths".into()],
            circumstances: Vec::new(),
            cells: vec![row(&["[\"w2a2\", \"w4a4\"]"], 0.5)],
            seeds: Vec::new(),
        };
        let text = csv(&report);
        let outside_quotes = |line: &str| line.split('"').step_by(2).collect::<String>().matches(',').count();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(outside_quotes(lines[0]), outside_quotes(lines[1]), "{text}");
        assert!(lines[1].contains("\"[\"\"w2a2\"\", \"\"w4a4\"\"]\",0.5"), "{text}");
    }
}
