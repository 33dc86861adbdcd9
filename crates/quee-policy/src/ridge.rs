//! Ridge regression on a fixed basis: a constant, the features, and random ReLU units.
//!
//! The units are drawn and never trained (an extreme learning machine: Huang, Zhu and Siew, Neurocomputing 70, 2006),
//! so a fit is linear in its targets: sums of products and their Cholesky factor are found once, each new target costs
//! one right-hand side.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Columns that vary less than this (mean square about the mean) carry nothing and get no weight.
const LEAST_VARIANCE: f64 = 1e-12;
/// Pivots stay above this share of their diagonal element: what rounding may leave of a column that others determine.
const LEAST_PIVOT: f64 = 1e-14;

/// Units whose sums are kept in registers at a time.
const UNITS: usize = 16;

/// Scalar product of vectors of one length; eight partial sums, so that the order of additions is fixed and the
/// compiler can use vector instructions.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut lanes = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    rest + lanes.iter().sum::<f64>()
}

/// `sums += factor · row`.
pub(crate) fn add_scaled(sums: &mut [f64], factor: f64, row: &[f64]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}

/// The functions that a regression is linear in: constant, features, ReLU units, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    features: usize,
    /// `[feature][unit]`.
    weights: Vec<f32>,
    /// `[unit]`.
    bias: Vec<f32>,
}

impl Basis {
    /// Draws the units. Weights are uniform with variance `1 / features`, so that features of variance 1 give sums of
    /// about variance 1; biases are uniform in −1..1, so that the kinks lie where the samples are.
    pub(crate) fn new(features: usize, units: usize, rng: &mut ChaCha8Rng) -> Self {
        let reach = (3.0 / features.max(1) as f32).sqrt();
        let weights = (0..features * units).map(|_| rng.random_range(-reach..reach)).collect();
        Self { features, weights, bias: (0..units).map(|_| rng.random_range(-1.0..1.0)).collect() }
    }

    /// Number of functions.
    pub(crate) fn len(&self) -> usize {
        1 + self.features + self.bias.len()
    }

    /// Values of all functions `[len]` at `features` `[features]`, written to `row`.
    pub(crate) fn expand(&self, features: &[f32], row: &mut Vec<f64>) {
        row.clear();
        row.push(1.0);
        row.extend(features.iter().map(|feature| f64::from(*feature)));
        for (at, bias) in self.bias.chunks(UNITS).enumerate() {
            let mut sums = [0.0f32; UNITS];
            sums[..bias.len()].copy_from_slice(bias);
            for (weights, feature) in self.weights.chunks_exact(self.bias.len()).zip(features) {
                let weights = &weights[at * UNITS..at * UNITS + bias.len()];
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += feature * weight);
            }
            row.extend(sums[..bias.len()].iter().map(|sum| f64::from(sum.max(0.0))));
        }
    }
}

/// Sums of products of the basis functions over rows.
#[derive(Clone, Debug)]
pub(crate) struct Gram {
    dim: usize,
    /// `[dim][dim]`, lower triangle.
    sums: Vec<f64>,
}

impl Gram {
    pub(crate) fn new(dim: usize) -> Self {
        Self { dim, sums: vec![0.0; dim * dim] }
    }

    /// Adds one row `[dim]`.
    pub(crate) fn add_row(&mut self, row: &[f64]) {
        for (at, x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            add_scaled(&mut self.sums[at * self.dim..=at * self.dim + at], *x, row);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        add_scaled(&mut self.sums, 1.0, &other.sums);
    }

    /// Sum of squared residuals over the rows summed here, of weights `[dim]` and targets given by their sum of squares
    /// and their products with the rows `[dim]`.
    pub(crate) fn residual(&self, weights: &[f64], targets: &[f64], squares: f64) -> f64 {
        let quadratic = |at: usize| {
            let row = &self.sums[at * self.dim..=at * self.dim + at];
            weights[at] * (2.0 * dot(&row[..at], &weights[..at]) + row[at] * weights[at])
        };
        squares - 2.0 * dot(targets, weights) + (0..self.dim).map(quadratic).sum::<f64>()
    }

    /// Factor of the normal equations. `ridge` is the penalty on a squared weight in units of its column's variance, so
    /// the scale of a column doesn't matter; the constant is free.
    pub(crate) fn factor(&self, ridge: f64) -> Factor {
        let (dim, rows) = (self.dim, self.sums[0]);
        let mut lower = self.sums.clone();
        for at in 1..dim {
            let mean = self.sums[at * dim] / rows;
            let variance = self.sums[at * dim + at] / rows - mean * mean;
            lower[at * dim + at] += rows * if variance > LEAST_VARIANCE { ridge * variance } else { 1.0 };
        }
        for at in 0..dim {
            let (above, row) = lower.split_at_mut(at * dim);
            for column in 0..at {
                let other = &above[column * dim..=column * dim + column];
                row[column] = (row[column] - dot(&row[..column], &other[..column])) / other[column];
            }
            let pivot = row[at] - dot(&row[..at], &row[..at]);
            row[at] = pivot.max(LEAST_PIVOT * row[at]).sqrt();
        }
        Factor { dim, lower }
    }
}

/// Cholesky factor of penalised normal equations.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    dim: usize,
    lower: Vec<f64>,
}

impl Factor {
    /// Weights `[dim]` for targets given by their products with the rows `[dim]`.
    pub(crate) fn solve(&self, targets: &[f64]) -> Vec<f64> {
        let (dim, mut weights) = (self.dim, targets.to_vec());
        for at in 0..dim {
            let row = &self.lower[at * dim..=at * dim + at];
            weights[at] = (weights[at] - dot(&row[..at], &weights[..at])) / row[at];
        }
        for at in (0..dim).rev() {
            let row = &self.lower[at * dim..=at * dim + at];
            let (before, weight) = weights.split_at_mut(at);
            weight[0] /= row[at];
            add_scaled(before, -weight[0], &row[..at]);
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Random rows of a basis, and their sums.
    fn rows(basis: &Basis, count: usize, seed: u64) -> (Vec<Vec<f64>>, Gram) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut gram = Gram::new(basis.len());
        let row = |_| {
            let features: Vec<f32> = (0..basis.features).map(|_| rng.random_range(-1.7f32..1.7)).collect();
            let mut row = Vec::new();
            basis.expand(&features, &mut row);
            gram.add_row(&row);
            row
        };
        ((0..count).map(row).collect(), gram)
    }

    fn products(rows: &[Vec<f64>], targets: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; rows[0].len()];
        rows.iter().zip(targets).for_each(|(row, target)| add_scaled(&mut sums, *target, row));
        sums
    }

    #[test]
    fn finds_the_weights_that_made_the_targets() {
        let basis = Basis::new(3, 9, &mut ChaCha8Rng::seed_from_u64(1));
        let (rows, gram) = rows(&basis, 200, 2);
        let truth: Vec<f64> = (0..basis.len()).map(|at| at as f64 - 4.0).collect();
        let targets: Vec<f64> = rows.iter().map(|row| dot(row, &truth)).collect();
        let weights = gram.factor(1e-12).solve(&products(&rows, &targets));
        weights.iter().zip(&truth).for_each(|(got, want)| assert!((got - want).abs() < 1e-6, "{got} {want}"));
    }

    #[test]
    fn units_fit_what_is_not_linear() {
        let fit = |units| {
            let basis = Basis::new(1, units, &mut ChaCha8Rng::seed_from_u64(3));
            let (rows, gram) = rows(&basis, 500, 4);
            let targets: Vec<f64> = rows.iter().map(|row| row[1].abs()).collect();
            let (sums, squares) = (products(&rows, &targets), dot(&targets, &targets));
            let weights = gram.factor(1e-6).solve(&sums);
            let residual = gram.residual(&weights, &sums, squares);
            let direct: f64 =
                rows.iter().zip(&targets).map(|(row, target)| (dot(row, &weights) - target).powi(2)).sum();
            assert!((residual - direct).abs() < 1e-8 * squares, "{residual} {direct}");
            direct / 500.0
        };
        assert!(fit(0) > 0.1 && fit(32) < 1e-3, "{} {}", fit(0), fit(32));
    }

    #[test]
    fn strong_ridge_leaves_the_mean_and_the_scale_of_a_column_does_not_matter() {
        let basis = Basis::new(2, 4, &mut ChaCha8Rng::seed_from_u64(5));
        let (mut rows, gram) = rows(&basis, 50, 6);
        let targets: Vec<f64> = (0..50).map(|at| f64::from(at % 3)).collect();
        let weights = gram.factor(1e9).solve(&products(&rows, &targets));
        assert!((weights[0] - targets.iter().sum::<f64>() / 50.0).abs() < 1e-6);
        let predict = |rows: &[Vec<f64>], weights: &[f64]| dot(&rows[7], weights);
        let before = predict(&rows, &gram.factor(0.3).solve(&products(&rows, &targets)));
        let mut scaled = Gram::new(basis.len());
        for row in &mut rows {
            row[2] *= 40.0;
            scaled.add_row(row);
        }
        let after = predict(&rows, &scaled.factor(0.3).solve(&products(&rows, &targets)));
        assert!((before - after).abs() < 1e-10, "{before} {after}");
    }

    #[test]
    fn equal_and_constant_columns_do_no_harm() {
        let mut gram = Gram::new(4);
        let rows: Vec<Vec<f64>> = (0..30).map(|at| vec![1.0, f64::from(at), f64::from(at), 3.0]).collect();
        rows.iter().for_each(|row| gram.add_row(row));
        let targets: Vec<f64> = (0..30).map(|at| 2.0 * f64::from(at) + 1.0).collect();
        let weights = gram.factor(1e-9).solve(&products(&rows, &targets));
        assert!((dot(&rows[11], &weights) - 23.0).abs() < 1e-5, "{weights:?}");
        assert!((weights[1] - weights[2]).abs() < 1e-3, "{weights:?}");
    }
}
