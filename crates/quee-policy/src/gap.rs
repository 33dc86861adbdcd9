//! Where the distance between a policy and the oracle comes from.
//!
//! All figures are areas ([`crate::curve::Axis::area`]) on *test*, or the negative of any mean of `error + λ·cost` over a fixed
//! grid of λ: more is better. The distance `oracle − default` is split into four parts (a choice of this project):
//!
//! | part | is | and cannot mean |
//! | --- | --- | --- |
//! | estimation | `limit − default`, the limit by [`learning_curve`] over sizes of *fit* | more than an extrapolation of the same predictor class, exits and backbone; pictures like those of *fit* |
//! | approximation | the best other predictor class at the same data and planning, minus the default | what the best conceivable class wins: only the classes tried |
//! | planning | the best other planning on the same predictions, minus the default | a pure effect of planning where the other way brings its own predictions, as the chain on cells does |
//! | irreducible | the rest | the value of the outcomes to an oracle exactly: it is what nothing tried recovers |
//!
//! "The best" includes the default itself and is chosen by area on *cal-a*, so a part of 0 says that nothing else looked better
//! there, and a negative one that what looked better wasn't on *test*. A negative estimation part says that areas fell with
//! more data, by noise or because the shape does not fit. Every part is measured from the default on its own. They
//! overlap where two remedies cure the same ill (more data makes a richer class better as well) and leave out what only both
//! together win; either goes to the rest with its sign. So the rest is no bound, and comes with a [`Bracket`].
//!
//! The bracket is about the area of the best policy that sees only the features. A policy fitted without *test* is one of those:
//! it bounds the irreducible part from above, up to the noise of *test*. From below there is only a bound in tendency: cells
//! counted on *fit* and *test* together and tested on the same samples know what they should not, which flatters them more
//! the finer they are. It holds for policies on these cells, not for finer features, and as the chain forgets earlier cells,
//! not strictly for those either. Such a fit is a diagnostic: it must never appear as a method.

use serde::Serialize;
use thiserror::Error;

/// A learning curve that can't be extrapolated.
#[derive(Debug, Error, PartialEq)]
pub enum GapError {
    /// Two lines can't be told apart by fewer sizes.
    #[error("a learning curve needs at least three different sizes of fit, got {0}")]
    Sizes(usize),
    /// A size of 0, or an area that is no number.
    #[error("point {0} of a learning curve needs a positive size and a finite area")]
    Point(usize),
}

/// How an area approaches its limit with the size `n` of *fit*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// `limit + slope / n`: the excess error of a well-specified regular estimator.
    Inverse,
    /// `limit + slope / √n`: slower, as where decisions turn on noisy small differences.
    InverseRoot,
}

/// An area extrapolated to an endless *fit*.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Extrapolation {
    /// The shape that fits better.
    pub shape: Shape,
    /// Area without end of data; not clamped to what is possible.
    pub limit: f64,
    /// Factor of `1/n` or `1/√n`; negative where more data helps.
    pub slope: f64,
    /// Standard error of the limit if the shape is right, from the scatter of the points about the line. It knows neither the
    /// error by the shape (see [`Extrapolation::other_limit`]) nor the noise of the test samples, which all points share.
    pub standard_error: f64,
    /// Weighted root mean square of the distances from the line.
    pub residual: f64,
    /// The limit by the shape that fits less well: far from [`Extrapolation::limit`], the sizes do not settle it.
    pub other_limit: f64,
}

/// Fits `area ≈ limit + slope·x`, `x` being `1/n` or `1/√n`, by weighted least squares to points of size `n` of *fit* and area.
/// Of the two shapes the one with the smaller residual counts, ties to `1/n`.
///
/// Weights are `n`: the variance of an area over draws of *fit* is taken to fall as `1/n` (a choice of this project). Sizes may
/// repeat (seeds, subsets). If smaller sets are parts of larger ones, points are not independent and the standard error is too
/// small.
///
/// # Errors
/// With fewer than three different sizes, a size of 0, or an area that is not finite.
pub fn learning_curve(points: &[(usize, f64)]) -> Result<Extrapolation, GapError> {
    if let Some(at) = points.iter().position(|(n, area)| *n == 0 || !area.is_finite()) {
        return Err(GapError::Point(at));
    }
    let mut sizes: Vec<usize> = points.iter().map(|point| point.0).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.len() < 3 {
        return Err(GapError::Sizes(sizes.len()));
    }
    let [inverse, root] = [Shape::Inverse, Shape::InverseRoot].map(|shape| line(points, shape));
    let (best, other) = if inverse.residual <= root.residual { (inverse, root) } else { (root, inverse) };
    Ok(Extrapolation { other_limit: other.limit, ..best })
}

/// The weighted line through points of at least three different sizes.
fn line(points: &[(usize, f64)], shape: Shape) -> Extrapolation {
    let x = |n: usize| match shape {
        Shape::Inverse => 1.0 / n as f64,
        Shape::InverseRoot => 1.0 / (n as f64).sqrt(),
    };
    let sum = |term: &dyn Fn(f64, f64) -> f64| points.iter().map(|(n, y)| *n as f64 * term(x(*n), *y)).sum::<f64>();
    let weight = sum(&|_, _| 1.0);
    let (x_mean, y_mean) = (sum(&|x, _| x) / weight, sum(&|_, y| y) / weight);
    let spread = sum(&|x, _| (x - x_mean).powi(2));
    let slope = sum(&|x, y| (x - x_mean) * (y - y_mean)) / spread;
    let limit = y_mean - slope * x_mean;
    let squares = sum(&|x, y| (y - limit - slope * x).powi(2));
    let variance = squares / (points.len() - 2) as f64;
    Extrapolation {
        shape,
        limit,
        slope,
        standard_error: (variance * (1.0 / weight + x_mean.powi(2) / spread)).sqrt(),
        residual: (squares / weight).sqrt(),
        other_limit: limit,
    }
}

/// A policy by its areas.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name for people.
    pub name: String,
    /// Area on *cal-a*, by which candidates are chosen.
    pub area_cal: f64,
    /// Area on *test*.
    pub area: f64,
}

/// What a decomposition takes; see the module for what each is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Area of the oracle.
    pub oracle: f64,
    /// The policy whose distance is to be explained.
    pub default: Candidate,
    /// Other planning on the same predictions.
    pub planning_alternatives: Vec<Candidate>,
    /// Other predictor classes, same data and planning.
    pub class_alternatives: Vec<Candidate>,
    /// Area of the default with an endless *fit*, from [`learning_curve`].
    pub limit: f64,
    /// Area of a policy on cells counted on *fit* and *test* together, if there is one.
    pub in_sample: Option<f64>,
}

/// Between what the irreducible part lies, up to noise. The ends may cross where the features are poor and *test* is small.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bracket {
    /// `oracle − in_sample`: a lower end in tendency.
    pub low: Option<f64>,
    /// `oracle −` the best on *cal-a* of the default and all alternatives: a policy that exists.
    pub high: f64,
}

/// The parts of `oracle − default`; they add up to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decomposition {
    /// What none of the other parts recovers.
    pub irreducible: f64,
    /// What more data would bring.
    pub estimation: f64,
    /// What another predictor class brings.
    pub approximation: f64,
    /// What other planning brings.
    pub planning: f64,
    /// Name of the predictor class chosen on *cal-a*; the default's name if none looked better.
    pub class: String,
    /// Name of the planning chosen on *cal-a*; the default's name if none looked better.
    pub planner: String,
    /// What is known of the irreducible part without adding up.
    pub bracket: Bracket,
}

/// The best on *cal-a*, ties to the default, then to the first.
fn best<'a>(default: &'a Candidate, others: impl IntoIterator<Item = &'a Candidate>) -> &'a Candidate {
    others.into_iter().fold(default, |best, other| if other.area_cal > best.area_cal { other } else { best })
}

/// Splits `oracle − default` as the module says.
///
/// # Panics
/// If a figure is not finite.
pub fn decompose(parts: &Parts) -> Decomposition {
    let Parts { oracle, default, planning_alternatives, class_alternatives, limit, in_sample } = parts;
    let all = || std::iter::once(default).chain(class_alternatives).chain(planning_alternatives);
    let figures = all().flat_map(|candidate| [candidate.area_cal, candidate.area]).chain([*oracle, *limit]);
    assert!(figures.chain(*in_sample).all(f64::is_finite), "areas are finite: {parts:?}");
    let class = best(default, class_alternatives);
    let planner = best(default, planning_alternatives);
    let estimation = limit - default.area;
    let approximation = class.area - default.area;
    let planning = planner.area - default.area;
    Decomposition {
        irreducible: oracle - default.area - estimation - approximation - planning,
        estimation,
        approximation,
        planning,
        class: class.name.clone(),
        planner: planner.name.clone(),
        bracket: Bracket { low: in_sample.map(|area| oracle - area), high: oracle - best(default, all()).area },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(shape: impl Fn(f64) -> f64, sizes: &[usize]) -> Vec<(usize, f64)> {
        sizes.iter().map(|n| (*n, shape(*n as f64))).collect()
    }

    #[test]
    fn finds_shape_and_limit_of_exact_curves() {
        let sizes = [300, 600, 1_200, 2_400];
        let inverse = learning_curve(&curve(|n| 0.62 - 30.0 / n, &sizes)).unwrap();
        assert_eq!(inverse.shape, Shape::Inverse);
        assert!((inverse.limit - 0.62).abs() < 1e-12 && (inverse.slope + 30.0).abs() < 1e-9, "{inverse:?}");
        assert!(inverse.standard_error < 1e-12 && inverse.other_limit > 0.62, "{inverse:?}");
        let root = learning_curve(&curve(|n| 0.62 - 0.8 / n.sqrt(), &sizes)).unwrap();
        assert_eq!(root.shape, Shape::InverseRoot);
        assert!((root.limit - 0.62).abs() < 1e-12 && root.other_limit < 0.62, "{root:?}");
    }

    /// Scatter that falls with √n, as the weights assume: the limit lies within its standard error as often as it should.
    #[test]
    fn standard_error_is_that_of_the_limit() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let sizes: Vec<usize> = [250, 500, 1_000, 2_000].iter().flat_map(|n| [*n; 6]).collect();
        let (mut squares, mut promised) = (0.0, 0.0);
        let trials = 2_000;
        for _ in 0..trials {
            let mut noise = || (0..12).map(|_| rng.random::<f64>() - 0.5).sum::<f64>();
            let points: Vec<(usize, f64)> =
                sizes.iter().map(|n| (*n, 0.6 - 20.0 / *n as f64 + 0.2 * noise() / (*n as f64).sqrt())).collect();
            let fit = line(&points, Shape::Inverse);
            squares += (fit.limit - 0.6).powi(2) / trials as f64;
            promised += fit.standard_error.powi(2) / trials as f64;
        }
        assert!((squares / promised - 1.0).abs() < 0.12, "{squares} {promised}");
    }

    #[test]
    fn refuses_curves_that_say_nothing() {
        assert_eq!(learning_curve(&[(10, 0.1), (20, 0.2), (20, 0.3)]), Err(GapError::Sizes(2)));
        assert_eq!(learning_curve(&[(10, 0.1), (0, 0.2), (20, 0.3)]), Err(GapError::Point(1)));
        assert_eq!(learning_curve(&[(10, f64::NAN)]), Err(GapError::Point(0)));
    }

    fn candidate(name: &str, area_cal: f64, area: f64) -> Candidate {
        Candidate { name: name.to_owned(), area_cal, area }
    }

    fn parts() -> Parts {
        Parts {
            oracle: 0.88,
            default: candidate("open loop", 0.60, 0.61),
            planning_alternatives: vec![candidate("chain", 0.59, 0.65), candidate("fitted", 0.605, 0.60)],
            class_alternatives: vec![candidate("forest", 0.62, 0.625), candidate("logistic", 0.58, 0.70)],
            limit: 0.64,
            in_sample: Some(0.75),
        }
    }

    #[test]
    fn alternatives_are_chosen_on_cal_and_counted_on_test() {
        let got = decompose(&parts());
        assert_eq!((got.class.as_str(), got.planner.as_str()), ("forest", "fitted"));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(got.approximation, 0.015) && near(got.planning, -0.01) && near(got.estimation, 0.03), "{got:?}");
        assert!(near(got.irreducible, 0.88 - 0.61 - 0.035), "{got:?}");
        assert!(near(got.bracket.low.unwrap(), 0.13) && near(got.bracket.high, 0.88 - 0.625), "{got:?}");
    }

    #[test]
    fn nothing_better_on_cal_is_no_part() {
        let default = candidate("open loop", 0.63, 0.61);
        let got = decompose(&Parts { default, limit: 0.61, in_sample: None, ..parts() });
        assert_eq!((got.approximation, got.planning, got.estimation), (0.0, 0.0, 0.0));
        assert_eq!((got.class.as_str(), got.planner.as_str()), ("open loop", "open loop"));
        assert_eq!((got.irreducible, got.bracket), (0.88 - 0.61, Bracket { low: None, high: 0.88 - 0.61 }));
    }

    proptest! {
        #[test]
        fn parts_add_up(
            oracle in 0.0f64..1.0, limit in 0.0f64..1.0, default in (0.0f64..1.0, 0.0f64..1.0),
            others in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 0..6), split in 0usize..6,
        ) {
            let named: Vec<Candidate> = others.iter().map(|(cal, test)| candidate("other", *cal, *test)).collect();
            let (planning, class) = named.split_at(split.min(named.len()));
            let got = decompose(&Parts {
                oracle,
                default: candidate("default", default.0, default.1),
                planning_alternatives: planning.to_vec(),
                class_alternatives: class.to_vec(),
                limit,
                in_sample: None,
            });
            let sum = got.irreducible + got.estimation + got.approximation + got.planning;
            prop_assert!((sum - (oracle - default.1)).abs() < 1e-12);
        }
    }
}
