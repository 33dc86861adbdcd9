//! The typed settings of a recipe. Defaults and explanations are in `experiments/base.toml`.

use std::path::PathBuf;

use quee_backbone::{Pool, Variant};
use quee_gpu::GpuOptions;
use quee_heads::CalibrationKind;
use quee_quant::{ActQuantizer, WeightQuantizer, Width};
use serde::{Deserialize, Serialize};

use super::shard::Shard;

/// A resolved recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the results folder.
    pub name: String,
    /// What runs the backbone.
    pub backend: Backend,
    /// Which graphics adapter, and how much of it.
    pub gpu: Gpu,
    /// Threads; 0 is one per processor.
    pub threads: usize,
    /// Seeds of what is trained on top of the backbone.
    pub seeds: Vec<u64>,
    /// Data set and splits.
    pub data: Data,
    /// Architecture and weights.
    pub backbone: BackboneChoice,
    /// Widths and quantizers.
    pub quant: Quant,
    /// Segments and the tree of paths.
    pub paths: Paths,
    /// Training of the exits.
    pub exits: Exits,
    /// Gate features.
    pub features: Features,
    /// Cells.
    pub cells: Cells,
    /// Error predictors.
    pub predictor: Predictor,
    /// Settings of λ and risk control.
    pub policy: Policy,
    /// Measured times.
    pub timing: Timing,
    /// Bootstrap.
    pub statistics: Statistics,
}

/// What runs the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Integer kernels on the processor.
    Cpu,
    /// Integer kernels on a graphics adapter, a software one included.
    Gpu,
    /// A real GPU where there is one, else the processor.
    Auto,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Auto => "auto",
        })
    }
}

/// Which graphics adapter, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Part of the adapter's name; empty for the first by kind.
    pub adapter: String,
    /// Which kind comes first.
    pub power: Power,
    /// Most memory to use, in MiB; 0 is what the driver gives.
    pub memory_mib: u64,
    /// Most memory that packed weights keep between uses, in MiB.
    pub weights_mib: u64,
    /// Weights stay in as many bits as they have, and are unpacked before each use.
    pub packed_weights: bool,
    /// Products run on matrix units where the adapter has some.
    #[serde(default = "yes")]
    pub matrix_units: bool,
}

fn yes() -> bool {
    true
}

/// Which kind of adapter comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// The fastest.
    High,
    /// The most frugal.
    Low,
}

impl Gpu {
    /// What to open.
    pub fn options(&self) -> GpuOptions {
        GpuOptions {
            adapter: (!self.adapter.is_empty()).then(|| self.adapter.clone()),
            power: match self.power {
                Power::High => quee_gpu::Power::High,
                Power::Low => quee_gpu::Power::Low,
            },
            memory: (self.memory_mib > 0).then(|| self.memory_mib.saturating_mul(1 << 20)),
            weight_memory: self.weights_mib.saturating_mul(1 << 20),
            packed_weights: self.packed_weights,
            matrix_units: self.matrix_units,
            tuning: crate::folders::tuning(),
            ..GpuOptions::default()
        }
    }
}

/// Data set and splits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Data set by name.
    pub name: String,
    /// File or folder; empty for the default place.
    pub path: PathBuf,
    /// Seed of the splits.
    pub split_seed: u64,
    /// Pictures drawn for testing where the source has no test split.
    pub test: usize,
    /// Leave the source's test split alone, and test on pictures of its training part.
    pub development: bool,
    /// Take the pictures of exit-train, fit and cal from those that the backbone was trained on.
    pub seen: bool,
    /// Most pictures to divide among exit-train, fit and cal; 0 is all.
    pub limit_train: usize,
    /// Most pictures of the test split; 0 is all.
    pub limit_test: usize,
    /// Split in contiguous blocks.
    pub contiguous: bool,
    /// Share of exit-train.
    pub exit_train: f64,
    /// Share of fit.
    pub fit: f64,
    /// Share of cal-a.
    pub cal_a: f64,
    /// Share of cal-b.
    pub cal_b: f64,
    /// Folds for cross-fitting; 0: none.
    pub folds: usize,
}

/// Architecture and weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneChoice {
    /// Architecture by name.
    pub preset: String,
    /// Weights; empty for the embedded ones.
    pub weights: PathBuf,
    /// Side of a square picture in pixels; 0 for the preset's.
    pub image: usize,
    /// Pooling of the last block's tokens.
    pub pool: Pooling,
    /// Pictures of the data set that it has seen, where its file does not say: `none`, or positions.
    pub seen: String,
}

/// Pooling of the last block's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// As the preset has it.
    Preset,
    /// The class token.
    ClassToken,
    /// The mean of the patch tokens.
    Mean,
}

impl BackboneChoice {
    /// How the backbone differs from its preset.
    pub fn variant(&self) -> Variant {
        let pool = match self.pool {
            Pooling::Preset => None,
            Pooling::ClassToken => Some(Pool::ClassToken),
            Pooling::Mean => Some(Pool::Mean),
        };
        Variant { image: (self.image > 0).then_some(self.image), pool }
    }
}

/// Widths and quantizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quant {
    /// Widths that a segment may run at.
    pub widths: Vec<Width>,
    /// Width of the stem.
    pub stem: Width,
    /// Weight quantizer.
    pub weights: WeightQuantizer,
    /// Activation quantizer.
    pub activations: ActQuantizer,
    /// Pictures that static quantizers watch.
    pub calibration_pictures: usize,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Whether biases make up for what rounding adds to mean outputs.
    pub bias_correction: bool,
    /// Places that run one step wider, by name; `*` stands for any letters.
    pub wider: Vec<String>,
    /// Quantizers made before, a file of `quee quantize`; empty: made in the run.
    pub file: PathBuf,
    /// Further static widths.
    pub static_widths: Vec<Width>,
}

/// How weights are rounded to the steps of their scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// To the nearest.
    Nearest,
    /// Such that the layer's output on calibration pictures changes least.
    Gptq,
}

/// Segments and the tree of paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Blocks per segment.
    pub segments: Vec<usize>,
    /// Constraint along a path.
    pub monotone: Monotone,
    /// Largest number of paths.
    pub limit: usize,
    /// Full-depth paths to draw, of a tree that is too large; 0: the whole tree.
    pub sample: usize,
    /// Probability that a drawn path turns to another width at a segment.
    pub turn: f64,
    /// Seed of the drawn paths.
    pub sample_seed: u64,
    /// Pictures per batch.
    pub batch: usize,
    /// Whether class tokens are stored with the table.
    pub store_tokens: bool,
    /// Part of the pictures; whole in policies that were stored without it.
    #[serde(default)]
    pub shard: Shard,
}

/// Constraint on the widths along a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Monotone {
    /// Any sequence.
    Free,
    /// Never more bits than before.
    NonIncreasing,
    /// Never fewer bits than before.
    NonDecreasing,
}

/// What exits see in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitFeatures {
    /// Random paths and the float run.
    RandomPaths,
    /// The float run.
    Float,
}

/// The form of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitKind {
    /// One linear layer.
    Linear,
    /// One hidden layer before it.
    Hidden,
}

/// Which tokens exits read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitTokens {
    /// What the backbone's own classifier reads, after its normalisation.
    #[default]
    Class,
    /// The same, and the mean of all tokens.
    ClassAndMean,
}

/// Training of the exits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    /// Their form.
    pub head: ExitKind,
    /// Hidden units.
    pub hidden: usize,
    /// Whether an exit reads what the one before it said.
    pub cascade: bool,
    /// Which tokens they read.
    #[serde(default)]
    pub tokens: ExitTokens,
    /// Weight of the float backbone's own probabilities among the targets.
    pub distillation: f64,
    /// What they see.
    pub train_on: ExitFeatures,
    /// Random paths per picture.
    pub path_draws: usize,
    /// Passes over the rows.
    pub epochs: usize,
    /// Rows per step.
    pub batch: usize,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Gate features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Random projections of the class token.
    pub projection: usize,
}

/// Cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cells {
    /// Cells per gate.
    pub count: usize,
    /// Weight of the pooled rate.
    pub smoothing: f64,
}

/// Kind of error predictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PredictorKind {
    /// An ensemble of small networks.
    Networks,
    /// An ensemble of logistic regressions.
    Logistic,
    /// The cell table.
    Cells,
    /// Gradient-boosted trees, which read the continuation.
    Trees,
    /// An ensemble of small networks that serves all gates and reads the path.
    SharedNetworks,
    /// Gradient-boosted trees that serve all gates and read the path.
    SharedTrees,
}

/// What networks learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// Smoothed rates of the cells.
    Cells,
    /// 0/1 outcomes.
    Raw,
}

/// Error predictors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictor {
    /// Kind.
    pub kind: PredictorKind,
    /// What networks learn from.
    pub targets: Targets,
    /// Hidden units.
    pub hidden: usize,
    /// Networks in the ensemble.
    pub members: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Rows per step.
    pub batch: usize,
    /// Most passes over the rows.
    pub epochs: usize,
    /// Epochs without progress before stopping.
    pub patience: usize,
    /// Share of fit held out.
    pub held_out: f64,
    /// Calibration on cal-a.
    pub calibration: CalibrationKind,
    /// Share of fit to learn from.
    pub share: f64,
    /// From −1, nothing is known of a picture, to 1, the outcome is known: for diagnosis.
    pub foresight: f64,
}

/// Which continuations compete at a gate of the open-loop policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidates {
    /// All of the tree.
    All,
    /// Those that no cheaper one beats in error rate on *fit*.
    Front,
}

/// How a gate's predictions for the continuations of a picture are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Continuations {
    /// Each as it is.
    #[default]
    Each,
    /// With what sets the picture apart shared by all of them, see [`quee_policy::pooling`].
    Pooled,
}

/// Which methods are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Methods {
    /// All policies and baselines.
    All,
    /// Two policies and the baselines that are quick.
    Few,
}

/// What computing costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CostModel {
    /// Bit operations.
    Bops,
    /// Multiply-accumulates, whatever their width.
    Macs,
    /// What the *dynn* counter sees, see [`quee_backbone::cost_dynn`].
    Dynn,
    /// Milliseconds, measured at the start of the run on the backend in use.
    Latency,
}

impl CostModel {
    /// Unit of absolute costs.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bops => "GBOPs",
            Self::Macs => "million MACs",
            Self::Dynn => "million dynn operations",
            Self::Latency => "ms",
        }
    }

    /// What is counted, as a sentence of the report.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Bops => {
                "Bit operations: multiply-accumulates of every token, attention products included, times the bits of both factors."
            }
            Self::Macs => {
                "Multiply-accumulates of every token, attention products included, whatever their width: early exits save, small widths do not."
            }
            Self::Dynn => {
                "The dynn counter, for comparison with curves published with it: parameters of linear layers once, whatever the number of \
                 tokens, 2.5 per element of layer normalisations and 4 per element of GELUs, no products; small widths save nothing."
            }
            Self::Latency => {
                "Measured milliseconds per picture: stem, segments at every width, exits and gates, each timed alone in batches on this machine, one \
                 batch at a time. What it costs to regroup pictures that part ways is not in them."
            }
        }
    }

    /// Name of a column of absolute costs.
    pub fn column(self) -> &'static str {
        match self {
            Self::Bops => "gbops",
            Self::Macs => "million_macs",
            Self::Dynn => "million_dynn",
            Self::Latency => "cost_ms",
        }
    }
}

/// Costs, settings of λ and risk control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What computing costs.
    pub cost: CostModel,
    /// Which continuations compete at a gate.
    pub candidates: Candidates,
    /// How predictions for several continuations are taken; a stored policy that does not say takes each as it is.
    #[serde(default)]
    pub continuations: Continuations,
    /// Pictures of *fit* with which pooled predictions keep half of what sets a picture apart from others as hard.
    #[serde(default)]
    pub half_trust: f64,
    /// Which methods are compared.
    pub methods: Methods,
    /// Whether gate 0 may commit to a path.
    pub commit: bool,
    /// Most settings of λ.
    pub max_settings: usize,
    /// Largest rate of "float right, policy wrong".
    pub risk: f64,
    /// Probability of exceeding it.
    pub risk_level: f64,
    /// Resamplings that check risk control; 0 leaves the check out.
    pub risk_checks: usize,
    /// Prediction sets that miss the true class at most so often; 0 makes none.
    pub sets: f64,
    /// Score of the sets.
    pub set_score: quee_policy::conformal::Score,
}

impl Policy {
    /// Whether prediction sets are made.
    pub fn makes_sets(&self) -> bool {
        self.sets > 0.0
    }
}

/// Measured times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Whether parts are timed.
    pub measure: bool,
}

/// Bootstrap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Bootstrap resamples.
    pub resamples: usize,
}
