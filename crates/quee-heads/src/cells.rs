//! The discretised feature space: k-means++ and Lloyd's iterations.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::HeadsError;
use crate::error::{expect_finite, expect_len, expect_rows};

/// Centres are fitted to at most this many rows, drawn without replacement when there are more: the position of some
/// dozens of centres gains nothing from further rows.
const MAX_ROWS: usize = 1 << 16;

/// Lloyd's iterations, unless the assignment settles earlier.
const ITERATIONS: usize = 25;

/// A partition of feature space into the neighbourhoods of `k` centres.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    dim: usize,
    /// `[k, dim]`.
    centres: Vec<f32>,
}

impl Cells {
    /// Clusters (standardised) `rows` `[n, dim]` into at most `k` cells (64 is the project's default).
    ///
    /// There are fewer than `k` cells when there are fewer than `k` distinct rows. Of more than 65,536 rows, that many
    /// are drawn by `seed`. The result depends on rows, `k` and `seed` alone.
    ///
    /// # Errors
    /// When `k` is 0, there are no rows, the last row is incomplete, or a value is not finite.
    pub fn fit(rows: &[f32], dim: usize, k: usize, seed: u64) -> Result<Self, HeadsError> {
        let n = expect_rows("features to cluster", rows, dim)?;
        if k == 0 {
            return Err(HeadsError::Setting { what: "cells", value: "0".to_owned(), hint: "take at least one" });
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        if n <= MAX_ROWS {
            return Ok(Self { dim, centres: spread(rows, dim, k, &mut random) }.settled(rows));
        }
        let mut drawn = rand::seq::index::sample(&mut random, n, MAX_ROWS).into_vec();
        drawn.sort_unstable();
        let sample: Vec<f32> = drawn.iter().flat_map(|&i| &rows[i * dim..(i + 1) * dim]).copied().collect();
        Ok(Self { dim, centres: spread(&sample, dim, k, &mut random) }.settled(&sample))
    }

    /// Number of cells.
    pub fn k(&self) -> usize {
        self.centres.len() / self.dim
    }

    /// Number of features of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Centre of cell `cell`, `[dim]`.
    ///
    /// # Panics
    /// When there is no such cell.
    pub fn centre(&self, cell: usize) -> &[f32] {
        &self.centres[cell * self.dim..(cell + 1) * self.dim]
    }

    /// Cell of `row` `[dim]`: that of the nearest centre, of several the first.
    ///
    /// # Panics
    /// When the row does not have [`dim`](Self::dim) values.
    pub fn assign(&self, row: &[f32]) -> usize {
        assert_eq!(row.len(), self.dim, "features of a row");
        self.nearest(row).0
    }

    /// Cells of `rows` `[n, dim]`, computed in parallel.
    ///
    /// # Panics
    /// When the last row is incomplete.
    pub fn assign_all(&self, rows: &[f32]) -> Vec<u32> {
        assert_eq!(rows.len() % self.dim, 0, "rows of {} features", self.dim);
        rows.par_chunks_exact(self.dim).with_min_len(256).map(|row| self.nearest(row).0 as u32).collect()
    }

    /// Checks cells that were read.
    ///
    /// # Errors
    /// When there is no cell, a centre is incomplete, or a value is not finite.
    pub fn check(&self) -> Result<(), HeadsError> {
        if self.dim == 0 || self.centres.is_empty() {
            return Err(HeadsError::Empty { what: "centres of the cells" });
        }
        expect_len("centres of the cells", self.k().max(1) * self.dim, self.centres.len())?;
        expect_finite("centres of the cells", &self.centres)
    }

    fn nearest(&self, row: &[f32]) -> (usize, f32) {
        let mut best = (0, f32::INFINITY);
        for (cell, centre) in self.centres.chunks_exact(self.dim).enumerate() {
            let distance = squared_distance(row, centre);
            if distance < best.1 {
                best = (cell, distance);
            }
        }
        best
    }

    /// Lloyd's iterations: every centre moves to the mean of its rows; one without rows starts again at the row that
    /// is farthest from its centre.
    fn settled(mut self, rows: &[f32]) -> Self {
        let (k, dim) = (self.k(), self.dim);
        let mut previous = Vec::new();
        for _ in 0..ITERATIONS {
            let nearest: Vec<(usize, f32)> =
                rows.par_chunks_exact(dim).with_min_len(256).map(|row| self.nearest(row)).collect();
            let assigned: Vec<usize> = nearest.iter().map(|&(cell, _)| cell).collect();
            if assigned == previous {
                break;
            }
            // Sums run in the order of rows, so that they do not depend on the number of threads.
            let mut count = vec![0usize; k];
            let mut sum = vec![0f64; k * dim];
            for (row, &cell) in rows.chunks_exact(dim).zip(&assigned) {
                count[cell] += 1;
                sum[cell * dim..(cell + 1) * dim].iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
            }
            let mut far = if count.contains(&0) { farthest_first(&nearest) } else { Vec::new() }.into_iter();
            for cell in 0..k {
                let centre = &mut self.centres[cell * dim..(cell + 1) * dim];
                if count[cell] > 0 {
                    let n = count[cell] as f64;
                    centre.iter_mut().zip(&sum[cell * dim..]).for_each(|(c, s)| *c = (s / n) as f32);
                } else if let Some(row) = far.next() {
                    centre.copy_from_slice(&rows[row * dim..(row + 1) * dim]);
                }
            }
            previous = assigned;
        }
        self
    }
}

/// k-means++ (Arthur and Vassilvitskii 2007): each further centre is a row drawn with a probability proportional to its
/// squared distance from the centres so far. Stops early when every row is a centre.
fn spread(rows: &[f32], dim: usize, k: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let n = rows.len() / dim;
    let first = random.random_range(0..n);
    let mut centres = rows[first * dim..(first + 1) * dim].to_vec();
    let mut distance = vec![f32::INFINITY; n];
    while centres.len() < k * dim {
        let newest = &centres[centres.len() - dim..];
        distance.par_iter_mut().zip(rows.par_chunks_exact(dim)).with_min_len(1024).for_each(|(d, row)| {
            *d = d.min(squared_distance(row, newest));
        });
        let total: f64 = distance.iter().map(|&d| f64::from(d)).sum();
        if total <= 0.0 {
            break;
        }
        let mut left = random.random::<f64>() * total;
        let mut chosen = None;
        for (row, &d) in distance.iter().enumerate().filter(|&(_, &d)| d > 0.0) {
            chosen = Some(row);
            left -= f64::from(d);
            if left < 0.0 {
                break;
            }
        }
        let Some(row) = chosen else { break };
        centres.extend_from_slice(&rows[row * dim..(row + 1) * dim]);
    }
    centres
}

/// Rows by descending distance from their centre, ties by index: where cells that lost all rows start again.
fn farthest_first(nearest: &[(usize, f32)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nearest.len()).collect();
    order.sort_by(|&a, &b| nearest[b].1.total_cmp(&nearest[a].1).then(a.cmp(&b)));
    order
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clouds(centres: &[[f32; 2]], each: usize, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Vec::new();
        for _ in 0..each {
            for centre in centres {
                rows.extend(centre.map(|c| c + random.random_range(-0.5..0.5)));
            }
        }
        rows
    }

    #[test]
    fn well_separated_clouds_are_found() {
        let centres = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]];
        let rows = clouds(&centres, 200, 5);
        let cells = Cells::fit(&rows, 2, 4, 1).unwrap();
        assert_eq!(cells.k(), 4);
        for centre in centres {
            let found = cells.centre(cells.assign(&centre));
            assert!(squared_distance(found, &centre) < 0.01, "{centre:?} is represented by {found:?}");
        }
    }

    #[test]
    fn centres_without_rows_start_again_at_the_farthest_row() {
        let rows = [0.0, 0.5, 10.0, 10.5, 31.0];
        let cells = Cells { dim: 1, centres: vec![9.0, 900.0, 800.0] }.settled(&rows);
        assert_eq!(cells.centres, [10.25, 31.0, 0.25]);
    }

    #[test]
    fn fewer_distinct_rows_than_cells() {
        let rows = [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0];
        let cells = Cells::fit(&rows, 2, 64, 0).unwrap();
        assert_eq!(cells.k(), 2);
        let assigned = cells.assign_all(&rows);
        assert_eq!((assigned[1], assigned[3]), (assigned[0], assigned[0]));
        assert_ne!(assigned[2], assigned[0]);
    }

    #[test]
    fn the_seed_decides_and_threads_do_not() {
        let rows = clouds(&[[0.0, 0.0], [1.0, 1.0]], 1500, 2);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let cells = one.install(|| Cells::fit(&rows, 2, 16, 9)).unwrap();
        assert_eq!(cells, four.install(|| Cells::fit(&rows, 2, 16, 9)).unwrap());
        assert_ne!(cells, Cells::fit(&rows, 2, 16, 10).unwrap());
    }

    #[test]
    fn more_rows_than_are_looked_at() {
        let rows = clouds(&[[0.0, 0.0], [50.0, 0.0]], MAX_ROWS, 2);
        let cells = Cells::fit(&rows, 2, 2, 3).unwrap();
        assert_ne!(cells.assign(&[0.0, 0.0]), cells.assign(&[50.0, 0.0]));
    }

    #[test]
    fn broken_input_is_refused() {
        assert!(Cells::fit(&[], 2, 3, 0).is_err());
        assert!(Cells::fit(&[1.0, 2.0, 3.0], 2, 3, 0).is_err());
        assert!(Cells::fit(&[1.0, f32::INFINITY], 2, 3, 0).is_err());
        assert!(Cells::fit(&[1.0, 2.0], 2, 0, 0).is_err());
        assert!(Cells { dim: 2, centres: vec![0.0; 3] }.check().is_err());
        assert!(Cells { dim: 0, centres: vec![] }.check().is_err());
    }

    proptest! {
        #[test]
        fn assignment_is_the_nearest_centre(
            rows in prop::collection::vec(-3f32..3.0, 3 * 40),
            probe in prop::collection::vec(-4f32..4.0, 3),
            k in 1usize..12,
            seed in any::<u64>(),
        ) {
            let cells = Cells::fit(&rows, 3, k, seed).unwrap();
            prop_assert!(cells.k() <= k);
            let cell = cells.assign(&probe);
            let distance = squared_distance(&probe, cells.centre(cell));
            for other in 0..cells.k() {
                prop_assert!(distance <= squared_distance(&probe, cells.centre(other)));
            }
            prop_assert_eq!(cells.assign_all(&probe), vec![cell as u32]);
        }
    }
}
