//! Bit-widths of a quantized operation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Bit-widths at which an operation runs: one for weights, one for activations.
///
/// Either both are integers from 2 to 8, or both are 32, which means float. Written `w4a8`, `w6a6` or `float`;
/// a plain number such as `6` is read as `w6a6` and `32` as `float`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Width {
    weight: u8,
    act: u8,
}

/// A text or number that does not name a width.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a bit-width: write `w4a8` (weights and activations from 2 to 8 bits), a number from 2 to 8, or `float`"
)]
pub struct WidthError(String);

impl Width {
    /// Full precision: 32-bit floats.
    pub const FLOAT: Self = Self { weight: 32, act: 32 };

    /// Weights at `weight` bits and activations at `act` bits.
    ///
    /// # Errors
    /// When the pair is neither inside 2..=8 nor (32, 32).
    pub fn new(weight: u8, act: u8) -> Result<Self, WidthError> {
        let integer = (2..=8).contains(&weight) && (2..=8).contains(&act);
        if integer || (weight == 32 && act == 32) {
            Ok(Self { weight, act })
        } else {
            Err(WidthError(format!("w{weight}a{act}")))
        }
    }

    /// Bits of a weight: 2 to 8, or 32 for float.
    pub fn weight_bits(self) -> u8 {
        self.weight
    }

    /// Bits of an activation: 2 to 8, or 32 for float.
    pub fn act_bits(self) -> u8 {
        self.act
    }

    /// Whether operations run in 32-bit floats.
    pub fn is_float(self) -> bool {
        self.weight == 32
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_float() { f.write_str("float") } else { write!(f, "w{}a{}", self.weight, self.act) }
    }
}

impl FromStr for Width {
    type Err = WidthError;

    fn from_str(text: &str) -> Result<Self, WidthError> {
        let wrong = || WidthError(text.to_owned());
        if text == "float" {
            return Ok(Self::FLOAT);
        }
        let (weight, act) = match text.strip_prefix('w') {
            Some(rest) => rest.split_once('a').ok_or_else(wrong)?,
            None => (text, text),
        };
        let bits = |digits: &str| digits.parse::<u8>().map_err(|_| wrong());
        Self::new(bits(weight)?, bits(act)?).map_err(|_| wrong())
    }
}

/// What a recipe may hold where a width is expected.
#[derive(Deserialize)]
#[serde(untagged)]
enum WidthText {
    Number(i64),
    Text(String),
}

impl TryFrom<WidthText> for Width {
    type Error = WidthError;

    fn try_from(text: WidthText) -> Result<Self, WidthError> {
        match text {
            WidthText::Number(bits) => bits.to_string().parse(),
            WidthText::Text(text) => text.parse(),
        }
    }
}

impl<'de> Deserialize<'de> for Width {
    /// Numbers only where people write: formats for machines do not say what comes next.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match deserializer.is_human_readable() {
            true => WidthText::deserialize(deserializer)?,
            false => WidthText::Text(String::deserialize(deserializer)?),
        };
        Self::try_from(text).map_err(serde::de::Error::custom)
    }
}

impl From<Width> for String {
    fn from(width: Width) -> Self {
        width.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_read_back_as_written() {
        for text in ["w4a8", "w2a2", "w8a3", "float"] {
            assert_eq!(text.parse::<Width>().unwrap().to_string(), text);
        }
        assert_eq!("6".parse::<Width>().unwrap(), Width::new(6, 6).unwrap());
        assert_eq!("32".parse::<Width>().unwrap(), Width::FLOAT);
    }

    #[test]
    fn widths_outside_the_range_are_refused_by_name() {
        for text in ["1", "9", "w8", "w8a", "w4a32", "w32a8", "w1a4", "a8w8", "", "w-4a4"] {
            let error = text.parse::<Width>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
