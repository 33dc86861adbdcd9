//! What every part of the network costs: counted operations, and measured milliseconds.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use quee_backbone::cost::{BackboneCost, PartCost};
use quee_backbone::{ExecError, Executor, cost_dynn};
use quee_gpu::Counts;
use quee_policy::cost::{BitTable, CostTable};
use quee_policy::table::RunTime;
use quee_quant::Width;
use serde::{Deserialize, Serialize};

use super::answers::{NodeAnswers, own_head};
use super::walk::Program;
use crate::backend::Engine;
use crate::cancel::Cancel;
use crate::recipe::CostModel;

/// Operations per picture of stem, segments, exits and gates, in the unit of a cost model.
#[derive(Clone, Debug)]
pub struct Counted {
    model: CostModel,
    stem: PartCost,
    segments: Vec<PartCost>,
    /// What each exit costs besides its classifier.
    around_exits: Vec<f64>,
    float_total: f64,
    /// What a cost in milliseconds is read from.
    times: Option<Timings>,
}

/// Bit operations of one multiply-accumulate in float.
const FLOAT_BITS: u64 = 32 * 32;

impl Counted {
    /// Adds the blocks of each segment up. For [`CostModel::Latency`] the parts cost what they took in `times`.
    ///
    /// # Panics
    /// When a cost in milliseconds is asked for without `times`.
    pub fn new(model: CostModel, cost: &BackboneCost, segments: &[usize], times: Option<&Timings>) -> Self {
        let (mut merged, mut exits, mut blocks) = (Vec::new(), Vec::new(), 0);
        for &count in segments {
            let ops = cost.blocks.iter().skip(blocks).take(count).flat_map(|b| b.ops.clone()).collect();
            merged.push(PartCost { ops, wider: cost.stem.wider.clone() });
            blocks += count;
            exits.push(match model {
                CostModel::Dynn => {
                    million(cost_dynn::exit(cost, blocks - 1, cost.classes())) - million(cost.head.macs() as f64)
                }
                CostModel::Bops | CostModel::Macs => 0.0,
                CostModel::Latency => times.expect("times were measured").features,
            });
        }
        let float_total = match model {
            CostModel::Dynn => million(cost_dynn::backbone(cost, cost.classes())),
            CostModel::Bops | CostModel::Macs => float_part(model, cost.macs()),
            CostModel::Latency => times.expect("times were measured").float_total(cost.head.macs()),
        };
        let times = times.filter(|_| model == CostModel::Latency).cloned();
        Self { model, stem: cost.stem.clone(), segments: merged, around_exits: exits, float_total, times }
    }

    /// What is counted.
    pub fn model(&self) -> CostModel {
        self.model
    }

    /// Cost of the stem at `width`.
    pub fn stem(&self, width: Width) -> f64 {
        match &self.times {
            Some(times) => times.stem[&width],
            None => self.part(&self.stem, width),
        }
    }

    /// Cost of each segment at `width`.
    pub fn segments(&self, width: Width) -> Vec<f64> {
        match &self.times {
            Some(times) => times.segments[&width].clone(),
            None => self.segments.iter().map(|s| self.part(s, width)).collect(),
        }
    }

    /// Cost of segments relative to the float reference, `[segment][width]`.
    pub fn relative_segments(&self, widths: &[Width]) -> Vec<Vec<f64>> {
        let by_width: Vec<Vec<f64>> = widths.iter().map(|&width| self.segments(width)).collect();
        let of_segment = |s: usize| by_width.iter().map(|costs| costs[s] / self.float_total).collect();
        (0..self.segments.len()).map(of_segment).collect()
    }

    /// The whole backbone in float, without further exits: the reference cost 1.0.
    pub fn float_total(&self) -> f64 {
        self.float_total
    }

    /// Cost of a gate with as many multiply-accumulates, in float.
    pub fn gate(&self, macs: u64) -> f64 {
        match &self.times {
            Some(times) => macs as f64 * times.head_mac,
            None => float_part(self.model, macs),
        }
    }

    /// The table that policies work with. `exit_macs` are those of the classifiers behind all segments, `gate_macs` those of the predictors
    /// behind all but the last; their weights are used once per picture, so multiply-accumulates are what *dynn* counts of them, too.
    pub fn table(&self, stem: Width, widths: &[Width], exit_macs: &[u64], gate_macs: &[u64]) -> CostTable {
        let by_width: Vec<Vec<f64>> = widths.iter().map(|&width| self.segments(width)).collect();
        let of_segment = |segment: usize| by_width.iter().map(|costs| costs[segment]).collect();
        CostTable {
            stem: self.stem(stem),
            segment: (0..self.segments.len()).map(of_segment).collect(),
            exit: self.around_exits.iter().zip(exit_macs).map(|(rest, &macs)| rest + self.gate(macs)).collect(),
            gate: gate_macs.iter().map(|&macs| self.gate(macs)).collect(),
            gate_zero: 0.0,
            float_total: self.float_total,
            cascade: false,
        }
    }

    /// Multiply-accumulates and weight bits, for the mean weight bits of a path.
    pub fn bits(&self, stem: Width, widths: &[Width]) -> BitTable {
        BitTable {
            stem_macs: self.stem.macs() as f64,
            stem_bits: self.stem.mean_weight_bits(stem),
            segment_macs: self.segments.iter().map(|s| s.macs() as f64).collect(),
            width_bits: widths.iter().map(|w| f64::from(w.weight_bits())).collect(),
        }
    }

    fn part(&self, cost: &PartCost, width: Width) -> f64 {
        match self.model {
            CostModel::Bops => cost.bops(width) as f64 / 1e9,
            CostModel::Macs => million(cost.macs() as f64),
            CostModel::Dynn => million(cost_dynn::part(cost)),
            CostModel::Latency => unreachable!("milliseconds are measured, not counted"),
        }
    }
}

fn million(operations: f64) -> f64 {
    operations / 1e6
}

/// Multiply-accumulates in float, as exits and gates are.
fn float_part(model: CostModel, macs: u64) -> f64 {
    match model {
        CostModel::Bops => (macs * FLOAT_BITS) as f64 / 1e9,
        CostModel::Macs | CostModel::Dynn => million(macs as f64),
        CostModel::Latency => unreachable!("milliseconds are measured, not counted"),
    }
}

/// Milliseconds per picture of stem and segments at each width, on one executor and one thread, of what a run along a path does: the last segment is
/// timed [as it runs](Program::segment), which is less than the cost models count.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    stem: BTreeMap<Width, f64>,
    segments: BTreeMap<Width, Vec<f64>>,
    /// Final normalisation and pooling in front of the last exit.
    features: f64,
    /// What is computed in front of an earlier exit.
    early_features: f64,
    /// One multiply-accumulate of a classifier.
    head_mac: f64,
    /// Pictures of the batch.
    pub batch: usize,
    /// What one batch asks of a device apart, part by part; empty on the processor.
    pub work: Vec<PartWork>,
}

/// What one batch of pictures asks of a device in one part of the network, recorded and submitted by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartWork {
    /// `stem`, `segment 1` …, `exit 1` for what is computed in front of an earlier exit, `exit` for the last.
    pub part: String,
    /// Its width.
    pub width: Width,
    /// The work.
    pub counts: Counts,
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
        let mut clock = Clock { engine, executor: engine.executor()?, work: Vec::new() };
        let mut timings = Self { batch: count, ..Self::default() };
        let per_picture = |seconds: f64| seconds * 1e3 / count as f64;
        for &width in widths {
            cancel.check()?;
            let stem = if width.is_float() { Width::FLOAT } else { program.stem };
            let (mut tokens, seconds) =
                clock.median("stem".into(), stem, |executor| program.stem(executor, images, stem))?;
            timings.stem.insert(stem, per_picture(seconds));
            let mut of_width = Vec::new();
            for index in 0..program.segments.len() {
                let part = format!("segment {}", index + 1);
                let (next, seconds) =
                    clock.median(part, width, |executor| program.segment(executor, index, width, &tokens))?;
                tokens = next;
                of_width.push(per_picture(seconds));
                if index == 0 && program.segments.len() > 1 {
                    let (_, seconds) = clock
                        .median("exit 1".into(), Width::FLOAT, |executor| program.features(executor, 0, &tokens))?;
                    timings.early_features = per_picture(seconds);
                }
            }
            timings.segments.insert(width, of_width);
            let last = program.segments.len() - 1;
            let (_, seconds) =
                clock.median("exit".into(), Width::FLOAT, |executor| program.features(executor, last, &tokens))?;
            timings.features = per_picture(seconds);
            if width.is_float() {
                let (head, features) =
                    (own_head(program.backbone.head()), program.features(clock.executor.as_mut(), last, &tokens)?);
                let start = Instant::now();
                for _ in 0..REPEATS {
                    std::hint::black_box(NodeAnswers::compute(&head, std::hint::black_box(&features)));
                }
                let each = start.elapsed().as_secs_f64() / REPEATS as f64;
                timings.head_mac = per_picture(each) / head.macs() as f64;
            }
        }
        timings.work = clock.work;
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
            exit: (1..=segments)
                .map(|segment| if segment < segments { self.early_features } else { self.features } + exit_ms)
                .collect(),
            gate: gate_ms.to_vec(),
            gate_zero: 0.0,
            float_total: self.stem[&Width::FLOAT] + float.iter().sum::<f64>() + self.features + exit_ms,
            cascade: false,
        }
    }

    /// The whole backbone in float, with a classifier of so many multiply-accumulates.
    fn float_total(&self, head_macs: u64) -> f64 {
        let segments: f64 = self.segments[&Width::FLOAT].iter().sum();
        self.stem[&Width::FLOAT] + segments + self.features + head_macs as f64 * self.head_mac
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

/// Times one executor.
struct Clock<'a> {
    engine: &'a dyn Engine,
    executor: Box<dyn Executor>,
    work: Vec<PartWork>,
}

impl Clock<'_> {
    /// Runs `work` once to warm up, then [`REPEATS`] times; its last result and the median seconds. What a device was asked to do is counted
    /// in the last run, once for each part and width.
    fn median<T>(
        &mut self,
        part: String,
        width: Width,
        mut work: impl FnMut(&mut dyn Executor) -> Result<T, ExecError>,
    ) -> Result<(T, f64)> {
        let executor = self.executor.as_mut();
        let mut result = work(executor)?;
        executor.wait()?;
        let mut seconds = Vec::with_capacity(REPEATS);
        let mut before = self.engine.counts();
        for _ in 0..REPEATS {
            before = self.engine.counts();
            let start = Instant::now();
            result = work(executor)?;
            executor.wait()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let known = self.work.iter().any(|known| known.part == part && known.width == width);
        if let (Some(before), Some(after), false) = (before, self.engine.counts(), known) {
            self.work.push(PartWork { part, width, counts: after - before });
        }
        seconds.sort_by(f64::total_cmp);
        Ok((result, seconds[REPEATS / 2]))
    }
}

#[cfg(test)]
mod tests {
    use quee_backbone::presets;

    use super::*;

    fn counted(model: CostModel) -> (Counted, BackboneCost) {
        let cost = BackboneCost::count(&*presets::find("vit_d6_w80_p2_8").unwrap().skeleton(10)).unwrap();
        (Counted::new(model, &cost, &[2, 2, 1, 1], None), cost)
    }

    #[test]
    fn parts_add_up_to_the_whole_in_float() {
        for model in [CostModel::Bops, CostModel::Macs, CostModel::Dynn] {
            let (counted, cost) = counted(model);
            let table = counted.table(Width::FLOAT, &[Width::FLOAT], &[cost.head.macs(); 4], &[10, 20, 30]);
            let sum = table.stem + table.segment.iter().map(|s| s[0]).sum::<f64>() + table.exit[3];
            assert!((sum / counted.float_total() - 1.0).abs() < 1e-12, "{model:?}");
            assert!(table.gate[1] > table.gate[0] && table.exit.iter().all(|exit| *exit == table.exit[0]));
        }
    }

    #[test]
    fn only_bit_operations_depend_on_widths() {
        let widths = [Width::new(2, 2).unwrap(), Width::new(8, 8).unwrap()];
        let segment = |model| counted(model).0.table(widths[1], &widths, &[1; 4], &[1; 3]).segment[0].clone();
        assert_eq!(segment(CostModel::Bops)[1], 16.0 * segment(CostModel::Bops)[0]);
        for model in [CostModel::Macs, CostModel::Dynn] {
            assert_eq!(segment(model)[0], segment(model)[1], "{model:?}");
        }
    }

    #[test]
    fn units_fit_the_figures() {
        let (macs, cost) = counted(CostModel::Macs);
        assert_eq!(macs.float_total(), cost.macs() as f64 / 1e6);
        assert_eq!(counted(CostModel::Bops).0.float_total(), cost.float_bops() as f64 / 1e9);
        assert_eq!(counted(CostModel::Dynn).0.float_total(), cost_dynn::backbone(&cost, 10) / 1e6);
    }
}
