//! Batches whose samples run at different widths.

use std::ops::Range;

use quee_quant::Width;

/// Consecutive samples that run at one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of the first sample behind the group; the last group's is `usize::MAX`.
    pub end: usize,
    /// Width of its samples.
    pub width: Width,
}

/// The groups of a batch, in the order of its samples. There is at least one, and the last reaches to the end of any batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(Vec<Group>);

impl Groups {
    /// All samples at one width.
    pub fn uniform(width: Width) -> Self {
        Self(vec![Group { end: usize::MAX, width }])
    }

    /// So many samples at each width, neighbours of equal width as one group; `None` when there is no sample.
    pub fn new(groups: &[(usize, Width)]) -> Option<Self> {
        let mut all: Vec<Group> = Vec::new();
        let mut end = 0;
        for &(samples, width) in groups.iter().filter(|(samples, _)| *samples > 0) {
            end += samples;
            match all.last_mut() {
                Some(last) if last.width == width => last.end = end,
                _ => all.push(Group { end, width }),
            }
        }
        all.last_mut()?.end = usize::MAX;
        Some(Self(all))
    }

    /// The groups.
    pub fn list(&self) -> &[Group] {
        &self.0
    }

    /// The group of sample `index`, by number.
    pub fn of(&self, index: usize) -> usize {
        self.0.iter().position(|group| index < group.end).expect("the last group has no end")
    }

    /// Whether everything runs in floats.
    pub fn is_float(&self) -> bool {
        self.0.iter().all(|group| group.width.is_float())
    }

    /// The samples of each group in a batch of `samples`, with its width; groups beyond the batch are empty.
    pub fn ranges(&self, samples: usize) -> impl Iterator<Item = (Range<usize>, Width)> {
        let mut first = 0;
        self.0.iter().map(move |group| {
            let range = first..group.end.min(samples).max(first);
            first = range.end;
            (range, group.width)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_merge_and_cover_any_batch() {
        let [a, b] = ["w2a4", "w8a8"].map(|width| width.parse::<Width>().unwrap());
        let groups = Groups::new(&[(2, a), (0, b), (1, a), (4, b)]).unwrap();
        assert_eq!(groups.list().len(), 2);
        assert_eq!(groups.ranges(9).collect::<Vec<_>>(), [(0..3, a), (3..9, b)]);
        assert_eq!(groups.ranges(2).collect::<Vec<_>>(), [(0..2, a), (2..2, b)]);
        assert_eq!([0, 2, 3, 100].map(|index| groups.of(index)), [0, 0, 1, 1]);
        assert_eq!(Groups::new(&[(0, a)]), None);
        assert!(Groups::uniform(Width::FLOAT).is_float() && !groups.is_float());
    }
}
