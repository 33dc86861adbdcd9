//! What every part of the network costs: counted operations, and measured milliseconds.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use quee_backbone::cost::{BackboneCost, PartCost};
use quee_policy::cost::{BitTable, CostTable};
use quee_policy::table::RunTime;
use quee_quant::Width;

use super::walk::Program;
use crate::backend::Engine;
use crate::cancel::Cancel;

/// Operations per picture of stem, segments, exits and gates.
#[derive(Clone, Debug)]
pub struct Counted {
    stem: PartCost,
    segments: Vec<PartCost>,
    float_macs: u64,
    /// Multiply-accumulates of each exit; the last is the backbone's own head.
    exit_macs: Vec<u64>,
}

/// Bit operations of one multiply-accumulate in float.
const FLOAT_BITS: u64 = 32 * 32;

impl Counted {
    /// Adds the blocks of each segment up. `exit_macs` are those of the exits behind all segments but the last.
    pub fn new(cost: &BackboneCost, segments: &[usize], exit_macs: u64) -> Self {
        let mut blocks = cost.blocks.iter();
        let merged = segments
            .iter()
            .map(|&count| PartCost { ops: blocks.by_ref().take(count).flat_map(|b| b.ops.clone()).collect() })
            .collect();
        let mut exits = vec![exit_macs; segments.len()];
        if let Some(last) = exits.last_mut() {
            *last = cost.head.macs();
        }
        Self { stem: cost.stem.clone(), segments: merged, float_macs: cost.macs(), exit_macs: exits }
    }

    /// Multiply-accumulates of each segment.
    pub fn segment_macs(&self) -> Vec<f64> {
        self.segments.iter().map(|s| s.macs() as f64).collect()
    }

    /// Cost of the stem at `width`, in GBOPs.
    pub fn stem(&self, width: Width) -> f64 {
        gbops(&self.stem, width)
    }

    /// Cost of each segment at `width`.
    pub fn segments(&self, width: Width) -> Vec<f64> {
        self.segments.iter().map(|s| gbops(s, width)).collect()
    }

    /// GBOPs of multiply-accumulates in float, as exits and gates are.
    pub fn float_part(macs: u64) -> f64 {
        (macs * FLOAT_BITS) as f64 / 1e9
    }

    /// The whole backbone in float, without exits: the reference cost 1.0.
    pub fn float_total(&self) -> f64 {
        Self::float_part(self.float_macs)
    }

    /// The table that policies work with. `gate_macs` are those of the predictors behind all segments but the last.
    pub fn table(&self, stem: Width, widths: &[Width], gate_macs: &[u64]) -> CostTable {
        let float = |macs: &u64| Self::float_part(*macs);
        CostTable {
            stem: self.stem(stem),
            segment: self.segments.iter().map(|s| widths.iter().map(|&w| gbops(s, w)).collect()).collect(),
            exit: self.exit_macs.iter().map(float).collect(),
            gate: gate_macs.iter().map(float).collect(),
            float_total: self.float_total(),
        }
    }

    /// Multiply-accumulates and weight bits, for the mean weight bits of a path.
    pub fn bits(&self, stem: Width, widths: &[Width]) -> BitTable {
        BitTable {
            stem_macs: self.stem.macs() as f64,
            stem_bits: self.stem.mean_weight_bits(stem),
            segment_macs: self.segment_macs(),
            width_bits: widths.iter().map(|w| f64::from(w.weight_bits())).collect(),
        }
    }
}

fn gbops(cost: &PartCost, width: Width) -> f64 {
    cost.bops(width) as f64 / 1e9
}

/// Milliseconds per picture of stem and segments at each width, on one executor and one thread.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    stem: BTreeMap<Width, f64>,
    segments: BTreeMap<Width, Vec<f64>>,
    /// Final normalisation and pooling in front of an exit.
    features: f64,
}

/// Each part is timed this often; the median counts.
const REPEATS: usize = 5;

impl Timings {
    /// Times every part at every width of `widths` on one batch of pictures.
    ///
    /// # Errors
    /// What the executor reports, or a wish to stop.
    pub fn measure(
        program: &Program,
        engine: &dyn Engine,
        images: &[f32],
        count: usize,
        widths: &[Width],
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut executor = engine.executor();
        let mut timings = Self::default();
        let per_picture = |seconds: f64| seconds * 1e3 / count as f64;
        for &width in widths {
            cancel.check()?;
            let stem = if width.is_float() { Width::FLOAT } else { program.stem };
            let (mut tokens, seconds) = median(|| program.stem(executor.as_mut(), images, stem))?;
            timings.stem.insert(stem, per_picture(seconds));
            let mut of_width = Vec::new();
            for index in 0..program.segments.len() {
                let (next, seconds) = median(|| program.segment(executor.as_mut(), index, width, &tokens))?;
                tokens = next;
                of_width.push(per_picture(seconds));
            }
            timings.segments.insert(width, of_width);
            let (_, seconds) = median(|| program.features(executor.as_mut(), &tokens))?;
            timings.features = per_picture(seconds);
        }
        Ok(timings)
    }

    /// Times laid out as the cost table; `exit_ms` and `gate_ms` are the classifiers' and predictors' own.
    ///
    /// # Panics
    /// When a width was not measured.
    pub fn table(&self, stem: Width, widths: &[Width], exit_ms: f64, gate_ms: &[f64]) -> CostTable {
        let segments = gate_ms.len() + 1;
        let float = &self.segments[&Width::FLOAT];
        CostTable {
            stem: self.stem[&stem],
            segment: (0..segments).map(|s| widths.iter().map(|w| self.segments[w][s]).collect()).collect(),
            exit: vec![self.features + exit_ms; segments],
            gate: gate_ms.to_vec(),
            float_total: self.stem[&Width::FLOAT] + float.iter().sum::<f64>() + self.features + exit_ms,
        }
    }

    /// Times of a run at one width throughout.
    ///
    /// # Panics
    /// When the width was not measured.
    pub fn run(&self, stem: Width, width: Width) -> RunTime {
        let stem = if width.is_float() { Width::FLOAT } else { stem };
        RunTime { stem: self.stem[&stem], segment: self.segments[&width].clone() }
    }
}

/// Runs `work` once to warm up, then [`REPEATS`] times; its last result and the median seconds.
fn median<T, E>(mut work: impl FnMut() -> Result<T, E>) -> Result<(T, f64), E> {
    let mut result = work()?;
    let mut seconds = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start = Instant::now();
        result = work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((result, seconds[REPEATS / 2]))
}
