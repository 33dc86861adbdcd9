//! Error rates of cells, smoothed where samples are few: training targets, and a predictor of their own.
//!
//! In cell `c`, after prefix `p`, suffix `q` was wrong `m` times of `n`. Its rate is `(m + α·r) / (n + α)`, where `r` is
//! the rate of the same cell and suffix over all prefixes, itself smoothed in the same way towards the gate's rate of
//! that suffix over all cells and prefixes. The formula is a choice of this project; QuEE (arXiv 2406.14404) says that
//! feature space is discretised.

use serde::{Deserialize, Serialize};

use crate::error::{expect_finite, expect_len};
use crate::{ABSENT, HeadsError};

/// The default of α: the number of samples that the coarser rate is worth.
pub const SMOOTHING: f64 = 8.0;

/// Rate of a suffix that follows no prefix at all: a certain error, so that nothing which overlooks that it is absent
/// would choose it.
const RATE_OF_ABSENT: f64 = 1.0;

/// A probability of error for every cell, prefix and suffix of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateTable {
    /// Number of cells.
    pub cells: usize,
    /// Number of prefixes.
    pub prefixes: usize,
    /// Number of suffixes.
    pub suffixes: usize,
    /// `[cells, prefixes, suffixes]`, 0 to 1. Pairs of prefix and suffix that are absent hold the rate over prefixes,
    /// and suffixes that are absent after every prefix hold 1.
    pub rates: Vec<f32>,
}

impl RateTable {
    /// Probability of error in `cell` after `prefix` if `suffix` follows.
    ///
    /// # Panics
    /// When one of the three does not exist.
    pub fn get(&self, cell: usize, prefix: usize, suffix: usize) -> f32 {
        assert!(suffix < self.suffixes, "suffix {suffix} of {}", self.suffixes);
        self.row(cell, prefix)[suffix]
    }

    /// Probabilities of error `[suffixes]` in `cell` after `prefix`.
    ///
    /// # Panics
    /// When one of the two does not exist.
    pub fn row(&self, cell: usize, prefix: usize) -> &[f32] {
        assert!(prefix < self.prefixes, "prefix {prefix} of {}", self.prefixes);
        let start = (cell * self.prefixes + prefix) * self.suffixes;
        &self.rates[start..start + self.suffixes]
    }

    /// Checks a table that was read.
    ///
    /// # Errors
    /// When the number of rates does not fit, or one is not between 0 and 1.
    pub fn check(&self) -> Result<(), HeadsError> {
        let expected = self.cells.saturating_mul(self.prefixes).saturating_mul(self.suffixes);
        expect_len("error rates", expected, self.rates.len())?;
        expect_finite("error rates", &self.rates)?;
        match self.rates.iter().find(|r| !(0.0..=1.0).contains(*r)) {
            Some(r) => {
                Err(HeadsError::Setting { what: "error rate", value: r.to_string(), hint: "rates lie between 0 and 1" })
            }
            None => Ok(()),
        }
    }
}

/// The sizes of a gate's table of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of prefixes.
    pub prefixes: usize,
    /// Number of suffixes.
    pub suffixes: usize,
    /// Number of samples.
    pub samples: usize,
}

/// Smoothed rates from arrays: `wrong` `[prefixes, suffixes, samples]` of 0, 1 or [`ABSENT`], `cell`
/// `[prefixes, samples]` below `cells`.
///
/// # Errors
/// When a length does not fit, or as in [`smoothed_rates_from`].
pub fn smoothed_rates(
    shape: Shape,
    wrong: &[u8],
    cell: &[u32],
    cells: usize,
    alpha: f64,
) -> Result<RateTable, HeadsError> {
    let Shape { prefixes, suffixes, samples } = shape;
    expect_len("outcomes", prefixes * suffixes * samples, wrong.len())?;
    expect_len("cells of the samples", prefixes * samples, cell.len())?;
    smoothed_rates_from(
        shape,
        |prefix, suffix, sample| wrong[(prefix * suffixes + suffix) * samples + sample],
        |prefix, sample| cell[prefix * samples + sample],
        cells,
        alpha,
    )
}

/// Smoothed rates from functions: `wrong(prefix, suffix, sample)` is 0, 1 or [`ABSENT`], `cell(prefix, sample)` below
/// `cells` (never asked where the outcome is absent). Samples that take no part are absent everywhere.
///
/// # Errors
/// When `alpha` is negative or not finite, an outcome has no meaning, or a cell does not exist.
pub fn smoothed_rates_from(
    shape: Shape,
    wrong: impl Fn(usize, usize, usize) -> u8,
    cell: impl Fn(usize, usize) -> u32,
    cells: usize,
    alpha: f64,
) -> Result<RateTable, HeadsError> {
    check_smoothing(alpha)?;
    let Shape { prefixes, suffixes, samples } = shape;
    let mut counts = vec![Count::default(); cells * prefixes * suffixes];
    for prefix in 0..prefixes {
        for suffix in 0..suffixes {
            for sample in 0..samples {
                let outcome = wrong(prefix, suffix, sample);
                if outcome == ABSENT {
                    continue;
                }
                if outcome > 1 {
                    return Err(HeadsError::Outcome { value: outcome, prefix, suffix, sample });
                }
                let cell = cell(prefix, sample);
                if cell as usize >= cells {
                    return Err(HeadsError::Cell { cell, cells, prefix, sample });
                }
                counts[(cell as usize * prefixes + prefix) * suffixes + suffix].add(outcome);
            }
        }
    }
    let count = |c: usize, p: usize, q: usize| counts[(c * prefixes + p) * suffixes + q];
    let gate: Vec<f64> = (0..suffixes)
        .map(|q| (0..cells * prefixes).map(|cp| count(0, cp, q)).sum::<Count>().rate().unwrap_or(RATE_OF_ABSENT))
        .collect();
    let mut rates = vec![0.0; counts.len()];
    for c in 0..cells {
        for (q, &gate) in gate.iter().enumerate() {
            let pooled = (0..prefixes).map(|p| count(c, p, q)).sum::<Count>().smoothed(alpha, gate);
            for p in 0..prefixes {
                rates[(c * prefixes + p) * suffixes + q] = count(c, p, q).smoothed(alpha, pooled) as f32;
            }
        }
    }
    Ok(RateTable { cells, prefixes, suffixes, rates })
}

fn check_smoothing(alpha: f64) -> Result<(), HeadsError> {
    if alpha.is_finite() && alpha >= 0.0 {
        return Ok(());
    }
    Err(HeadsError::Setting { what: "smoothing", value: alpha.to_string(), hint: "take 0 or more, such as 8" })
}

/// Errors among outcomes.
#[derive(Clone, Copy, Default)]
struct Count {
    n: f64,
    wrong: f64,
}

impl Count {
    fn add(&mut self, outcome: u8) {
        self.n += 1.0;
        self.wrong += f64::from(outcome);
    }

    fn rate(self) -> Option<f64> {
        (self.n > 0.0).then(|| self.wrong / self.n)
    }

    fn smoothed(self, alpha: f64, towards: f64) -> f64 {
        if self.n + alpha == 0.0 { towards } else { (self.wrong + alpha * towards) / (self.n + alpha) }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self { n: a.n + b.n, wrong: a.wrong + b.wrong })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_worked_by_hand() {
        // Two prefixes, one suffix, four samples; cell 0 holds two samples of prefix 0 and one of prefix 1.
        let shape = Shape { prefixes: 2, suffixes: 1, samples: 4 };
        let wrong = [1, 1, 0, 0, 0, 1, 0, 0];
        let cell = [0, 0, 1, 1, 0, 1, 1, 1];
        let table = smoothed_rates(shape, &wrong, &cell, 2, 2.0).unwrap();
        let gate = 3.0 / 8.0;
        let pooled = (2.0 + 2.0 * gate) / (3.0 + 2.0);
        assert!((f64::from(table.get(0, 0, 0)) - (2.0 + 2.0 * pooled) / 4.0).abs() < 1e-7);
        assert!((f64::from(table.get(0, 1, 0)) - (0.0 + 2.0 * pooled) / 3.0).abs() < 1e-7);
    }

    #[test]
    fn absent_pairs_fall_back_and_absent_suffixes_are_errors() {
        let shape = Shape { prefixes: 2, suffixes: 2, samples: 2 };
        // Suffix 0 exists after prefix 0 only, suffix 1 nowhere; cells of absent samples need not exist.
        let wrong = [1, 0, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT];
        let table = smoothed_rates(shape, &wrong, &[0, 0, 9, 9], 1, 8.0).unwrap();
        assert_eq!(table.row(0, 0), [0.5, 1.0]);
        assert_eq!(table.row(0, 1), [0.5, 1.0]);
    }

    #[test]
    fn without_smoothing_the_rates_are_raw() {
        let shape = Shape { prefixes: 1, suffixes: 1, samples: 4 };
        let table = smoothed_rates(shape, &[1, 0, 0, 0], &[0, 0, 0, 2], 3, 0.0).unwrap();
        assert_eq!(table.rates, [1.0 / 3.0, 0.25, 0.0]);
    }

    #[test]
    fn mistakes_are_named() {
        let shape = Shape { prefixes: 1, suffixes: 1, samples: 2 };
        assert!(smoothed_rates(shape, &[0, 2], &[0, 0], 1, 8.0).unwrap_err().to_string().contains("outcome 2"));
        assert!(smoothed_rates(shape, &[0, 1], &[0, 1], 1, 8.0).unwrap_err().to_string().contains("cell 1"));
        assert!(smoothed_rates(shape, &[0, 1], &[0], 1, 8.0).is_err());
        assert!(smoothed_rates(shape, &[0], &[0, 0], 1, 8.0).is_err());
        assert!(smoothed_rates(shape, &[0, 1], &[0, 0], 1, -1.0).is_err());
        assert!(RateTable { cells: 1, prefixes: 1, suffixes: 1, rates: vec![1.5] }.check().is_err());
        assert!(RateTable { cells: 1, prefixes: 1, suffixes: 2, rates: vec![0.5] }.check().is_err());
    }

    proptest! {
        #[test]
        fn targets_lie_between_the_rate_of_the_cell_and_the_pooled_rate(
            wrong in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(ABSENT)], 2 * 3 * 20),
            cell in prop::collection::vec(0u32..4, 2 * 20),
            alpha in 0f64..20.0,
        ) {
            let shape = Shape { prefixes: 2, suffixes: 3, samples: 20 };
            let table = smoothed_rates(shape, &wrong, &cell, 4, alpha).unwrap();
            prop_assert!(table.check().is_ok());
            for (c, q) in (0..4).flat_map(|c| (0..3).map(move |q| (c, q))) {
                let raw = |inside: &dyn Fn(usize, u32) -> bool| -> (f64, f64) {
                    let hits = (0..2).flat_map(|p| (0..20).map(move |i| (p, i)))
                        .filter(|&(p, i)| inside(p, cell[p * 20 + i]))
                        .map(|(p, i)| wrong[(p * 3 + q) * 20 + i]).filter(|&w| w != ABSENT);
                    hits.fold((0.0, 0.0), |(n, m), w| (n + 1.0, m + f64::from(w)))
                };
                let (all_n, all_m) = raw(&|_, _| true);
                if all_n == 0.0 {
                    continue;
                }
                let (n, m) = raw(&|_, found| found == c);
                let pooled = if n + alpha == 0.0 { all_m / all_n } else { (m + alpha * all_m / all_n) / (n + alpha) };
                for p in 0..2 {
                    let target = f64::from(table.get(c as usize, p, q));
                    let (n, m) = raw(&|prefix, found| prefix == p && found == c);
                    let own = if n == 0.0 { pooled } else { m / n };
                    prop_assert!(target >= own.min(pooled) - 1e-6 && target <= own.max(pooled) + 1e-6);
                }
            }
        }
    }
}
