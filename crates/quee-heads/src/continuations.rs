//! How prefixes and suffixes of a gate are numbered.

use quee_quant::Width;
use serde::{Deserialize, Serialize};

use crate::HeadsError;

/// Numbers the prefixes and suffixes at the gates of a backbone with `segments` segments and `widths` widths.
///
/// Prefixes at gate `s` are the `widths^s` sequences of `s` width indices, read as a number in base `widths`, first
/// width most significant. Suffixes are ordered by length (0 to `segments − s`), then in the same way. A constraint on
/// paths does not change the numbers; it only makes some pairs of them [absent](crate::ABSENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(usize, usize)", into = "(usize, usize)")]
pub struct Continuations {
    widths: usize,
    segments: usize,
}

impl Continuations {
    /// The numbering for `widths` widths and `segments` segments.
    ///
    /// # Errors
    /// When either is 0, or there are more than 2³² paths.
    pub fn new(widths: usize, segments: usize) -> Result<Self, HeadsError> {
        let paths = u32::try_from(segments).ok().and_then(|s| widths.checked_pow(s));
        if widths == 0 || segments == 0 || segments > 32 || paths.is_none_or(|p| p > u32::MAX as usize) {
            return Err(HeadsError::Setting {
                what: "widths × segments",
                value: format!("{widths} × {segments}"),
                hint: "take 1 to 32 segments and at least one width, and fewer of both if the tree is too large",
            });
        }
        Ok(Self { widths, segments })
    }

    /// Number of widths a segment may run at.
    pub fn widths(self) -> usize {
        self.widths
    }

    /// Number of segments.
    pub fn segments(self) -> usize {
        self.segments
    }

    /// Number of prefixes at `gate` (0 to `segments`; gate 0 has one, the empty one).
    pub fn prefixes(self, gate: usize) -> usize {
        power(self.widths, gate)
    }

    /// Number of suffixes at `gate`, the empty one included.
    ///
    /// # Panics
    /// When `gate` is greater than the number of segments.
    pub fn suffixes(self, gate: usize) -> usize {
        assert!(gate <= self.segments, "gate {gate} of {} segments", self.segments);
        self.first_of_length(self.segments - gate + 1)
    }

    /// Number of the first suffix with `length` widths: the suffixes of that length are the `widths^length` from here.
    pub fn first_of_length(self, length: usize) -> usize {
        (0..length).map(|l| power(self.widths, l)).sum()
    }

    /// Number of a prefix.
    ///
    /// # Panics
    /// When an entry is not the index of a width.
    pub fn prefix_index(self, prefix: &[usize]) -> usize {
        prefix.iter().fold(0, |number, &width| self.extend_prefix(number, width))
    }

    /// Number of the prefix that is `prefix` followed by one more width.
    ///
    /// # Panics
    /// When `width` is not the index of a width.
    pub fn extend_prefix(self, prefix: usize, width: usize) -> usize {
        assert!(width < self.widths, "width {width} of {}", self.widths);
        prefix * self.widths + width
    }

    /// Widths of prefix number `index` at `gate`.
    ///
    /// # Panics
    /// When there is no such prefix.
    pub fn prefix(self, gate: usize, index: usize) -> Vec<usize> {
        assert!(index < self.prefixes(gate), "prefix {index} at gate {gate}");
        digits(index, self.widths, gate)
    }

    /// Number of a suffix; the same at every gate where it fits.
    ///
    /// # Panics
    /// When an entry is not the index of a width.
    pub fn suffix_index(self, suffix: &[usize]) -> usize {
        self.first_of_length(suffix.len()) + self.prefix_index(suffix)
    }

    /// Widths of suffix number `index`; the same at every gate where it fits.
    ///
    /// # Panics
    /// When the suffix is longer than the whole backbone.
    pub fn suffix(self, index: usize) -> Vec<usize> {
        let length = (0..=self.segments).rfind(|&l| self.first_of_length(l) <= index).unwrap_or(0);
        let number = index - self.first_of_length(length);
        assert!(number < power(self.widths, length), "suffix {index} is longer than {} segments", self.segments);
        digits(number, self.widths, length)
    }

    /// Suffix number `index` for people: `exit`, or its widths, as in `w4a4 w8a8`.
    ///
    /// # Panics
    /// When the suffix is longer than the backbone, or `widths` are fewer than were numbered.
    pub fn suffix_name(self, index: usize, widths: &[Width]) -> String {
        if index == 0 {
            return "exit".to_owned();
        }
        let names: Vec<String> = self.suffix(index).iter().map(|&w| widths[w].to_string()).collect();
        names.join(" ")
    }
}

impl TryFrom<(usize, usize)> for Continuations {
    type Error = HeadsError;

    fn try_from((widths, segments): (usize, usize)) -> Result<Self, HeadsError> {
        Self::new(widths, segments)
    }
}

impl From<Continuations> for (usize, usize) {
    fn from(numbering: Continuations) -> Self {
        (numbering.widths, numbering.segments)
    }
}

fn power(base: usize, exponent: usize) -> usize {
    (0..exponent).fold(1, |product, _| product * base)
}

fn digits(mut number: usize, base: usize, length: usize) -> Vec<usize> {
    let mut digits = vec![0; length];
    for digit in digits.iter_mut().rev() {
        *digit = number % base;
        number /= base;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_ordered_by_length_then_by_first_width() {
        let numbering = Continuations::new(2, 3).unwrap();
        let expected: [&[usize]; 7] = [&[], &[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[1, 1]];
        assert_eq!(numbering.suffixes(1), expected.len());
        for (index, suffix) in expected.iter().enumerate() {
            assert_eq!(numbering.suffix(index), *suffix);
            assert_eq!(numbering.suffix_index(suffix), index);
        }
        assert_eq!((numbering.suffixes(0), numbering.suffixes(2), numbering.suffixes(3)), (15, 3, 1));
        assert_eq!(numbering.first_of_length(3), 7);
    }

    #[test]
    fn prefixes_read_back() {
        let numbering = Continuations::new(3, 4).unwrap();
        for index in 0..numbering.prefixes(3) {
            assert_eq!(numbering.prefix_index(&numbering.prefix(3, index)), index);
        }
        assert_eq!(numbering.prefix(2, 5), [1, 2]);
        assert_eq!(numbering.extend_prefix(1, 2), 5);
    }

    #[test]
    fn names_are_those_of_the_widths() {
        let widths = [Width::new(4, 8).unwrap(), Width::FLOAT];
        let numbering = Continuations::new(2, 2).unwrap();
        assert_eq!(numbering.suffix_name(0, &widths), "exit");
        assert_eq!(numbering.suffix_name(4, &widths), "w4a8 float");
    }

    #[test]
    fn impossible_trees_are_refused() {
        for (widths, segments) in [(0, 3), (3, 0), (3, 33), (70, 6), (usize::MAX, 2)] {
            assert!(Continuations::new(widths, segments).is_err(), "{widths} × {segments}");
        }
        assert!(serde_json::from_str::<Continuations>("[0, 3]").is_err());
        assert_eq!(serde_json::from_str::<Continuations>("[2, 3]").unwrap(), Continuations::new(2, 3).unwrap());
    }
}
