//! How long single kernels take.
//!
//! - [`Bench`]: takes times on an adapter
//! - [`Case`]: a kernel at a shape; [`Bench::cases`]: those that vision transformers consist of
//! - [`Peaks`]: what the adapter reaches in kernels that do nothing else
//! - [`Bench::fastest`]: the best tile of a product
//!
//! A time is that of many equal dispatches in one submission, divided by their number; the median of several such runs, after others that warm up.
//! All dispatches of a run write the same memory, so each waits for the one before it, as kernels that feed each other do.

mod fastest;
mod peaks;
mod products;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use quee_backbone::{ExecError, Executor};
use quee_quant::Width;

use crate::clock::Clock;
use crate::engine::GpuEngine;
use crate::executor::GpuExecutor;
use crate::recorder::DISPATCHES;
use crate::tiles::{Operands, Shape};

pub use fastest::Fastest;
pub use peaks::{Peak, Peaks};

/// How much time measuring may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Seconds of a run of many dispatches.
    pub seconds: f64,
    /// Runs; their median counts.
    pub runs: usize,
    /// Small shapes, for a look at whether everything works.
    pub small: bool,
}

impl Effort {
    /// Enough for figures to be quoted.
    pub const FULL: Self = Self { seconds: 0.1, runs: 7, small: false };
    /// A few seconds for everything.
    pub const QUICK: Self = Self { seconds: 0.002, runs: 3, small: true };
}

/// What limits a kernel at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Products of codes, in whichever way the adapter does them fastest.
    Codes,
    /// Products of floats.
    Floats,
    /// Moving data between memory and processor.
    Memory,
}

type Record = Box<dyn Fn(&mut GpuExecutor) -> Result<(), ExecError>>;

/// A kernel at a shape.
pub struct Case {
    /// Name of the kernel's file.
    pub kernel: &'static str,
    /// Which of its variants.
    pub variant: String,
    /// Shape, for people.
    pub shape: String,
    /// Operations, multiply and add counted as two; 0 for kernels that mostly move data.
    pub operations: f64,
    /// Bytes that must be read and written, every operand once.
    pub bytes: f64,
    /// What limits it at best.
    pub bound: Bound,
    /// Records one dispatch.
    record: Record,
}

/// How long a case takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Seconds of one dispatch, the median over the runs.
    pub seconds: f64,
    /// Dispatches of a run.
    pub chain: usize,
    /// Runs.
    pub runs: usize,
}

impl Figure {
    /// Operations in a second.
    pub fn operations(&self, case: &Case) -> f64 {
        case.operations / self.seconds
    }

    /// Bytes in a second.
    pub fn bytes(&self, case: &Case) -> f64 {
        case.bytes / self.seconds
    }

    /// Share of what the adapter reaches at best.
    pub fn share(&self, case: &Case, peaks: &Peaks) -> f64 {
        match case.bound {
            Bound::Codes => self.operations(case) / peaks.codes(),
            Bound::Floats => self.operations(case) / peaks.fma.rate,
            Bound::Memory => self.bytes(case) / peaks.copy.rate,
        }
    }
}

/// Takes times on an adapter.
pub struct Bench {
    executor: GpuExecutor,
    clock: Clock,
    effort: Effort,
}

impl Bench {
    /// On the device of `engine`. Weights that cases need go to the engine under ids from [`usize::MAX`] downwards.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(engine: &Arc<GpuEngine>, effort: Effort) -> Result<Self, ExecError> {
        let mut executor = engine.executor()?;
        executor.set_width(Width::new(8, 8).expect("8 bits are a width"))?;
        let clock = Clock::new(&engine.gpu())?;
        // Stamps that do not advance are of no use.
        peaks::record_fma(&mut executor, 64, 64)?;
        let clock = if executor.time(&clock)? > 0.0 { clock } else { Clock::Host };
        Ok(Self { executor, clock, effort })
    }

    /// What times are taken by.
    pub fn clock(&self) -> &'static str {
        match self.clock {
            Clock::Stamps(_) => "device timestamps",
            Clock::Host => "host clock",
        }
    }

    /// What the adapter reaches in kernels that do nothing else.
    ///
    /// # Errors
    /// When the device fails.
    pub fn peaks(&mut self) -> Result<Peaks, ExecError> {
        Peaks::measure(self)
    }

    /// Every kernel at the shapes of vision transformers.
    ///
    /// # Errors
    /// When the device has too little memory for the operands.
    pub fn cases(&mut self) -> Result<Vec<Case>, ExecError> {
        let mut cases = Vec::new();
        let software = self.executor.gpu().info().is_software();
        for shape in products::shapes(self.effort.small)
            .iter()
            .copied()
            .chain(products::large(self.effort.small || software).iter().copied())
        {
            cases.extend(self.tiles(shape)?);
            cases.extend(self.tiles(Shape { operands: Operands::Floats, ..shape })?);
        }
        cases.extend(rows::cases(&mut self.executor, self.effort.small)?);
        Ok(cases)
    }

    /// The products of codes of [`cases`](Self::cases) that are single ones, as linear layers compute them.
    pub fn products(effort: Effort) -> &'static [Shape] {
        let shapes = products::shapes(effort.small);
        &shapes[..shapes.iter().take_while(|shape| shape.batch == 1).count()]
    }

    /// Times a case.
    ///
    /// # Errors
    /// When the device fails.
    pub fn time(&mut self, case: &Case) -> Result<Figure, ExecError> {
        self.run(case, 1)?;
        let once = self.run(case, 1)?;
        let chain = chain(self.effort.seconds, once);
        self.warm_up(|bench| bench.run(case, chain).map(drop))?;
        let runs = self.effort.runs;
        let times = (0..runs).map(|_| self.run(case, chain)).collect::<Result<Vec<f64>, ExecError>>()?;
        Ok(Figure { seconds: median(times) / chain as f64, chain, runs })
    }

    /// Seconds of `chain` dispatches of a case, recording included, by the host's clock: to be set beside another library's.
    ///
    /// # Errors
    /// When the device fails.
    pub fn time_as_called(&mut self, case: &Case, chain: usize) -> Result<f64, ExecError> {
        let start = Instant::now();
        for _ in 0..chain {
            (case.record)(&mut self.executor)?;
        }
        self.executor.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Repeats `run` for a while: a GPU that was idle takes some time to reach its clock.
    fn warm_up(&mut self, mut run: impl FnMut(&mut Self) -> Result<(), ExecError>) -> Result<(), ExecError> {
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 2.0 * self.effort.seconds {
            run(self)?;
        }
        Ok(())
    }

    fn run(&mut self, case: &Case, chain: usize) -> Result<f64, ExecError> {
        for _ in 0..chain {
            (case.record)(&mut self.executor)?;
        }
        self.executor.time(&self.clock)
    }
}

/// Dispatches that take about `seconds` together, where one takes `once`.
fn chain(seconds: f64, once: f64) -> usize {
    ((seconds / once.max(1e-9)) as usize).clamp(2, DISPATCHES / 2)
}

/// The middle of the times.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers that look random, the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Between -1 and 1.
    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32 / (1 << 30) as f32 - 1.0).collect()
    }

    /// Codes of 8 bits.
    fn codes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| (self.next() >> 8) as i8).collect()
    }
}
