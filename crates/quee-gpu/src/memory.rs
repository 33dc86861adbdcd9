//! Tensors of an executor, and the pool that their buffers come from.

use std::sync::{Arc, Mutex, PoisonError};

use quee_backbone::ExecError;

use crate::device::{Gpu, Memory};

/// Buffers kept for reuse.
const KEPT: usize = 24;

/// Buffers of dropped tensors, for tensors to come.
///
/// A pool belongs to one recorder: its commands run in the order in which they were recorded, so a buffer may be written anew by a command
/// recorded after those that still read it. Writes from outside the recording need a buffer that no unsubmitted command uses.
pub(crate) struct Pool {
    gpu: Arc<Gpu>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Each with the number of submissions at the time it was dropped.
    buffers: Vec<(Memory, u64)>,
    submissions: u64,
}

impl Pool {
    pub fn new(gpu: Arc<Gpu>) -> Arc<Self> {
        Arc::new(Self { gpu, kept: Mutex::default() })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was recorded so far has been submitted.
    pub fn submitted(&self) {
        self.kept().submissions += 1;
    }

    /// A block of at least `bytes`, with arbitrary content. With `outside`, no unsubmitted command uses it.
    pub fn take(self: &Arc<Self>, bytes: u64, outside: bool) -> Result<Block, ExecError> {
        let bytes = bytes.max(256).next_multiple_of(256);
        let mut kept = self.kept();
        let now = kept.submissions;
        // The smallest that holds it and is not much too large.
        let fits = |(memory, dropped): &(Memory, u64)| {
            memory.bytes() >= bytes && memory.bytes() / 2 <= bytes && (!outside || *dropped < now)
        };
        let best = kept
            .buffers
            .iter()
            .enumerate()
            .filter(|(_, entry)| fits(entry))
            .min_by_key(|(_, (memory, _))| memory.bytes());
        let best = best.map(|(index, _)| index);
        if let Some(index) = best {
            let (memory, _) = kept.buffers.swap_remove(index);
            return Ok(Block { memory: Some(memory), pool: Arc::clone(self) });
        }
        drop(kept);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let memory = match self.gpu.allocate(bytes, usage, false) {
            // What is kept for later may make room.
            Err(ExecError::OutOfMemory { .. }) if self.clear() > 0 => self.gpu.allocate(bytes, usage, false)?,
            other => other?,
        };
        Ok(Block { memory: Some(memory), pool: Arc::clone(self) })
    }

    /// Gives everything that is kept back to the driver; its bytes.
    pub fn clear(&self) -> u64 {
        self.kept().buffers.drain(..).map(|(memory, _)| memory.bytes()).sum()
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Block {
    memory: Option<Memory>,
    pool: Arc<Pool>,
}

impl Block {
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.memory.as_ref().expect("taken only when dropped").buffer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut kept = self.pool.kept();
        if kept.buffers.len() == KEPT {
            kept.buffers.remove(0);
        }
        let now = kept.submissions;
        kept.buffers.extend(self.memory.take().map(|memory| (memory, now)));
    }
}

/// A row-major tensor of floats on the device.
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub data: Arc<Block>,
}

impl Tensor {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}
