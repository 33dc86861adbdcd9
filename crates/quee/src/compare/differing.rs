//! Settings in which runs differ.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::stored::StoredRun;
use crate::report::compare::Differing;

/// All keys of the recipes whose values are not the same everywhere, in alphabetical order; then weights, backend and program.
pub fn differing(runs: &[StoredRun]) -> Vec<Differing> {
    let recipes: Vec<Vec<(String, String)>> = runs.iter().map(|run| flat("", &run.recipe)).collect();
    let keys: BTreeSet<&String> = recipes.iter().flatten().map(|(key, _)| key).collect();
    let value = |recipe: &Vec<(String, String)>, key: &str| {
        recipe.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    };
    let settings = keys
        .into_iter()
        .map(|key| (key.clone(), recipes.iter().map(|recipe| value(recipe, key)).collect::<Vec<Option<String>>>()));
    let facts = runs.iter().map(|run| {
        let program = format!("quee {} ({})", run.environment.version, run.environment.commit);
        [run.summary.weights.clone(), run.environment.backend.clone(), program]
    });
    let facts: Vec<[String; 3]> = facts.collect();
    let fact = |(at, name): (usize, &str)| (name.to_owned(), facts.iter().map(|all| Some(all[at].clone())).collect());
    let facts = ["weights used", "backend used", "program"].into_iter().enumerate().map(fact);
    let all = settings.chain(facts).map(|(key, values)| Differing { key, values });
    all.filter(|setting| setting.values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// Keys with their tables, and values as TOML writes them.
fn flat(prefix: &str, table: &Table) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => all.extend(flat(&format!("{prefix}{key}."), inner)),
            other => all.push((format!("{prefix}{key}"), other.to_string())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_dotted_keys() {
        let table: Table = "a = 1\n[b]\nc = [\"x\", \"y\"]\n[b.d]\ne = true\n".parse().unwrap();
        let mut all = flat("", &table);
        all.sort();
        let expected = [("a", "1"), ("b.c", "[\"x\", \"y\"]"), ("b.d.e", "true")];
        assert_eq!(all, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
