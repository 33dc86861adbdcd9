//! Which continuations a gate is asked about, prefix by prefix.

use quee_quant::Width;
use serde::{Deserialize, Serialize};

use crate::HeadsError;

/// The prefixes that reach a gate and the ways to go on behind each, as lists of width indices.
///
/// Prefixes are numbered as they are given. *Suffixes* are the distinct ways to go on, ordered by length, then by the first width in
/// which they differ; the empty one, "answer here", is the first, but for gate 0, where nothing has been run and nobody answers. Behind a prefix there may be only some of the suffixes: its *places*
/// number those, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct GatePaths {
    gate: usize,
    prefixes: Vec<Vec<usize>>,
    suffixes: Vec<Vec<usize>>,
    /// `[prefix][place]`: number of the suffix, ascending.
    places: Vec<Vec<usize>>,
}

/// What is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parts {
    prefixes: Vec<Vec<usize>>,
    ways: Vec<Vec<Vec<usize>>>,
}

impl GatePaths {
    /// The paths of a gate: `prefixes`, and behind each its `ways` to go on, in any order.
    ///
    /// # Errors
    /// Without prefixes, when they differ in length or repeat, when a list of ways repeats one, lacks the empty one (or has it, at
    /// gate 0), or there is not one list per prefix.
    pub fn new(prefixes: Vec<Vec<usize>>, mut ways: Vec<Vec<Vec<usize>>>) -> Result<Self, HeadsError> {
        let bad = |hint: &'static str| {
            Err(HeadsError::Setting { what: "paths of a gate", value: format!("{} prefixes", prefixes.len()), hint })
        };
        let gate = prefixes.first().map_or(0, Vec::len);
        if prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.len() != gate) || has_twins(&prefixes) {
            return bad("prefixes must be there, distinct, and of one length");
        }
        let order = |way: &Vec<usize>| (way.len(), way.clone());
        ways.iter_mut().for_each(|ways| ways.sort_by_key(order));
        let wrong = |ways: &Vec<Vec<usize>>| {
            ways.first().is_none_or(|first| first.is_empty() == (gate == 0)) || has_twins(ways)
        };
        if ways.len() != prefixes.len() || ways.iter().any(wrong) {
            return bad(
                "behind each prefix there must be distinct ways to go on, the empty one among them but at gate 0",
            );
        }
        let mut suffixes: Vec<Vec<usize>> = ways.iter().flatten().cloned().collect();
        suffixes.sort_by_key(order);
        suffixes.dedup();
        let number = |way: &Vec<usize>| suffixes.binary_search_by_key(&order(way), order).expect("one of the list");
        let places = ways.iter().map(|ways| ways.iter().map(number).collect()).collect();
        Ok(Self { gate, prefixes, suffixes, places })
    }

    /// All sequences of `widths` widths at gate `gate` of `segments` segments; prefixes in the order of their widths.
    ///
    /// # Errors
    /// When there are no widths, or no such gate.
    pub fn all(widths: usize, segments: usize, gate: usize) -> Result<Self, HeadsError> {
        let longer = |paths: &[Vec<usize>]| -> Vec<Vec<usize>> {
            paths.iter().flat_map(|path| (0..widths).map(move |width| [path.as_slice(), &[width]].concat())).collect()
        };
        let of_length = |length: usize| (0..length).fold(vec![Vec::new()], |paths, _| longer(&paths));
        let prefixes = of_length(gate);
        let shortest = usize::from(gate == 0);
        let ways: Vec<Vec<usize>> = (shortest..=segments.saturating_sub(gate)).flat_map(of_length).collect();
        let ways = vec![ways; prefixes.len()];
        Self::new(prefixes, ways)
    }

    /// The gate: widths of a prefix.
    pub fn gate(&self) -> usize {
        self.gate
    }

    /// Checks that every path is one of `widths` widths and at most `segments` segments.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self, widths: usize, segments: usize) -> Result<(), HeadsError> {
        let known = |path: &Vec<usize>| path.iter().all(|&width| width < widths);
        let longest = self.gate + self.suffixes.last().map_or(0, Vec::len);
        if longest <= segments && self.prefixes.iter().all(known) && self.suffixes.iter().all(known) {
            return Ok(());
        }
        let value = format!("{longest} segments, widths {:?}", self.suffixes.iter().flatten().max());
        Err(HeadsError::Setting { what: "paths of a gate", value, hint: "they leave the backbone or its widths" })
    }

    /// The prefixes.
    pub fn prefixes(&self) -> &[Vec<usize>] {
        &self.prefixes
    }

    /// The distinct ways to go on.
    pub fn suffixes(&self) -> &[Vec<usize>] {
        &self.suffixes
    }

    /// Numbers of the suffixes that may follow a prefix, by place.
    ///
    /// # Panics
    /// When there is no such prefix.
    pub fn places(&self, prefix: usize) -> &[usize] {
        &self.places[prefix]
    }

    /// Most places of a prefix.
    pub fn most_places(&self) -> usize {
        self.places.iter().map(Vec::len).max().unwrap_or(0)
    }
}

fn has_twins(paths: &[Vec<usize>]) -> bool {
    let mut sorted: Vec<_> = paths.iter().collect();
    sorted.sort();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

/// A way to go on for people: `exit`, or its widths, as in `w4a4 w8a8`.
///
/// # Panics
/// When it has a width that `widths` lacks.
pub fn suffix_name(suffix: &[usize], widths: &[Width]) -> String {
    if suffix.is_empty() {
        return "exit".to_owned();
    }
    let names: Vec<String> = suffix.iter().map(|&width| widths[width].to_string()).collect();
    names.join(" ")
}

impl TryFrom<Parts> for GatePaths {
    type Error = HeadsError;

    fn try_from(Parts { prefixes, ways }: Parts) -> Result<Self, HeadsError> {
        Self::new(prefixes, ways)
    }
}

impl From<GatePaths> for Parts {
    fn from(paths: GatePaths) -> Self {
        let GatePaths { prefixes, suffixes, places, .. } = paths;
        let ways =
            places.iter().map(|places| places.iter().map(|&suffix| suffixes[suffix].clone()).collect()).collect();
        Self { prefixes, ways }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_ordered_by_length_then_by_first_width() {
        let paths = GatePaths::all(2, 3, 1).unwrap();
        let expected: [&[usize]; 7] = [&[], &[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[1, 1]];
        assert_eq!(paths.suffixes(), expected);
        assert_eq!(paths.prefixes(), [[0], [1]]);
        assert_eq!(paths.places(1), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((paths.gate(), paths.most_places()), (1, 7));
        assert_eq!(GatePaths::all(3, 4, 2).unwrap().prefixes()[5], [1, 2]);
        let root = GatePaths::all(2, 2, 0).unwrap();
        let expected: [&[usize]; 6] = [&[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[1, 1]];
        assert_eq!((root.suffixes().len(), root.prefixes()), (6, &[vec![]][..]));
        assert_eq!(root.suffixes(), expected);
    }

    #[test]
    fn places_number_what_may_follow_a_prefix() {
        let ways = vec![vec![vec![1], vec![], vec![1, 0]], vec![vec![], vec![0]]];
        let paths = GatePaths::new(vec![vec![0, 1], vec![1, 1]], ways).unwrap();
        let expected: [&[usize]; 4] = [&[], &[0], &[1], &[1, 0]];
        assert_eq!(paths.suffixes(), expected);
        assert_eq!((paths.places(0), paths.places(1)), (&[0, 2, 3][..], &[0, 1][..]));
        assert!(paths.check(2, 4).is_ok());
        assert!(paths.check(1, 4).is_err() && paths.check(2, 3).is_err());
        let text = serde_json::to_string(&paths).unwrap();
        assert_eq!(serde_json::from_str::<GatePaths>(&text).unwrap(), paths);
    }

    #[test]
    fn names_are_those_of_the_widths() {
        let widths = [Width::new(4, 8).unwrap(), Width::FLOAT];
        assert_eq!(suffix_name(&[], &widths), "exit");
        assert_eq!(suffix_name(&[0, 1], &widths), "w4a8 float");
    }

    #[test]
    fn impossible_lists_are_refused() {
        /// Prefixes, and ways behind each.
        type Lists = (Vec<Vec<usize>>, Vec<Vec<Vec<usize>>>);
        let wrong: [Lists; 7] = [
            (vec![], vec![]),
            (vec![vec![]], vec![vec![vec![], vec![0]]]),
            (vec![vec![0], vec![0, 1]], vec![vec![vec![]]; 2]),
            (vec![vec![0], vec![0]], vec![vec![vec![]]; 2]),
            (vec![vec![0]], vec![]),
            (vec![vec![0]], vec![vec![vec![1]]]),
            (vec![vec![0]], vec![vec![vec![], vec![1], vec![1]]]),
        ];
        for (prefixes, ways) in wrong {
            assert!(GatePaths::new(prefixes.clone(), ways.clone()).is_err(), "{prefixes:?} {ways:?}");
        }
        assert!(GatePaths::all(0, 3, 1).is_err());
        assert!(serde_json::from_str::<GatePaths>(r#"{"prefixes": [[0]], "ways": []}"#).is_err());
    }
}
