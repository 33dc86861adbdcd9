//! A file of cases: one question, and what changes in a recipe from case to case.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;
use toml::Table;

use crate::recipe::{self, Recipe, RecipeError};

/// A question and the cases that answer it. It fits any recipe.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The question, as a sentence.
    pub question: String,
    /// What changes from case to case, for the axis of the figure.
    pub axis: String,
    /// The cases, in the order of the axis.
    pub case: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name on the axis.
    pub name: String,
    /// Settings that differ from the recipe, laid out like it.
    pub set: Table,
    /// What it tells about the gap to the oracle, where the sweep takes that apart.
    pub role: Option<Role>,
}

/// What a case tells about the gap between the policy and the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The policy whose gap it is. Its other learned policies are other ways of planning.
    Default,
    /// Another class of predictors.
    Class,
    /// The default with fewer pictures to learn from.
    Size,
}

impl Cases {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, has no cases, or two of one name.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| {
            anyhow::anyhow!(
                "{file}: cannot read the cases: {source}; hint: those of this project are in experiments/conditions/"
            )
        })?;
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| RecipeError::Syntax { file: file.clone(), reason: e.to_string() })?;
        let cases: Self = recipe::typed(&file, table)?;
        ensure!(!cases.case.is_empty(), "{file}: there is no [[case]]; hint: see docs/conditions.md for the format");
        let of_role = |role| cases.case.iter().filter(|case| case.role == Some(role)).count();
        let roles = (of_role(Role::Default), of_role(Role::Size));
        ensure!(
            cases.case.iter().all(|case| case.role.is_none()) || (roles.0 == 1 && roles.1 >= 2),
            "{file}: {} cases have the role `default` and {} the role `size`; hint: taking the gap apart needs 1 and at least 2",
            roles.0,
            roles.1
        );
        for (at, case) in cases.case.iter().enumerate() {
            ensure!(
                cases.case[..at].iter().all(|other| other.name != case.name),
                "{file}: two cases are called `{}`; hint: every [[case]] needs a name of its own",
                case.name
            );
        }
        Ok(cases)
    }

    /// The recipe of every case; `file` is the name of the cases in messages.
    ///
    /// # Errors
    /// When a case sets what does not exist or cannot be.
    pub fn recipes(&self, base: &Recipe, file: &Path) -> Result<Vec<Recipe>> {
        let of_case =
            |case: &Case| Ok(recipe::changed(base, &case.set, &format!("{}, case `{}`", file.display(), case.name))?);
        self.case.iter().map(of_case).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Cases> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("cases.toml");
        std::fs::write(&path, text)?;
        Cases::read(&path)
    }

    const HEAD: &str = "question = \"Q?\"\naxis = \"cells\"\n";

    #[test]
    fn cases_change_a_recipe_and_nothing_else() {
        let cases = read(&format!("{HEAD}[[case]]\nname = \"few\"\nset.cells.count = 4\n")).unwrap();
        let base = recipe::load(Path::new("../../experiments/digits/recipe.toml"), None, &[]).unwrap();
        let changed = cases.recipes(&base, Path::new("c.toml")).unwrap().remove(0);
        assert_eq!(changed.cells.count, 4);
        let mut same = changed.clone();
        same.cells.count = base.cells.count;
        assert_eq!(same, base);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_case() {
        for (text, words) in [
            (HEAD.to_owned(), "missing field `case`"),
            (format!("{HEAD}case = []"), "no [[case]]"),
            (format!("{HEAD}[[case]]\nname = \"a\"\nset = {{}}\n[[case]]\nname = \"a\"\nset = {{}}"), "called `a`"),
            (format!("{HEAD}[[case]]\nname = \"a\"\nsets = {{}}"), "sets"),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("cases.toml"), "{message}");
        }
        let base = recipe::load(Path::new("../../experiments/digits/recipe.toml"), None, &[]).unwrap();
        for (set, words) in [("cells.counts = 1", "cells.count"), ("cells.count = 0", "cells.count")] {
            let cases = read(&format!("{HEAD}[[case]]\nname = \"a\"\nset.{set}\n")).unwrap();
            let message = cases.recipes(&base, Path::new("c.toml")).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("c.toml, case `a`"), "{message}");
        }
    }
}
