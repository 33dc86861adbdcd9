//! Tests of the whole page.

use super::fixture;
use super::model::{CurvePoint, DeviceRow, Report, Routing, RoutingRow};
use super::{accuracy_cost_svg, render};

#[test]
fn the_page_shows_every_method_and_warns() {
    let mut report = fixture::report();
    let page = render(&report);
    for method in &report.methods {
        assert!(page.matches(&method.title).count() >= 3, "{} is missing from figure or table", method.title);
    }
    assert!(!page.contains(r#"class="warning""#));
    for text in [
        "360 test pictures",
        "mean of 3 seeds (0, 1, 2)",
        "cpu (avx512vnni)",
        "1.0 = 5.33 GBOPs",
        "predictor.csv",
        "Gate 3",
    ] {
        assert!(page.contains(text), "{text}");
    }
    report.seen_is_warning = true;
    assert!(render(&report).contains(r#"<p class="warning">"#));
    assert!(!page.contains("subset"));
    report.subset = Some("subset: 8,000 of 50,000 train and 2,000 of 10,000 test pictures".into());
    let said = render(&report).matches("(development subset: 8,000 of 50,000 train").count();
    assert!(said >= 6, "the first paragraph and every caption say so, {said} do");
}

#[test]
fn a_device_is_shown_with_what_it_did_and_what_its_times_are() {
    let mut report = fixture::report();
    let page = render(&report);
    assert!(!page.contains("What the device was asked to do") && !page.contains("Time on a software adapter"));
    report.device_work = vec![DeviceRow {
        part: "segment 1".into(),
        widths: "w2a2, w4a4".into(),
        dispatches: 1234,
        submits: 1,
        readbacks: 0,
        bytes_up: 2048,
        bytes_down: 1,
    }];
    report.time_caveat = Some("times of a software adapter (x), not of a GPU".into());
    let page = render(&report);
    for text in ["What the device was asked to do", "w2a2, w4a4", "1,234", "Time on a software adapter"] {
        assert!(page.contains(text), "{text}");
    }
    well_formed(&page);
}

#[test]
fn the_speed_of_the_policy_on_batches_is_shown_where_it_was_measured() {
    let mut report = fixture::report();
    assert!(!render(&report).contains("Pictures that part ways"));
    let row = |name: &str, accuracy, rate, policy_over_this| RoutingRow {
        name: name.into(),
        accuracy,
        rate,
        policy_over_this,
    };
    report.routing = Some(Routing {
        efficiency: 0.953,
        circumstances: "1,024 pictures & more".into(),
        rows: vec![row("the policy", Some(0.615), 1234.4, 1.0), row("w4a4 <at> full depth", None, 617.0, 2.0)],
    });
    let page = render(&report);
    for text in
        ["Routing efficiency 0.95:", "61.5%", "1,234", "w4a4 &lt;at&gt; full depth", "2.00", "pictures &amp; more"]
    {
        assert!(page.contains(text), "{text}");
    }
    well_formed(&page);
}

#[test]
fn times_have_a_figure_where_they_were_measured() {
    let mut report = fixture::report();
    let heading = "Accuracy against measured time</h2>";
    assert!(render(&report).contains(heading));
    let last = report.methods.len() - 1;
    report.methods.iter_mut().take(last).for_each(|method| method.timed.clear());
    report.methods[last].timed[0].ms = f64::NAN;
    let page = render(&report);
    assert!(page.contains(heading));
    well_formed(&page);
    report.methods[last].timed.iter_mut().for_each(|point| point.ms = 0.0);
    assert!(!render(&report).contains(heading));
}

#[test]
fn text_is_escaped_everywhere() {
    let evil = "<script>alert('&\"')</script>";
    let mut report = fixture::report();
    for text in [
        &mut report.recipe,
        &mut report.dataset,
        &mut report.seen,
        &mut report.backbone,
        &mut report.cost_unit,
        &mut report.cost_definition,
        &mut report.risk,
        &mut report.recipe_toml,
        &mut report.timing_note,
    ] {
        *text = evil.to_owned();
    }
    report.subset = Some(evil.to_owned());
    report.widths.iter_mut().for_each(|text| *text = evil.to_owned());
    report.methods.iter_mut().for_each(|m| (m.name, m.title) = (evil.to_owned(), evil.to_owned()));
    report.findings.iter_mut().for_each(|f| f.text = evil.to_owned());
    report.splits.iter_mut().for_each(|(name, _)| *name = evil.to_owned());
    report.environment.iter_mut().for_each(|fact| *fact = (fact.0.clone() + evil, evil.to_owned()));
    report.environment.push(("backend".to_owned(), evil.to_owned()));
    report.seconds_by_stage.iter_mut().for_each(|(stage, _)| *stage = evil.to_owned());
    for output in [render(&report), accuracy_cost_svg(&report)] {
        assert!(!output.contains("<script") && !output.contains("alert('"));
        well_formed(&output);
    }
}

#[test]
fn nothing_is_loaded() {
    let page = render(&fixture::report());
    for load in ["http://", "https://", "src=", "<link", "@import", "<script"] {
        assert!(!page.contains(load), "{load}");
    }
    assert!(page.split("url(").skip(1).all(|rest| rest.starts_with('#')));
    let svg = accuracy_cost_svg(&fixture::report());
    assert_eq!(svg.matches("http").count(), 1, "the name space alone");
    assert!(!svg.contains("var("));
}

#[test]
fn ids_are_unique_and_tags_are_closed() {
    let page = render(&fixture::report());
    well_formed(&page);
    well_formed(&accuracy_cost_svg(&fixture::report()));
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert!(all > 4 && ids.len() == all);
}

#[test]
fn degenerate_reports_are_drawn() {
    let mut reports: Vec<Report> = vec![fixture::empty()];
    let mut change = |edit: &dyn Fn(&mut Report)| {
        let mut report = fixture::report();
        edit(&mut report);
        reports.push(report);
    };
    change(&|r| r.usage.clear());
    change(&|r| r.usage.truncate(1));
    change(&|r| r.methods.truncate(1));
    change(&|r| r.methods.iter_mut().for_each(|m| m.curve.clear()));
    change(&|r| r.methods.iter_mut().for_each(|m| m.curve.truncate(1)));
    change(&|r| {
        let odd = |cost, accuracy| CurvePoint { cost, accuracy, low: f64::NAN, high: f64::INFINITY };
        r.methods[0].curve =
            vec![odd(f64::INFINITY, 0.5), odd(0.0, 0.5), odd(-1.0, 0.5), odd(0.02, f64::NAN), odd(0.02, 0.9)];
        (r.methods[0].area, r.methods[0].area_low) = (f64::NAN, f64::NEG_INFINITY);
    });
    change(&|r| (r.float_accuracy, r.cost_axis) = (f64::INFINITY, (0.0, 0.0)));
    change(&|r| r.cost_axis = (1.0, 0.1));
    change(&|r| r.methods.iter_mut().flat_map(|m| &mut m.curve).for_each(|p| p.accuracy = 1.0));
    change(&|r| {
        for point in &mut r.usage {
            (point.cost, point.lambda, point.exits) = (0.5, f64::NAN, vec![f64::NAN, 3.0]);
            point.widths = vec![vec![], vec![f64::INFINITY; 5]];
        }
    });
    change(&|r| {
        for gate in &mut r.gates {
            gate.reliability.clear();
            (gate.ece, gate.four_way) = (f64::NAN, [f64::NAN, 0.0, -1.0, 0.0]);
        }
    });
    change(&|r| r.seconds_by_stage = vec![("a".into(), f64::NAN), ("b".into(), f64::INFINITY)]);
    for (at, report) in reports.iter().enumerate() {
        for output in [render(report), accuracy_cost_svg(report)] {
            well_formed(&output);
            assert!(!output.contains("NaN") && !output.contains("inf,") && !output.contains("\"inf"), "report {at}");
        }
    }
}

#[test]
fn a_report_survives_json() {
    let report = fixture::report();
    let text = serde_json::to_string(&report).expect("plain data");
    assert!(text.contains("\"family\":\"learned\""));
}

/// Every tag is closed in order, attributes are quoted, and no lone `<` or `&` stands in text.
fn well_formed(markup: &str) {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let without_style: String = markup
        .split("<style>")
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once("</style>").map_or("", |(_, rest)| rest) })
        .collect();
    for piece in without_style.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end of <{piece}"));
        assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|name| entity.starts_with(name));
            assert!(known, "&{entity}");
        }
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or("");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
