//! All seeds of a study: fronts, areas, costs at a drop, gaps, and their bootstrap intervals.

use rayon::prelude::*;
use serde::Serialize;

use crate::bootstrap::{Bootstrap, Interval, Resample};
use crate::curve::{Axis, cal_points, cost_of_accuracy, pareto, within_drop};
use crate::outcome::{Choices, Setting};
use crate::study::{MethodKind, SeedResult, StudyError};

/// Points of a curve in a figure.
const GRID: usize = 64;

/// Drops in accuracy at which costs are reported, as shares.
pub(crate) const DROPS: [f64; 2] = [0.005, 0.01];

/// One setting of a front, drawn at its *test* figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrontPoint {
    /// Index of the seed.
    pub seed: usize,
    /// Name of the setting.
    pub name: String,
    /// Its parameter (λ, threshold, …). An infinite λ is written as null in JSON; the name says it.
    pub parameter: f64,
    /// Mean relative cost on *cal-a*.
    pub cal_cost: f64,
    /// Accuracy on *cal-a*.
    pub cal_accuracy: f64,
    /// Mean relative cost on *test*.
    pub cost: Interval,
    /// Accuracy on *test*.
    pub accuracy: Interval,
    /// Mean weight bits on *test*.
    pub weight_bits: f64,
    /// Mean milliseconds per sample on *test*, where times were measured.
    pub ms: Option<f64>,
    /// Share of test samples that leave at each exit.
    pub exit_shares: Vec<f64>,
}

/// The cheapest setting within a drop on *cal-a*: its *test* figures, averaged over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AtDrop {
    /// Mean relative cost on *test*.
    pub cost: Interval,
    /// Float's accuracy on *test* minus the setting's, in percentage points.
    pub drop_points: Interval,
    /// Name of the setting, by seed.
    pub settings: Vec<String>,
}

/// One method over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodSummary {
    /// Name of the method.
    pub name: String,
    /// What it is.
    pub kind: MethodKind,
    /// Area on *test*, mean over seeds.
    pub area: Interval,
    /// Area on *cal-a*, mean over seeds; `None` for the oracle.
    pub area_cal: Option<f64>,
    /// Cost at a drop of 0.5 points; `None` if some seed has no such setting.
    pub cost_at_drop_0_5: Option<AtDrop>,
    /// Cost at a drop of 1.0 points; `None` if some seed has no such setting.
    pub cost_at_drop_1_0: Option<AtDrop>,
    /// Mean cost on *test* of an accuracy 0.5 points below float's, read off the curve, whose last setting is joined with float (cost 1.0) by a
    /// line. Unlike [`cost_at_drop_0_5`](Self::cost_at_drop_0_5) it compares methods at the same accuracy on *test*; no policy can choose by it.
    pub cost_of_0_5: Interval,
    /// The same 1.0 points below float.
    pub cost_of_1_0: Interval,
    /// Share of the gap between the best single technique and the oracle that the method closes; `None` if there is no
    /// single technique or no gap.
    pub gap_closed: Option<Interval>,
    /// The fronts of all seeds; empty for the oracle.
    pub front: Vec<FrontPoint>,
    /// The curve, mean over seeds, at costs evenly spaced on the log axis between the mean cost of its first and of its
    /// last point; nothing to the left of the first, where the curve is the floor.
    pub band: Vec<BandPoint>,
}

/// A point of the curve of a method over all seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BandPoint {
    /// Relative cost.
    pub cost: f64,
    /// Accuracy on *test*.
    pub accuracy: Interval,
}

/// A paired difference between two methods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The one.
    pub method: String,
    /// The other.
    pub against: String,
    /// Area of the one minus area of the other.
    pub area: Interval,
    /// Share of the other's cost that the one saves at an accuracy 0.5 points below float's on *test*.
    pub saved_0_5: Interval,
    /// The same 1.0 points below.
    pub saved_1_0: Interval,
}

/// All methods over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The methods in the order of the seeds' results, the oracle last.
    pub methods: Vec<MethodSummary>,
    /// Name of the best single technique, judged by area on *cal-a*.
    pub best_single: Option<String>,
    /// Accuracy of float on *test*.
    pub float_accuracy: Interval,
    /// The axis of the areas on *test*.
    pub axis: Axis,
    /// Number of seeds.
    pub seeds: usize,
    /// Number of test samples.
    pub samples: usize,
    /// Number of resamples.
    pub resamples: usize,
    /// `[resample]`: areas and costs of an accuracy by method, for paired differences.
    #[serde(skip)]
    resamples_of: Vec<(Vec<f64>, Vec<[f64; 2]>)>,
}

/// The front of one method and seed, its rows in the bootstrap, and the places of the settings within each drop.
struct Front<'a> {
    settings: Vec<&'a Setting>,
    cal: Vec<(f64, f64)>,
    first_row: usize,
    within: [Option<usize>; 2],
}

/// Figures of a summary on the samples themselves or on one resample.
struct Figures {
    float: f64,
    /// `[method]`, the oracle last.
    areas: Vec<f64>,
    /// `[method][drop]`: cost and drop in points, where defined.
    drops: Vec<[Option<(f64, f64)>; 2]>,
    /// `[method][drop]`: cost of an accuracy that far below float's.
    costs: Vec<[f64; 2]>,
    /// `[row]`: cost and accuracy.
    points: Vec<(f64, f64)>,
    /// `[method][grid point]`: accuracy at the costs of [`Layout::grids`].
    bands: Vec<Vec<f64>>,
}

/// Where figures come from: the samples themselves or a resample.
trait Source {
    fn point(&self, row: usize) -> (f64, f64);
    fn weight(&self, sample: usize) -> f64;
}

impl Source for Resample<'_> {
    fn point(&self, row: usize) -> (f64, f64) {
        (self.cost(row), self.accuracy(row))
    }
    fn weight(&self, sample: usize) -> f64 {
        Resample::weight(self, sample)
    }
}

struct Whole<'a>(&'a [&'a Choices]);

impl Source for Whole<'_> {
    fn point(&self, row: usize) -> (f64, f64) {
        (self.0[row].mean_cost(), self.0[row].accuracy())
    }
    fn weight(&self, _: usize) -> f64 {
        1.0
    }
}

/// Fronts of all methods and seeds over one list of rows, of which the first `2·seeds` are float and most frequent
/// class of every seed.
struct Layout<'a> {
    seeds: &'a [SeedResult],
    /// `[method][seed]`.
    fronts: Vec<Vec<Front<'a>>>,
    rows: Vec<&'a Choices>,
    /// `[method]`: costs at which its curve is evaluated, the oracle last.
    grids: Vec<Vec<f64>>,
}

impl<'a> Layout<'a> {
    fn new(seeds: &'a [SeedResult]) -> Self {
        let mut rows: Vec<&Choices> = seeds.iter().flat_map(|seed| [&seed.float.test, &seed.majority.test]).collect();
        let mut fronts = Vec::new();
        for method in 0..seeds[0].methods.len() {
            let front = |seed: &'a SeedResult| {
                let all = &seed.methods[method].settings;
                let points = cal_points(all);
                let chosen = pareto(&points);
                let cal: Vec<(f64, f64)> = chosen.iter().map(|at| points[*at]).collect();
                let settings: Vec<&Setting> = chosen.iter().map(|at| &all[*at]).collect();
                let within = DROPS.map(|drop| within_drop(&cal, seed.float.cal.accuracy(), drop));
                let first_row = rows.len();
                rows.extend(settings.iter().map(|setting| &setting.test));
                Front { settings, cal, first_row, within }
            };
            fronts.push(seeds.iter().map(front).collect());
        }
        let mut layout = Self { seeds, fronts, rows, grids: Vec::new() };
        layout.grids = (0..=layout.fronts.len()).map(|method| layout.grid(method)).collect();
        layout
    }

    /// Costs between the ends of a method's curve (mean over seeds), evenly spaced on the log axis.
    fn grid(&self, method: usize) -> Vec<f64> {
        let ends = |seed: usize| -> (f64, f64) {
            let costs: Vec<f64> = match self.fronts.get(method) {
                Some(fronts) => fronts[seed].settings.iter().map(|setting| setting.test.mean_cost()).collect(),
                None => self.seeds[seed].oracle.corners(|_| 1.0).into_iter().map(|corner| corner.0).collect(),
            };
            costs.iter().fold((f64::INFINITY, 0.0), |(low, high), cost| (cost.min(low), cost.max(high)))
        };
        let (low, high) = (self.mean(|seed, _| ends(seed).0), self.mean(|seed, _| ends(seed).1));
        let ratio = high / low;
        if ratio.is_nan() || ratio < 1.0 + 1e-9 {
            return vec![low];
        }
        (0..GRID).map(|at| low * ratio.powf(at as f64 / (GRID - 1) as f64)).collect()
    }

    fn mean(&self, figure: impl Fn(usize, &SeedResult) -> f64) -> f64 {
        self.seeds.iter().enumerate().map(|(at, seed)| figure(at, seed)).sum::<f64>() / self.seeds.len() as f64
    }

    /// Axis of a seed with the floor of the source at hand.
    fn axis(&self, source: &impl Source, seed: usize) -> Axis {
        Axis { least_cost: self.seeds[seed].least_cost, floor: source.point(2 * seed + 1).1 }
    }

    fn figures(&self, source: &impl Source) -> Figures {
        let points: Vec<(f64, f64)> = (0..self.rows.len()).map(|row| source.point(row)).collect();
        let on_front = |front: &Front<'_>| front.first_row..front.first_row + front.settings.len();
        let area = |fronts: &Vec<Front<'_>>| {
            self.mean(|seed, _| self.axis(source, seed).area(&points[on_front(&fronts[seed])]))
        };
        let mut areas: Vec<f64> = self.fronts.iter().map(area).collect();
        areas.push(self.mean(|at, seed| seed.oracle.area(&self.axis(source, at), |sample| source.weight(sample))));
        let at_drop = |fronts: &Vec<Front<'_>>, drop: usize| {
            let rows: Option<Vec<usize>> =
                fronts.iter().map(|front| front.within[drop].map(|at| front.first_row + at)).collect();
            let rows = rows?;
            let cost = self.mean(|seed, _| points[rows[seed]].0);
            let lost = self.mean(|seed, _| points[2 * seed].1 - points[rows[seed]].1);
            Some((cost, 100.0 * lost))
        };
        let drops = self.fronts.iter().map(|fronts| [at_drop(fronts, 0), at_drop(fronts, 1)]).collect();
        let cost_of = |method: usize, drop: f64| {
            self.mean(|at, seed| {
                let float = points[2 * at].1;
                let mut curve = match self.fronts.get(method) {
                    Some(fronts) => points[on_front(&fronts[at])].to_vec(),
                    None => seed.oracle.corners(|sample| source.weight(sample)),
                };
                curve.push((1.0, float));
                cost_of_accuracy(&curve, float - drop).unwrap_or(1.0)
            })
        };
        let costs = (0..=self.fronts.len()).map(|method| DROPS.map(|drop| cost_of(method, drop))).collect();
        let curve = |method: usize| -> Vec<f64> {
            let of_seed = |seed: usize| match self.fronts.get(method) {
                Some(fronts) => points[on_front(&fronts[seed])].to_vec(),
                None => self.seeds[seed].oracle.corners(|sample| source.weight(sample)),
            };
            let curves: Vec<Vec<(f64, f64)>> = (0..self.seeds.len()).map(of_seed).collect();
            // Left of its first point a seed's curve would drop to the floor; within the mean it counts as that point.
            let at = |seed: usize, cost: f64| {
                let first = curves[seed].iter().map(|point| point.0).fold(f64::INFINITY, f64::min);
                self.axis(source, seed).accuracy_at(&curves[seed], cost.max(first))
            };
            self.grids[method].iter().map(|cost| self.mean(|seed, _| at(seed, *cost))).collect()
        };
        let bands = (0..self.grids.len()).map(curve).collect();
        Figures { float: self.mean(|seed, _| points[2 * seed].1), areas, drops, costs, points, bands }
    }

    /// Area on *cal-a*, mean over seeds.
    fn area_cal(&self, method: usize) -> f64 {
        self.mean(|at, seed| {
            let axis = Axis { least_cost: seed.least_cost, floor: seed.majority.cal.accuracy() };
            axis.area(&self.fronts[method][at].cal)
        })
    }
}

/// Joins the results of all seeds: fronts from *cal-a*, figures from *test*, averaged over seeds, with 95% intervals
/// from resamples of the test pictures that all methods and seeds share.
///
/// # Errors
/// Without seeds, or if they differ in methods, axis or number of test samples.
pub fn summarise(seeds: &[SeedResult], bootstrap: &Bootstrap) -> Result<Summary, StudyError> {
    let samples = same_everywhere(seeds)?;
    let layout = Layout::new(seeds);
    let whole = layout.figures(&Whole(&layout.rows));
    let resampled = bootstrap.run(samples, &layout.rows, |resample| layout.figures(resample));
    let interval = |figure: &(dyn Fn(&Figures) -> f64 + Sync)| {
        Interval::new(figure(&whole), resampled.iter().map(figure).collect())
    };

    let oracle = layout.fronts.len();
    let cal_areas: Vec<f64> = (0..oracle).map(|method| layout.area_cal(method)).collect();
    let best_single = (0..oracle)
        .filter(|method| seeds[0].methods[*method].kind == MethodKind::Single)
        .max_by(|a, b| cal_areas[*a].total_cmp(&cal_areas[*b]).then(b.cmp(a)));
    let gap_closed = |method: usize| {
        let share = |figures: &Figures| {
            let single = figures.areas[best_single?];
            let gap = figures.areas[oracle] - single;
            (gap > 1e-9).then(|| (figures.areas[method] - single) / gap)
        };
        let value = share(&whole)?;
        Some(Interval::new(value, resampled.iter().filter_map(share).collect()))
    };
    let at_drop = |method: usize, drop: usize| {
        whole.drops[method][drop]?;
        let figure = |figures: &Figures| figures.drops[method][drop].unwrap_or((f64::NAN, f64::NAN));
        let name = |front: &Front<'_>| front.within[drop].map(|at| front.settings[at].name.clone());
        Some(AtDrop {
            cost: interval(&|figures| figure(figures).0),
            drop_points: interval(&|figures| figure(figures).1),
            settings: layout.fronts[method].iter().filter_map(name).collect(),
        })
    };
    let point = |(seed, front, at): (usize, &Front<'_>, usize)| {
        let (setting, row) = (front.settings[at], front.first_row + at);
        FrontPoint {
            seed,
            name: setting.name.clone(),
            parameter: setting.parameter,
            cal_cost: front.cal[at].0,
            cal_accuracy: front.cal[at].1,
            cost: interval(&|figures| figures.points[row].0),
            accuracy: interval(&|figures| figures.points[row].1),
            weight_bits: setting.test.mean_weight_bits(),
            ms: setting.test.mean_ms(),
            exit_shares: setting.test.exit_shares(seeds[seed].float.test.price(0).exit),
        }
    };
    let front = |method: usize| -> Vec<FrontPoint> {
        let fronts = layout.fronts[method].iter().enumerate();
        let places = fronts.flat_map(|(seed, front)| (0..front.settings.len()).map(move |at| (seed, front, at)));
        places.collect::<Vec<_>>().into_par_iter().map(point).collect()
    };
    let band = |method: usize| -> Vec<BandPoint> {
        let point = |(at, cost): (usize, &f64)| BandPoint { cost: *cost, accuracy: interval(&|f| f.bands[method][at]) };
        layout.grids[method].iter().enumerate().map(point).collect()
    };
    let mut methods: Vec<MethodSummary> = (0..oracle)
        .map(|method| MethodSummary {
            name: seeds[0].methods[method].name.clone(),
            kind: seeds[0].methods[method].kind,
            area: interval(&|figures| figures.areas[method]),
            area_cal: Some(cal_areas[method]),
            cost_at_drop_0_5: at_drop(method, 0),
            cost_at_drop_1_0: at_drop(method, 1),
            cost_of_0_5: interval(&|figures| figures.costs[method][0]),
            cost_of_1_0: interval(&|figures| figures.costs[method][1]),
            gap_closed: gap_closed(method),
            front: front(method),
            band: band(method),
        })
        .collect();
    methods.push(MethodSummary {
        name: "oracle".to_owned(),
        kind: MethodKind::Bound,
        area: interval(&|figures| figures.areas[oracle]),
        area_cal: None,
        cost_at_drop_0_5: None,
        cost_at_drop_1_0: None,
        cost_of_0_5: interval(&|figures| figures.costs[oracle][0]),
        cost_of_1_0: interval(&|figures| figures.costs[oracle][1]),
        gap_closed: gap_closed(oracle),
        front: Vec::new(),
        band: band(oracle),
    });
    let float_accuracy = interval(&|figures| figures.float);
    Ok(Summary {
        best_single: best_single.map(|method| methods[method].name.clone()),
        methods,
        float_accuracy,
        axis: Axis { floor: seeds[0].majority.test.accuracy(), least_cost: seeds[0].least_cost },
        seeds: seeds.len(),
        samples,
        resamples: bootstrap.resamples,
        resamples_of: resampled.into_iter().map(|figures| (figures.areas, figures.costs)).collect(),
    })
}

/// Number of test samples, if all seeds agree in everything that must be the same.
fn same_everywhere(seeds: &[SeedResult]) -> Result<usize, StudyError> {
    let differ = |what: String| StudyError::Seeds { what };
    let first = seeds.first().ok_or_else(|| differ("there is no seed".to_owned()))?;
    for (at, seed) in seeds.iter().enumerate() {
        let names = |seed: &SeedResult| seed.methods.iter().map(|m| (m.name.clone(), m.kind)).collect::<Vec<_>>();
        if names(seed) != names(first) {
            return Err(differ(format!("methods of seed {at}")));
        }
        if seed.majority.test.correct() != first.majority.test.correct() {
            return Err(differ(format!("test samples of seed {at}")));
        }
        if (seed.least_cost - first.least_cost).abs() > 1e-9 {
            return Err(differ(format!("cheapest path of seed {at}")));
        }
    }
    Ok(first.majority.test.samples())
}

impl Summary {
    fn find(&self, name: &str) -> Result<usize, StudyError> {
        self.methods.iter().position(|summary| summary.name == name).ok_or_else(|| StudyError::Method {
            name: name.to_owned(),
            known: self.methods.iter().map(|summary| summary.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Paired difference in area between two methods, and the share of cost saved at equal accuracy, on the same resamples.
    ///
    /// # Errors
    /// If there is no method of such a name.
    pub fn difference(&self, method: &str, against: &str) -> Result<Difference, StudyError> {
        let (a, b) = (self.find(method)?, self.find(against)?);
        let value = self.methods[a].area.value - self.methods[b].area.value;
        let area = Interval::new(value, self.resamples_of.iter().map(|(areas, _)| areas[a] - areas[b]).collect());
        let saved = |drop: usize, cost: fn(&MethodSummary) -> Interval| {
            let share = |a: f64, b: f64| 1.0 - a / b;
            let value = share(cost(&self.methods[a]).value, cost(&self.methods[b]).value);
            Interval::new(
                value,
                self.resamples_of.iter().map(|(_, costs)| share(costs[a][drop], costs[b][drop])).collect(),
            )
        };
        Ok(Difference {
            method: method.to_owned(),
            against: against.to_owned(),
            area,
            saved_0_5: saved(0, |method| method.cost_of_0_5),
            saved_1_0: saved(1, |method| method.cost_of_1_0),
        })
    }
}
