//! What a report shows, as plain numbers: filled by a run, drawn by the rest of this module.

use serde::{Deserialize, Serialize};

use quee_heads::quality::PredictorRow;

/// Everything on the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Name of the recipe.
    pub recipe: String,
    /// Data set, as people write it.
    pub dataset: String,
    /// How many of the published pictures there are, where some are missing.
    pub subset: Option<String>,
    /// Number of pictures of each split, in order of use.
    pub splits: Vec<(String, usize)>,
    /// What is known about the pictures that the backbone has seen.
    pub seen: String,
    /// Whether [`seen`](Self::seen) is a warning, to be set in red.
    pub seen_is_warning: bool,
    /// Backbone, weights, size.
    pub backbone: String,
    /// Widths of the tree, in the order in which their colours run from cheap to dear.
    pub widths: Vec<String>,
    /// Blocks per segment.
    pub segments: Vec<usize>,
    /// Paths in the tree, each one more segment run per picture.
    pub paths: usize,
    /// Paths of the whole tree, of which these may have been drawn.
    pub paths_in_all: usize,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// Test accuracy of the backbone in float, a fraction.
    pub float_accuracy: f64,
    /// Absolute cost of relative cost 1.0.
    pub float_cost: f64,
    /// Unit of [`float_cost`](Self::float_cost), e.g. `GBOPs`.
    pub cost_unit: String,
    /// What is counted, as a sentence.
    pub cost_definition: String,
    /// Range of relative costs over which areas are taken, and which the main figure shows.
    pub cost_axis: (f64, f64),
    /// Every method, learned ones first.
    pub methods: Vec<MethodReport>,
    /// Sentences on the main comparison, e.g. whether the learned policy beats the naive combination, with the interval.
    pub findings: Vec<Finding>,
    /// Where samples exit and at which widths, along the settings of the main policy (first seed), from dear to cheap.
    pub usage: Vec<UsagePoint>,
    /// One per gate.
    pub gates: Vec<GateReport>,
    /// Quality of predictions by seed, gate and continuation.
    pub predictor_rows: Vec<(u64, PredictorRow)>,
    /// Means over gates and continuations.
    pub predictor: PredictorSummary,
    /// Statement of the risk control.
    pub risk: String,
    /// Checks of risk control: ε, δ, violations, share certified, cost, violations and cost without a guarantee, cost with endless calibration.
    pub risk_checks: Vec<[f64; 8]>,
    /// Pictures of the calibration set in these checks, and resamplings.
    pub risk_size: (usize, usize),
    /// What exits and gates take, by name.
    pub heads: Vec<(String, String)>,
    /// Name and value of every fact about the machine and the program.
    pub environment: Vec<(String, String)>,
    /// Resolved recipe as TOML.
    pub recipe_toml: String,
    /// Seconds of each stage, in order.
    pub seconds_by_stage: Vec<(String, f64)>,
    /// Most memory of the program in each stage, in bytes, where the system tells it.
    pub peak_bytes_by_stage: Vec<Option<u64>>,
    /// How `ms per image` was measured.
    pub timing_note: String,
    /// What all times must not be taken for, where the device only plays a GPU.
    pub time_caveat: Option<String>,
    /// What a device apart from the processor was asked to do; empty without one.
    pub device_work: Vec<DeviceRow>,
    /// Pictures of the batch that parts were counted with.
    pub device_batch: usize,
    /// Speed of the policy on batches, where it was measured.
    pub routing: Option<Routing>,
}

/// How fast a policy is on batches, beside what it could be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Routing {
    /// Speed of the policy over that of its parts as plain batches.
    pub efficiency: f64,
    /// Pictures, batch, how many at a time, and which setting, as a sentence.
    pub circumstances: String,
    /// Policy, its parts, then every width at full depth.
    pub rows: Vec<RoutingRow>,
}

/// One way to run all pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoutingRow {
    /// What runs.
    pub name: String,
    /// Share of right answers, where it is another than the policy's.
    pub accuracy: Option<f64>,
    /// Pictures per second and thread.
    pub rate: f64,
    /// Rate of the policy over this one.
    pub policy_over_this: f64,
}

/// What a device was asked to do in one part of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Part.
    pub part: String,
    /// Widths that ask for exactly this.
    pub widths: String,
    /// Kernels started.
    pub dispatches: u64,
    /// Command buffers handed over.
    pub submits: u64,
    /// Times that the host waited for data.
    pub readbacks: u64,
    /// Bytes written to the device, weights not counted.
    pub bytes_up: u64,
    /// Bytes read from it.
    pub bytes_down: u64,
}

/// Family of a method, for its colour and its place in the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// A policy on predicted errors.
    Learned,
    /// A combination without predictors.
    Combination,
    /// One technique alone.
    Single,
    /// An upper or lower bound.
    Bound,
}

/// One method on the test split, averaged over seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MethodReport {
    /// Name in files, e.g. `quee-open-loop`.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Family.
    pub family: Family,
    /// Mean accuracy over the log-cost axis, and its 95% interval.
    pub area: f64,
    /// Lower end.
    pub area_low: f64,
    /// Upper end.
    pub area_high: f64,
    /// Test cost of the cheapest front setting within 0.5 points of float on cal-a, and its test drop in points.
    pub at_drop_0_5: Option<(f64, f64)>,
    /// As above, within 1.0 points.
    pub at_drop_1_0: Option<(f64, f64)>,
    /// The curve: relative cost, accuracy and its 95% band. Static methods may be points rather than a line. Without points the figure leaves
    /// the method out, and only tables have it.
    pub curve: Vec<CurvePoint>,
    /// The same settings by measured time, cheap ones first; empty where no times were measured, where they are the cost, or where they are no
    /// real device's.
    #[serde(default)]
    pub timed: Vec<TimedPoint>,
}

impl MethodReport {
    /// Whether the figure shows it.
    pub fn is_drawn(&self) -> bool {
        !self.curve.is_empty()
    }
}

/// A point of a method's curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Cost relative to the float backbone.
    pub cost: f64,
    /// Accuracy, a fraction.
    pub accuracy: f64,
    /// Lower end of the 95% band.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Where a setting lies in measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedPoint {
    /// Milliseconds per picture.
    pub ms: f64,
    /// Accuracy, a fraction.
    pub accuracy: f64,
}

/// A sentence with its verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The sentence.
    pub text: String,
    /// Its verdict.
    pub verdict: Verdict,
}

/// What a sentence says about the learned policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// They are better.
    For,
    /// They are worse.
    Against,
    /// The data do not tell.
    Undecided,
    /// Something else that the reader should know.
    Note,
}

/// Use of exits and widths at one setting of λ.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsagePoint {
    /// λ in units of error per relative cost; infinite at the cheap end.
    pub lambda: f64,
    /// Mean relative cost on test.
    pub cost: f64,
    /// Accuracy on test.
    pub accuracy: f64,
    /// Share of samples answered at each exit.
    pub exits: Vec<f64>,
    /// `[segment][width]`: share of all samples that ran the segment at the width; what is missing to 1 had left before.
    pub widths: Vec<Vec<f64>>,
}

/// What happens at one gate (test split, all prefixes, all seeds).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateReport {
    /// Number of the gate, from 1.
    pub gate: usize,
    /// Reliability of all continuations together.
    pub reliability: Vec<ReliabilityBin>,
    /// Mean ECE over continuations, and that of perfect predictions.
    pub ece: f64,
    /// Floor of the ECE.
    pub ece_floor: f64,
    /// Shares: right now and later; rescued by going on; hurt by going on; wrong both ways. "Later" is full depth at the largest width.
    pub four_way: [f64; 4],
}

/// Predictions of similar size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Mean predicted probability of error.
    pub predicted: f64,
    /// Observed rate of error.
    pub observed: f64,
    /// Predictions in the bin.
    pub count: usize,
}

/// Means over gates and continuations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PredictorSummary {
    /// Brier score.
    pub brier: f64,
    /// Expected calibration error.
    pub ece: f64,
    /// Its floor.
    pub ece_floor: f64,
    /// Area under the ROC curve, where both outcomes occur.
    pub auroc: Option<f64>,
}
