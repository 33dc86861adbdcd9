//! Tiles that were measured to be the fastest on an adapter, kept in a file.
//!
//! A file belongs to one adapter and driver, and is called by both. Choices change times only, never results: a file that is damaged, of
//! another adapter or of another version is passed over with a warning.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::adapter::AdapterInfo;
use crate::device::Gpu;
use crate::tiles::{Operands, Shape, Tile, named};

const FORMAT: &str = "quee tuning 1";
/// No file of ours comes near it.
const MOST_BYTES: u64 = 4 << 20;
/// No axis of a product is longer.
const LONGEST: usize = 1 << 31;

/// Why the choices in a file are not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TuningError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It does not hold what a tuning file holds.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Written by another version.
    #[error("format `{0}`, expected `{FORMAT}`")]
    Version(String),
    /// Measured elsewhere.
    #[error("measured on {0}")]
    Foreign(String),
}

/// The fastest tile of a class of products.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The class, see [`Shape::class`].
    pub class: Shape,
    /// The fastest tile.
    pub tile: &'static Tile,
    /// Seconds that it took for the shape that was measured.
    pub seconds: f64,
}

/// Choices for an adapter.
#[derive(Clone, Debug)]
pub struct Tuning {
    adapter: String,
    driver: String,
    /// At most one for each class.
    choices: Vec<Choice>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    adapter: String,
    driver: String,
    choices: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    operands: Kind,
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    tile: String,
    microseconds: f64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Codes,
    Floats,
}

impl Tuning {
    /// No choices yet.
    pub fn new(info: &AdapterInfo) -> Self {
        Self { adapter: info.name.clone(), driver: info.driver.clone(), choices: Vec::new() }
    }

    /// The choices in the file of an adapter in `folder`, or `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn read(folder: &Path, info: &AdapterInfo) -> Result<Option<Self>, TuningError> {
        let unreadable = |e: std::io::Error| TuningError::Unreadable(e.to_string());
        let file = match std::fs::File::open(folder.join(file_name(info))) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(&bytes, info).map(Some)
    }

    /// The choices in the content of a file.
    ///
    /// # Errors
    /// When it is damaged, or of another version or adapter.
    pub fn parse(bytes: &[u8], info: &AdapterInfo) -> Result<Self, TuningError> {
        let damaged = |e: serde_json::Error| TuningError::Damaged(e.to_string());
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
        match value.get("format").and_then(serde_json::Value::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(TuningError::Version(other.chars().take(40).collect())),
            None => return Err(TuningError::Damaged("no format".into())),
        }
        let file: File = serde_json::from_value(value).map_err(damaged)?;
        if (&file.adapter, &file.driver) != (&info.name, &info.driver) {
            return Err(TuningError::Foreign(format!("{}, {}", file.adapter, file.driver)));
        }
        let mut tuning = Self::new(info);
        for entry in file.choices {
            let Entry { operands, m, n, k, batch, tile, microseconds } = entry;
            if [m, n, k, batch].iter().any(|&axis| axis == 0 || axis > LONGEST) {
                return Err(TuningError::Damaged(format!("a product of {batch} times {m}x{n}x{k}")));
            }
            let operands = match operands {
                Kind::Codes => Operands::Codes,
                Kind::Floats => Operands::Floats,
            };
            // A tile that this version does not have.
            let Some(tile) = named(operands, &tile) else { continue };
            let class = Shape { operands, m, n, k, batch }.class();
            tuning.set(Choice { class, tile, seconds: microseconds * 1e-6 });
        }
        Ok(tuning)
    }

    /// The content of a file.
    pub fn encode(&self) -> String {
        let entry = |choice: &Choice| {
            let Shape { operands, m, n, k, batch } = choice.class;
            let operands = match operands {
                Operands::Codes => Kind::Codes,
                Operands::Floats => Kind::Floats,
            };
            let (tile, microseconds) = (choice.tile.name.to_owned(), choice.seconds * 1e6);
            Entry { operands, m, n, k, batch, tile, microseconds }
        };
        let file = File {
            format: FORMAT.into(),
            adapter: self.adapter.clone(),
            driver: self.driver.clone(),
            choices: self.choices.iter().map(entry).collect(),
        };
        serde_json::to_string_pretty(&file).expect("text and finite numbers") + "\n"
    }

    /// Sets the choice of a class.
    pub fn set(&mut self, choice: Choice) {
        self.choices.retain(|known| known.class != choice.class);
        self.choices.push(choice);
    }

    /// What was chosen.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Lets a device use the choices.
    pub fn apply(&self, gpu: &Gpu) {
        for choice in &self.choices {
            gpu.set_tile(choice.class, choice.tile);
        }
    }
}

/// Name of the file of an adapter and its driver.
pub fn file_name(info: &AdapterInfo) -> String {
    format!("{}.json", info.slug())
}

/// Lets a device that was just opened use what is in its file in `folder`.
pub(crate) fn load(gpu: &Gpu, folder: &Path) {
    match Tuning::read(folder, gpu.info()) {
        Ok(Some(tuning)) => tuning.apply(gpu),
        Ok(None) => {}
        Err(error) => {
            let path = folder.join(file_name(gpu.info()));
            tracing::warn!(
                "{}: {error}; passed over, results are the same without it; hint: run `quee tune`",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Kind as AdapterKind;
    use crate::tiles::all;

    fn info() -> AdapterInfo {
        AdapterInfo {
            name: "Some GPU (4 GiB)".into(),
            interface: "Vulkan".into(),
            kind: AdapterKind::Discrete,
            driver: "driver 1.2".into(),
            max_binding: 1 << 30,
            max_buffer: 1 << 30,
            shared_memory: 1 << 15,
            invocations: 256,
            subgroups: (32, 32),
            features: Vec::new(),
            matrix_units: false,
        }
    }

    fn shape(m: usize) -> Shape {
        Shape { operands: Operands::Codes, m, n: 96, k: 64, batch: 1 }
    }

    fn tuning() -> Tuning {
        let mut tuning = Tuning::new(&info());
        let floats = Shape { operands: Operands::Floats, ..shape(7) };
        tuning.set(Choice { class: shape(64), tile: named(Operands::Codes, "tiled 128x128").unwrap(), seconds: 2e-5 });
        tuning.set(Choice { class: floats.class(), tile: &all(Operands::Floats)[1], seconds: 1e-5 });
        tuning
    }

    /// Class, tile and microseconds of each choice.
    fn listed(tuning: &Tuning) -> Vec<(Shape, &'static str, f64)> {
        tuning.choices().iter().map(|choice| (choice.class, choice.tile.name, (choice.seconds * 1e6).round())).collect()
    }

    #[test]
    fn choices_come_back_from_a_file() {
        let folder = std::env::temp_dir().join(format!("quee-tuning-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(Tuning::read(&folder, &info()).unwrap().is_none());
        let path = folder.join(file_name(&info()));
        std::fs::write(&path, tuning().encode()).unwrap();
        let read = Tuning::read(&folder, &info()).unwrap().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(listed(&read), listed(&tuning()));
        assert_eq!(path.file_name().unwrap(), "some-gpu-4-gib_driver-1.2.json");
    }

    #[test]
    fn a_later_choice_of_a_class_replaces_the_first() {
        let mut tuning = tuning();
        tuning.set(Choice { class: shape(64), tile: &all(Operands::Codes)[0], seconds: 1e-5 });
        assert_eq!(tuning.choices().len(), 2);
        assert!(listed(&tuning).contains(&(shape(64), "direct 8x32", 10.0)));
    }

    #[test]
    fn files_that_are_not_ours_are_refused() {
        let good = tuning().encode();
        let parse = |text: &str, info: &AdapterInfo| Tuning::parse(text.as_bytes(), info).map(|tuning| listed(&tuning));
        assert!(matches!(parse("", &info()), Err(TuningError::Damaged(_))));
        assert!(matches!(parse(&good[..good.len() / 2], &info()), Err(TuningError::Damaged(_))));
        assert!(matches!(parse("{\"choices\": []}", &info()), Err(TuningError::Damaged(_))));
        assert!(matches!(parse(&good.replace("\"n\": 96", "\"n\": 0"), &info()), Err(TuningError::Damaged(_))));
        assert!(matches!(parse(&good.replace("96", "99999999999999"), &info()), Err(TuningError::Damaged(_))));
        assert!(matches!(parse(&good.replace("tuning 1", "tuning 7"), &info()), Err(TuningError::Version(_))));
        let other = AdapterInfo { driver: "driver 1.3".into(), ..info() };
        assert!(matches!(parse(&good, &other), Err(TuningError::Foreign(_))));
        // A tile of another version is passed over, the rest holds.
        let fewer = parse(
            &good.replace("tiled 128x128\",\n      \"microseconds\": 20", "tiled 999x1\",\n      \"microseconds\": 20"),
            &info(),
        );
        assert_eq!(fewer.unwrap().len(), 1);
    }
}
