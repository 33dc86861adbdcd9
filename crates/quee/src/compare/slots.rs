//! Which methods are compared: one slot for each, filled by every run that has it.

use quee_policy::study::NAIVE;

use super::stored::{CompareError, StoredRun};
use crate::stages::study::OPEN_LOOP;

/// The slot that every run fills with its own best single technique.
pub const BEST_SINGLE: &str = "best single technique";

/// What the user asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The open-loop policy, the naive combination, the best single technique.
    Leading,
    /// All methods.
    All,
    /// These, by name or a part of it.
    Named(Vec<String>),
}

/// One method of every run.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Name of the slot.
    pub title: String,
    /// `[run]`: its method; `None` where it has none.
    pub methods: Vec<Option<String>>,
}

/// The slots in order, those that no run fills left out.
///
/// # Errors
/// When a name stands for no method.
pub fn slots(runs: &[StoredRun], asked: &Asked) -> Result<Vec<Slot>, CompareError> {
    let mut known: Vec<&str> = Vec::new();
    for method in runs.iter().flat_map(|run| &run.summary.methods) {
        if !known.contains(&method.name.as_str()) {
            known.push(&method.name);
        }
    }
    let titles: Vec<String> = match asked {
        Asked::Leading => [OPEN_LOOP, NAIVE, BEST_SINGLE].map(str::to_owned).into(),
        Asked::All => {
            // What the first slot shows stands out in the figure.
            known.sort_by_key(|name| *name != OPEN_LOOP);
            known.iter().map(|name| (*name).to_owned()).collect()
        }
        Asked::Named(names) => {
            let mut titles = Vec::new();
            for name in names {
                titles.extend(found(name, &known)?);
            }
            titles
        }
    };
    let mut slots: Vec<Slot> = Vec::new();
    for title in titles {
        let method = |run: &StoredRun| match title.as_str() {
            BEST_SINGLE => run.summary.best_single.clone().filter(|name| run.method(name).is_some()),
            name => run.method(name).map(|method| method.name.clone()),
        };
        let methods: Vec<Option<String>> = runs.iter().map(method).collect();
        if methods.iter().any(Option::is_some) && slots.iter().all(|slot| slot.title != title) {
            slots.push(Slot { title, methods });
        }
    }
    Ok(slots)
}

/// The method of that name, else all whose names contain it; capitals do not matter.
fn found(name: &str, known: &[&str]) -> Result<Vec<String>, CompareError> {
    let wanted = name.trim().to_lowercase();
    if wanted == BEST_SINGLE {
        return Ok(vec![BEST_SINGLE.to_owned()]);
    }
    let exact = known.iter().find(|other| other.to_lowercase() == wanted);
    let part = |other: &&&str| !wanted.is_empty() && other.to_lowercase().contains(&wanted);
    let all: Vec<String> = match exact {
        Some(exact) => vec![(*exact).to_owned()],
        None => known.iter().filter(part).map(|other| (*other).to_owned()).collect(),
    };
    if all.is_empty() {
        let known = [&[BEST_SINGLE], known].concat().join("; ");
        return Err(CompareError::Method { name: name.to_owned(), known });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_parts() {
        let known = ["float early exit", "float early exit, entropy", "QuEE open loop"];
        assert_eq!(found("open", &known).unwrap(), ["QuEE open loop"]);
        assert_eq!(found("Float early exit", &known).unwrap(), ["float early exit"], "the exact name wins");
        assert_eq!(found("early", &known).unwrap().len(), 2);
        assert_eq!(found("best single technique", &known).unwrap(), [BEST_SINGLE]);
        for wrong in ["", "maqee"] {
            assert!(found(wrong, &known).unwrap_err().to_string().contains("QuEE open loop"), "{wrong}");
        }
    }
}
