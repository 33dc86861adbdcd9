//! Features brought to mean 0 and deviation 1.

use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::error::{expect_finite, expect_len, expect_rows};

/// A feature that deviates less than this is taken as constant and only centred.
const STD_FLOOR: f64 = 1e-4;

/// Standardised values are cut here: what was seen once in thousands of samples must not throw a predictor.
const LIMIT: f32 = 10.0;

/// Mean and standard deviation of each feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standardizer {
    /// Mean, `[dim]`.
    pub mean: Vec<f32>,
    /// Standard deviation, `[dim]`; 1 for features that are (nearly) constant.
    pub std: Vec<f32>,
}

impl Standardizer {
    /// Mean and population deviation of `rows` `[n, dim]`, row by row.
    ///
    /// # Errors
    /// When there are no rows, the last row is incomplete, or a value is not finite.
    pub fn fit(rows: &[f32], dim: usize) -> Result<Self, HeadsError> {
        let n = expect_rows("features", rows, dim)? as f64;
        let mut mean = vec![0f64; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
        }
        let mut variance = vec![0f64; dim];
        for row in rows.chunks_exact(dim) {
            for ((variance, &v), mean) in variance.iter_mut().zip(row).zip(&mean) {
                *variance += (f64::from(v) - mean).powi(2) / n;
            }
        }
        let std = variance.iter().map(|v| if v.sqrt() < STD_FLOOR { 1.0 } else { v.sqrt() as f32 }).collect();
        Ok(Self { mean: mean.into_iter().map(|m| m as f32).collect(), std })
    }

    /// Number of features.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Standardises `rows` `[n, dim]` in place; values beyond ±10 deviations are cut there.
    ///
    /// # Panics
    /// When the rows do not consist of [`dim`](Self::dim) values.
    pub fn apply(&self, rows: &mut [f32]) {
        assert_eq!(rows.len() % self.dim(), 0, "rows of {} features", self.dim());
        rows.chunks_exact_mut(self.dim()).for_each(|row| self.apply_from(0, row));
    }

    /// Standardises a part of one row in place: `values` are features number `first` and those behind it.
    pub(crate) fn apply_from(&self, first: usize, values: &mut [f32]) {
        for ((v, mean), std) in values.iter_mut().zip(&self.mean[first..]).zip(&self.std[first..]) {
            *v = ((*v - mean) / std).clamp(-LIMIT, LIMIT);
        }
    }

    /// Checks a standardizer that was read for `dim` features.
    ///
    /// # Errors
    /// When the lengths differ from `dim`, a value is not finite, or a deviation is not positive.
    pub fn check(&self, dim: usize) -> Result<(), HeadsError> {
        expect_len("means of the features", dim, self.mean.len())?;
        expect_len("deviations of the features", dim, self.std.len())?;
        expect_finite("means of the features", &self.mean)?;
        expect_finite("deviations of the features", &self.std)?;
        match self.std.iter().find(|&&s| s <= 0.0) {
            Some(s) => Err(HeadsError::Setting {
                what: "deviation of a feature",
                value: s.to_string(),
                hint: "it must be positive",
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_get_mean_zero_and_deviation_one() {
        let mut rows = [1.0, 5.0, 10.0, 3.0, 5.0, 30.0, 2.0, 5.0, 20.0, 6.0, 5.0, 0.0];
        let standardizer = Standardizer::fit(&rows, 3).unwrap();
        assert_eq!(standardizer.std[1], 1.0, "a constant column is only centred");
        standardizer.apply(&mut rows);
        for column in [0, 2] {
            let values: Vec<f32> = rows.iter().skip(column).step_by(3).copied().collect();
            let mean = values.iter().sum::<f32>() / 4.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "column {column}: {mean}, {variance}");
        }
        assert!(rows.iter().skip(1).step_by(3).all(|&v| v == 0.0));
    }

    #[test]
    fn outliers_are_cut() {
        let standardizer = Standardizer::fit(&[0.0, 1.0], 1).unwrap();
        let mut rows = [1e9, -1e9];
        standardizer.apply(&mut rows);
        assert_eq!(rows, [10.0, -10.0]);
    }

    #[test]
    fn broken_rows_are_refused() {
        assert!(Standardizer::fit(&[], 2).is_err());
        assert!(Standardizer::fit(&[1.0, 2.0, 3.0], 2).is_err());
        assert!(Standardizer::fit(&[1.0, f32::NAN], 2).is_err());
        assert!(Standardizer { mean: vec![0.0], std: vec![0.0] }.check(1).is_err());
        assert!(Standardizer { mean: vec![0.0], std: vec![1.0] }.check(2).is_err());
    }
}
