//! `paths.shard`: which part of the pictures the runs on paths take.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Part of the pictures of every split, by batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Shard {
    /// All of them.
    #[default]
    Whole,
    /// One part; nothing else is done.
    One(Part),
    /// All of them, from so many parts that were computed before.
    Joined(usize),
}

/// One of several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: usize,
    of: usize,
}

impl Part {
    /// All of `of` parts.
    pub fn all(of: usize) -> impl Iterator<Item = Self> {
        (1..=of).map(move |number| Self { number, of })
    }

    /// How many parts there are.
    pub fn of(self) -> usize {
        self.of
    }

    /// Its batches of `batches`: every batch belongs to one part.
    pub fn batches(self, batches: usize) -> Range<usize> {
        // Parts are many, and batches are more: the product needs the room.
        let begin = |number: usize| (batches as u128 * number as u128 / self.of as u128) as usize;
        begin(self.number - 1)..begin(self.number)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::One(part) => part.fmt(f),
            Self::Joined(of) => write!(f, "all/{of}"),
        }
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no shard; hint: `whole`, one of several parts such as `3/8`, or `all/8` to join them")
        };
        if text == "whole" {
            return Ok(Self::Whole);
        }
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let of: usize = of.parse().ok().filter(|of| *of > 0).ok_or_else(wrong)?;
        if number == "all" {
            return Ok(Self::Joined(of));
        }
        let number = number.parse().ok().filter(|number| (1..=of).contains(number)).ok_or_else(wrong)?;
        Ok(Self::One(Part { number, of }))
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_written_as_they_are_read() {
        for text in ["whole", "1/1", "3/8", "all/8"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in ["", "3", "0/8", "9/8", "all", "all/0", "-1/8", "1/8/2", "a/b"] {
            assert!(text.parse::<Shard>().unwrap_err().contains("hint"), "{text}");
        }
    }

    #[test]
    fn every_batch_belongs_to_one_part() {
        for (batches, of) in [(0, 3), (1, 8), (7, 2), (100, 7), (usize::MAX, 3)] {
            let mut next = 0;
            for part in Part::all(of) {
                let range = part.batches(batches);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, batches, "{of} parts");
        }
    }
}
