//! Reading a recipe: base, `extends`, profile, `--set`, and the check of every key.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::settings::{Continuations, CostModel, Recipe};

/// The base recipe: every key with its default and explanation.
pub const BASE: &str = include_str!("../../../../experiments/base.toml");
/// The table of a recipe that says what `quee sweep` runs; no setting.
const SWEEP: &str = "sweep";

/// What is wrong with a recipe. Every message names the file or option.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error(
        "{file}: cannot read the recipe: {source}; hint: recipes live in experiments/, e.g. experiments/digits/recipe.toml"
    )]
    Io {
        /// File.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{file}: not valid TOML: {reason}")]
    Syntax {
        /// File or option.
        file: String,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{file}: unknown key `{key}`; hint: {hint}")]
    UnknownKey {
        /// File or option.
        file: String,
        /// Key with its tables.
        key: String,
        /// The nearest known key.
        hint: String,
    },
    /// A profile that does not exist.
    #[error("{file}: no profile `{profile}`; hint: {hint}")]
    UnknownProfile {
        /// File.
        file: String,
        /// What was asked for.
        profile: String,
        /// What exists.
        hint: String,
    },
    /// A value of the wrong type or outside its range.
    #[error(
        "{file}: {reason}; hint: `quee recipe keys` explains every key (`--training`: those of pretrain and finetune)"
    )]
    Value {
        /// File.
        file: String,
        /// Key and reason.
        reason: String,
    },
    /// Files that extend one another in a circle.
    #[error("{file}: `extends` leads back to this file")]
    Circle {
        /// File.
        file: String,
    },
}

/// Reads the recipe in `path` with the variant `profile` and the changes `sets` (each `KEY=VALUE`).
///
/// # Errors
/// When a file cannot be read or holds unknown keys or impossible values.
pub fn load(path: &Path, profile: Option<&str>, sets: &[String]) -> Result<Recipe, RecipeError> {
    let file = path.display().to_string();
    let base = base_table();
    let mut layers = layers(path)?;
    layers.iter_mut().for_each(|(_, layer)| drop(layer.remove(SWEEP)));
    let mut merged = merged(path, layers, profile, sets, &base)?;
    if merged["name"].as_str() == Some("") {
        merged.insert("name".into(), Value::String(name_of_folder(path)));
    }
    checked(file, merged)
}

/// Reads the recipe that a run has left in its results, which says everything that its program knew. A setting of a later date takes the value that
/// stands for how older programs worked, where there is one, and else that of the base recipe.
///
/// # Errors
/// When the file cannot be read or holds unknown keys or impossible values.
pub fn load_whole(path: &Path) -> Result<Recipe, RecipeError> {
    let file = path.display().to_string();
    let base = base_table();
    let table = parse(&file, &read_text(path)?)?;
    check_keys(&file, &table, &base, "", &base)?;
    let mut whole = base.clone();
    for key in all_keys(&base, "") {
        let mut without = base.clone();
        remove(&mut without, &key);
        // The type itself has a value for it.
        if typed::<Recipe>(&file, without).is_ok() {
            remove(&mut whole, &key);
        }
    }
    merge(&mut whole, table);
    checked(file, whole)
}

fn base_table() -> Table {
    BASE.parse().expect("the embedded base recipe is valid TOML")
}

/// Removes a key, written with its tables.
fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => drop(table.remove(key)),
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// The recipe that a table stands for, its values checked.
fn checked(file: String, table: Table) -> Result<Recipe, RecipeError> {
    let recipe: Recipe = typed(&file, table)?;
    recipe.check().map_err(|reason| RecipeError::Value { file, reason })?;
    Ok(recipe)
}

/// `base` with what the file in `path` and those it extends, its variant `profile` and the changes `sets` say. Keys must
/// exist in `base`; a table that is empty there may hold any.
///
/// # Errors
/// When a file cannot be read or holds unknown keys.
pub fn resolve(path: &Path, profile: Option<&str>, sets: &[String], base: &Table) -> Result<Table, RecipeError> {
    merged(path, layers(path)?, profile, sets, base)
}

/// The table `[sweep]` of the recipe in `path`, or of the nearest file that it extends and that has one; with the name of that file.
///
/// # Errors
/// When a file cannot be read.
pub fn sweep_table(path: &Path) -> Result<Option<(String, Value)>, RecipeError> {
    let found = layers(path)?.into_iter().rev();
    Ok(found.filter_map(|(file, mut layer)| Some((file, layer.remove(SWEEP)?))).next())
}

/// [`resolve`] with the files already read.
fn merged(
    path: &Path,
    layers: Vec<(String, Table)>,
    profile: Option<&str>,
    sets: &[String],
    base: &Table,
) -> Result<Table, RecipeError> {
    let mut merged = base.clone();
    let mut profiles = Table::new();
    for (origin, mut layer) in layers {
        layer.remove("extends");
        if let Some(Value::Table(own)) = layer.remove("profile") {
            for (name, variant) in &own {
                let Value::Table(variant) = variant else {
                    return Err(RecipeError::Value {
                        file: origin,
                        reason: format!("`profile.{name}` must be a table"),
                    });
                };
                check_keys(&origin, variant, base, "", base)?;
            }
            merge(&mut profiles, own);
        }
        check_keys(&origin, &layer, base, "", base)?;
        merge(&mut merged, layer);
    }
    if let Some(name) = profile {
        let Some(Value::Table(variant)) = profiles.remove(name) else {
            let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
            let hint = if known.is_empty() {
                "this recipe has none".to_owned()
            } else {
                format!("known: {}", known.join(", "))
            };
            let file = path.display().to_string();
            return Err(RecipeError::UnknownProfile { file, profile: name.to_owned(), hint });
        };
        merge(&mut merged, variant);
    }
    for set in sets {
        let layer = parse_set(set)?;
        check_keys(&format!("--set {set}"), &layer, base, "", base)?;
        merge(&mut merged, layer);
    }
    Ok(merged)
}

/// `recipe` with the settings in `set` changed; `origin` names them in messages.
///
/// # Errors
/// When a key does not exist or a value is impossible.
pub fn changed(recipe: &Recipe, set: &Table, origin: &str) -> Result<Recipe, RecipeError> {
    let base = base_table();
    check_keys(origin, set, &base, "", &base)?;
    let mut merged = Table::try_from(recipe).expect("a recipe is representable in TOML");
    merge(&mut merged, set.clone());
    checked(origin.to_owned(), merged)
}

/// The settings that a resolved table stands for; `file` is its name in messages.
///
/// # Errors
/// When a value is of another type.
pub fn typed<T: serde::de::DeserializeOwned>(file: &str, table: Table) -> Result<T, RecipeError> {
    Value::Table(table).try_into().map_err(|e: toml::de::Error| RecipeError::Value {
        file: file.to_owned(),
        reason: e.to_string().trim().replace('\n', " "),
    })
}

/// The name of the folder that a recipe lies in, without characters that `name` must not have.
fn name_of_folder(path: &Path) -> String {
    let folder = path.canonicalize().ok().and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()));
    let legal: String = folder.unwrap_or_default().chars().map(|c| if is_legal(c) { c } else { '-' }).collect();
    let name = legal.trim_start_matches('.');
    if name.is_empty() { "run".to_owned() } else { name.to_owned() }
}

/// Whether a character may stand in the name of a results folder.
fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// The file and what it extends, the outermost base first.
fn layers(path: &Path) -> Result<Vec<(String, Table)>, RecipeError> {
    let mut chain: Vec<(String, Table)> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next {
        let file = path.display().to_string();
        let text = read_text(&path)?;
        let place = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.contains(&place) {
            return Err(RecipeError::Circle { file });
        }
        seen.push(place);
        let table = parse(&file, &text)?;
        next = match table.get("extends") {
            None => None,
            Some(Value::String(other)) => Some(path.parent().unwrap_or(Path::new("")).join(other)),
            Some(_) => {
                return Err(RecipeError::Value { file, reason: "`extends` must be the path of a recipe".into() });
            }
        };
        chain.push((file, table));
    }
    chain.reverse();
    Ok(chain)
}

fn read_text(path: &Path) -> Result<String, RecipeError> {
    std::fs::read_to_string(path).map_err(|source| RecipeError::Io { file: path.display().to_string(), source })
}

fn parse(file: &str, text: &str) -> Result<Table, RecipeError> {
    text.parse().map_err(|e: toml::de::Error| RecipeError::Syntax { file: file.to_owned(), reason: e.to_string() })
}

/// `a.b=value` as a table. The value is TOML; what is no TOML is taken as text.
fn parse_set(set: &str) -> Result<Table, RecipeError> {
    let Some((key, value)) = set.split_once('=') else {
        let reason = "expected KEY=VALUE, e.g. predictor.hidden=64".to_owned();
        return Err(RecipeError::Syntax { file: format!("--set {set}"), reason });
    };
    let (key, value) = (key.trim(), value.trim());
    let text = |value: &str| format!("{key} = {value}").parse::<Table>();
    text(value)
        .or_else(|_| text(&Value::String(value.to_owned()).to_string()))
        .map_err(|e| RecipeError::Syntax { file: format!("--set {set}"), reason: e.to_string() })
}

/// Puts the values of `from` into `into`, table by table.
pub fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Every key of `layer` must exist in `known`, the part of `base` at `prefix`; the error names the nearest one.
fn check_keys(file: &str, layer: &Table, known: &Table, prefix: &str, base: &Table) -> Result<(), RecipeError> {
    for (key, value) in layer {
        let full = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (known.get(key), value) {
            (None, _) => {
                let all = all_keys(base, "");
                let near = all.iter().max_by(|a, b| nearness(a, &full).total_cmp(&nearness(b, &full)));
                let hint = match near {
                    Some(near) if nearness(near, &full) > 0.5 => format!("did you mean `{near}`?"),
                    _ => "`quee recipe keys` explains every key".to_owned(),
                };
                return Err(RecipeError::UnknownKey { file: file.to_owned(), key: full, hint });
            }
            (Some(Value::Table(inner)), Value::Table(_)) if inner.is_empty() => {}
            (Some(Value::Table(inner)), Value::Table(layer)) => check_keys(file, layer, inner, &full, base)?,
            (Some(Value::Table(_)), _) => {
                return Err(RecipeError::Value {
                    file: file.to_owned(),
                    reason: format!("`{full}` is a table, not a value"),
                });
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

/// Similarity of a known key to what was written; the last part counts as much as the whole.
fn nearness(known: &str, written: &str) -> f64 {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::normalized_damerau_levenshtein(known, written);
    whole.max(0.999 * strsim::normalized_damerau_levenshtein(&last(known), &last(written)))
}

fn all_keys(table: &Table, prefix: &str) -> Vec<String> {
    let full = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    table
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Table(inner) => {
                let mut keys = all_keys(inner, &full(key));
                keys.push(full(key));
                keys
            }
            _ => vec![full(key)],
        })
        .collect()
}

impl Recipe {
    /// Checks what types alone cannot: ranges, and settings that exclude one another.
    fn check(&self) -> Result<(), String> {
        let positive = [
            ("quant.calibration_pictures", self.quant.calibration_pictures),
            ("paths.limit", self.paths.limit),
            ("paths.batch", self.paths.batch),
            ("exits.hidden", self.exits.hidden),
            ("exits.epochs", self.exits.epochs),
            ("exits.batch", self.exits.batch),
            ("cells.count", self.cells.count),
            ("predictor.hidden", self.predictor.hidden),
            ("predictor.members", self.predictor.members),
            ("predictor.batch", self.predictor.batch),
            ("predictor.epochs", self.predictor.epochs),
            ("predictor.patience", self.predictor.patience),
            ("statistics.resamples", self.statistics.resamples),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("`{key}` must be at least 1"));
        }
        if self.policy.max_settings < 16 {
            return Err("`policy.max_settings` must be at least 16".into());
        }
        let rates = [
            ("exits.learning_rate", self.exits.learning_rate),
            ("predictor.learning_rate", self.predictor.learning_rate),
        ];
        if let Some((key, value)) = rates.iter().find(|(_, rate)| !(*rate > 0.0 && rate.is_finite())) {
            return Err(format!("`{key}` = {value}: must be positive"));
        }
        let shares = [
            ("predictor.held_out", self.predictor.held_out),
            ("policy.risk", self.policy.risk),
            ("policy.risk_level", self.policy.risk_level),
        ];
        if let Some((key, value)) = shares.iter().find(|(_, share)| !(*share > 0.0 && *share < 1.0)) {
            return Err(format!("`{key}` = {value}: must lie between 0 and 1"));
        }
        let not_negative = [
            ("exits.weight_decay", self.exits.weight_decay),
            ("predictor.weight_decay", self.predictor.weight_decay),
            ("cells.smoothing", self.cells.smoothing),
            ("policy.half_trust", self.policy.half_trust),
        ];
        if let Some((key, value)) = not_negative.iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
            return Err(format!("`{key}` = {value}: must not be negative"));
        }
        if !(0.0..=1.0).contains(&self.exits.distillation) {
            return Err(format!("`exits.distillation` = {}: must lie between 0 and 1", self.exits.distillation));
        }
        if self.predictor.foresight != 0.0 && self.policy.continuations == Continuations::Pooled {
            let why = "pooling would change how much a prediction knows";
            return Err(format!("`predictor.foresight` needs `policy.continuations` = \"each\": {why}"));
        }
        if self.policy.cost == CostModel::Latency && !self.timing.measure {
            return Err("`policy.cost` = \"latency\" needs measured times; set `timing.measure` = true".into());
        }
        if !(0.0..=1.0).contains(&self.paths.turn) {
            return Err(format!("`paths.turn` = {}: must lie between 0 and 1", self.paths.turn));
        }
        if !(self.predictor.share > 0.0 && self.predictor.share <= 1.0) {
            return Err(format!("`predictor.share` = {}: must be above 0 and at most 1", self.predictor.share));
        }
        if !(0.0..1.0).contains(&self.policy.sets) {
            return Err(format!("`policy.sets` = {}: must be 0 or lie between 0 and 1", self.policy.sets));
        }
        if self.data.folds == 1 {
            return Err("`data.folds` = 1: take 0 (none) or at least 2".into());
        }
        if !(-1.0..=1.0).contains(&self.predictor.foresight) {
            return Err(format!("`predictor.foresight` = {}: must lie between -1 and 1", self.predictor.foresight));
        }
        if self.seeds.is_empty() {
            return Err("`seeds` is empty: name at least one seed".into());
        }
        if self.quant.widths.is_empty() {
            return Err("`quant.widths` is empty: name at least one width".into());
        }
        if self.quant.widths.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("`quant.widths` must be in ascending order, each width once".into());
        }
        if self.paths.segments.len() < 2 || self.paths.segments.contains(&0) {
            return Err("`paths.segments` needs at least two segments of at least one block".into());
        }
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(is_legal) {
            return Err(format!("`name` = \"{}\": use letters, digits, `-`, `_` and `.`", self.name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str, profile: Option<&str>, sets: &[&str]) -> Result<Recipe, RecipeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        load(&path, profile, &sets)
    }

    #[test]
    fn the_base_recipe_is_complete_and_valid() {
        let recipe = recipe("name = \"x\"", None, &[]).unwrap();
        assert_eq!(recipe.paths.segments, [2, 2, 1, 1]);
    }

    #[test]
    fn a_whole_recipe_is_read_as_it_was_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        let run = recipe("name = \"x\"", None, &["policy.half_trust=500"]).unwrap();
        let mut table = Table::try_from(&run).unwrap();
        let whole = |table: &Table| {
            std::fs::write(&path, table.to_string()).unwrap();
            load_whole(&path)
        };
        assert_eq!(whole(&table).unwrap(), run);
        // A program that did not know pooled predictions.
        let Value::Table(policy) = &mut table["policy"] else { panic!("a table") };
        policy.remove("continuations");
        policy.remove("half_trust");
        let older = whole(&table).unwrap();
        assert_eq!((older.policy.continuations, older.policy.half_trust), (Continuations::Each, 0.0));
        // An even older one, for whose ways there is no value.
        let Value::Table(paths) = &mut table["paths"] else { panic!("a table") };
        paths.remove("sample");
        assert_eq!(whole(&table).unwrap(), older);
        table.insert("sedes".into(), Value::Array(vec![]));
        assert!(whole(&table).unwrap_err().to_string().contains("did you mean `seeds`?"));
        table.remove("sedes");
        table.insert("threads".into(), Value::Integer(-1));
        assert!(whole(&table).is_err());
    }

    #[test]
    fn later_layers_win() {
        let text = "predictor.hidden = 8\n[profile.big]\npredictor.hidden = 64\npaths.batch = 4\n";
        assert_eq!(recipe(text, None, &[]).unwrap().predictor.hidden, 8);
        assert_eq!(recipe(text, Some("big"), &[]).unwrap().predictor.hidden, 64);
        let set = recipe(text, Some("big"), &["predictor.hidden=7", "quant.widths=[\"w2a8\", 4]"]).unwrap();
        assert_eq!((set.predictor.hidden, set.paths.batch), (7, 4));
        assert_eq!(set.quant.widths[1].to_string(), "w4a4");
    }

    #[test]
    fn a_bare_word_in_set_is_text() {
        assert_eq!(
            recipe("", None, &["quant.activations=mse"]).unwrap().quant.activations,
            quee_quant::ActQuantizer::Mse
        );
    }

    #[test]
    fn unknown_keys_name_the_nearest_one() {
        let message = |text: &str, sets: &[&str]| recipe(text, None, sets).unwrap_err().to_string();
        assert!(message("[predictor]\nhiden = 3", &[]).contains("did you mean `predictor.hidden`"));
        assert!(message("seed = [1]", &[]).contains("did you mean `seeds`"));
        assert!(message("", &["hidden=3"]).contains("did you mean `predictor.hidden`"));
        assert!(message("[profile.small]\npaths.bach = 3", &[]).contains("did you mean `paths.batch`"));
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        let message = |text: &str| recipe(text, None, &[]).unwrap_err().to_string();
        assert!(message("quant.widths = [9]").contains("`9`"));
        assert!(message("quant.widths = [\"w4a4\", 4]").contains("once"));
        assert!(message("quant.widths = [8, 4]").contains("ascending"));
        assert!(message("paths.segments = [6]").contains("paths.segments"));
        assert!(message("predictor.hidden = 0").contains("predictor.hidden"));
        assert!(message("predictor = 3").contains("predictor"));
        assert!(message("predictor.hidden = \"many\"").contains("recipe.toml"));
        assert!(message("name = \"../x\"").contains("name"));
        assert!(message("policy.cost = \"flops\"").contains("`bops`, `macs`, `dynn`"));
        assert!(message("policy.half_trust = -1.0").contains("policy.half_trust"));
        assert!(message("predictor.foresight = 0.5").contains("policy.continuations"));
        assert!(message("= 3").contains("TOML"));
    }

    #[test]
    fn a_missing_profile_lists_the_known_ones() {
        let error = recipe("[profile.small]\npaths.batch = 3", Some("smal"), &[]).unwrap_err().to_string();
        assert!(error.contains("known: small") || error.contains("small"), "{error}");
    }

    #[test]
    fn extends_is_followed_and_circles_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.toml", "paths.batch = 5\nexits.epochs = 2");
        write("b.toml", "extends = \"a.toml\"\npaths.batch = 6");
        let recipe = load(&folder.path().join("b.toml"), None, &[]).unwrap();
        assert_eq!((recipe.paths.batch, recipe.exits.epochs), (6, 2));
        write("a.toml", "extends = \"b.toml\"");
        assert!(matches!(load(&folder.path().join("b.toml"), None, &[]), Err(RecipeError::Circle { .. })));
    }
}
