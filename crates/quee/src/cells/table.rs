//! `[sweep]` of a recipe: from lists of values to cells.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use crate::recipe::{self, Part, Recipe};

/// Most cells of a sweep: a slip in a grid should not fill a disk with folders.
const MOST: usize = 10_000;
/// Most characters of a cell's name, which is the name of a folder.
const LONGEST: usize = 100;

/// What `[sweep]` says. Every entry of `list` is run with every combination of values in `grid` and every seed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepTable {
    /// Values by setting.
    #[serde(default)]
    grid: Table,
    /// Settings that belong together.
    #[serde(default)]
    list: Vec<Table>,
    /// Seeds, each in a cell of its own.
    #[serde(default)]
    seeds: Vec<i64>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Number and settings, in letters that may stand in the name of a folder.
    pub name: String,
    /// Settings that differ from the recipe, laid out like it.
    pub set: Table,
}

impl Cell {
    /// The settings by their full name, e.g. `predictor.hidden`, as TOML.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let leaves = leaves(&self.set).into_iter();
        leaves.map(|(path, value)| (path.join("."), written(&value))).collect()
    }
}

/// The cells that the recipe in `path` asks for, and the recipe of each; `base` is that recipe with the changes of the command line. Cells are
/// in the order of `list`, then of the names in `grid`, the last of which changes fastest but for the seeds.
///
/// # Errors
/// When there is no `[sweep]`, it is empty, names something twice, or a cell is no possible recipe.
pub fn cells(path: &Path, base: &Recipe) -> Result<Vec<(Cell, Recipe)>> {
    let Some((file, table)) = recipe::sweep_table(path)? else {
        anyhow::bail!(
            "{}: has no [sweep], which says what to run; hint: see docs/sweeps.md, or name files of cases after the recipe",
            path.display()
        );
    };
    let Value::Table(table) = table else { anyhow::bail!("{file}: `sweep` must be a table; hint: see docs/sweeps.md") };
    let cells = expand(&file, recipe::typed(&format!("{file}: sweep"), table)?)?;
    let with_recipe = |cell: Cell| {
        let recipe = recipe::changed(base, &cell.set, &format!("{file}: sweep, cell {}", cell.name))?;
        ensure!(
            recipe.name == base.name,
            "{file}: sweep: `name` cannot differ by cell; hint: cells have folders of their own"
        );
        Ok((cell, recipe))
    };
    cells.into_iter().map(with_recipe).collect()
}

/// A cell for each of `of` parts of the runs on paths of `base`.
///
/// # Errors
/// When there are too many.
pub fn shards(base: &Recipe, of: usize) -> Result<Vec<(Cell, Recipe)>> {
    let parts = Value::Array(Part::all(of).map(|part| Value::String(part.to_string())).collect());
    let table = SweepTable { grid: nested(&["paths".to_owned(), "shard".to_owned()], parts), ..SweepTable::default() };
    let with_recipe = |cell: Cell| {
        let recipe = recipe::changed(base, &cell.set, "--shards")?;
        Ok((cell, recipe))
    };
    expand("--shards", table)?.into_iter().map(with_recipe).collect()
}

type Settings = Vec<(Vec<String>, Value)>;

fn expand(file: &str, table: SweepTable) -> Result<Vec<Cell>> {
    let mut axes: Vec<(Vec<String>, Vec<Value>)> = Vec::new();
    for (path, values) in leaves(&table.grid) {
        let name = path.join(".");
        let Value::Array(values) = values else {
            anyhow::bail!("{file}: sweep.grid: `{name}` must be a list of values; hint: {name} = [{values}]");
        };
        ensure!(!values.is_empty(), "{file}: sweep.grid: `{name}` has no values");
        axes.push((path, values));
    }
    if !table.seeds.is_empty() {
        let path = vec!["seeds".to_owned()];
        ensure!(axes.iter().all(|(other, _)| *other != path), "{file}: sweep: seeds are in `grid` and in `seeds`");
        axes.push((path, table.seeds.iter().map(|seed| Value::Array(vec![Value::Integer(*seed)])).collect()));
    }
    let entries: Vec<Settings> = table.list.iter().map(leaves).collect();
    ensure!(
        !(axes.is_empty() && entries.is_empty()),
        "{file}: [sweep] is empty; hint: it has `grid`, `list` and `seeds`, see docs/sweeps.md"
    );
    ensure!(entries.iter().all(|entry| !entry.is_empty()), "{file}: sweep.list: an entry sets nothing");
    for path in entries.iter().flatten().map(|(path, _)| path) {
        let clash = axes.iter().any(|(other, _)| overlap(other, path));
        ensure!(!clash, "{file}: sweep: `{}` is in `list` and in `grid` or `seeds`", path.join("."));
    }
    let count = axes.iter().try_fold(entries.len().max(1), |count, (_, values)| count.checked_mul(values.len()));
    let count = count.filter(|count| *count <= MOST);
    let Some(count) = count else { anyhow::bail!("{file}: sweep: more than {MOST} cells; hint: split the grid") };

    let mut all = if entries.is_empty() { vec![Settings::new()] } else { entries };
    for (path, values) in axes {
        let with = |settings: Settings| {
            let path = &path;
            values.clone().into_iter().map(move |value| [&settings[..], &[(path.clone(), value)]].concat())
        };
        all = all.into_iter().flat_map(with).collect();
    }
    let digits = (count - 1).to_string().len().max(3);
    let mut seen = BTreeMap::new();
    let mut cells = Vec::new();
    for (index, settings) in all.into_iter().enumerate() {
        let mut set = Table::new();
        settings.iter().for_each(|(path, value)| recipe::merge(&mut set, nested(path, value.clone())));
        let cell = Cell { name: name(index, digits, &settings), set };
        if let Some(twin) = seen.insert(cell.settings(), index) {
            anyhow::bail!(
                "{file}: sweep: cells {twin} and {index} are the same; hint: every value once: {}",
                cell.name
            );
        }
        cells.push(cell);
    }
    Ok(cells)
}

/// The values of a table with the names that lead there. A name with dots at the top is as good as tables.
fn leaves(table: &Table) -> Settings {
    fn walk(table: &Table, prefix: &[String], found: &mut Settings) {
        for (key, value) in table {
            let split = |key: &str| key.split('.').map(str::to_owned).collect();
            let own: Vec<String> = if prefix.is_empty() { split(key) } else { vec![key.clone()] };
            let path = [prefix, &own[..]].concat();
            match value {
                Value::Table(inner) => walk(inner, &path, found),
                value => found.push((path, value.clone())),
            }
        }
    }
    let mut found = Settings::new();
    walk(table, &[], &mut found);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Whether one of two names is the other or the start of it.
fn overlap(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn nested(path: &[String], value: Value) -> Table {
    let (last, outer) = path.split_last().expect("no setting is without a name");
    let innermost = Table::from_iter([(last.clone(), value)]);
    outer.iter().rev().fold(innermost, |inner, key| Table::from_iter([(key.clone(), Value::Table(inner))]))
}

/// A value as text: without quotes where it is text, or a list of one value.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.len() == 1 => written(&values[0]),
        other => other.to_string(),
    }
}

/// `003-predictor.hidden=16-seed=1`.
fn name(index: usize, digits: usize, settings: &Settings) -> String {
    let mut name = format!("{index:0digits$}");
    for (path, value) in settings {
        let key = if *path == ["seeds"] { "seed".to_owned() } else { path.join(".") };
        name += &format!("-{key}={}", written(value));
    }
    let mut legal = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() || "-_.=".contains(c) { c } else { '-' };
        if c != '-' || !legal.ends_with(['-', '=']) {
            legal.push(c);
        }
    }
    legal.truncate(LONGEST);
    // Windows has no folders whose names end in a dot.
    legal.trim_end_matches(['-', '.', '=']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<(Cell, Recipe)>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("r.toml");
        std::fs::write(&path, format!("name = \"x\"\n{text}"))?;
        cells(&path, &recipe::load(&path, None, &[])?)
    }

    fn names(text: &str) -> Vec<String> {
        of(text).unwrap().into_iter().map(|(cell, _)| cell.name).collect()
    }

    #[test]
    fn grid_list_and_seeds_are_combined_in_a_fixed_order() {
        let text = "[sweep]\nseeds = [0, 1]\n[sweep.grid]\npredictor.hidden = [8, 16]\n";
        assert_eq!(
            names(text),
            [
                "000-predictor.hidden=8-seed=0",
                "001-predictor.hidden=8-seed=1",
                "002-predictor.hidden=16-seed=0",
                "003-predictor.hidden=16-seed=1"
            ]
        );
        let (cell, recipe) = of(text).unwrap().remove(3);
        assert_eq!((recipe.predictor.hidden, &recipe.seeds[..]), (16, &[1][..]));
        assert_eq!(cell.settings()["predictor.hidden"], "16");
        let listed = "[[sweep.list]]\npredictor.kind = \"cells\"\ncells.count = 4\n[[sweep.list]]\npredictor.kind = \"logistic\"\n";
        assert_eq!(names(listed), ["000-cells.count=4-predictor.kind=cells", "001-predictor.kind=logistic"]);
        assert_eq!(names(&format!("{listed}[sweep.grid]\nexits.epochs = [1, 2, 3]\n")).len(), 6);
        let odd = "[sweep.grid]\n\"quant.widths\" = [[\"w2a2\", \"w4a4\"], [\"w8a8\"]]\n";
        assert_eq!(names(odd), ["000-quant.widths=w2a2-w4a4", "001-quant.widths=w8a8"]);
    }

    #[test]
    fn a_sweep_does_not_change_the_recipe_and_is_inherited() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.toml", "name = \"x\"\nsweep.seeds = [1, 2]\n");
        write("b.toml", "extends = \"a.toml\"\nexits.epochs = 2\n");
        let path = folder.path().join("b.toml");
        let base = recipe::load(&path, None, &[]).unwrap();
        let found = cells(&path, &base).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((base.seeds.len(), &found[1].1.seeds[..], found[1].1.exits.epochs), (3, &[2][..], 2));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "has no [sweep]"),
            ("sweep = 3", "must be a table"),
            ("[sweep]", "is empty"),
            ("sweep.seed = [1]", "seeds"),
            ("sweep.seeds = [1, 1]", "the same"),
            ("sweep.seeds = [-1]", "seeds"),
            ("sweep.grid.predictor.hidden = []", "no values"),
            ("sweep.grid.predictor.hidden = 8", "predictor.hidden = [8]"),
            ("sweep.grid.predictor.hiden = [8]", "did you mean `predictor.hidden`"),
            ("sweep.grid.predictor.hidden = [8, 0]", "cell 001-predictor.hidden=0"),
            ("sweep.grid.predictor = [8]", "is a table"),
            ("sweep.grid.name = [\"a\", \"b\"]", "`name`"),
            ("sweep.grid.seeds = [[1]]\nsweep.seeds = [1]", "in `grid` and in `seeds`"),
            ("sweep.grid.exits.epochs = [1]\n[[sweep.list]]\nexits.epochs = 2", "`exits.epochs` is in `list`"),
            ("[[sweep.list]]\n", "sets nothing"),
        ] {
            let message = format!("{:#}", of(text).unwrap_err());
            assert!(message.contains(words) && message.contains("r.toml"), "{text}: {message}");
        }
        let many: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let many = many.join(",");
        let text = format!("sweep.seeds = [{many}]\n[sweep.grid]\npaths.sample_seed = [{many}]\n");
        assert!(of(&text).unwrap_err().to_string().contains("more than 10000"));
    }
}
