//! Which pictures of the data set the backbone has seen in training: what its file says, or the recipe.

use anyhow::{Context, Result, bail, ensure};
use quee_backbone::checkpoint::Checkpoint;

/// Key in a checkpoint's notes: the data set that it was trained on.
pub const NOTE_DATASET: &str = "dataset";
/// Key in a checkpoint's notes: the indices of the pictures it was trained on, separated by blanks.
pub const NOTE_TRAIN_INDICES: &str = "train_indices";

/// What is known about the pictures that the backbone has seen in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The checkpoint carries their indices; no split holds one of them.
    Excluded,
    /// The checkpoint says that it was trained on another data set.
    OtherData,
    /// The recipe gives their indices; no split holds one of them.
    ExcludedByRecipe,
    /// The recipe says that there are none.
    NoneByRecipe,
    /// Nobody says.
    Unknown,
    /// The recipe asks for pictures that it has seen, except in *test*.
    Wanted,
}

impl Seen {
    /// One sentence for the report.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Excluded => "The backbone has seen no picture of exit-train, fit, cal or test.",
            Self::OtherData => "The backbone was trained on another data set.",
            Self::ExcludedByRecipe => {
                "The backbone has seen no picture of exit-train, fit, cal or test, if the recipe is right (backbone.seen lists \
                 the pictures it was trained on; its file does not)."
            }
            Self::NoneByRecipe => {
                "The backbone has seen no picture of this data set, if the recipe is right (backbone.seen; its file does not \
                 say)."
            }
            Self::Unknown => {
                "The backbone's file does not say which pictures it was trained on: if fit or cal are among them, predicted \
                 errors are too low."
            }
            Self::Wanted => {
                "Exits, predictors and settings come from pictures that the backbone was trained on, as the recipe asks (data.seen): predicted \
                 errors are too low. This shows what goes wrong then; it is no result."
            }
        }
    }
}

/// What is known, and the pictures seen, in ascending order. `setting` is `backbone.seen` of the recipe, `pictures` their
/// number in the data set.
///
/// # Errors
/// When notes or setting cannot be read, or contradict each other.
pub fn seen_pictures(
    checkpoint: &Checkpoint,
    dataset: &str,
    pictures: usize,
    setting: &str,
) -> Result<(Seen, Vec<usize>)> {
    let stated = parse_setting(setting, pictures)?;
    let (seen, indices) = match (notes(checkpoint, dataset)?, &stated) {
        (Some(noted), None) => noted,
        (Some((seen, indices)), Some(stated)) => {
            ensure!(
                indices == *stated,
                "{}: its notes name {} pictures of `{dataset}` that it has seen, `backbone.seen` = \"{setting}\" names {}, and \
                 they are not the same; hint: leave `backbone.seen` empty, the notes count",
                checkpoint.origin(),
                indices.len(),
                stated.len()
            );
            (seen, indices)
        }
        (None, Some(stated)) if stated.is_empty() => (Seen::NoneByRecipe, Vec::new()),
        (None, Some(stated)) => (Seen::ExcludedByRecipe, stated.clone()),
        (None, None) => (Seen::Unknown, Vec::new()),
    };
    Ok((seen, indices))
}

/// What the notes say; `None` when they don't.
fn notes(checkpoint: &Checkpoint, dataset: &str) -> Result<Option<(Seen, Vec<usize>)>> {
    let notes = checkpoint.metadata();
    match (notes.get(NOTE_DATASET), notes.get(NOTE_TRAIN_INDICES)) {
        (Some(other), _) if other != dataset => Ok(Some((Seen::OtherData, Vec::new()))),
        (Some(_), Some(indices)) => {
            let parsed: Result<Vec<usize>, _> = indices.split_whitespace().map(str::parse).collect();
            let mut parsed = parsed.with_context(|| {
                format!(
                    "{}: the note `{NOTE_TRAIN_INDICES}` is no list of indices; hint: was the file edited?",
                    checkpoint.origin()
                )
            })?;
            parsed.sort_unstable();
            Ok(Some((Seen::Excluded, parsed)))
        }
        _ => Ok(None),
    }
}

/// `""` is unknown, `"none"` no picture, and otherwise positions and ranges of positions: `"0-4999, 7000"`.
fn parse_setting(setting: &str, pictures: usize) -> Result<Option<Vec<usize>>> {
    let refuse = |part: &str, reason: &str| -> Result<Option<Vec<usize>>> {
        bail!(
            "`backbone.seen`: `{part}` {reason}; hint: \"none\", or positions in the data set such as \"0-4999, 7000\""
        )
    };
    let setting = setting.trim();
    if setting.is_empty() || setting == "none" {
        return Ok((setting == "none").then(Vec::new));
    }
    let mut indices = Vec::new();
    for part in setting.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
            return refuse(part, "is no position and no range");
        };
        if first > last {
            return refuse(part, "ends before it starts");
        }
        if last >= pictures {
            return refuse(part, &format!("is beyond the data set, which has {pictures} pictures"));
        }
        indices.extend(first..=last);
    }
    indices.sort_unstable();
    indices.dedup();
    Ok(Some(indices))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quee_backbone::tensor_file::{TensorData, encode};

    use super::*;

    fn checkpoint(notes: &[(&str, &str)]) -> Checkpoint {
        let notes: BTreeMap<_, _> = notes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let tensor = TensorData::f32("a".to_owned(), vec![1], [0.0]);
        Checkpoint::parse(&encode(&[tensor], &notes), "w.safetensors").unwrap()
    }

    fn seen(notes: &[(&str, &str)], setting: &str) -> Result<(Seen, Vec<usize>), String> {
        seen_pictures(&checkpoint(notes), "svhn", 100, setting).map_err(|e| e.to_string())
    }

    const INDICES: &[(&str, &str)] = &[(NOTE_DATASET, "svhn"), (NOTE_TRAIN_INDICES, "2 0 1")];
    const OTHER: &[(&str, &str)] = &[(NOTE_DATASET, "digits"), (NOTE_TRAIN_INDICES, "2 0 1")];

    #[test]
    fn the_file_and_the_recipe_say_what_was_seen() {
        assert_eq!(seen(&[], ""), Ok((Seen::Unknown, vec![])));
        assert_eq!(seen(&[], "none"), Ok((Seen::NoneByRecipe, vec![])));
        assert_eq!(seen(&[], " 5, 0-2,1 - 3 "), Ok((Seen::ExcludedByRecipe, vec![0, 1, 2, 3, 5])));
        assert_eq!(seen(INDICES, ""), Ok((Seen::Excluded, vec![0, 1, 2])));
        assert_eq!(seen(INDICES, "0-2"), Ok((Seen::Excluded, vec![0, 1, 2])));
        assert_eq!(seen(OTHER, ""), Ok((Seen::OtherData, vec![])));
        assert_eq!(seen(OTHER, "none"), Ok((Seen::OtherData, vec![])));
        assert_eq!(seen(&[(NOTE_DATASET, "svhn")], "7"), Ok((Seen::ExcludedByRecipe, vec![7])));
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for (notes, setting, words) in [
            (INDICES, "none", "notes count"),
            (INDICES, "0-3", "w.safetensors"),
            (OTHER, "0-3", "w.safetensors"),
            (&[][..], "5-2", "ends before"),
            (&[], "0-100", "100 pictures"),
            (&[], "all", "`all`"),
            (&[], "1,,2", "``"),
            (&[(NOTE_DATASET, "svhn"), (NOTE_TRAIN_INDICES, "one")], "", "no list of indices"),
        ] {
            let message = seen(notes, setting).unwrap_err();
            assert!(message.contains(words) && message.contains("hint"), "{message}");
        }
    }
}
