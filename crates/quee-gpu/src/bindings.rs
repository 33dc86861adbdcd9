//! Bind groups of a recording, kept for the recordings after it: a program that runs again asks for the same parts of the same buffers.
//!
//! A bind group keeps its buffers alive, so it is forgotten together with the first of them that is freed. How many are kept is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::kernels::Source;
use crate::recorder::Span;

/// Most bind groups of a recorder.
pub(crate) const GROUPS: usize = 2048;
/// A group that so many submissions have not used is forgotten.
const UNUSED: u64 = 256;

/// The bind groups of one recorder.
#[derive(Default)]
pub(crate) struct Bindings(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By the hash of source and bindings; of two with one hash, the later.
    groups: HashMap<u64, Entry, BuildHasherDefault<Folded>>,
    submissions: u64,
    /// Complaints of the driver when the groups were made.
    complaints: u64,
}

struct Entry {
    source: &'static Source,
    spans: Box<[Span]>,
    group: wgpu::BindGroup,
    /// The last submission that used it.
    used: u64,
}

impl Bindings {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of what `spans` show a kernel, wherever in it their parts begin; made by `make` where there is none yet. When `complaints` has grown, the driver may have refused
    /// any group, so none of those from before is used.
    pub fn group(
        &self,
        source: &'static Source,
        spans: &[Span],
        complaints: u64,
        make: impl FnOnce() -> wgpu::BindGroup,
    ) -> wgpu::BindGroup {
        let mut hasher = Folded::default();
        std::ptr::hash(source, &mut hasher);
        spans.iter().for_each(|span| span.binding().hash(&mut hasher));
        let hash = hasher.finish();
        let mut kept = self.kept();
        let now = kept.submissions;
        if std::mem::replace(&mut kept.complaints, complaints) != complaints {
            kept.groups.clear();
        }
        if let Some(entry) = kept.groups.get_mut(&hash)
            && std::ptr::eq(entry.source, source)
            && entry.spans.iter().map(Span::binding).eq(spans.iter().map(Span::binding))
        {
            entry.used = now;
            return entry.group.clone();
        }
        let group = make();
        if kept.groups.len() >= GROUPS {
            kept.groups.retain(|_, entry| now - entry.used <= 1);
            if kept.groups.len() >= GROUPS / 2 {
                kept.groups.clear();
            }
        }
        kept.groups.insert(hash, Entry { source, spans: spans.into(), group: group.clone(), used: now });
        group
    }

    /// What was recorded so far has been submitted.
    pub fn submitted(&self) {
        let mut kept = self.kept();
        kept.submissions += 1;
        let now = kept.submissions;
        if now.is_multiple_of(UNUSED) {
            kept.groups.retain(|_, entry| now - entry.used <= UNUSED);
        }
    }

    /// How many are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept().groups.len()
    }

    fn forget(&self, buffer: &wgpu::Buffer) {
        self.kept().groups.retain(|_, entry| entry.spans.iter().all(|span| span.binding().0 != buffer));
    }
}

/// The bindings of all recorders on a device.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<Weak<Bindings>>>);

impl Registry {
    /// Bindings from which freed buffers will be removed.
    pub fn register(&self) -> Arc<Bindings> {
        let bindings = Arc::new(Bindings::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&bindings));
        bindings
    }

    /// Lets go of the groups of a buffer that is being freed.
    pub fn forget(&self, buffer: &wgpu::Buffer) {
        let all: Vec<_> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        all.iter().for_each(|bindings| bindings.forget(buffer));
    }
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bindings").finish_non_exhaustive()
    }
}

/// Hashes of numbers that nobody chooses to collide: every word is folded in by a multiplication.
#[derive(Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(5) ^ word) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use quee_backbone::{Attention, ExecError, Executor as _, Linear, Norm, Param, QuantPlan};
    use quee_quant::WeightQuantizer;

    use super::*;
    use crate::device::{Gpu, GpuOptions};
    use crate::memory::KEPT;
    use crate::{GpuEngine, GpuError, GpuExecutor, kernels};

    /// A device, unless there is no adapter.
    fn device() -> Option<Arc<Gpu>> {
        match Gpu::open(&GpuOptions::default()) {
            Ok(gpu) => Some(gpu),
            Err(error @ (GpuError::NoLoader | GpuError::NoAdapter { .. })) => {
                // Written past the test harness, which shows no output of tests that pass.
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {error}\n"));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn param(id: usize, shape: &[usize]) -> Param {
        let count: usize = shape.iter().product();
        let data: Vec<f32> = (0..count).map(|i| ((7919 * i + id) % 13) as f32 / 13.0 - 0.5).collect();
        Param { id, name: format!("param{id}"), shape: shape.to_vec(), data: data.into(), frozen: false }
    }

    /// A block of an encoder over tokens of 8 features.
    struct Block {
        norm: Norm,
        qkv: Linear,
        attention: Attention,
        out: Linear,
    }

    impl Block {
        fn new() -> Self {
            let linear = |site: &str, id: usize, n: usize| Linear {
                site: site.into(),
                inputs: 8,
                outputs: n,
                weight: param(id, &[n, 8]),
                bias: Some(param(id + 1, &[n])),
            };
            Self {
                norm: Norm { site: "norm".into(), weight: param(0, &[8]), bias: param(1, &[8]), eps: 1e-6 },
                qkv: linear("qkv", 2, 24),
                attention: Attention { site: "attention".into(), heads: 2, head_dim: 4, scale: 0.5 },
                out: linear("out", 4, 8),
            }
        }

        /// The bits of a batch of `samples` samples of three tokens.
        fn run(&self, executor: &mut GpuExecutor, samples: usize) -> Vec<u32> {
            let data: Vec<f32> = (0..24 * samples).map(|i| (31 * i % 17) as f32 / 17.0 - 0.5).collect();
            let x = executor.input(&[samples, 3, 8], &data).unwrap();
            let qkv = executor.norm_linear(&x, &self.norm, &self.qkv).unwrap();
            let heads = executor.attention(&qkv, &self.attention).unwrap();
            let y = executor.linear_add(&heads, &self.out, &x).unwrap();
            executor.read(&y).unwrap().into_iter().map(f32::to_bits).collect()
        }
    }

    fn engine(gpu: &Arc<Gpu>) -> Arc<GpuEngine> {
        GpuEngine::on(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Arc::clone(gpu))
    }

    fn executor(engine: &Arc<GpuEngine>) -> GpuExecutor {
        let mut executor = engine.executor().unwrap();
        executor.set_width("w8a8".parse().unwrap()).unwrap();
        executor
    }

    #[test]
    fn a_program_that_runs_again_adds_nothing() {
        let Some(gpu) = device() else { return };
        let (engine, block) = (engine(&gpu), Block::new());
        let mut executor = executor(&engine);
        let first = block.run(&mut executor, 5);
        // A buffer that was new in one pass is one of several that are free in the next.
        (0..5).for_each(|_| drop(block.run(&mut executor, 5)));
        let held = |executor: &GpuExecutor| {
            let recorder = executor.recorder();
            (recorder.bindings.len(), recorder.pool.len(), gpu.allocated())
        };
        let settled = held(&executor);
        assert!(settled.0 > 0 && settled.1 > 0, "{settled:?}");
        for round in 0..1000 {
            assert_eq!(block.run(&mut executor, 5), first, "round {round}");
            let (groups, buffers, bytes) = held(&executor);
            assert!(groups <= settled.0, "round {round}: {groups} bind groups");
            assert_eq!((buffers, bytes), (settled.1, settled.2), "round {round}");
        }
    }

    #[test]
    fn batches_of_many_sizes_are_bounded_and_right() {
        let Some(gpu) = device() else { return };
        let (engine, block) = (engine(&gpu), Block::new());
        let sizes = [1, 64, 3, 200, 17, 2, 33, 90, 5];
        // Each by an executor that has nothing kept yet.
        let alone = sizes.map(|size| {
            engine.trim();
            block.run(&mut executor(&engine), size)
        });
        engine.trim();
        let mut executor = executor(&engine);
        for round in 0..40 {
            for (size, alone) in sizes.iter().zip(&alone) {
                assert_eq!(block.run(&mut executor, *size), *alone, "batch of {size}, round {round}");
            }
            let recorder = executor.recorder();
            assert!(recorder.pool.len() <= KEPT && recorder.bindings.len() <= GROUPS);
        }
    }

    #[test]
    fn two_executors_share_an_engine() {
        let Some(gpu) = device() else { return };
        let (engine, block) = (engine(&gpu), Block::new());
        let expected = block.run(&mut executor(&engine), 4);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut executor = executor(&engine);
                    (0..100).for_each(|_| assert_eq!(block.run(&mut executor, 4), expected));
                });
            }
        });
    }

    #[test]
    fn buffers_that_are_freed_take_their_groups_along() {
        let Some(gpu) = device() else { return };
        let (engine, block) = (engine(&gpu), Block::new());
        let mut executor = executor(&engine);
        let expected = block.run(&mut executor, 5);
        let groups = executor.recorder().bindings.len();
        assert!(groups > 0);
        assert!(executor.recorder().pool.clear() > 0);
        // Every kernel reads or writes a buffer of the pool.
        assert_eq!(executor.recorder().bindings.len(), 0);
        assert_eq!(block.run(&mut executor, 5), expected);
        assert_eq!(executor.recorder().bindings.len(), groups);
    }

    #[test]
    fn a_profile_and_a_lost_device_change_no_result() {
        let Some(gpu) = device() else { return };
        let (engine, block) = (engine(&gpu), Block::new());
        let mut first = executor(&engine);
        let expected = block.run(&mut first, 5);
        first.profile(true).unwrap();
        assert_eq!(block.run(&mut first, 5), expected);
        first.profile(false).unwrap();
        assert_eq!(block.run(&mut first, 5), expected);
        gpu.lose();
        let x = first.input(&[5, 3, 8], &[0.0; 120]);
        let read = x.and_then(|x| first.norm_linear(&x, &block.norm, &block.qkv)).and_then(|y| first.read(&y));
        assert!(matches!(read, Err(ExecError::DeviceLost { .. })), "{read:?}");
        drop(first);
        let mut second = executor(&engine);
        assert_eq!(block.run(&mut second, 5), expected);
    }

    #[test]
    fn groups_are_bounded_and_made_again_after_a_complaint() {
        let Some(gpu) = device() else { return };
        let recorder = crate::recorder::Recorder::new(Arc::clone(&gpu), Arc::default()).unwrap();
        let layout = &gpu.pipeline(&kernels::ADD, &[]).unwrap().layout;
        let storage = gpu.upload(&[0; 256]).unwrap();
        let uniform = gpu.allocate(256, wgpu::BufferUsages::UNIFORM, false).unwrap();
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..kernels::ADD.bindings.len())
            .map(|at| {
                let memory = if at == 0 { &uniform } else { &storage };
                wgpu::BindGroupEntry { binding: at as u32, resource: memory.buffer.as_entire_binding() }
            })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        let group = gpu.device.create_bind_group(&descriptor);
        let bindings = Bindings::default();
        let made = |span: &Span, complaints: u64| {
            let mut made = false;
            bindings.group(&kernels::ADD, std::slice::from_ref(span), complaints, || {
                made = true;
                group.clone()
            });
            made
        };
        let first = recorder.flags();
        assert!(made(&first, 0) && !made(&first, 0));
        assert!(made(&first, 1) && !made(&first, 1), "not those from before a complaint");
        let buffers: Vec<_> = (0..GROUPS + 9).map(|_| gpu.upload(&[0; 16]).unwrap()).collect();
        for memory in &buffers {
            assert!(made(&recorder.span(&memory.buffer, 0, 16), 1));
            assert!(bindings.len() <= GROUPS);
        }
        // What nobody has asked for in a long time goes.
        (0..2 * UNUSED).for_each(|_| bindings.submitted());
        assert_eq!(bindings.len(), 0);
        assert_eq!(gpu.check(), Ok(()));
    }
}
