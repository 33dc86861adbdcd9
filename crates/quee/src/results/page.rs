//! From a finished study to what the report shows.

use quee_heads::FourWay;
use quee_policy::bootstrap::Interval;
use quee_policy::curve::Axis;
use quee_policy::study::{FLOAT_EXIT, JEI, MethodKind, STATIC_WIDTH};
use quee_policy::summary::{AtDrop, Difference, FrontPoint, MethodSummary, Summary};
use quee_policy::tree::ROOT;

use super::device::DeviceWork;
use super::{Study, promises, summary};
use crate::recipe::{Backend, CostModel};
use crate::report::model::{
    CurvePoint, Family, Finding, GateReport, MethodReport, ReliabilityBin, Report, Routing, RoutingRow, TimedPoint,
    UsagePoint, Verdict,
};
use crate::report::text::{count, percent, short};
use crate::stages::efficiency::Efficiency;
use crate::stages::seen::Seen;
use crate::stages::study::OPEN_LOOP;

/// Settings of λ that the figure of exits and widths shows.
const USAGE_POINTS: usize = 24;

/// The report of a study.
pub fn page(study: &Study) -> Report {
    let (recipe, prepared, summary) = (&study.recipe, &study.prepared, &study.summary);
    let parameters: usize = prepared.backbone.params().iter().map(|p| p.data.len()).sum();
    let with_times = study.time_caveat.is_none() && study.counted.model() != CostModel::Latency;
    let mut methods: Vec<MethodReport> = summary.methods.iter().map(|of| method(of, with_times)).collect();
    for (at, method) in methods.iter_mut().enumerate() {
        if !is_drawn(summary, at) {
            method.curve.clear();
        }
    }
    methods.sort_by_key(|m| order(m.family));
    Report {
        recipe: recipe.name.clone(),
        dataset: prepared.data.name.clone(),
        subset: summary::subset(recipe, prepared),
        splits: prepared.splits.parts().iter().map(|(name, part)| ((*name).to_owned(), part.len())).collect(),
        seen: prepared.seen.sentence().to_owned(),
        seen_is_warning: matches!(prepared.seen, Seen::Unknown | Seen::Wanted),
        backbone: format!(
            "{} ({:.2} M parameters, {:.2} M multiply-accumulates per picture; weights: {})",
            prepared.backbone.name(),
            parameters as f64 / 1e6,
            prepared.cost.macs() as f64 / 1e6,
            prepared.weights_origin
        ),
        widths: recipe.quant.widths.iter().map(ToString::to_string).collect(),
        segments: recipe.paths.segments.clone(),
        paths: study.tree.paths().len(),
        paths_in_all: usize::try_from(study.tree.count_in_all()).unwrap_or(usize::MAX),
        seeds: recipe.seeds.clone(),
        resamples: summary.resamples,
        float_accuracy: summary.float_accuracy.value,
        float_cost: study.counted.float_total(),
        cost_unit: study.counted.model().unit().to_owned(),
        cost_definition: study.counted.model().definition().to_owned(),
        cost_axis: (summary.axis.least_cost, 1.0),
        methods,
        findings: findings(study),
        usage: usage(study),
        gates: gates(study),
        predictor_rows: study
            .seeds
            .iter()
            .flat_map(|s| s.quality.iter().flat_map(|gate| &gate.rows).map(|row| (s.seed, row.clone())))
            .collect(),
        predictor: summary::predictor(study),
        risk: summary::risk(study).join(" "),
        risk_checks: promises::risk_rows(study),
        risk_size: (prepared.splits.cal_b.len(), recipe.policy.risk_checks),
        heads: heads(study),
        environment: environment(study),
        recipe_toml: toml::to_string(recipe).unwrap_or_default(),
        seconds_by_stage: study.records.iter().map(|r| (r.stage.clone(), r.seconds)).collect(),
        peak_bytes_by_stage: study.records.iter().map(|r| r.peak_bytes).collect(),
        timing_note: timing_note(study),
        time_caveat: study.time_caveat.clone(),
        device_work: study.device_work.as_ref().map_or_else(Vec::new, DeviceWork::rows),
        device_batch: study.device_work.as_ref().map_or(0, |work| work.batch),
        routing: study.routing.as_ref().map(|found| routing(study, found)),
    }
}

fn routing(study: &Study, found: &Efficiency) -> Routing {
    let row = |name: &str, accuracy, rate| RoutingRow {
        name: name.to_owned(),
        accuracy,
        rate,
        policy_over_this: found.policy_rate / rate,
    };
    let policy = if found.committed { "the policy, which commits to one path" } else { "the policy" };
    let ours =
        [row(policy, Some(found.accuracy), found.policy_rate), row("its parts as plain batches", None, found.mix_rate)];
    let statics =
        found.statics.iter().map(|of| row(&format!("{} at full depth", of.width), Some(of.accuracy), of.rate));
    let caveat = study.time_caveat.as_ref().map_or(String::new(), |caveat| format!(" All are {caveat}."));
    Routing {
        efficiency: found.routing_efficiency,
        circumstances: format!(
            "{} at the setting that loses at most 0.5 points where settings are chosen{}, seed {}; {} test pictures in batches of {}, {} at a time, {:.2} segments each on average. Every batch \
             is run by the policy and at each width in turns.{caveat}",
            OPEN_LOOP,
            found.lambda.map_or(String::new(), |lambda| format!(" (λ = {lambda:.3})")),
            study.seeds[0].seed,
            count(found.pictures),
            found.batch,
            found.threads,
            found.mean_depth
        ),
        rows: ours.into_iter().chain(statics).collect(),
    }
}

/// Rules that leave a float backbone early are alike: the figure shows the one with the largest area on *cal-a*.
fn is_drawn(summary: &Summary, at: usize) -> bool {
    let rule = |name: &str| name.starts_with(FLOAT_EXIT) || name == JEI;
    let area = |method: &MethodSummary| method.area_cal.unwrap_or(f64::NEG_INFINITY);
    let own = &summary.methods[at];
    !rule(&own.name)
        || summary
            .methods
            .iter()
            .enumerate()
            .filter(|(other, m)| *other != at && rule(&m.name))
            .all(|(other, m)| area(m) < area(own) || (area(m) == area(own) && at < other))
}

fn order(family: Family) -> usize {
    match family {
        Family::Learned => 0,
        Family::Combination => 1,
        Family::Single => 2,
        Family::Bound => 3,
    }
}

fn method(method: &MethodSummary, with_times: bool) -> MethodReport {
    let at_drop = |at: &Option<AtDrop>| at.as_ref().map(|at| (at.cost.value, at.drop_points.value));
    MethodReport {
        name: method.name.clone(),
        title: method.name.clone(),
        family: match method.kind {
            MethodKind::Learned => Family::Learned,
            MethodKind::Combination => Family::Combination,
            MethodKind::Single => Family::Single,
            MethodKind::Bound => Family::Bound,
        },
        area: method.area.value,
        area_low: method.area.low,
        area_high: method.area.high,
        at_drop_0_5: at_drop(&method.cost_at_drop_0_5),
        at_drop_1_0: at_drop(&method.cost_at_drop_1_0),
        curve: curve(method),
        timed: if with_times { timed(method) } else { Vec::new() },
    }
}

/// The curve by measured time: at each of its costs the mean over seeds of what the settings around it take, as shares of a mixture. Empty where
/// a setting has no time.
fn timed(method: &MethodSummary) -> Vec<TimedPoint> {
    let seeds = method.front.iter().map(|point| point.seed + 1).max().unwrap_or(0);
    let of_seed = |seed: usize| -> Option<Vec<(f64, f64)>> {
        let points = method.front.iter().filter(|point| point.seed == seed);
        let mut points: Vec<(f64, f64)> =
            points.map(|point| Some((point.cost.value, point.ms?))).collect::<Option<_>>()?;
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (!points.is_empty()).then_some(points)
    };
    let Some(fronts) = (0..seeds).map(of_seed).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let ms = |cost: f64| fronts.iter().map(|front| along(front, cost)).sum::<f64>() / seeds as f64;
    curve(method).iter().map(|point| TimedPoint { ms: ms(point.cost), accuracy: point.accuracy }).collect()
}

/// The second of the pairs, read off between those whose firsts are around `at`; the first or last one beyond the ends.
fn along(pairs: &[(f64, f64)], at: f64) -> f64 {
    let first = pairs.first().map_or(at, |pair| pair.0);
    Axis { least_cost: first, floor: f64::NAN }.accuracy_at(pairs, at.max(first))
}

/// Most settings that are drawn one by one.
const FEW: usize = 12;

/// The settings themselves where they are few and the same for all seeds, otherwise the mean curve.
fn curve(method: &MethodSummary) -> Vec<CurvePoint> {
    let point = |cost: f64, accuracy: Interval| CurvePoint {
        cost,
        accuracy: accuracy.value,
        low: accuracy.low,
        high: accuracy.high,
    };
    let first: Vec<_> = method.front.iter().filter(|p| p.seed == 0).collect();
    let same = |p: &FrontPoint| {
        let twin = first.iter().find(|q| q.name == p.name);
        twin.is_some_and(|q| q.cost.value == p.cost.value && q.accuracy.value == p.accuracy.value)
    };
    if (1..=FEW).contains(&first.len()) && method.front.iter().all(same) {
        return first.iter().map(|p| point(p.cost.value, p.accuracy)).collect();
    }
    method.band.iter().map(|p| point(p.cost, p.accuracy)).collect()
}

/// One sentence per paired comparison of the main policy with what it must beat, and a warning when widths do not differ.
fn findings(study: &Study) -> Vec<Finding> {
    let foresight = study.seeds.iter().find_map(|seed| seed.foresight.clone());
    let mut all: Vec<Finding> = foresight.into_iter().map(|text| Finding { text, verdict: Verdict::Note }).collect();
    let leading = summary::leading(study);
    let differences = summary::differences(study);
    let main = |d: &&Difference| d.method == OPEN_LOOP && leading.contains(&d.against.as_str());
    all.extend(differences.iter().filter(main).map(comparison));
    all.extend(flat_ladder(study));
    all
}

fn comparison(difference: &Difference) -> Finding {
    let area = &difference.area;
    let (words, verdict) = match (area.low > 0.0, area.high < 0.0) {
        (true, _) => ("is better than", Verdict::For),
        (_, true) => ("is worse than", Verdict::Against),
        _ => ("cannot be told apart from", Verdict::Undecided),
    };
    let text = format!(
        "{} {words} {} by area on test: difference {:+.4}, 95% interval {:+.4} to {:+.4}.",
        difference.method, difference.against, area.value, area.low, area.high
    );
    Finding { text, verdict }
}

/// Points by which a width must be more accurate than the next cheaper one to be worth its price.
const LEAST_STEP: f64 = 0.5;

/// Widths that at full depth are hardly more accurate on *cal-a* than a cheaper one leave a policy little to choose.
fn flat_ladder(study: &Study) -> Option<Finding> {
    let seed = &study.seeds[0];
    let statics = seed.result.methods.iter().find(|m| m.name == STATIC_WIDTH)?;
    let of_tree = &statics.settings[..study.recipe.quant.widths.len()];
    let mut by_cost: Vec<_> = of_tree.iter().collect();
    by_cost.sort_by(|a, b| a.cal.mean_cost().total_cmp(&b.cal.mean_cost()));
    let flat = by_cost.windows(2).filter(|pair| 100.0 * (pair[1].cal.accuracy() - pair[0].cal.accuracy()) < LEAST_STEP);
    let flat: Vec<String> = flat.map(|pair| format!("{} than {}", pair[1].name, pair[0].name)).collect();
    (!flat.is_empty()).then(|| Finding {
        text: format!(
            "At full depth, some widths are less than {LEAST_STEP} points more accurate on the choosing pictures than a cheaper one ({}): they give a \
             policy little to choose from. `quee ladder` proposes widths that differ.",
            flat.join(", ")
        ),
        verdict: Verdict::Note,
    })
}

/// Exits and widths along the settings of the open-loop policy, first seed.
fn usage(study: &Study) -> Vec<UsagePoint> {
    let seed = &study.seeds[0];
    let Some(method) = seed.result.methods.iter().find(|m| m.name == OPEN_LOOP) else { return Vec::new() };
    let (segments, widths) = (study.tree.segments(), study.tree.widths());
    let mut settings: Vec<_> = method.settings.iter().collect();
    settings.sort_by(|a, b| b.test.mean_cost().total_cmp(&a.test.mean_cost()));
    let step = settings.len().div_ceil(USAGE_POINTS).max(1);
    let last = settings.len() - 1;
    let shown = settings.iter().enumerate().filter(|(at, _)| at.is_multiple_of(step) || *at == last);
    shown
        .map(|(_, setting)| {
            let share = 1.0 / setting.test.samples() as f64;
            let mut exits = vec![0.0; segments];
            let mut of_width = vec![vec![0.0; widths]; segments];
            for &option in setting.test.options() {
                let node = option as usize;
                let path = study.tree.widths_of(node);
                if node != ROOT {
                    exits[path.len() - 1] += share;
                }
                for (segment, width) in path.into_iter().enumerate() {
                    of_width[segment][width] += share;
                }
            }
            UsagePoint {
                lambda: setting.parameter,
                cost: setting.test.mean_cost(),
                accuracy: setting.test.accuracy(),
                exits,
                widths: of_width,
            }
        })
        .collect()
}

fn gates(study: &Study) -> Vec<GateReport> {
    let seeds = &study.seeds;
    (0..study.tree.segments() - 1)
        .map(|index| {
            let of_seeds = || seeds.iter().map(|s| &s.quality[index]);
            let rows: Vec<_> = of_seeds().flat_map(|g| &g.rows).collect();
            let mean = |f: &dyn Fn(&quee_heads::PredictorRow) -> f64| {
                rows.iter().map(|r| f(r)).sum::<f64>() / rows.len().max(1) as f64
            };
            let split = of_seeds().fold(FourWay::default(), |all, gate| FourWay {
                right: all.right + gate.four_way.right,
                rescued: all.rescued + gate.four_way.rescued,
                hurt: all.hurt + gate.four_way.hurt,
                wrong: all.wrong + gate.four_way.wrong,
            });
            let share = |n: usize| n as f64 / split.n().max(1) as f64;
            GateReport {
                gate: index + 1,
                reliability: of_seeds()
                    .flat_map(|g| &g.reliability)
                    .map(|bin| ReliabilityBin { predicted: bin.predicted, observed: bin.rate, count: bin.n })
                    .collect(),
                ece: mean(&|row| row.ece),
                ece_floor: mean(&|row| row.ece_floor),
                four_way: [share(split.right), share(split.rescued), share(split.hurt), share(split.wrong)],
            }
        })
        .collect()
}

fn environment(study: &Study) -> Vec<(String, String)> {
    let (recipe, env) = (&study.recipe, &study.environment);
    let asked = match recipe.backend {
        Backend::Auto => format!("{}: {}, {}", env.backend_asked, env.backend, env.backend_reason),
        _ => env.backend_asked.clone(),
    };
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("program", format!("quee {} ({})", env.version, env.commit)),
        fact("backend", env.backend.clone()),
        fact("asked for", asked),
        fact("adapter", env.adapter.clone()),
        fact("device type", env.device_type.clone()),
        fact("driver", env.driver.clone()),
        fact("processor", env.processor.clone()),
        fact("CPU features", env.cpu_features.join(", ")),
        fact("threads", env.threads.to_string()),
        fact("training", env.training_device.clone()),
        fact("platform", env.platform.clone()),
        fact("started", env.started.clone()),
    ]
}

fn heads(study: &Study) -> Vec<(String, String)> {
    let heads = super::heads::heads(study);
    let list = |values: &[u64]| values.iter().map(|&v| count(v as usize)).collect::<Vec<_>>().join(", ");
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let seconds = heads.seconds.iter().sum::<f64>() / heads.seconds.len().max(1) as f64;
    vec![
        fact(
            "parameters of exits and gates",
            format!(
                "{} and {}, {} kB, {}% of the backbone's",
                count(heads.exit_parameters),
                count(heads.gate_parameters),
                count(heads.bytes.div_ceil(1024)),
                short(100.0 * heads.share_of_parameters)
            ),
        ),
        fact("multiply-accumulates of exits", list(&heads.exit_macs)),
        fact("multiply-accumulates of gates", list(&heads.gate_macs)),
        fact("their share of the policy's cost", format!("{}% at {}", percent(heads.share_of_cost), heads.setting)),
        fact("seconds for training and evaluating a seed", short(seconds)),
    ]
}

fn timing_note(study: &Study) -> String {
    let caveat = study.time_caveat.as_ref().map_or(String::new(), |caveat| format!(" All are {caveat}."));
    let note = match study.timed_batch {
        Some(batch) => format!(
            "Milliseconds per picture are the sum of the measured times of the segments, exits and gates that a picture passes: each part \
             was timed alone, one batch of {batch} at a time (median of five), so the cost of regrouping pictures is not in them. The processor runs a \
             batch on one thread."
        ),
        None => "Times of parts were not measured (timing.measure = false).".to_owned(),
    };
    note + &caveat
}

#[cfg(test)]
mod tests {
    use super::along;

    #[test]
    fn what_lies_between_two_settings_mixes_them() {
        let pairs = [(1.0, 10.0), (2.0, 30.0), (2.0, 40.0), (4.0, 20.0)];
        assert_eq!([0.5, 1.0, 1.5, 3.0, 4.0, 9.0].map(|at| along(&pairs, at)), [10.0, 10.0, 20.0, 30.0, 20.0, 20.0]);
        assert!(along(&[], 1.0).is_nan());
    }
}
