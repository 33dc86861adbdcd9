//! Methods of several studies on one axis: areas, accuracies along it, and their differences on the same test samples.
//!
//! [`summary`](crate::summary) does the same within one study. Here the fronts are given, chosen on *cal-a* when their study was made; nothing is
//! chosen again.

use crate::bootstrap::{Bootstrap, Interval};
use crate::curve::{Axis, cost_of_accuracy};
use crate::outcome::Choices;
use crate::summary::DROPS;

/// The front of one method and seed at what it does on *test*.
#[derive(Clone, Copy, Debug)]
pub struct SeedFront<'a> {
    /// Its settings.
    pub settings: &'a [Choices],
    /// The study's float backbone.
    pub float: &'a Choices,
    /// Always the most frequent training class.
    pub majority: &'a Choices,
}

/// Methods that were tested on the same samples.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// `[method][seed]`; methods of different studies may differ in their seeds.
    pub methods: Vec<Vec<SeedFront<'a>>>,
    /// `[seed]`: the float backbone that equal accuracy is measured against.
    pub reference: Vec<&'a Choices>,
    /// Cost at which the axis of the areas begins; it ends at 1.0.
    pub least_cost: f64,
    /// Costs at which accuracies are wanted.
    pub costs: Vec<f64>,
}

/// Figures of one method, means over its seeds.
#[derive(Clone, Debug, PartialEq)]
struct Figures {
    area: f64,
    /// Cost of an accuracy 0.5 and 1.0 points below the reference, where the curve, joined with its own float, gets there.
    costs: [Option<f64>; 2],
    /// At [`Overlay::costs`].
    accuracies: Vec<f64>,
}

/// One method on the samples themselves and on all resamples.
#[derive(Clone, Debug)]
pub struct Sampled {
    whole: Figures,
    resamples: Vec<Figures>,
    start: f64,
}

/// One method minus another.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// Difference in area.
    pub area: Interval,
    /// Share of the other's cost that the one saves at an accuracy 0.5 and 1.0 points below the reference; `None` where one of them never gets there.
    pub saved: [Option<Interval>; 2],
    /// Difference in accuracy at [`Overlay::costs`]; `None` where one of them has no setting that cheap.
    pub accuracies: Vec<Option<Interval>>,
}

impl Overlay<'_> {
    /// Evaluates all methods on the same resamples of `samples` test samples.
    ///
    /// # Panics
    /// If a method has no seed or no setting, there is no reference, or the samples differ in number.
    pub fn evaluate(&self, samples: usize, bootstrap: &Bootstrap) -> Vec<Sampled> {
        let fronts = || self.methods.iter().flatten();
        assert!(fronts().all(|front| !front.settings.is_empty()), "every front has a setting");
        assert!(self.methods.iter().all(|seeds| !seeds.is_empty()), "every method has a seed");
        assert!(!self.reference.is_empty(), "there is a reference");
        let mut rows: Vec<&Choices> = self.reference.clone();
        for front in fronts() {
            rows.extend([front.float, front.majority]);
            rows.extend(front.settings);
        }
        let whole = self.figures(|row| (rows[row].mean_cost(), rows[row].accuracy()));
        let by_resample =
            bootstrap.run(samples, &rows, |resample| self.figures(|row| (resample.cost(row), resample.accuracy(row))));
        let mut resamples: Vec<Vec<Figures>> =
            self.methods.iter().map(|_| Vec::with_capacity(bootstrap.resamples)).collect();
        for figures in by_resample {
            resamples.iter_mut().zip(figures).for_each(|(all, own)| all.push(own));
        }
        let start = |seeds: &Vec<SeedFront<'_>>| {
            let first =
                |front: &SeedFront<'_>| front.settings.iter().map(Choices::mean_cost).fold(f64::INFINITY, f64::min);
            mean(seeds.iter().map(first))
        };
        let parts = whole.into_iter().zip(resamples).zip(&self.methods);
        parts.map(|((whole, resamples), seeds)| Sampled { whole, resamples, start: start(seeds) }).collect()
    }

    /// Figures of every method; `point` gives cost and accuracy of a row, in the order of [`evaluate`](Self::evaluate).
    fn figures(&self, point: impl Fn(usize) -> (f64, f64)) -> Vec<Figures> {
        let mut next = self.reference.len();
        let reference = mean((0..next).map(|row| point(row).1));
        let mut of_seed = |front: &SeedFront<'_>| {
            let (float, majority) = (point(next), point(next + 1));
            let mut curve: Vec<(f64, f64)> = (0..front.settings.len()).map(|at| point(next + 2 + at)).collect();
            next += 2 + curve.len();
            let axis = Axis { least_cost: self.least_cost, floor: majority.1 };
            let first = curve.iter().map(|point| point.0).fold(f64::INFINITY, f64::min);
            // Left of its first point a seed's curve would drop to the floor; within the mean it counts as that point.
            let accuracies = self.costs.iter().map(|cost| axis.accuracy_at(&curve, cost.max(first))).collect();
            let area = axis.area(&curve);
            curve.push(float);
            Figures { area, costs: DROPS.map(|drop| cost_of_accuracy(&curve, reference - drop)), accuracies }
        };
        self.methods.iter().map(|seeds| average(&seeds.iter().map(&mut of_seed).collect::<Vec<_>>())).collect()
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn average(seeds: &[Figures]) -> Figures {
    let cost = |drop: usize| {
        let all: Option<Vec<f64>> = seeds.iter().map(|figures| figures.costs[drop]).collect();
        all.map(|all| mean(all.into_iter()))
    };
    Figures {
        area: mean(seeds.iter().map(|figures| figures.area)),
        costs: [cost(0), cost(1)],
        accuracies: (0..seeds[0].accuracies.len())
            .map(|at| mean(seeds.iter().map(|figures| figures.accuracies[at])))
            .collect(),
    }
}

impl Sampled {
    /// Area on the overlay's axis.
    pub fn area(&self) -> Interval {
        Interval::new(self.whole.area, self.resamples.iter().map(|figures| figures.area).collect())
    }

    /// This method minus `other`. Paired when both were evaluated on the same samples with the same bootstrap; unpaired when they were evaluated by
    /// overlays of different samples whose bootstraps have different seeds and as many resamples. `costs` are those of both overlays.
    pub fn lead(&self, other: &Self, costs: &[f64]) -> Lead {
        let difference = |figure: &dyn Fn(&Figures) -> f64| {
            let pairs = self.resamples.iter().zip(&other.resamples);
            Interval::new(
                figure(&self.whole) - figure(&other.whole),
                pairs.map(|(a, b)| figure(a) - figure(b)).collect(),
            )
        };
        let saved = |drop: usize| {
            let share = |a: &Figures, b: &Figures| Some(1.0 - a.costs[drop]? / b.costs[drop]?);
            let pairs = self.resamples.iter().zip(&other.resamples);
            // A resample in which one of them never gets there has no such share.
            Some(Interval::new(share(&self.whole, &other.whole)?, pairs.filter_map(|(a, b)| share(a, b)).collect()))
        };
        let start = self.start.max(other.start);
        let at_cost =
            |(at, cost): (usize, &f64)| (*cost >= start).then(|| difference(&|figures| figures.accuracies[at]));
        Lead {
            area: difference(&|figures| figures.area),
            saved: [saved(0), saved(1)],
            accuracies: costs.iter().enumerate().map(at_cost).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Price;

    const SAMPLES: usize = 400;

    fn choices(cost: f64, wrong_every: usize, shift: usize) -> Choices {
        let price = Price { exit: 1, cost, weight_bits: 8.0, ms: None };
        let correct = (0..SAMPLES).map(|sample| !(sample + shift).is_multiple_of(wrong_every)).collect();
        Choices::new(vec![price].into(), vec![0; SAMPLES], correct)
    }

    /// Float right on 90%, the most frequent class on 10%.
    fn references() -> (Choices, Choices) {
        let majority = Choices::new(
            vec![Price { exit: 0, cost: 0.0, weight_bits: 0.0, ms: None }].into(),
            vec![0; SAMPLES],
            (0..SAMPLES).map(|sample| sample % 10 == 0).collect(),
        );
        (choices(1.0, 10, 0), majority)
    }

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 300, seed: 0 };

    fn lead(one: &[Choices], other: &[Choices]) -> (Lead, Vec<Interval>) {
        let (float, majority) = references();
        let front = |settings| vec![SeedFront { settings, float: &float, majority: &majority }];
        let costs = vec![0.01, 0.05, 0.2, 1.0];
        let overlay = Overlay {
            methods: vec![front(one), front(other)],
            reference: vec![&float],
            least_cost: 0.01,
            costs: costs.clone(),
        };
        let sampled = overlay.evaluate(SAMPLES, &BOOTSTRAP);
        (sampled[0].lead(&sampled[1], &costs), sampled.iter().map(Sampled::area).collect())
    }

    #[test]
    fn a_method_has_no_lead_over_itself() {
        let front = [choices(0.02, 4, 0), choices(0.1, 10, 0)];
        let (lead, areas) = lead(&front, &front);
        let zero = Interval { value: 0.0, low: 0.0, high: 0.0 };
        assert_eq!((lead.area, lead.saved), (zero, [Some(zero); 2]));
        assert_eq!(lead.accuracies, [None, Some(zero), Some(zero), Some(zero)], "no setting costs as little as 0.01");
        assert!(areas[0].low < areas[0].high);
    }

    #[test]
    fn areas_and_savings_by_hand() {
        let (lead, areas) = lead(&[choices(0.05, 10, 0)], &[choices(0.1, 10, 0)]);
        let axis = Axis { least_cost: 0.01, floor: 0.1 };
        assert!((areas[0].value - axis.area(&[(0.05, 0.9)])).abs() < 1e-12);
        assert!((lead.saved[0].unwrap().value - 0.5).abs() < 1e-12, "the same accuracy at half the cost: {lead:?}");
        assert_eq!(lead.accuracies[1], None);
        assert_eq!(lead.accuracies[3].unwrap().value, 0.0);
    }

    #[test]
    fn pairing_narrows_the_interval() {
        // Both are wrong on a quarter; the one on the same samples as the other, or on others.
        let width = |lead: Lead| lead.area.high - lead.area.low;
        let other = [choices(0.05, 4, 0)];
        let same = width(lead(&[choices(0.05, 4, 0)], &other).0);
        let apart = width(lead(&[choices(0.05, 4, 1)], &other).0);
        assert!(same == 0.0 && apart > 0.02, "{same} {apart}");
    }

    #[test]
    fn an_accuracy_that_is_never_reached_saves_nothing() {
        let (float, majority) = references();
        let weak = choices(1.0, 4, 0);
        let settings = [choices(0.05, 4, 0)];
        let front = |float| vec![SeedFront { settings: &settings, float, majority: &majority }];
        let overlay = Overlay {
            methods: vec![front(&weak), front(&float)],
            reference: vec![&float],
            least_cost: 0.01,
            costs: Vec::new(),
        };
        let sampled = overlay.evaluate(SAMPLES, &BOOTSTRAP);
        assert_eq!(sampled[0].lead(&sampled[1], &[]).saved, [None, None]);
        assert!(sampled[1].lead(&sampled[1], &[]).saved[0].is_some());
    }
}
