//! Cross-fitting: choosing on *fit* as well as on *cal-a*, though policies are trained on *fit* (a choice of this project).
//!
//! Fronts and λ are chosen where nothing was trained. *cal-a* alone is small, and among many settings the luckiest wins. With folds, *fit* joins
//! it: what a method does with a sample of *fit* is then what it would do if it had been trained without the sample's fold. Wherever this crate
//! says *cal-a*, the samples of *fit* stand behind those of *cal-a*.

/// Folds of *fit*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    of_sample: Vec<usize>,
    count: usize,
}

impl Folds {
    /// `of_sample` `[sample of fit]` are numbers of folds.
    pub fn new(of_sample: Vec<usize>) -> Self {
        let count = of_sample.iter().max().map_or(0, |last| last + 1);
        Self { of_sample, count }
    }

    /// Number of folds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of samples of *fit*.
    pub fn samples(&self) -> usize {
        self.of_sample.len()
    }

    /// Samples of *fit* in a fold, ascending.
    pub fn members(&self, fold: usize) -> Vec<usize> {
        (0..self.samples()).filter(|sample| self.of_sample[*sample] == fold).collect()
    }

    /// Samples of *fit* outside a fold, ascending.
    pub fn others(&self, fold: usize) -> Vec<usize> {
        (0..self.samples()).filter(|sample| self.of_sample[*sample] != fold).collect()
    }

    /// Puts together what is chosen on *cal-a* and *fit*: `whole` is by what was trained on all of *fit*, `without(fold)` by what was trained
    /// without a fold; both for all samples of *cal-a* and, behind them, of *fit*.
    ///
    /// # Panics
    /// If there are fewer samples than *fit* has.
    pub fn put_together<T: Copy>(&self, mut whole: Vec<T>, without: impl Fn(usize) -> Vec<T>) -> Vec<T> {
        let cal_a = whole.len() - self.samples();
        for fold in 0..self.count {
            let other = without(fold);
            for member in self.members(fold) {
                whole[cal_a + member] = other[cal_a + member];
            }
        }
        whole
    }
}

/// Rows `[row][sample]` for the samples `chosen` alone.
pub(crate) fn columns<T: Copy>(list: &[T], samples: usize, chosen: &[usize]) -> Vec<T> {
    list.chunks_exact(samples.max(1)).flat_map(|row| chosen.iter().map(|sample| row[*sample])).collect()
}

/// Rows `[row][sample]` of two lists, the samples of the second behind those of the first.
pub(crate) fn side_by_side<T: Copy>((a, first): (&[T], usize), (b, second): (&[T], usize)) -> Vec<T> {
    let rows = a.chunks_exact(first.max(1)).zip(b.chunks_exact(second.max(1)));
    rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_fit_come_from_what_was_trained_without_them() {
        let folds = Folds::new(vec![0, 1, 0]);
        assert_eq!((folds.members(0), folds.others(0)), (vec![0, 2], vec![1]));
        let joined = folds.put_together(vec![9, 9, 9, 9, 9], |fold| vec![fold; 5]);
        assert_eq!(joined, [9, 9, 0, 1, 0]);
    }

    #[test]
    fn rows_keep_their_order() {
        assert_eq!(columns(&[1, 2, 3, 4, 5, 6], 3, &[2, 0]), [3, 1, 6, 4]);
        assert_eq!(side_by_side((&[1, 2, 3, 4], 2), (&[5, 6], 1)), [1, 2, 5, 3, 4, 6]);
    }
}
