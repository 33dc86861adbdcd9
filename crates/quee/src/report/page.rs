//! The page: summary, figures with captions, tables, settings, definitions.

use super::model::{Family, Finding, Report, Verdict};
use super::svg::Size;
use super::text::{cost, count, escape, fixed, list, percent, plural, short};
use super::{accuracy_cost, four_way, reliability, style, tables, timed, usage};

/// The whole document.
pub fn document(report: &Report) -> String {
    let name = escape(&report.recipe);
    let sections = [
        header(report),
        main_figure(report),
        time_figure(report),
        methods(report),
        usage_section(report),
        reliability_section(report),
        four_way_section(report),
        predictor_section(report),
        run_section(report),
        definitions(report),
    ];
    format!(
        concat!(
            "<!DOCTYPE html>\n",
            r#"<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">"#,
            "<title>{} – quee</title>\n<style>\n{}</style></head>\n<body><main>\n{}\n</main></body></html>\n"
        ),
        name,
        style::page_css(),
        sections.join("\n")
    )
}

/// Data set and its size, seeds, backend: what every caption says.
pub fn circumstances(report: &Report) -> String {
    circumstances_of(report, &report.seeds)
}

fn circumstances_of(report: &Report, seeds: &[u64]) -> String {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let seeds = match seeds.len() {
        0 => String::new(),
        1 => format!(", seed {}", seeds[0]),
        n => format!(", mean of {n} seeds ({})", seeds.join(", ")),
    };
    let backend = fact(report, "backend").map_or(String::new(), |backend| format!(", backend {backend}"));
    format!("Data: {}, {}{seeds}{backend}.", data(report), test_pictures(report))
}

/// The data set, and what part of it there is.
fn data(report: &Report) -> String {
    match &report.subset {
        None => report.dataset.clone(),
        Some(subset) => format!("{} (development {subset})", report.dataset),
    }
}

fn test_pictures(report: &Report) -> String {
    let test = report.splits.iter().find(|(name, _)| name == "test");
    test.map_or("test pictures".to_owned(), |(_, pictures)| plural(*pictures, "test picture"))
}

fn fact<'a>(report: &'a Report, name: &str) -> Option<&'a str> {
    let found = report.environment.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn header(report: &Report) -> String {
    let warning = if report.seen_is_warning {
        format!(r#"<p class="warning">⚠ Warning: {}</p>"#, escape(&report.seen))
    } else {
        format!("<p>{}</p>", escape(&report.seen))
    };
    let findings: String = report.findings.iter().map(finding).collect();
    let findings = if findings.is_empty() { findings } else { format!(r#"<ul class="findings">{findings}</ul>"#) };
    format!(
        concat!(
            r#"<header><p class="kicker">quee: an exit and a bit-width chosen for each picture</p><h1>{}</h1>"#,
            r#"<p class="lead">{}</p>{}{}<p class="soft">{}</p></header>"#
        ),
        escape(&report.recipe),
        escape(&summary(report)),
        warning,
        findings,
        escape(&setup(report))
    )
}

/// The page's first paragraph.
fn summary(report: &Report) -> String {
    let backbone = report.backbone.split(" (").next().unwrap_or_default();
    format!(
        "On {data}, {backbone} answers {pictures}. In float it is right on {float}% of them at {price} {unit} per picture: this is cost 1.0. \
         A policy decides for each picture, gate by gate, whether to answer or to go on, and at which bit-width.{main}",
        data = data(report),
        pictures = test_pictures(report),
        float = percent(report.float_accuracy),
        price = short(report.float_cost),
        unit = report.cost_unit,
        main = main_result(report),
    )
}

/// What was run: backbone, tree, seeds, backend.
fn setup(report: &Report) -> String {
    let segments = report.segments.iter().map(usize::to_string).collect::<Vec<_>>().join(" + ");
    let blocks = if segments.is_empty() { segments } else { format!(" of {segments} blocks") };
    let backend = fact(report, "backend").map_or(String::new(), |backend| {
        // A graphics backend has its adapter's name in its own.
        let adapter = fact(report, "adapter").filter(|adapter| !backend.contains(adapter));
        format!(" Backend: {backend}{}.", adapter.map_or(String::new(), |adapter| format!(" on {adapter}")))
    });
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let figures = match seeds.len() {
        0 => "Figures are shown".to_owned(),
        1 => format!("Figures are of seed {}", seeds[0]),
        n => format!("Figures are means over {n} seeds ({})", seeds.join(", ")),
    };
    format!(
        "Backbone: {backbone}, cut into {parts}{blocks}; an exit stands after each, and each may run at {widths}: {paths}. \
         {figures}, with 95% intervals from {resamples} of the test pictures.{backend}",
        backbone = report.backbone,
        parts = plural(report.segments.len(), "segment"),
        widths = list(&report.widths),
        paths = paths(report),
        resamples = plural(report.resamples, "bootstrap resample"),
    )
}

/// The first learned policy at a drop of half a point, or of one.
fn main_result(report: &Report) -> String {
    let Some(method) = report.methods.iter().find(|m| m.family == Family::Learned) else { return String::new() };
    let found = method.at_drop_0_5.map(|at| ("0.5", at)).or(method.at_drop_1_0.map(|at| ("1.0", at)));
    match found {
        Some((allowed, (relative, drop))) if relative.is_finite() && relative > 0.0 => format!(
            " Allowed to lose {allowed} points on the choosing pictures, {} costs {} of the float backbone, {} times less, and {} on test.",
            method.title,
            cost(relative),
            short((10.0 / relative).round() / 10.0),
            if drop < 0.0 {
                format!("gains {} points", fixed(-drop, 2))
            } else {
                format!("loses {} points", fixed(drop, 2))
            },
        ),
        _ => format!(
            " {} does not come within 1.0 points of float on the choosing pictures with every seed.",
            method.title
        ),
    }
}

fn finding(finding: &Finding) -> String {
    let (class, mark) = match finding.verdict {
        Verdict::For => ("for", "✓ in favour"),
        Verdict::Against => ("against", "✗ against"),
        Verdict::Undecided => ("open", "○ undecided"),
        Verdict::Note => ("open", "! note"),
    };
    format!(r#"<li><span class="verdict {class}">{mark}</span><span>{}</span></li>"#, escape(&finding.text))
}

/// A figure in both sizes, with its caption.
fn both_sizes(draw: impl Fn(Size) -> String, caption: &str) -> String {
    format!("<figure>{}{}<figcaption>{caption}</figcaption></figure>", draw(Size::Wide), draw(Size::Narrow))
}

fn section(class: &str, heading: &str, content: &str) -> String {
    format!(r#"<section class="{class}"><h2>{heading}</h2>{content}</section>"#)
}

fn main_figure(report: &Report) -> String {
    let caption = format!(
        "Figure 1. Accuracy on test against mean cost. Shaded bands or whiskers: 95% intervals. Where a method has few points, each marker \
         is one; on longer lines markers only help to tell the lines apart. Between settings a line mixes the two at random, which is straight \
         in cost and bent on this axis. {}",
        escape(&circumstances(report))
    );
    section("figure-page", "Accuracy against cost", &both_sizes(|size| accuracy_cost::figure(report, size), &caption))
}

/// Nothing where times were not measured, or are the axis of figure 1.
fn time_figure(report: &Report) -> String {
    if !timed::is_there(report) {
        return String::new();
    }
    let caption = format!(
        "Figure 1, in time. The settings of figure 1, chosen by {}, where they lie in measured milliseconds per picture: the sum of the times of the \
         parts that a picture passes, each measured alone, exits and gates included. Settings follow each other as in figure 1, so a line may turn \
         back: what saves {} need not save time. The oracle has no time. {}",
        escape(&report.cost_unit),
        escape(&report.cost_unit),
        escape(&circumstances(report))
    );
    section("figure-page", "Accuracy against measured time", &both_sizes(|size| timed::figure(report, size), &caption))
}

fn methods(report: &Report) -> String {
    let note = format!(
        "Table 1. Area: mean accuracy over the log axis of costs from {}; the small plot shows it with its interval, an arrow where it lies beyond. Cost within a drop: relative cost on test of the cheapest setting that \
         loses at most that much against float on the choosing pictures, and, in brackets, what it loses on test in percentage points (negative: it \
         gains). A dash: in at least one seed no setting comes that close on the choosing pictures; the oracle has none because it is not chosen on the choosing pictures. {}",
        escape(&tables::axis(report)),
        escape(&circumstances(report))
    );
    section("", "Methods in figures", &format!(r#"{}<p class="footnote">{note}</p>"#, tables::methods(report)))
}

fn usage_section(report: &Report) -> String {
    let method =
        report.methods.iter().find(|m| m.family == Family::Learned).map_or("the main policy", |m| m.title.as_str());
    let caption = format!(
        "Figure 2. Settings of {}, cheap on the left, dear on the right. Above: where samples are answered. Below: at which width each segment \
         runs; samples that had left before are grey. {}",
        escape(method),
        escape(&circumstances_of(report, &report.seeds[..report.seeds.len().min(1)]))
    );
    let figure = both_sizes(|size| usage::figure(report, size), &caption);
    section("figure-page", "Exits and widths in use", &format!("{figure}{}", tables::usage_numbers(report)))
}

fn reliability_section(report: &Report) -> String {
    let caption = format!(
        "Figure 3. Each disc is a bin of predictions of similar size, its area their number; on the dashed diagonal, predicted and observed \
         errors agree. All prefixes, continuations and seeds. ECE is read against its floor, the ECE that perfect predictions would have on as \
         few samples. {}",
        escape(&circumstances(report))
    );
    let figure = both_sizes(|size| reliability::figure(report, size), &caption);
    section("figure-page", "Are the predicted errors true?", &figure)
}

fn four_way_section(report: &Report) -> String {
    let caption = format!(
        "Figure 4. Samples at each gate by whether they are right when answered there, and at full depth and the largest width. Only the rescued \
         are worth further computation. {}",
        escape(&circumstances(report))
    );
    section("", "What going on would change", &both_sizes(|size| four_way::figure(report, size), &caption))
}

fn predictor_section(report: &Report) -> String {
    let note = format!(
        "Table 2. Means over seeds and continuations on test; the last row, over gates too. Skill: 1 − Brier / variance of the outcomes, the share \
         of what the mean rate leaves open. The complete rows, by seed, gate and continuation, are in predictor.csv. {}",
        escape(&circumstances(report))
    );
    let risk = if report.risk.is_empty() {
        String::new()
    } else {
        format!("<h3>Risk control</h3><p>{}</p>{}", escape(&report.risk), tables::risk_checks(report))
    };
    let content = format!(r#"{}<p class="footnote">{note}</p>{risk}"#, tables::predictor(report));
    section("", "Quality of the predictors", &content)
}

/// How many paths there are, and of how many they were drawn.
fn paths(report: &Report) -> String {
    let paths = plural(report.paths, "path");
    if report.paths == report.paths_in_all {
        paths
    } else {
        format!("{paths}, drawn from {}", count(report.paths_in_all))
    }
}

fn run_section(report: &Report) -> String {
    let recipe = escape(&report.recipe_toml);
    let environment = report.environment.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let size = [("paths", paths(report)), ("segment runs per picture", count(report.paths))];
    format!(
        concat!(
            r#"<section><h2>The run</h2><h3>Machine and program</h3>{environment}<h3>Splits</h3>{splits}"#,
            "<h3>Tree of paths</h3>{size}<h3>Exits and gates</h3>{heads}<h3>Time{software}</h3>{seconds}<p class=\"footnote\">{note}</p>{work}<h3>Settings</h3>",
            r#"<details class="screen"><summary>The complete recipe</summary><pre>{recipe}</pre></details>"#,
            r#"<pre class="print">{recipe}</pre></section>"#
        ),
        environment = tables::facts(environment),
        splits = tables::splits(report),
        size = tables::facts(size),
        heads = tables::facts(report.heads.iter().map(|(name, value)| (name.as_str(), value.clone()))),
        seconds = tables::seconds(report),
        software = if report.time_caveat.is_some() { " on a software adapter" } else { "" },
        note = escape(&report.timing_note),
        work = routing(report) + &device_work(report),
        recipe = recipe
    )
}

/// The policy on batches; nothing where it was not measured.
fn routing(report: &Report) -> String {
    let Some(routing) = &report.routing else { return String::new() };
    format!(
        r#"<h3>Pictures that part ways{}</h3><p>Routing efficiency {}: speed of the policy on batches, over that of the segments, exits and gates that it runs as plain batches.</p>{}<p class="footnote">{}</p>"#,
        if report.time_caveat.is_some() { ", on a software adapter" } else { "" },
        fixed(routing.efficiency, 2),
        tables::routing(routing),
        escape(&routing.circumstances)
    )
}

/// Dispatches, readbacks and bytes; nothing where the processor did the work.
fn device_work(report: &Report) -> String {
    if report.device_work.is_empty() {
        return String::new();
    }
    let parts = if report.device_work.len() > 1 {
        format!(
            " Parts: one batch of {}, each part recorded and submitted by itself; a run records all of a path up to an exit before it submits.",
            plural(report.device_batch, "picture")
        )
    } else {
        String::new()
    };
    format!(
        r#"<h3>What the device was asked to do</h3>{}<p class="footnote">Packed weights, which stay on the device, are not among the bytes.{parts}</p>"#,
        tables::device_work(report)
    )
}

fn definitions(report: &Report) -> String {
    let entries = [
        (
            "Cost",
            format!(
                "{} Relative cost 1.0 is the backbone in float without exits: {} {} per picture. Static paths and the oracle pay the exit that \
                 answers; threshold rules every exit they pass; learned policies exits and gates.",
                report.cost_definition,
                short(report.float_cost),
                report.cost_unit
            ),
        ),
        (
            "Curve",
            "A method's settings that nobody beats in cost and accuracy on the choosing pictures, drawn at their figures on test. Nothing is chosen on test."
                .to_owned(),
        ),
        (
            "Choosing pictures",
            "Those of cal-a, and with cross-fitting (data.folds) those of exit-train and fit as well: what counts for one of these is what exits, \
             predictors and policies do that were trained without its fold."
                .to_owned(),
        ),
        (
            "Area",
            format!(
                "Mean accuracy over the log axis of relative cost from {}, from the cheapest path of one segment to float. Below its first setting \
                 a method counts as the most frequent class, beyond the last it keeps its accuracy. A fraction; higher is better.",
                tables::axis(report)
            ),
        ),
        (
            "Intervals",
            format!(
                "95%, from {} of the test pictures, which all methods and seeds share. Differences between methods are paired, so they can be \
                 certain although the bands overlap.",
                plural(report.resamples, "resample")
            ),
        ),
        (
            "Oracle",
            "Knows the labels: it starts from each sample's cheapest path and upgrades samples to their cheapest right path in order of extra \
             cost. No policy that picks among these paths can do better. The random policy is the floor."
                .to_owned(),
        ),
        (
            "λ",
            "Price of computation in the policy's goal: error + λ · relative cost. Large λ is cheap. One training serves all λ.".to_owned(),
        ),
        (
            "ECE",
            "Expected calibration error over 15 bins of equal mass. Its floor is the mean ECE when outcomes are drawn from the predictions \
             themselves."
                .to_owned(),
        ),
    ];
    let list: String = entries.iter().map(|(term, text)| format!("<dt>{term}</dt><dd>{}</dd>", escape(text))).collect();
    section("", "How to read this page", &format!("<dl>{list}</dl>"))
}
