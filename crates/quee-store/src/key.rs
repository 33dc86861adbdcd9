//! What a result was computed from: named parts, their common hash, and how two keys differ.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::StoreError;
use crate::header::{self, MAX_DESCRIPTION};

/// A change of how keys are made changes this number, and with it every key.
const KEY_VERSION: u32 = 1;
/// Longer texts are described by their beginning and a hash.
const SHOWN: usize = 200;

/// SHA-256 of a stage and its parts; written in 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// From the bytes of the hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what `Display` writes; `None` for any other text.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || digits.iter().any(|d| !matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

/// Everything that the result of a stage depends on, in the making.
///
/// The order in which parts are added does not matter, names and values do; no two lists of parts have the same bytes under the hash,
/// because lengths and counts are hashed too.
///
/// ```
/// use quee_store::KeyParts;
/// let key = |hidden: u32| KeyParts::new("predictors").text("predictor.hidden", hidden).bytes("weights", b"...").key();
/// let (before, after) = (key(32)?, key(64)?);
/// let differences = before.description().differences(after.description());
/// assert_eq!(differences[0].to_string(), "predictor.hidden: 32 -> 64");
/// # Ok::<(), quee_store::StoreError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyParts {
    stage: String,
    /// Name → hash of the value, readable form.
    parts: BTreeMap<String, ([u8; 32], String)>,
    twice: Option<String>,
}

impl KeyParts {
    /// No parts yet, for a result of `stage`.
    pub fn new(stage: impl Into<String>) -> Self {
        Self { stage: stage.into(), parts: BTreeMap::new(), twice: None }
    }

    /// Adds a part that is shown to people as it is, a setting for instance.
    #[must_use]
    pub fn text(self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        let hash = Sha256::digest(&value).into();
        let shown = match value.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}… ({})", &value[..end], outline(value.len(), &hash)),
            None => value,
        };
        self.add(name.into(), hash, shown)
    }

    /// Adds a part that is shown to people by its length and hash, weights for instance.
    #[must_use]
    pub fn bytes(self, name: impl Into<String>, value: &[u8]) -> Self {
        let hash = Sha256::digest(value).into();
        self.add(name.into(), hash, outline(value.len(), &hash))
    }

    fn add(mut self, name: String, hash: [u8; 32], shown: String) -> Self {
        if self.parts.insert(name.clone(), (hash, shown)).is_some() {
            self.twice.get_or_insert(name);
        }
        self
    }

    /// The finished key.
    ///
    /// # Errors
    /// When two parts have one name, or when there are so many that their description is too long.
    pub fn key(self) -> Result<Key, StoreError> {
        let Self { stage, parts, twice } = self;
        if let Some(name) = twice {
            return Err(StoreError::PartTwice { stage, name });
        }
        let mut hash = Sha256::new();
        hash.update(b"quee-store key");
        hash.update(KEY_VERSION.to_le_bytes());
        hash.update((parts.len() as u64).to_le_bytes());
        let mut text = |value: &str| {
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        };
        text(&stage);
        for name in parts.keys() {
            text(name);
        }
        for (value, _) in parts.values() {
            hash.update(value);
        }
        let parts = parts.into_iter().map(|(name, (_, shown))| (name, shown)).collect();
        let description = Description { stage, parts };
        let length = header::json(&description).len();
        if length > MAX_DESCRIPTION {
            return Err(StoreError::Description { stage: description.stage, length, most: MAX_DESCRIPTION });
        }
        Ok(Key { hash: KeyHash(hash.finalize().into()), description })
    }
}

/// How bytes are shown that people cannot read.
fn outline(length: usize, hash: &[u8; 32]) -> String {
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{length} bytes, sha256 {hex}…")
}

/// A hash, and in words what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    hash: KeyHash,
    description: Description,
}

impl Key {
    /// What a result is found by.
    pub fn hash(&self) -> &KeyHash {
        &self.hash
    }

    /// The stage and its parts in words.
    pub fn description(&self) -> &Description {
        &self.description
    }
}

/// A stage and its parts in words: what is stored with a result, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The stage.
    pub stage: String,
    /// Name → value; long values and those that are not text by length and hash.
    pub parts: BTreeMap<String, String>,
}

impl Description {
    /// What differs, by name; empty for equal parts.
    pub fn differences(&self, newer: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.stage != newer.stage {
            let (before, after) = (Some(self.stage.clone()), Some(newer.stage.clone()));
            found.push(Difference { name: "stage".into(), before, after });
        }
        let names: std::collections::BTreeSet<&String> = self.parts.keys().chain(newer.parts.keys()).collect();
        for name in names {
            let (before, after) = (self.parts.get(name).cloned(), newer.parts.get(name).cloned());
            if before != after {
                found.push(Difference { name: name.clone(), before, after });
            }
        }
        found
    }
}

/// One part in which two keys differ; shown as `predictor.hidden: 32 -> 64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part.
    pub name: String,
    /// Its value on one side, if it is there.
    pub before: Option<String>,
    /// Its value on the other side, if it is there.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(nothing)".into());
        write!(f, "{}: {} -> {}", self.name, side(&self.before), side(&self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: KeyParts) -> KeyHash {
        *parts.key().unwrap().hash()
    }

    #[test]
    fn the_order_of_parts_does_not_matter_and_everything_else_does() {
        let base = || KeyParts::new("s").text("a", 1).text("b", "x");
        let same = KeyParts::new("s").text("b", "x").text("a", "1");
        assert_eq!(hash(base()), hash(same));
        let others = [
            KeyParts::new("t").text("a", 1).text("b", "x"),
            KeyParts::new("s").text("a", 2).text("b", "x"),
            KeyParts::new("s").text("a", 1).text("c", "x"),
            KeyParts::new("s").text("a", "x").text("b", 1),
            KeyParts::new("s").text("a", 1),
            KeyParts::new("sa").text("", 1).text("b", "x"),
            base().text("c", ""),
            base().bytes("c", b"\0"),
        ];
        let mut all: Vec<KeyHash> = others.into_iter().map(hash).chain([hash(base())]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9, "every change of a part is a change of the key");
    }

    #[test]
    fn keys_stay_what_they_are_from_version_to_version() {
        // A change here makes everything that users have stored unreachable. The hash was computed by other means.
        let found = hash(KeyParts::new("stage").text("name", "value").bytes("more", b"\x00\xff"));
        assert_eq!(found.to_string(), "5b38026814e90f09a69b49a5e8b58efee8a3f1f6cbf623ea0afac7fde3c17633");
        assert_eq!(KeyHash::parse(&found.to_string()), Some(found));
    }

    #[test]
    fn only_64_lower_case_digits_are_a_hash() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(KeyHash::parse(&good).unwrap().to_string(), good);
        for bad in ["", &good[1..], &format!("{good}0"), &good.to_uppercase(), &good.replace('0', "+"), &"é".repeat(32)]
        {
            assert_eq!(KeyHash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_parts_of_one_name_are_refused() {
        let error = KeyParts::new("s").text("a", 1).bytes("a", b"1").key().unwrap_err();
        assert_eq!(error.to_string(), "a key of `s` has two parts named `a`");
    }

    #[test]
    fn differences_are_named_even_where_texts_are_long() {
        let key = |text: &str| KeyParts::new("s").text("same", 1).text("recipe", text).key().unwrap();
        let (one, two) = ("é".repeat(5000) + "1", "é".repeat(5000) + "2");
        let found = key(&one).description().differences(key(&two).description());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "recipe");
        assert!(found[0].before.as_ref().unwrap().len() < 500);
        assert!(key(&one).description().differences(key(&one).description()).is_empty());

        let less = KeyParts::new("t").text("same", 1).key().unwrap();
        let found: Vec<String> =
            less.description().differences(key("r").description()).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["stage: t -> s", "recipe: (nothing) -> r"]);
    }
}
