//! `choices.safetensors`: what every setting of every front does with each test picture, so that methods of different runs can be compared picture
//! by picture.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use quee_backbone::checkpoint::{Checkpoint, CheckpointError};
use quee_backbone::tensor_file::{TensorData, encode};
use quee_policy::cost::Price;
use quee_policy::curve::{cal_points, pareto};
use quee_policy::outcome::{Choices, Setting};
use quee_policy::study::SeedResult;
use serde::{Deserialize, Serialize};

use super::Study;

const FORMAT: &str = "quee choices 1";
/// Name of the float backbone among the methods.
pub const FLOAT: &str = "float";
/// Name of the rule that always answers the most frequent training class.
pub const MAJORITY: &str = "most frequent class";

/// Why a file of choices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChoicesError {
    /// Not readable, not safetensors, or a tensor is missing or of another shape.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another format.
    #[error("{file}: format `{found}`, expected `{FORMAT}`; hint: run the recipe again with this version")]
    Format {
        /// File.
        file: String,
        /// What its notes say.
        found: String,
    },
    /// The parts do not fit together.
    #[error("{file}: damaged: {reason}; hint: run the recipe again")]
    Damaged {
        /// File.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// What the notes of the file hold.
#[derive(Serialize, Deserialize)]
struct Notes {
    dataset: String,
    seeds: Vec<u64>,
    least_cost: f64,
    methods: Vec<MethodNotes>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MethodNotes {
    name: String,
    /// `[seed][setting]`: names of the settings of the front.
    settings: Vec<Vec<String>>,
}

/// Which pictures were tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// Name of the data set.
    pub dataset: String,
    /// Their positions in it.
    pub indices: Vec<u32>,
    /// Their classes: they tell apart two files of one name.
    pub labels: Vec<u32>,
}

/// The bytes of the file. `test.indices` and `test.labels` `[picture]` u32; per seed and method `seed0.<method>.prices` `[price]` f32, relative costs,
/// and `seed0.<method>.choices` `[setting, word]` u32. A word holds the codes of four pictures, the first in its lowest byte: twice the index of the
/// price, plus 1 where the answer is right. With more than 128 prices a code takes two bytes, with more than 32,768 four. The oracle, which has no
/// settings, is left out.
///
/// # Errors
/// When the notes are not representable in JSON.
pub fn choices(study: &Study) -> Result<Vec<u8>> {
    let seeds: Vec<(u64, &SeedResult)> = study.seeds.iter().map(|seed| (seed.seed, &seed.result)).collect();
    let labels = study.seeds[0].trained.outcomes.test.labels();
    write(
        &Pictures {
            dataset: study.prepared.data.name.clone(),
            indices: study.prepared.splits.test.iter().map(|&index| index as u32).collect(),
            labels: labels.iter().map(|&label| u32::from(label)).collect(),
        },
        &seeds,
    )
}

/// As [`choices`], from the parts. `seeds` have the same methods.
///
/// # Errors
/// As [`choices`].
pub fn write(pictures: &Pictures, seeds: &[(u64, &SeedResult)]) -> Result<Vec<u8>> {
    let count = pictures.indices.len();
    let mut tensors = vec![
        TensorData::u32("test.indices", vec![count], pictures.indices.iter().copied()),
        TensorData::u32("test.labels", vec![count], pictures.labels.iter().copied()),
    ];
    let mut notes = Notes {
        dataset: pictures.dataset.clone(),
        seeds: seeds.iter().map(|seed| seed.0).collect(),
        least_cost: seeds.first().map_or(0.0, |seed| seed.1.least_cost),
        methods: Vec::new(),
    };
    for (seed, result) in seeds {
        let references = [(FLOAT, &result.float), (MAJORITY, &result.majority)];
        let references = references.map(|(name, setting)| (name, std::slice::from_ref(setting)));
        let methods = result.methods.iter().map(|method| (method.name.as_str(), method.settings.as_slice()));
        for (at, (name, settings)) in references.into_iter().chain(methods).enumerate() {
            let front: Vec<&Setting> =
                pareto(&cal_points(settings)).into_iter().map(|setting| &settings[setting]).collect();
            if notes.methods.len() == at {
                notes.methods.push(MethodNotes { name: name.to_owned(), settings: Vec::new() });
            }
            notes.methods[at].settings.push(front.iter().map(|setting| setting.name.clone()).collect());
            if !front.is_empty() {
                let test: Vec<&Choices> = front.iter().map(|setting| &setting.test).collect();
                tensors.extend(pack(&format!("seed{seed}.{name}"), &test, count));
            }
        }
    }
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("content".to_owned(), serde_json::to_string(&notes)?),
    ]);
    Ok(encode(&tensors, &metadata))
}

/// Bytes of a code.
fn code_bytes(prices: usize) -> usize {
    match prices {
        0..=128 => 1,
        129..=32_768 => 2,
        _ => 4,
    }
}

/// Words of a row of codes.
fn words(prices: usize, pictures: usize) -> usize {
    (pictures * code_bytes(prices)).div_ceil(4)
}

/// Prices and choices of one front.
fn pack(name: &str, front: &[&Choices], pictures: usize) -> [TensorData; 2] {
    let price = |choices: &Choices, option: u32| choices.prices()[option as usize].cost as f32;
    let mut prices: Vec<f32> = Vec::new();
    for choices in front {
        let mut options = choices.options().to_vec();
        options.sort_unstable();
        options.dedup();
        prices.extend(options.into_iter().map(|option| price(choices, option)));
    }
    prices.sort_by(f32::total_cmp);
    prices.dedup();
    let (bytes, row) = (code_bytes(prices.len()), words(prices.len(), pictures));
    let mut packed: Vec<u8> = Vec::with_capacity(4 * row * front.len());
    for (at, choices) in front.iter().enumerate() {
        for (option, correct) in choices.options().iter().zip(choices.correct()) {
            let index = prices.partition_point(|other| *other < price(choices, *option));
            let code = 2 * index as u32 + u32::from(*correct);
            packed.extend(&code.to_le_bytes()[..bytes]);
        }
        packed.resize(4 * row * (at + 1), 0);
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    [
        TensorData::f32(format!("{name}.prices"), vec![prices.len()], prices.iter().copied()),
        TensorData::u32(format!("{name}.choices"), vec![front.len(), row], packed.chunks_exact(4).map(word)),
    ]
}

/// A file of choices that has been opened; fronts are read when they are asked for.
#[derive(Debug)]
pub struct StoredChoices {
    /// Which pictures were tested.
    pub pictures: Pictures,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Relative cost of the cheapest one-segment path.
    pub least_cost: f64,
    methods: Vec<MethodNotes>,
    checkpoint: Checkpoint,
    file: String,
}

impl StoredChoices {
    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be read, is of another format or damaged.
    pub fn read(path: &Path) -> Result<Self, ChoicesError> {
        let file = path.display().to_string();
        let mut checkpoint = Checkpoint::read(path)?;
        let found = checkpoint.metadata().get("format").cloned().unwrap_or_default();
        if found != FORMAT {
            return Err(ChoicesError::Format { file, found });
        }
        let damaged = |reason: String| ChoicesError::Damaged { file: file.clone(), reason };
        let content = checkpoint.metadata().get("content").map(String::as_str).unwrap_or_default();
        let notes: Notes = serde_json::from_str(content).map_err(|error| damaged(format!("its notes: {error}")))?;
        let of_each = |method: &MethodNotes| method.settings.len() == notes.seeds.len();
        let reference = |name: &str| {
            let found = notes.methods.iter().find(|method| method.name == name);
            found.is_some_and(|method| method.settings.iter().all(|settings| settings.len() == 1))
        };
        let complete = notes.methods.iter().all(of_each) && reference(FLOAT) && reference(MAJORITY);
        if notes.seeds.is_empty() || !complete {
            return Err(damaged("its notes do not list every method for every seed".to_owned()));
        }
        if !(notes.least_cost.is_finite() && notes.least_cost > 0.0) {
            return Err(damaged(format!("least cost {}", notes.least_cost)));
        }
        let count = checkpoint.shape("test.indices").map_or(0, |shape| shape.iter().product());
        if count == 0 {
            return Err(damaged("no test pictures".to_owned()));
        }
        let pictures = Pictures {
            dataset: notes.dataset,
            indices: checkpoint.take_words("test.indices", &[count])?,
            labels: checkpoint.take_words("test.labels", &[count])?,
        };
        let (seeds, least_cost, methods) = (notes.seeds, notes.least_cost, notes.methods);
        Ok(Self { pictures, seeds, least_cost, methods, checkpoint, file })
    }

    /// Whether every seed has a front of `method`.
    pub fn has(&self, method: &str) -> bool {
        let found = self.methods.iter().find(|known| known.name == method);
        found.is_some_and(|known| known.settings.iter().all(|settings| !settings.is_empty()))
    }

    /// Takes out the fronts of a method, `[seed][setting]`, all prices multiplied by `scale`. Their exits, bits and times are not stored.
    ///
    /// # Errors
    /// When the method is not there (any more), or its tensors are damaged.
    pub fn take(&mut self, method: &str, scale: f64) -> Result<Vec<Vec<Choices>>, ChoicesError> {
        let damaged = |reason: String| ChoicesError::Damaged { file: self.file.clone(), reason };
        let known = self.methods.iter().find(|known| known.name == method);
        let known = known.ok_or_else(|| damaged(format!("no method `{method}`")))?;
        let pictures = self.pictures.indices.len();
        let mut fronts = Vec::new();
        for (seed, settings) in self.seeds.iter().zip(&known.settings) {
            let [prices_name, choices_name] = ["prices", "choices"].map(|part| format!("seed{seed}.{method}.{part}"));
            let count = self.checkpoint.shape(&prices_name).map_or(0, |shape| shape.iter().product());
            let prices = self.checkpoint.take(&prices_name, &[count])?;
            if prices.iter().any(|price| *price < 0.0) {
                return Err(damaged(format!("`{prices_name}` holds a negative price")));
            }
            let row = words(count, pictures);
            let packed = self.checkpoint.take_words(&choices_name, &[settings.len(), row])?;
            let price = |cost: &f32| Price { exit: 0, cost: f64::from(*cost) * scale, weight_bits: 0.0, ms: None };
            let prices: Arc<[Price]> = prices.iter().map(price).collect();
            let front: Option<Vec<Choices>> =
                (0..settings.len()).map(|at| unpack(&prices, &packed[at * row..(at + 1) * row], pictures)).collect();
            fronts.push(front.ok_or_else(|| damaged(format!("`{choices_name}` names a price that there is not")))?);
        }
        Ok(fronts)
    }
}

/// The choices of one setting; `None` where a code has no price.
fn unpack(prices: &Arc<[Price]>, words: &[u32], pictures: usize) -> Option<Choices> {
    let bytes = code_bytes(prices.len());
    let packed: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let code = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |code, byte| code << 8 | u32::from(*byte));
    let codes: Vec<u32> = packed.chunks_exact(bytes).take(pictures).map(code).collect();
    if codes.iter().any(|code| (code / 2) as usize >= prices.len()) {
        return None;
    }
    let correct = codes.iter().map(|code| code % 2 == 1).collect();
    Some(Choices::new(Arc::clone(prices), codes.into_iter().map(|code| code / 2).collect(), correct))
}

#[cfg(test)]
pub(crate) mod tests {
    use quee_policy::oracle::Oracle;
    use quee_policy::study::{MethodKind, MethodResult};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Pictures of a made-up data set, all of class 0 or 1.
    pub fn pictures(count: usize) -> Pictures {
        let indices: Vec<u32> = (0..count as u32).map(|at| 3 * at).collect();
        Pictures { dataset: "made up".into(), labels: indices.iter().map(|index| index % 2).collect(), indices }
    }

    /// A result of `names`, each with settings whose accuracy rises with cost; `skill` adds to all of them.
    pub fn result(names: &[&str], pictures: usize, options: usize, skill: f64, seed: u64) -> SeedResult {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut choices = |level: f64, count: usize| {
            let cost = |at: usize| 0.05 + 0.9 * level * (at + 1) as f64 / options as f64;
            let price = |at| Price { exit: 1, cost: cost(at), weight_bits: 4.0, ms: None };
            let prices: Vec<Price> = (0..options).map(price).collect();
            let option = (0..count).map(|_| rng.random_range(0..options as u32)).collect();
            let right = 0.4 + 0.4 * level + skill;
            Choices::new(prices.into(), option, (0..count).map(|_| rng.random::<f64>() < right).collect())
        };
        let mut setting = |level: f64| Setting {
            name: format!("level {level}"),
            parameter: level,
            cal: choices(level, 4_000),
            test: choices(level, pictures),
        };
        let method = |name: &&str| MethodResult {
            name: (*name).to_owned(),
            kind: MethodKind::Learned,
            settings: [0.1, 0.3, 0.6, 1.0].map(&mut setting).into(),
            commits: Vec::new(),
            risk: None,
            on_b: Vec::new(),
        };
        let methods = names.iter().map(method).collect();
        let constant = |cost: f64, wrong: usize| {
            let price = Price { exit: 1, cost, weight_bits: 32.0, ms: None };
            let correct = (0..pictures).map(|at| at % 10 >= wrong).collect();
            let test = Choices::new(vec![price].into(), vec![0; pictures], correct);
            Setting { name: "constant".into(), parameter: 0.0, cal: test.clone(), test }
        };
        SeedResult {
            methods,
            oracle: Oracle::new(&[0.05], pictures, |_, _| true),
            float: constant(1.0, 1),
            majority: constant(0.0, 8),
            least_cost: 0.05,
        }
    }

    #[test]
    fn fronts_come_back_whatever_the_number_of_prices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("choices.safetensors");
        for (options, bytes) in [(1, 1), (20, 1), (400, 2)] {
            let result = result(&["x", "y, z"], 101, options, 0.0, 5);
            std::fs::write(&path, write(&pictures(101), &[(7, &result)]).unwrap()).unwrap();
            let mut stored = StoredChoices::read(&path).unwrap();
            assert_eq!((&stored.pictures, &stored.seeds), (&pictures(101), &vec![7]));
            assert!(stored.has("y, z") && stored.has(FLOAT) && !stored.has("oracle"));
            let front = stored.take("y, z", 2.0).unwrap().remove(0);
            let settings = &result.methods[1].settings;
            let wanted = pareto(&cal_points(settings));
            assert_eq!((front.len(), code_bytes(front[0].prices().len())), (wanted.len(), bytes), "{options}");
            for (got, want) in front.iter().zip(wanted) {
                assert_eq!(got.correct(), settings[want].test.correct());
                assert!((got.mean_cost() - 2.0 * settings[want].test.mean_cost()).abs() < 1e-6);
            }
            let float = stored.take(FLOAT, 1.0).unwrap().remove(0).remove(0);
            assert_eq!((float.accuracy(), float.mean_cost()), (result.float.test.accuracy(), 1.0));
            assert!(stored.take("oracle", 1.0).is_err());
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("choices.safetensors");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            StoredChoices::read(&path).and_then(|mut stored| stored.take("x", 1.0))
        };
        let bytes = write(&pictures(64), &[(0, &result(&["x"], 64, 3, 0.0, 1))]).unwrap();
        assert!(read(&bytes).is_ok());
        assert!(matches!(read(&bytes[..bytes.len() / 2]), Err(ChoicesError::Checkpoint(_))));
        let tampered = |from: &str, to: &str| {
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
        };
        assert!(matches!(read(&tampered("quee choices 1", "quee choices 9")), Err(ChoicesError::Format { .. })));
        assert!(matches!(read(&tampered("least_cost\\\":0", "least_cost\\\":-")), Err(ChoicesError::Damaged { .. })));
        let mut codes = bytes.clone();
        *codes.last_mut().unwrap() = 0xff;
        assert!(matches!(read(&codes), Err(ChoicesError::Damaged { .. })), "a code without a price");
    }
}
