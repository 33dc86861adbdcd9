//! A made-up report that looks like a real one.

use quee_heads::quality::PredictorRow;

use super::model::{
    CurvePoint, Family, Finding, GateReport, MethodReport, PredictorSummary, ReliabilityBin, Report, TimedPoint,
    UsagePoint, Verdict,
};

/// Eight methods, four segments, three widths.
pub fn report() -> Report {
    let float = 0.972;
    let sweep = |reach: f64, lag: f64, end: f64| {
        curve(60, 0.0112, end, move |c| reach - 0.62 * (-(c / 0.0112 - 1.0 + lag) * 2.1).exp())
    };
    let points = |list: &[(f64, f64)]| list.iter().map(|&(cost, accuracy)| point(cost, accuracy)).collect::<Vec<_>>();
    let methods = vec![
        method("QuEE open loop", Family::Learned, 0.9011, Some((0.0231, 0.38)), sweep(0.968, 0.36, 0.031)),
        method("QuEE dynamic program", Family::Learned, 0.8995, Some((0.0243, 0.41)), sweep(0.967, 0.30, 0.031)),
        method("naive combination", Family::Combination, 0.8931, Some((0.0262, 0.52)), sweep(0.966, 0.22, 0.0305)),
        method(
            "static width",
            Family::Single,
            0.8321,
            Some((0.0305, 0.45)),
            points(&[(0.0171, 0.741), (0.0228, 0.934), (0.0305, 0.9675), (0.0772, 0.9717)]),
        ),
        method(
            "best static path",
            Family::Single,
            0.8744,
            Some((0.0281, 0.28)),
            points(&[
                (0.0112, 0.441),
                (0.0126, 0.585),
                (0.0151, 0.72),
                (0.0182, 0.861),
                (0.0217, 0.931),
                (0.0259, 0.958),
                (0.0305, 0.9675),
            ]),
        ),
        method(
            "float early exit",
            Family::Single,
            0.4102,
            None,
            curve(50, 0.27, 0.98, |c| 0.973 - 0.5 * (-(c - 0.27) * 7.0).exp()),
        ),
        method(
            "random",
            Family::Bound,
            0.8377,
            None,
            curve(40, 0.0113, 0.0236, |c| 0.45 + 0.44 * ((c - 0.0113) / 0.0123f64).powf(0.8)),
        ),
        method(
            "oracle",
            Family::Bound,
            0.9762,
            None,
            curve(180, 0.0112, 0.2, |c| 0.992 - 0.55 * (-(c / 0.0112 - 1.0) * 5.2).exp()),
        ),
    ];
    Report {
        recipe: "digits".into(),
        dataset: "digits (8×8 handwritten digits)".into(),
        splits: [("backbone-train", 800), ("exit-train", 255), ("fit", 223), ("cal-a", 80), ("cal-b", 79), ("test", 360)]
            .map(|(name, pictures)| (name.to_owned(), pictures))
            .to_vec(),
        subset: None,
        seen: "The backbone was trained on 800 pictures, none of which is used elsewhere.".into(),
        seen_is_warning: false,
        backbone: "vit_d6_w80_p2_8 (0.30 M parameters, 5.21 M multiply-accumulates per picture; weights: embedded)".into(),
        widths: ["w2a2", "w3a3", "w4a4"].map(str::to_owned).to_vec(),
        segments: vec![2, 2, 1, 1],
        paths: 120,
        paths_in_all: 120,
        seeds: vec![0, 1, 2],
        resamples: 2000,
        float_accuracy: float,
        float_cost: 5.33,
        cost_unit: "GBOPs".into(),
        cost_definition: "Bit operations.".into(),
        cost_axis: (0.0112, 1.0),
        methods,
        findings: [
            ("QuEE open loop is better than naive combination by area on test: difference +0.0080, 95% interval +0.0021 to +0.0139.", Verdict::For),
            ("QuEE dynamic program cannot be told apart from naive combination by area on test: difference +0.0064, 95% interval −0.0003 to +0.0127.", Verdict::Undecided),
            ("All widths of the tree are within 0.4 points of each other on the choosing pictures: the cheapest always wins.", Verdict::Note),
        ]
        .map(|(text, verdict)| Finding { text: text.into(), verdict })
        .to_vec(),
        usage: (0..24).map(|at| usage(f64::from(at) / 23.0)).collect(),
        gates: (1..=3).map(gate).collect(),
        predictor_rows: (0..3).flat_map(|seed| (1..=3).flat_map(move |gate| (0..4).map(move |c| (seed, row(gate, c))))).collect(),
        predictor: PredictorSummary { brier: 0.0712, ece: 0.0214, ece_floor: 0.0173, auroc: Some(0.884) },
        risk_checks: vec![
            [0.05, 0.1, 0.034, 0.91, 0.031, 0.47, 0.022, 0.019],
            [0.01, 0.1, 0.0, 0.0, 1.0, 0.38, 0.51, 0.12],
        ],
        risk_size: (79, 500),
        heads: vec![("parameters of exits and gates".into(), "6,314 (1.3% of the backbone's)".into())],
        risk: "Seed 0: with probability at least 0.9, the rate of \"float right, policy wrong\" is at most 0.05 at λ 3.16 (79 pictures).".into(),
        environment: [
            ("program", "quee 0.1.0 (1a2b3c4)"),
            ("backend", "cpu (avx512vnni)"),
            ("adapter", "An Example Processor 9000"),
            ("device type", "cpu"),
            ("threads", "2"),
            ("platform", "linux x86_64"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        recipe_toml: "name = \"digits\"\nseeds = [0, 1, 2]\n\n[quant]\nwidths = [\"w2a2\", \"w3a3\", \"w4a4\"]\n".into(),
        peak_bytes_by_stage: vec![Some(84_000_000), Some(612_000_000), None],
        seconds_by_stage: [("prepare", 0.8), ("backbone runs", 41.3), ("exits", 6.2), ("gates", 12.9), ("policies", 3.4), ("bootstrap", 7.7)]
            .map(|(stage, seconds)| (stage.to_owned(), seconds))
            .to_vec(),
        timing_note: "Times of parts were not measured (timing.measure = false).".into(),
        time_caveat: None,
        device_work: Vec::new(),
        device_batch: 0,
        routing: None,
    }
}

/// A report with nothing in it.
pub fn empty() -> Report {
    let nan = f64::NAN;
    Report {
        splits: Vec::new(),
        widths: Vec::new(),
        segments: Vec::new(),
        seeds: Vec::new(),
        float_accuracy: nan,
        float_cost: nan,
        cost_axis: (nan, nan),
        methods: Vec::new(),
        findings: Vec::new(),
        usage: Vec::new(),
        gates: Vec::new(),
        predictor_rows: Vec::new(),
        predictor: PredictorSummary { brier: nan, ece: nan, ece_floor: nan, auroc: None },
        environment: Vec::new(),
        seconds_by_stage: Vec::new(),
        peak_bytes_by_stage: Vec::new(),
        ..report()
    }
}

fn point(cost: f64, accuracy: f64) -> CurvePoint {
    let half = 1.96 * (accuracy * (1.0 - accuracy) / 360.0).max(0.0).sqrt();
    CurvePoint { cost, accuracy, low: accuracy - half, high: (accuracy + half).min(1.0) }
}

fn curve(number: u32, from: f64, to: f64, accuracy: impl Fn(f64) -> f64) -> Vec<CurvePoint> {
    let cost = |at: u32| from * (to / from).powf(f64::from(at) / f64::from(number - 1));
    (0..number).map(|at| point(cost(at), accuracy(cost(at)))).collect()
}

fn method(name: &str, family: Family, area: f64, at_drop: Option<(f64, f64)>, curve: Vec<CurvePoint>) -> MethodReport {
    MethodReport {
        name: name.to_lowercase().replace(' ', "-"),
        title: name.into(),
        family,
        area,
        area_low: area - 0.0133,
        area_high: area + 0.0127,
        at_drop_0_5: at_drop.filter(|(_, drop)| *drop < 0.45),
        at_drop_1_0: at_drop.map(|(cost, drop)| (0.93 * cost, drop + 0.4)),
        timed: curve
            .iter()
            .map(|point| TimedPoint { ms: 0.4 * point.cost.powf(0.3), accuracy: point.accuracy })
            .collect(),
        curve,
    }
}

/// `share` runs from 0, the dear end, to 1.
fn usage(share: f64) -> UsagePoint {
    let leave = [share.powi(2), 0.5 * share, 0.35 + 0.3 * share];
    let (mut left, mut exits, mut widths) = (1.0, Vec::new(), Vec::new());
    for segment in 0..4 {
        let cheap = left * (0.05 + 0.8 * share);
        let middle = (left - cheap) * (0.3 + 0.4 * share);
        widths.push(vec![cheap, middle, left - cheap - middle]);
        let out = left * leave.get(segment).copied().unwrap_or(1.0);
        exits.push(out);
        left -= out;
    }
    UsagePoint {
        lambda: if share < 1.0 { 0.01 * 10f64.powf(5.0 * share) } else { f64::INFINITY },
        cost: 0.0305 * (0.0113f64 / 0.0305).powf(share),
        accuracy: 0.967 - 0.5 * share.powi(3),
        exits,
        widths,
    }
}

fn gate(gate: usize) -> GateReport {
    let bin = |at: usize| {
        let predicted = 0.004 + 0.86 * (at as f64 / 14.0).powi(3) / gate as f64;
        let wobble = 0.03 * ((at * 7 + gate * 3) % 5) as f64 - 0.06;
        ReliabilityBin { predicted, observed: (predicted + wobble).clamp(0.0, 1.0), count: 900 + 40 * at }
    };
    let rescued = [0.31, 0.094, 0.036][gate - 1];
    let hurt = [0.004, 0.009, 0.013][gate - 1];
    GateReport {
        gate,
        reliability: (0..15).map(bin).collect(),
        ece: 0.021 + 0.003 * gate as f64,
        ece_floor: 0.017,
        four_way: [0.97 - rescued - hurt, rescued, hurt, 0.03],
    }
}

fn row(gate: usize, continuation: usize) -> PredictorRow {
    let base_rate = 0.24 / gate as f64;
    PredictorRow {
        gate,
        continuation: format!("w{}a{}", continuation + 1, continuation + 1),
        n: 1080,
        base_rate,
        brier: base_rate * (1.0 - base_rate) * 0.8,
        log_loss: 0.31,
        ece: 0.02,
        ece_floor: 0.017,
        auroc: (continuation > 0).then_some(0.88),
    }
}
