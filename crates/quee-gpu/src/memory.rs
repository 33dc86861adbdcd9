//! Tensors of an executor, and the pool that their buffers come from.

use std::sync::{Arc, Mutex, PoisonError};

use quee_backbone::ExecError;

use crate::device::{Gpu, Memory};

/// Buffers kept for reuse.
pub(crate) const KEPT: usize = 48;

/// The size of the buffer for a block: the next of four between two powers of two, so that batches of similar size share their buffers.
fn usual(bytes: u64) -> u64 {
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(256))
}

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
    /// From small to large, those of one size by number: which buffer a program gets depends only on which are free, so a program that runs
    /// again gets the same ones, and its bind groups are there already.
    buffers: Vec<Free>,
    submissions: u64,
    /// Buffers made so far.
    made: u64,
    /// Blocks dropped so far.
    dropped: u64,
}

struct Free {
    memory: Memory,
    number: u64,
    /// Submissions and dropped blocks when it became free.
    since: (u64, u64),
}

impl Free {
    fn rank(&self) -> (u64, u64) {
        (self.memory.bytes(), self.number)
    }
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
        let usual = usual(bytes).min(self.gpu.limits().max_buffer_size.max(bytes));
        let mut kept = self.kept();
        let now = kept.submissions;
        // The smallest that holds it and is not much too large.
        let first = kept.buffers.partition_point(|free| free.memory.bytes() < bytes);
        let mut fitting = kept.buffers[first..].iter().take_while(|free| free.memory.bytes() / 2 <= usual);
        if let Some(at) = fitting.position(|free| !outside || free.since.0 < now) {
            let Free { memory, number, .. } = kept.buffers.remove(first + at);
            return Ok(Block { memory: Some(memory), number, pool: Arc::clone(self) });
        }
        kept.made += 1;
        let number = kept.made;
        drop(kept);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let memory = match self.gpu.allocate(usual, usage, false) {
            // What is kept for later may make room.
            Err(ExecError::OutOfMemory { .. }) if self.clear() > 0 || bytes < usual => {
                self.gpu.allocate(bytes, usage, false)?
            }
            other => other?,
        };
        Ok(Block { memory: Some(memory), number, pool: Arc::clone(self) })
    }

    /// Gives everything that is kept back to the driver; its bytes.
    pub fn clear(&self) -> u64 {
        let buffers = std::mem::take(&mut self.kept().buffers);
        buffers.iter().map(|free| free.memory.bytes()).sum()
    }

    /// How many buffers are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept().buffers.len()
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Block {
    memory: Option<Memory>,
    number: u64,
    pool: Arc<Pool>,
}

impl Block {
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.memory.as_ref().expect("taken only when dropped").buffer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        let mut kept = self.pool.kept();
        if kept.buffers.len() == KEPT {
            let oldest = (0..KEPT).min_by_key(|&at| kept.buffers[at].since).expect("some are kept");
            kept.buffers.remove(oldest);
        }
        kept.dropped += 1;
        let free = Free { memory, number: self.number, since: (kept.submissions, kept.dropped) };
        let at = kept.buffers.partition_point(|other| other.rank() < free.rank());
        kept.buffers.insert(at, free);
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
