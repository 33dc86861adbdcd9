//! What an adapter reaches in kernels that only compute, or only move data.

use quee_backbone::ExecError;

use super::{Bench, median};
use crate::executor::GpuExecutor;
use crate::kernels;
use crate::params::{PeakChains, PeakCopy};

/// The best of a kernel at several sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Operations or bytes in a second.
    pub rate: f64,
    /// Invocations of the dispatch that reached it.
    pub invocations: usize,
}

/// Peaks of an adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Operations of `dot4I8Packed` in a second, multiply and add counted as two.
    pub dot: Peak,
    /// Operations of `fma` in a second, multiply and add counted as two.
    pub fma: Peak,
    /// Operations of matrix units on 16-bit floats in a second, where the adapter has some that the kernels can use.
    pub matrix: Option<Peak>,
    /// Bytes read and written in a second by a copy that is larger than most caches.
    pub copy: Peak,
}

/// Steps of a round in the kernels, and chains of an invocation.
const STEPS: usize = 8;
const CHAINS: usize = 8;
/// Invocations that are tried, in workgroups of 64.
const WORKGROUPS: [usize; 4] = [64, 512, 4096, 16384];
/// Most rounds of a dispatch.
const ROUNDS: usize = 1 << 16;

impl Peaks {
    /// The fastest way to multiply codes: as codes, unpacked to floats, or on matrix units.
    pub fn codes(&self) -> f64 {
        self.matrix.map_or(0.0, |peak| peak.rate).max(self.dot.rate).max(self.fma.rate)
    }

    pub(super) fn measure(bench: &mut Bench) -> Result<Self, ExecError> {
        Ok(Self {
            // Four products and four sums in a step.
            dot: chains(bench, 8.0, record_dot)?,
            fma: chains(bench, 2.0, record_fma)?,
            matrix: match bench.executor.gpu().abilities().matrix_units {
                // A product of 16 by 16 matrices is that of 32 invocations.
                true => Some(chains(bench, 2.0 * 4096.0 / 32.0, record_matrix)?),
                false => None,
            },
            copy: copy(bench)?,
        })
    }
}

type RecordChains = fn(&mut GpuExecutor, usize, usize) -> Result<(), ExecError>;

fn chains(bench: &mut Bench, operations: f64, record: RecordChains) -> Result<Peak, ExecError> {
    let mut best = Peak { rate: 0.0, invocations: 0 };
    let sizes = if bench.effort.small { &WORKGROUPS[..1] } else { &WORKGROUPS };
    for invocations in sizes.iter().map(|groups| groups * 64) {
        let mut rounds = 16;
        let mut seconds = 0.0;
        // Long enough for starting the kernel not to count.
        while rounds < ROUNDS && seconds < bench.effort.seconds {
            rounds *= 2;
            record(&mut bench.executor, invocations, rounds)?;
            seconds = bench.executor.time(&bench.clock)?;
        }
        let mut times = Vec::new();
        for _ in 0..bench.effort.runs {
            record(&mut bench.executor, invocations, rounds)?;
            times.push(bench.executor.time(&bench.clock)?);
        }
        let rate = operations * (invocations * rounds * STEPS * CHAINS) as f64 / median(times);
        if rate > best.rate {
            best = Peak { rate, invocations };
        }
    }
    Ok(best)
}

/// Records `invocations` of `peak_fma.wgsl`; their sums are the first floats of the memory that the executor gives next.
pub(super) fn record_fma(executor: &mut GpuExecutor, invocations: usize, rounds: usize) -> Result<(), ExecError> {
    record_chains(executor, &kernels::PEAK_FMA, invocations, rounds)
}

pub(super) fn record_dot(executor: &mut GpuExecutor, invocations: usize, rounds: usize) -> Result<(), ExecError> {
    record_chains(executor, &kernels::PEAK_DOT, invocations, rounds)
}

pub(super) fn record_matrix(executor: &mut GpuExecutor, invocations: usize, rounds: usize) -> Result<(), ExecError> {
    record_chains(executor, &kernels::PEAK_MATRIX, invocations, rounds)
}

fn record_chains(
    executor: &mut GpuExecutor,
    source: &'static kernels::Source,
    invocations: usize,
    rounds: usize,
) -> Result<(), ExecError> {
    let out = executor.memory(4 * invocations)?;
    let span = executor.whole(out.buffer(), 4 * invocations);
    let params = PeakChains { rounds: rounds as u32, out_at: span.at(), unused: [0; 2] };
    let size = executor.elements(invocations);
    executor.single(source, &params, &[span], size)
}

fn copy(bench: &mut Bench) -> Result<Peak, ExecError> {
    let mut best = Peak { rate: 0.0, invocations: 0 };
    let sizes: &[usize] = if bench.effort.small { &[1 << 20] } else { &[32 << 20, 128 << 20, 512 << 20] };
    let most = bench.executor.gpu().binding() / 16 * 16;
    for bytes in sizes.iter().map(|&bytes| bytes.min(most)) {
        let vectors = bytes / 16;
        let (x, y) = (bench.executor.memory(bytes)?, bench.executor.memory(bytes)?);
        let mut times = Vec::new();
        // The first one warms up.
        for _ in 0..=bench.effort.runs {
            record_copy(&mut bench.executor, x.buffer(), y.buffer(), vectors)?;
            times.push(bench.executor.time(&bench.clock)?);
        }
        let rate = 2.0 * bytes as f64 / median(times.split_off(1));
        if rate > best.rate {
            best = Peak { rate, invocations: vectors };
        }
    }
    Ok(best)
}

pub(super) fn record_copy(
    executor: &mut GpuExecutor,
    x: &wgpu::Buffer,
    y: &wgpu::Buffer,
    vectors: usize,
) -> Result<(), ExecError> {
    let (x, y) = (executor.whole(x, 16 * vectors), executor.whole(y, 16 * vectors));
    let params = PeakCopy { count: vectors as u32, x_at: x.at4(), y_at: y.at4(), unused: 0 };
    let size = executor.elements(vectors);
    executor.single(&kernels::PEAK_COPY, &params, &[x, y], size)
}
