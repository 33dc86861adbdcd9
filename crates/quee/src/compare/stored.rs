//! What `quee compare` reads of a finished run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quee_policy::bootstrap::Interval;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::recipe::CostModel;
use crate::results::choices::{ChoicesError, StoredChoices};

/// Why runs cannot be compared. Every message names the file or option.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Not the folder of a run.
    #[error(
        "{folder}: no results of a run, {missing} is missing; hint: name results folders such as runs/digits/latest"
    )]
    NoRun {
        /// Folder.
        folder: String,
        /// The first file that is not there.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{file}: cannot read: {source}; hint: check the permissions")]
    Io {
        /// File.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file does not hold what a run writes.
    #[error("{file}: damaged or of another version: {reason}; hint: run the recipe again")]
    Damaged {
        /// File.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The choices cannot be used.
    #[error(transparent)]
    Choices(#[from] ChoicesError),
    /// Costs that have no common axis.
    #[error(
        "{first} counts {first_unit}, {other} {other_unit}: there is no axis for both; hint: compare runs with the same policy.cost"
    )]
    CostModels {
        /// The first run.
        first: String,
        /// What it counts.
        first_unit: &'static str,
        /// Another.
        other: String,
        /// What that one counts.
        other_unit: &'static str,
    },
    /// Too few or too many runs.
    #[error("{given} runs; hint: name 2 to {most} results folders")]
    Number {
        /// Runs given.
        given: usize,
        /// Most that can be told apart.
        most: usize,
    },
    /// No run has such a method.
    #[error("--methods {name}: no run has such a method; hint: they have {known}")]
    Method {
        /// Name asked for.
        name: String,
        /// Names there are.
        known: String,
    },
    /// Results of another command are in the way.
    #[error("--out {folder}: holds the results of a run, whose page would be lost; hint: name another folder")]
    Occupied {
        /// Folder.
        folder: String,
    },
}

/// `summary.json` of a [part of the runs on paths](crate::parts).
#[derive(Debug, Deserialize)]
pub struct PartSummary {
    /// Data set.
    pub dataset: String,
    /// Backbone.
    pub backbone: String,
    /// Which part.
    #[serde(rename = "part")]
    _part: String,
}

impl PartSummary {
    /// That of the results in `folder`.
    ///
    /// # Errors
    /// When it is missing, damaged, or of a whole run.
    pub fn read(folder: &Path) -> Result<Self, CompareError> {
        json(&folder.join("summary.json"))
    }
}

/// The part of `summary.json` that is compared.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// Data set.
    pub dataset: String,
    /// How many of the published pictures there are, where some are missing.
    pub subset: Option<String>,
    /// Pictures tested.
    pub test_samples: usize,
    /// Backbone.
    pub backbone: String,
    /// Where its weights come from.
    pub weights: String,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Accuracy of float on *test*.
    pub float_accuracy: f64,
    /// What is counted.
    pub cost_model: CostModel,
    /// Absolute cost of float.
    pub float_cost: f64,
    /// Best single technique, judged on *cal-a*.
    pub best_single: Option<String>,
    /// All methods.
    pub methods: Vec<Method>,
    #[serde(default)]
    differences: Vec<Difference>,
}

/// One method against another in `summary.json`, on the same resamples.
#[derive(Debug, Deserialize)]
struct Difference {
    method: String,
    against: String,
    area: f64,
    area_low: f64,
    area_high: f64,
}

impl Summary {
    /// That of the run in `folder`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Self, CompareError> {
        json(&folder.join("summary.json"))
    }

    /// Area of a method minus that of another, paired; `None` where the run has not compared them.
    pub fn lead(&self, method: &str, against: &str) -> Option<Interval> {
        let found = self.differences.iter().find(|d| d.method == method && d.against == against)?;
        Some(Interval { value: found.area, low: found.area_low, high: found.area_high })
    }
}

/// One method in `summary.json`; later fields are missing in runs of earlier versions.
#[derive(Debug, Deserialize)]
pub struct Method {
    /// Name.
    pub name: String,
    area: f64,
    area_low: f64,
    area_high: f64,
    cost_at_drop_0_5: Option<f64>,
    test_drop_points_0_5: Option<f64>,
    cost_at_drop_1_0: Option<f64>,
    test_drop_points_1_0: Option<f64>,
    cost_of_0_5: Option<f64>,
    cost_of_0_5_low: Option<f64>,
    cost_of_0_5_high: Option<f64>,
}

impl Method {
    /// Area on the run's own axis.
    pub fn area(&self) -> Interval {
        Interval { value: self.area, low: self.area_low, high: self.area_high }
    }

    /// Test cost and test drop in points of the cheapest setting within 0.5 and 1.0 points on *cal-a*.
    pub fn at_drop(&self) -> [Option<(f64, f64)>; 2] {
        [self.cost_at_drop_0_5.zip(self.test_drop_points_0_5), self.cost_at_drop_1_0.zip(self.test_drop_points_1_0)]
    }

    /// Test cost of an accuracy 0.5 points below float's on *test*.
    pub fn cost_of_0_5(&self) -> Option<Interval> {
        let (value, low) = self.cost_of_0_5.zip(self.cost_of_0_5_low)?;
        Some(Interval { value, low, high: self.cost_of_0_5_high? })
    }
}

/// The part of `env.json` that is compared.
#[derive(Debug, Deserialize)]
pub struct Environment {
    /// Version of the program.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// Backend.
    pub backend: String,
}

/// Cost and accuracy of every setting of a front on *test*.
pub type Points = Vec<(f64, f64)>;

/// One run.
#[derive(Debug)]
pub struct StoredRun {
    /// Its folder, links followed.
    pub folder: PathBuf,
    /// `summary.json`.
    pub summary: Summary,
    /// `recipe.toml`.
    pub recipe: Table,
    /// `env.json`.
    pub environment: Environment,
    /// `curve.csv`: the front of every seed, by method.
    pub curves: BTreeMap<String, Vec<Points>>,
    /// `choices.safetensors`, which runs of earlier versions do not have.
    pub choices: Option<StoredChoices>,
}

impl StoredRun {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// When it is no folder of a run, or a file cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Self, CompareError> {
        let no_run = |missing| CompareError::NoRun { folder: folder.display().to_string(), missing };
        for file in ["summary.json", "curve.csv", "recipe.toml", "env.json"] {
            if !folder.join(file).is_file() {
                return Err(no_run(file));
            }
        }
        let folder = folder.canonicalize().map_err(|source| io(folder, source))?;
        let summary = Summary::read(&folder)?;
        let file = folder.join("recipe.toml");
        let recipe = text(&file)?.parse::<Table>().map_err(|error| damaged(&file, error.message().to_owned()))?;
        let environment = json(&folder.join("env.json"))?;
        let file = folder.join("curve.csv");
        let curves = curves(&text(&file)?).map_err(|reason| damaged(&file, reason))?;
        let file = folder.join("summary.json");
        let cost = summary.float_cost;
        if !(cost.is_finite() && cost > 0.0) {
            return Err(damaged(&file, format!("float_cost is {cost}")));
        }
        if let Some(method) = summary.methods.iter().find(|method| !curves.contains_key(&method.name)) {
            let reason = format!("no rows of `{}`, which summary.json has", method.name);
            return Err(damaged(&folder.join("curve.csv"), reason));
        }
        let file = folder.join("choices.safetensors");
        let choices = if file.exists() { Some(StoredChoices::read(&file)?) } else { None };
        if let Some(found) = &choices {
            let pictures = found.pictures.indices.len();
            if pictures != summary.test_samples || found.seeds != summary.seeds {
                let reason = format!("{pictures} pictures and seeds {:?}, unlike summary.json", found.seeds);
                return Err(damaged(&file, reason));
            }
        }
        Ok(Self { folder, summary, recipe, environment, curves, choices })
    }

    /// Recipe and id: the last two parts of the folder.
    pub fn name(&self) -> String {
        let mut parts: Vec<_> = self.folder.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        parts.reverse();
        parts.join("/")
    }

    /// One method's figures.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.summary.methods.iter().find(|method| method.name == name)
    }
}

fn io(file: &Path, source: std::io::Error) -> CompareError {
    CompareError::Io { file: file.display().to_string(), source }
}

fn damaged(file: &Path, reason: String) -> CompareError {
    CompareError::Damaged { file: file.display().to_string(), reason }
}

fn text(file: &Path) -> Result<String, CompareError> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(damaged(file, "not text".to_owned())),
        read => read.map_err(|source| io(file, source)),
    }
}

fn json<T: DeserializeOwned>(file: &Path) -> Result<T, CompareError> {
    serde_json::from_str(&text(file)?).map_err(|error| damaged(file, error.to_string()))
}

/// The cells of a row; one in double quotes may hold commas.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => cells.last_mut().into_iter().for_each(|cell| cell.push(character)),
        }
    }
    cells
}

/// Costs and accuracies by method and seed, the seeds in order of appearance.
fn curves(text: &str) -> Result<BTreeMap<String, Vec<Points>>, String> {
    let mut lines = text.lines().enumerate();
    let header = cells(lines.next().map_or("", |(_, line)| line));
    let column = |name: &str| header.iter().position(|cell| cell == name).ok_or_else(|| format!("no column `{name}`"));
    let (method, seed) = (column("method")?, column("seed")?);
    let (cost, accuracy) = (column("relative_cost")?, column("accuracy")?);
    let mut all: BTreeMap<String, Vec<(String, Points)>> = BTreeMap::new();
    for (at, line) in lines {
        let cells = cells(line);
        if cells.len() != header.len() {
            return Err(format!("line {} has {} cells instead of {}", at + 1, cells.len(), header.len()));
        }
        let number = |column: usize| {
            let value = cells[column].parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| format!("line {}: `{}` is no number", at + 1, cells[column]))
        };
        let point = (number(cost)?, number(accuracy)?);
        let seeds = all.entry(cells[method].clone()).or_default();
        match seeds.iter_mut().find(|(known, _)| *known == cells[seed]) {
            Some((_, points)) => points.push(point),
            None => seeds.push((cells[seed].clone(), vec![point])),
        }
    }
    Ok(all.into_iter().map(|(name, seeds)| (name, seeds.into_iter().map(|(_, points)| points).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_read_by_its_header() {
        let text = "method,seed,setting,accuracy,relative_cost\n\"a, b\",0,x,0.5,0.1\n\"a, b\",1,\"y,z\",0.6,0.2\n\"a, b\",0,x,0.7,0.3\n";
        let all = curves(text).unwrap();
        assert_eq!(all["a, b"], [vec![(0.1, 0.5), (0.3, 0.7)], vec![(0.2, 0.6)]]);
        assert!(curves("method,seed,accuracy\n").unwrap_err().contains("relative_cost"));
        assert!(curves(&text.replace("0.6", "x")).unwrap_err().contains("line 3"));
        assert!(curves(&format!("{text}a,0\n")).unwrap_err().contains("line 5"));
        assert!(curves("").is_err());
    }
}
