//! Work divided among the threads of the pool that the caller runs in.

/// Something that can be cut in two at a number of its units.
pub(crate) trait Divisible: Sized + Send {
    /// Units of work.
    fn units(&self) -> usize;
    /// The first `units` and the rest.
    fn divide(self, units: usize) -> (Self, Self);
}

/// Runs `work` on parts of equal size, one for each of `scratch`, and gives the first error in the order of the parts.
pub(crate) fn divided<P: Divisible, S: Send, E: Send>(
    all: P,
    scratch: &mut [S],
    work: &(impl Fn(P, &mut S) -> Result<(), E> + Sync),
) -> Result<(), E> {
    match scratch {
        [] => unreachable!("there is memory for one thread at least"),
        [one] => work(all, one),
        more => {
            let half = more.len() / 2;
            let units = all.units() * half / more.len();
            let (left, right) = more.split_at_mut(half);
            if units == 0 || units == all.units() {
                return divided(all, right, work);
            }
            let (first, second) = all.divide(units);
            let (a, b) = rayon::join(|| divided(first, left, work), || divided(second, right, work));
            a.and(b)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers<'a>(&'a mut [usize]);

    impl Divisible for Numbers<'_> {
        fn units(&self) -> usize {
            self.0.len()
        }

        fn divide(self, units: usize) -> (Self, Self) {
            let (a, b) = self.0.split_at_mut(units);
            (Numbers(a), Numbers(b))
        }
    }

    #[test]
    fn every_unit_is_worked_on_once_and_the_first_error_counts() {
        for (len, threads) in [(0, 2), (1, 2), (1, 3), (7, 1), (7, 2), (7, 3), (20, 4)] {
            let mut numbers = vec![0; len];
            let mut scratch = vec![0usize; threads];
            let work = |Numbers(part): Numbers, seen: &mut usize| {
                *seen += part.len();
                part.iter_mut().for_each(|x| *x += 1);
                Ok::<(), usize>(())
            };
            divided(Numbers(&mut numbers), &mut scratch, &work).unwrap();
            assert!(numbers.iter().all(|&x| x == 1));
            assert_eq!(scratch.iter().sum::<usize>(), len);
            if len >= threads {
                assert!(scratch.iter().all(|&seen| seen >= len / threads), "{scratch:?}");
            }
        }
        let mut numbers: Vec<usize> = (0..9).collect();
        let fail = |Numbers(part): Numbers, _: &mut ()| Err(part[0]);
        assert_eq!(divided(Numbers(&mut numbers), &mut [(), (), ()], &fail), Err(0));
    }
}
