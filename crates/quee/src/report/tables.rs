//! The page's tables.

use std::fmt::Write as _;

use super::model::{Family, MethodReport, Report, Routing};
use super::series::{FAMILIES, Look, looks};
use super::text::{DASH, cost, count, escape, fixed, lambda, percent, short};
use super::usage;

/// Area and costs at a drop, a row for each method.
pub fn methods(report: &Report) -> String {
    let looks = looks(&report.methods);
    let bounds = area_range(report);
    let mut rows = String::new();
    for (family, heading) in FAMILIES {
        let members: Vec<_> = report.methods.iter().zip(&looks).filter(|(m, _)| m.family == family).collect();
        if !members.is_empty() {
            let _ = write!(rows, r#"<tr class="group"><td colspan="6">{heading}</td></tr>"#);
        }
        for (method, look) in members {
            rows.push_str(&method_row(method, look, bounds));
        }
    }
    format!(
        concat!(
            r#"<div class="scroll"><table><thead><tr><th class="words">Method</th><th>Area</th>"#,
            "<th>Cost within<br>0.5 points<br>(test drop)</th><th>Cost within<br>1.0 points<br>(test drop)</th>",
            r#"<th>95% interval<br>of the area</th><th class="words">Area,<br>{low} to {high}</th></tr></thead>"#,
            "<tbody>{rows}</tbody></table></div>"
        ),
        low = fixed(bounds.0, 2),
        high = fixed(bounds.1, 2),
        rows = rows
    )
}

/// The axis of the small interval plots: around the intervals of learned policies and combinations, in steps of 0.01.
/// Where all methods stand so far apart that their intervals shrink to dots, the others are shown at the edge.
fn area_range(report: &Report) -> (f64, f64) {
    let range = |leading: bool| {
        let wanted =
            report.methods.iter().filter(|m| !leading || matches!(m.family, Family::Learned | Family::Combination));
        let ends = wanted.flat_map(|m| [m.area, m.area_low, m.area_high]).filter(|v| v.is_finite());
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (all, leading) = (range(false), range(true));
    if all.0 > all.1 {
        return (0.0, 1.0);
    }
    let around = if leading.0 > leading.1 { all } else { leading };
    let room = 1.5 * (around.1 - around.0);
    let low = (all.0.max(around.0 - room) * 100.0).floor() / 100.0;
    let high = (all.1.min(around.1 + room) * 100.0).ceil() / 100.0;
    (low, high.max(low + 0.01))
}

/// What risk control promises, and how often resamplings find it broken.
pub fn risk_checks(report: &Report) -> String {
    if report.risk_checks.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for [epsilon, delta, violations, certified, price, naive, naive_price, ideal] in &report.risk_checks {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}%</td><td>{}%</td><td>{}</td><td>{}%</td><td>{}</td><td>{}</td></tr>",
            short(*epsilon),
            short(*delta),
            percent(*violations),
            percent(*certified),
            cost(*price),
            percent(*naive),
            cost(*naive_price),
            cost(*ideal)
        );
    }
    let (pictures, resamplings) = report.risk_size;
    let seeds = report.seeds.len().max(1);
    let error = |delta: f64| 100.0 * (delta * (1.0 - delta) / (resamplings * seeds).max(1) as f64).sqrt();
    format!(
        concat!(
            r#"<div class="scroll"><table><thead><tr><th>ε</th><th>δ</th><th>violations</th><th>certified</th><th>cost</th>"#,
            "<th>violations<br>without guarantee</th><th>cost<br>without guarantee</th><th>cost with endless<br>calibration</th></tr></thead>",
            r#"<tbody>{rows}</tbody></table></div><p class="footnote">{resamplings} resamplings of {pictures} calibration pictures per seed, drawn with replacement from cal-b and test "#,
            "together; a violation is a certified setting whose loss rate there is above ε, and its share should be at most δ, give or take its standard error ",
            "(at δ = 0.1: {error} points if seeds were independent). Where nothing is certified, float is used at cost 1.0. Without guarantee: the largest λ whose loss rate ",
            "among the calibration pictures is at most ε.</p>"
        ),
        rows = rows,
        resamplings = count(resamplings),
        pictures = count(pictures),
        error = fixed(error(0.1), 1)
    )
}

fn method_row(method: &MethodReport, look: &Look, bounds: (f64, f64)) -> String {
    let at_drop = |at: Option<(f64, f64)>| match at {
        Some((relative, drop)) => {
            format!(r#"{} <span class="small">({})</span>"#, cost(relative), fixed(drop, 2))
        }
        None => format!(r#"<span title="no setting comes that close on the choosing pictures">{DASH}</span>"#),
    };
    format!(
        concat!(
            r#"<tr><td class="words"><svg class="figure swatch" viewBox="0 -7 34 14" aria-hidden="true">{sample}</svg>{title}</td>"#,
            r#"<td>{area}</td><td>{half}</td><td>{one}</td><td>{low} to {high}</td><td class="words">{forest}</td></tr>"#
        ),
        sample = look.sample(),
        title = escape(&method.title),
        area = fixed(method.area, 4),
        low = fixed(method.area_low, 4),
        high = fixed(method.area_high, 4),
        forest = forest(method, look, bounds),
        half = at_drop(method.at_drop_0_5),
        one = at_drop(method.at_drop_1_0),
    )
}

/// Value and interval on the common axis of the column.
fn forest(method: &MethodReport, look: &Look, bounds: (f64, f64)) -> String {
    if ![method.area, method.area_low, method.area_high].iter().all(|v| v.is_finite()) {
        return String::new();
    }
    let x = |value: f64| (150.0 * (value - bounds.0) / (bounds.1 - bounds.0)).clamp(0.0, 150.0);
    let mark = if method.area < bounds.0 {
        r#"<path class="stroke" d="M6 4L1 8L6 12"/>"#.to_owned()
    } else if method.area > bounds.1 {
        r#"<path class="stroke" d="M144 4L149 8L144 12"/>"#.to_owned()
    } else {
        format!(r#"<circle class="solid" cx="{:.1}" cy="8" r="4"/>"#, x(method.area))
    };
    format!(
        concat!(
            r#"<svg class="forest figure" viewBox="0 0 150 16" aria-hidden="true"><line class="grid" x1="0" y1="8" x2="150" y2="8"/>"#,
            r#"<g class="{colour}"><path class="curve" stroke-width="2" d="M{low:.1} 8H{high:.1}"/>"#,
            "{mark}</g></svg>"
        ),
        colour = look.colour,
        low = x(method.area_low),
        high = x(method.area_high),
        mark = mark
    )
}

/// Quality of predictions, means over seeds and continuations by gate, and over everything.
pub fn predictor(report: &Report) -> String {
    let mut gates: Vec<usize> = report.predictor_rows.iter().map(|(_, row)| row.gate).collect();
    gates.sort_unstable();
    gates.dedup();
    let mut rows = String::new();
    for gate in gates {
        let of_gate: Vec<_> = report.predictor_rows.iter().map(|(_, row)| row).filter(|row| row.gate == gate).collect();
        let mean = |values: Vec<f64>| {
            let kept: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
            if kept.is_empty() { f64::NAN } else { kept.iter().sum::<f64>() / kept.len() as f64 }
        };
        let mut continuations: Vec<&str> = of_gate.iter().map(|row| row.continuation.as_str()).collect();
        continuations.sort_unstable();
        continuations.dedup();
        let skill = |row: &&_| {
            let row: &quee_heads::quality::PredictorRow = row;
            1.0 - row.brier / (row.base_rate * (1.0 - row.base_rate))
        };
        let _ = write!(
            rows,
            "<tr><td>{gate}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            count(continuations.len()),
            percent(mean(of_gate.iter().map(|r| r.base_rate).collect())),
            fixed(mean(of_gate.iter().map(|r| r.brier).collect()), 4),
            percent(mean(of_gate.iter().map(skill).collect())),
            fixed(mean(of_gate.iter().map(|r| r.log_loss).collect()), 4),
            percent(mean(of_gate.iter().map(|r| r.ece).collect())),
            percent(mean(of_gate.iter().map(|r| r.ece_floor).collect())),
            fixed(mean(of_gate.iter().map(|r| r.auroc.unwrap_or(f64::NAN)).collect()), 3),
        );
    }
    let all = &report.predictor;
    let _ = write!(
        rows,
        concat!(
            r#"<tr class="total"><td>all</td><td></td><td></td><td>{}</td><td></td><td></td>"#,
            "<td>{}</td><td>{}</td><td>{}</td></tr>"
        ),
        fixed(all.brier, 4),
        percent(all.ece),
        percent(all.ece_floor),
        fixed(all.auroc.unwrap_or(f64::NAN), 3),
    );
    format!(
        concat!(
            r#"<div class="scroll"><table><thead><tr><th>Gate</th><th>Continu-<br>ations</th><th>Errors<br>(%)</th><th>Brier</th>"#,
            "<th>Skill<br>(%)</th><th>Log loss<br>(nats)</th><th>ECE<br>(%)</th><th>Its floor<br>(%)</th><th>AUROC</th></tr></thead>",
            "<tbody>{}</tbody></table></div>"
        ),
        rows
    )
}

/// The numbers behind the figure of exits and widths; empty without settings.
pub fn usage_numbers(report: &Report) -> String {
    let points = usage::clean(&report.usage);
    if points.is_empty() {
        return String::new();
    }
    let exits = points.iter().map(|p| p.exits.len()).max().unwrap_or(0);
    let mut head = String::new();
    for exit in 1..=exits {
        let _ = write!(head, "<th>Exit {exit}<br>(%)</th>");
    }
    let mut rows = String::new();
    for point in points.iter().rev() {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td>",
            lambda(point.lambda),
            cost(point.cost),
            percent(point.accuracy)
        );
        for exit in 0..exits {
            let _ = write!(rows, "<td>{}</td>", point.exits.get(exit).map_or(DASH.to_owned(), |share| percent(*share)));
        }
        rows.push_str("</tr>");
    }
    format!(
        concat!(
            r#"<details class="screen"><summary>Numbers: exits by setting</summary><div class="scroll"><table><thead><tr><th>λ</th>"#,
            "<th>Relative<br>cost</th><th>Accuracy<br>(%)</th>{}</tr></thead><tbody>{}</tbody></table></div></details>"
        ),
        head, rows
    )
}

/// Two columns: names and values.
pub fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut out = String::from(r#"<div class="scroll"><table><tbody>"#);
    for (name, value) in rows {
        let (name, value) = (escape(name), escape(&value));
        let _ = write!(out, r#"<tr><td class="words soft">{name}</td><td class="words wrap">{value}</td></tr>"#);
    }
    out + "</tbody></table></div>"
}

/// Seconds of each stage, with bars, and their sum.
pub fn seconds(report: &Report) -> String {
    let stages = &report.seconds_by_stage;
    let finite = |seconds: f64| if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    let total: f64 = stages.iter().map(|(_, s)| finite(*s)).sum();
    let longest = stages.iter().map(|(_, s)| finite(*s)).fold(1e-9, f64::max);
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th class="words">Stage</th><th>Seconds</th><th class="meter"></th><th>Peak memory, MB</th></tr></thead><tbody>"#,
    );
    for (at, (stage, seconds)) in stages.iter().enumerate() {
        let peak = report.peak_bytes_by_stage.get(at).copied().flatten();
        let _ = write!(
            out,
            r#"<tr><td class="words">{}</td><td>{}</td><td class="meter"><span class="bar" style="width:{:.1}%"></span></td><td>{}</td></tr>"#,
            escape(stage),
            fixed(*seconds, 1),
            100.0 * finite(*seconds) / longest,
            peak.map_or_else(|| "–".to_owned(), |bytes| fixed(bytes as f64 / 1e6, 0))
        );
    }
    let total = fixed(total, 1);
    let _ = write!(out, r#"<tr class="total"><td class="words">all</td><td>{total}</td><td></td><td></td></tr>"#);
    out + "</tbody></table></div>"
}

/// Dispatches, readbacks and bytes, part by part.
pub fn device_work(report: &Report) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th class="words">Part</th><th class="words">Width</th><th>Dispatches</th><th>Submits</th><th>Readbacks</th><th>KiB up</th><th>KiB down</th></tr></thead><tbody>"#,
    );
    let whole = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX));
    for row in &report.device_work {
        let _ = write!(
            out,
            r#"<tr><td class="words">{}</td><td class="words">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
            escape(&row.part),
            escape(&row.widths),
            whole(row.dispatches),
            whole(row.submits),
            whole(row.readbacks),
            whole(row.bytes_up.div_ceil(1024)),
            whole(row.bytes_down.div_ceil(1024)),
        );
    }
    out + "</tbody></table></div>"
}

/// Ways to run all pictures.
pub fn routing(routing: &Routing) -> String {
    let mut out = String::from(
        r#"<div class="scroll"><table><thead><tr><th class="words">What runs</th><th>Accuracy</th><th>Pictures per second<br>and thread</th><th>Policy over this</th></tr></thead><tbody>"#,
    );
    for row in &routing.rows {
        let _ = write!(
            out,
            r#"<tr><td class="words">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"#,
            escape(&row.name),
            row.accuracy.map_or_else(String::new, |accuracy| format!("{}%", percent(accuracy))),
            count(row.rate.round() as usize),
            fixed(row.policy_over_this, 2)
        );
    }
    out + "</tbody></table></div>"
}

/// Pictures of each split.
pub fn splits(report: &Report) -> String {
    facts(report.splits.iter().map(|(name, pictures)| (name.as_str(), format!("{} pictures", count(*pictures)))))
}

/// The range of costs over which areas are taken, as text.
pub fn axis(report: &Report) -> String {
    format!("{} to {}", short(report.cost_axis.0), short(report.cost_axis.1))
}
