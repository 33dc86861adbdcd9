//! The folder of a sweep: what its cells are, laid down before any of them runs.
//!
//! `sweep.toml` is written last, so a folder with it is complete. Every cell has its recipe with every setting, so later changes of the recipe that
//! they came from do not mix into a sweep.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::table::Cell;
use crate::output::{ids, point_latest, write_whole};
use crate::recipe::Recipe;

const FORMAT: &str = "quee sweep 1";
const FILE: &str = "sweep.toml";
const CELLS: &str = "cells";
const RECIPE: &str = "recipe.toml";

/// The content of `sweep.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SweepFile {
    format: String,
    /// Name of the recipe.
    recipe: String,
    /// Folder that relative paths in recipes start from.
    directory: PathBuf,
    /// Arguments of every run about the cache.
    cache: Vec<String>,
    cell: Vec<CellEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CellEntry {
    name: String,
    set: Table,
}

/// What a new sweep is made of.
pub struct Plan {
    /// Name of the recipe.
    pub recipe: String,
    /// Cells and their recipes.
    pub cells: Vec<(Cell, Recipe)>,
    /// Arguments of every run about the cache.
    pub cache: Vec<String>,
}

/// A sweep on disk.
pub struct SweepFolder {
    /// The folder.
    pub root: PathBuf,
    /// Name of the recipe.
    pub recipe: String,
    /// Folder that every run starts in.
    pub directory: PathBuf,
    /// Its cells.
    pub cells: Vec<Cell>,
    /// Arguments of every run about the cache.
    pub cache: Vec<String>,
}

impl SweepFolder {
    /// Makes a new folder `<out>/<recipe>-sweep/<id>`.
    ///
    /// # Errors
    /// When the place cannot be written to.
    pub fn create(out: &Path, plan: &Plan) -> Result<Self> {
        let parent = out.join(format!("{}-sweep", plan.recipe));
        let hint = || format!("{}: cannot create the folder; hint: choose another place with --out", parent.display());
        fs::create_dir_all(&parent).with_context(hint)?;
        for id in ids() {
            let root = parent.join(id);
            match fs::create_dir(&root) {
                Ok(()) => {
                    let folder = Self::lay_down(&root, plan)?;
                    point_latest(&root)?;
                    return Ok(folder);
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(hint),
            }
        }
        bail!("{}: no free name for a folder", parent.display())
    }

    /// The folder `root`: new, or one that holds this very sweep, to go on with.
    ///
    /// # Errors
    /// When it holds something else, or cannot be written to.
    pub fn create_or_open(root: &Path, plan: &Plan) -> Result<Self> {
        if root.join(FILE).is_file() {
            let found = Self::open(root)?;
            found.expect(plan)?;
            return Self::lay_down(root, plan);
        }
        let shown = root.display();
        fs::create_dir_all(root)
            .with_context(|| format!("--into {shown}: cannot create the folder; hint: choose another place"))?;
        let entries = fs::read_dir(root).with_context(|| format!("--into {shown}: cannot read the folder"))?;
        // A sweep that was killed while it was laid down has cells only.
        let foreign = entries.flatten().find(|entry| entry.file_name() != CELLS);
        ensure!(foreign.is_none(), "--into {shown}: holds something else than a sweep; hint: name an empty folder");
        Self::lay_down(root, plan)
    }

    fn lay_down(root: &Path, plan: &Plan) -> Result<Self> {
        for (cell, recipe) in &plan.cells {
            let folder = root.join(CELLS).join(&cell.name);
            fs::create_dir_all(&folder).with_context(|| format!("{}: cannot create", folder.display()))?;
            let file = folder.join(RECIPE);
            write_whole(&file, toml::to_string(recipe)?.as_bytes())
                .with_context(|| format!("{}: cannot write; hint: is the disk full?", file.display()))?;
        }
        let entry = |(cell, _): &(Cell, Recipe)| CellEntry { name: cell.name.clone(), set: cell.set.clone() };
        let content = SweepFile {
            format: FORMAT.to_owned(),
            recipe: plan.recipe.clone(),
            directory: std::env::current_dir().context("the present folder is gone")?,
            cache: plan.cache.clone(),
            cell: plan.cells.iter().map(entry).collect(),
        };
        let file = root.join(FILE);
        write_whole(&file, toml::to_string(&content)?.as_bytes())
            .with_context(|| format!("{}: cannot write; hint: is the disk full?", file.display()))?;
        Self::open(root)
    }

    /// The sweep in `root`.
    ///
    /// # Errors
    /// When there is none, or its file is damaged or of another version.
    pub fn open(root: &Path) -> Result<Self> {
        let file = root.join(FILE);
        let shown = file.display();
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{shown}: cannot read; hint: name the folder of a sweep, e.g. runs/digits-sweep/latest")
        })?;
        let damaged =
            |reason: String| format!("{shown}: damaged or of another version: {reason}; hint: start a new sweep");
        let content: SweepFile = toml::from_str(&text).map_err(|e| anyhow::anyhow!(damaged(e.to_string())))?;
        ensure!(content.format == FORMAT, "{}", damaged(format!("format `{}`", content.format)));
        let legal = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        ensure!(
            !content.cell.is_empty() && content.cell.iter().all(|cell| legal(&cell.name)),
            "{}",
            damaged("the names of cells".to_owned())
        );
        // Absolute, and with the name that `latest` stands for: jobs run elsewhere, and later.
        let root = root.canonicalize().with_context(|| format!("{}: cannot read", root.display()))?;
        let SweepFile { recipe, directory, cache, cell, .. } = content;
        let cells = cell.into_iter().map(|entry| Cell { name: entry.name, set: entry.set }).collect();
        Ok(Self { root, recipe, directory, cells, cache })
    }

    /// Refuses a plan that is not that of this sweep. The number of threads and the cache do not matter to results.
    fn expect(&self, plan: &Plan) -> Result<()> {
        let shown = self.root.display();
        let other = |what: &str| {
            format!(
                "{shown}: holds another sweep, {what}; hint: name another folder, or go on with the settings stored there: quee sweep resume {shown}"
            )
        };
        let same = self.cells.len() == plan.cells.len() && self.cells.iter().zip(&plan.cells).all(|(a, (b, _))| a == b);
        ensure!(same, "{}", other("with other cells"));
        let settings = |text: &str| {
            let mut table: Table = text.parse().unwrap_or_default();
            table.remove("threads");
            table
        };
        for (index, (cell, recipe)) in plan.cells.iter().enumerate() {
            let stored = settings(&fs::read_to_string(self.recipe_file(index)).unwrap_or_default());
            let differ = stored != settings(&toml::to_string(recipe)?);
            ensure!(!differ, "{}", other(&format!("with other settings in cell {}", cell.name)));
        }
        Ok(())
    }

    /// The folder of cell `index`.
    pub fn cell(&self, index: usize) -> PathBuf {
        self.root.join(CELLS).join(&self.cells[index].name)
    }

    /// The recipe of cell `index`.
    pub fn recipe_file(&self, index: usize) -> PathBuf {
        self.cell(index).join(RECIPE)
    }

    /// Whether the recipe of cell `index` leaves the number of threads open.
    pub fn threads_are_free(&self, index: usize) -> bool {
        let text = fs::read_to_string(self.recipe_file(index)).unwrap_or_default();
        text.parse::<Table>().is_ok_and(|recipe| recipe.get("threads") == Some(&Value::Integer(0)))
    }

    /// Writes a file beside the cells.
    ///
    /// # Errors
    /// When the disk is full or the folder is not writable.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let file = self.root.join(name);
        write_whole(&file, bytes)
            .with_context(|| format!("{}: cannot write; hint: is the disk full?", file.display()))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::table;
    use crate::recipe;

    fn plan(folder: &Path, text: &str, threads: usize) -> Plan {
        let path = folder.join("r.toml");
        fs::write(&path, format!("name = \"x\"\nthreads = {threads}\n{text}")).unwrap();
        let cells = table::cells(&path, &recipe::load(&path, None, &[]).unwrap()).unwrap();
        Plan { recipe: "x".to_owned(), cells, cache: vec!["--cache=none".to_owned()] }
    }

    #[test]
    fn a_sweep_is_gone_on_with_and_never_mixed_with_another() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("s");
        let first = plan(folder.path(), "sweep.seeds = [1, 2]", 0);
        let sweep = SweepFolder::create_or_open(&root, &first).unwrap();
        assert_eq!(sweep.cells[1].name, "001-seed=2");
        assert!(sweep.threads_are_free(0));
        let again = plan(folder.path(), "sweep.seeds = [1, 2]", 3);
        let sweep = SweepFolder::create_or_open(&root, &again).unwrap();
        assert!(!sweep.threads_are_free(0));
        // A cell's recipe is one like any other.
        let stored = recipe::load(&sweep.recipe_file(1), None, &[]).unwrap();
        assert_eq!(stored, again.cells[1].1);
        for (text, words) in [
            ("sweep.seeds = [1, 3]", "other cells"),
            ("exits.epochs = 3\nsweep.seeds = [1, 2]", "other settings in cell 000-seed=1"),
        ] {
            let message = SweepFolder::create_or_open(&root, &plan(folder.path(), text, 0)).err().unwrap().to_string();
            assert!(message.contains(words) && message.contains("resume"), "{message}");
        }
        fs::write(folder.path().join("s/sweep.toml"), "format = 3").unwrap();
        assert!(SweepFolder::open(&root).err().unwrap().to_string().contains("damaged"));
        assert!(SweepFolder::open(folder.path()).err().unwrap().to_string().contains("hint"));
        let message = SweepFolder::create_or_open(folder.path(), &again).err().unwrap().to_string();
        assert!(message.contains("something else"), "{message}");
    }
}
