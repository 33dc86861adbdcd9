//! Which picture serves which purpose while a backbone is trained.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::SplitError;
use crate::splits::{claim, pool_order, sorted, stratified_order, stream, take};

/// Pictures for training and validation together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many, drawn in the proportions of the classes; 0 is all that are not for testing.
    Count(usize),
    /// Those from the first index to before the second: for sources in which neighbours are alike, or to leave the rest to
    /// something else.
    Range([usize; 2]),
}

/// What [`TrainingSplit::draw`] needs to know.
#[derive(Debug, Clone)]
pub struct TrainingRequest<'a> {
    /// Class of every picture of the pool.
    pub labels: &'a [u16],
    /// Indices of the source's own test part, if it has one.
    pub official_test: Option<Range<usize>>,
    /// Pictures to train and validate on.
    pub seen: Amount,
    /// How many of these validate; may be 0.
    pub validation: usize,
    /// Pictures to test on. Where the source has a test part: so many of it, or all if 0.
    pub test: usize,
    /// The split seed.
    pub seed: u64,
}

/// Three disjoint parts, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingSplit {
    /// Pictures whose gradients are followed.
    pub train: Vec<usize>,
    /// Pictures by which the epoch is chosen.
    pub validation: Vec<usize>,
    /// Pictures that the result is reported on, once.
    pub test: Vec<usize>,
}

impl TrainingSplit {
    /// Divides a pool. Without a test part of the source, *test* and the seen pictures are those of
    /// [`draw_backbone_split`](crate::draw_backbone_split). Of a range, the last pictures validate; of a draw, a part that has
    /// the proportions of the classes.
    ///
    /// # Errors
    /// When more pictures are wanted than there are, *train* or *test* would be empty, or a range holds pictures of the
    /// source's test part.
    pub fn draw(request: &TrainingRequest) -> Result<Self, SplitError> {
        let TrainingRequest { labels, official_test, seen, validation, test, seed } = request;
        let pool = labels.len();
        // Checked before a list of it is made.
        if let Amount::Range([_, end]) = *seen
            && end > pool
        {
            return Err(SplitError::OutOfRange { part: "backbone-train", index: end - 1, pool });
        }
        let mut owner = vec![None; pool];
        let (test, order) = match official_test {
            Some(range) => {
                let all: Vec<usize> = range.clone().collect();
                claim(&mut owner, "test", &all)?;
                let test = match *test {
                    0 => all,
                    wanted => take("test", &stratified_order(labels, &all, &mut stream(*seed, 3)), wanted)?.to_vec(),
                };
                let rest: Vec<usize> = (0..pool).filter(|index| !range.contains(index)).collect();
                (test, stratified_order(labels, &rest, &mut stream(*seed, 0)))
            }
            None => {
                // With a range, testing takes from what it leaves.
                let kept =
                    |index: &usize| !matches!(seen, Amount::Range([start, end]) if (*start..*end).contains(index));
                let order: Vec<usize> = pool_order(labels, *seed).into_iter().filter(kept).collect();
                let test = take("test", &order, *test)?.to_vec();
                claim(&mut owner, "test", &test)?;
                (test, order[request.test..].to_vec())
            }
        };
        let seen: Vec<usize> = match *seen {
            Amount::Count(0) => order,
            Amount::Count(count) => take("backbone-train", &order, count)?.to_vec(),
            Amount::Range([start, end]) => (start..end).collect(),
        };
        claim(&mut owner, "backbone-train", &seen)?;
        let Some(rest) = seen.len().checked_sub(*validation) else {
            return Err(SplitError::TooMany { part: "validation", wanted: *validation, available: seen.len() });
        };
        let (train, validation) = seen.split_at(rest);
        if train.is_empty() {
            return Err(SplitError::Empty { part: "backbone-train", available: seen.len(), pool });
        }
        Ok(Self { train: sorted(train.to_vec()), validation: sorted(validation.to_vec()), test: sorted(test) })
    }

    /// Pictures that the backbone has been trained on or chosen by, in ascending order.
    pub fn seen(&self) -> Vec<usize> {
        sorted(self.train.iter().chain(&self.validation).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw_backbone_split;

    fn labels(count: usize) -> Vec<u16> {
        (0..count).map(|i| (i % 4 % 3) as u16).collect()
    }

    fn request(labels: &[u16]) -> TrainingRequest<'_> {
        TrainingRequest { labels, official_test: None, seen: Amount::Count(120), validation: 20, test: 40, seed: 5 }
    }

    fn share(labels: &[u16], part: &[usize]) -> f64 {
        part.iter().filter(|&&i| labels[i] == 0).count() as f64 / part.len() as f64
    }

    #[test]
    fn a_single_pool_is_divided_like_that_of_an_experiment() {
        let labels = labels(200);
        let split = TrainingSplit::draw(&request(&labels)).unwrap();
        let other = draw_backbone_split(&labels, 120, 40, 5).unwrap();
        assert_eq!((split.seen(), &split.test), (other.train, &other.test));
        assert_eq!((split.train.len(), split.validation.len()), (100, 20));
        for part in [&split.train, &split.validation, &split.test] {
            // Half of the pictures are of class 0; a part misses that by a picture or two.
            assert!((share(&labels, part) - 0.5).abs() <= 2.0 / part.len() as f64, "{part:?}");
        }
    }

    #[test]
    fn the_official_test_part_is_never_seen() {
        let labels = labels(200);
        let base = TrainingRequest { official_test: Some(150..200), test: 0, ..request(&labels) };
        let split = TrainingSplit::draw(&base).unwrap();
        assert_eq!(split.test, (150..200).collect::<Vec<_>>());
        assert!(split.seen().iter().all(|&i| i < 150));
        let all = TrainingSplit::draw(&TrainingRequest { seen: Amount::Count(0), ..base.clone() }).unwrap();
        assert_eq!(all.seen(), (0..150).collect::<Vec<_>>());
        let few = TrainingSplit::draw(&TrainingRequest { test: 10, ..base.clone() }).unwrap();
        assert_eq!((few.test.len(), few.seen()), (10, split.seen()));
        assert!(few.test.iter().all(|&i| i >= 150));
        let into_test = TrainingRequest { seen: Amount::Range([100, 160]), ..base };
        assert!(matches!(TrainingSplit::draw(&into_test), Err(SplitError::Overlap { .. })));
    }

    #[test]
    fn the_end_of_a_range_validates() {
        let labels = labels(200);
        let base = TrainingRequest { seen: Amount::Range([50, 100]), validation: 10, ..request(&labels) };
        let split = TrainingSplit::draw(&base).unwrap();
        assert_eq!(split.train, (50..90).collect::<Vec<_>>());
        assert_eq!(split.validation, (90..100).collect::<Vec<_>>());
        assert!(split.test.iter().all(|i| !(50..100).contains(i)) && split.test.len() == 40);
    }

    #[test]
    fn impossible_amounts_are_refused() {
        let labels = labels(200);
        let refused = |request: TrainingRequest| TrainingSplit::draw(&request).unwrap_err();
        let base = request(&labels);
        assert!(matches!(
            refused(TrainingRequest { seen: Amount::Count(161), ..base.clone() }),
            SplitError::TooMany { .. }
        ));
        assert!(matches!(refused(TrainingRequest { test: 201, ..base.clone() }), SplitError::TooMany { .. }));
        assert!(matches!(
            refused(TrainingRequest { validation: 121, ..base.clone() }),
            SplitError::TooMany { part: "validation", .. }
        ));
        assert!(matches!(refused(TrainingRequest { validation: 120, ..base.clone() }), SplitError::Empty { .. }));
        assert!(matches!(refused(TrainingRequest { test: 0, ..base.clone() }), SplitError::Empty { part: "test", .. }));
        let range =
            |start, end| TrainingRequest { seen: Amount::Range([start, end]), validation: 0, ..request(&labels) };
        assert!(matches!(refused(range(0, usize::MAX)), SplitError::OutOfRange { .. }));
        assert!(matches!(refused(range(30, 20)), SplitError::Empty { .. }));
    }
}
