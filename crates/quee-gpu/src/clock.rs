//! How long a submission takes: by timestamps of the device, or by the host's clock.

use quee_backbone::ExecError;

use crate::device::{Gpu, Memory};

/// What times are taken by.
pub(crate) enum Clock {
    /// The device's own stamps before the first dispatch and after the last.
    Stamps(Stamps),
    /// The host's clock, from handing the commands over until they are done.
    Host,
}

impl Clock {
    /// Stamps where the device has them.
    pub fn new(gpu: &Gpu) -> Result<Self, ExecError> {
        if gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            Stamps::new(gpu, 2).map(Self::Stamps)
        } else {
            Ok(Self::Host)
        }
    }

    pub fn stamps(&self) -> Option<&Stamps> {
        match self {
            Self::Stamps(stamps) => Some(stamps),
            Self::Host => None,
        }
    }
}

/// Timestamps, two for each pass.
pub(crate) struct Stamps {
    queries: wgpu::QuerySet,
    resolved: Memory,
    staging: Memory,
}

/// Bytes of a timestamp.
const BYTES: u64 = 8;

impl Stamps {
    pub fn new(gpu: &Gpu, count: u32) -> Result<Self, ExecError> {
        use wgpu::BufferUsages as Usage;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let bytes = BYTES * u64::from(count);
        let resolved = gpu.allocate(bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC, false)?;
        let staging = gpu.allocate(bytes, Usage::MAP_READ | Usage::COPY_DST, false)?;
        Ok(Self { queries, resolved, staging })
    }

    /// What pass number `pass` writes.
    pub fn writes(&self, pass: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        }
    }

    /// Records the copies that [`read`](Self::read) needs, of `passes` passes.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder, passes: u32) {
        encoder.resolve_query_set(&self.queries, 0..2 * passes, &self.resolved.buffer, 0);
        let bytes = 2 * BYTES * u64::from(passes);
        encoder.copy_buffer_to_buffer(&self.resolved.buffer, 0, &self.staging.buffer, 0, bytes);
    }

    /// Seconds of each of the first `passes` passes of a submission that is done; 0 where the driver's stamps do not advance.
    pub fn read(&self, gpu: &Gpu, passes: usize) -> Result<Vec<f64>, ExecError> {
        let staging = &self.staging.buffer;
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more when waiting has failed.
            let _ = sender.send(result);
        });
        let polled = gpu.device.poll(wgpu::PollType::wait_indefinitely());
        gpu.check()?;
        polled.map_err(|e| gpu.refused(&e.to_string()))?;
        let mapped = receiver.recv().map_err(|_| gpu.refused("timestamps got no answer"))?;
        mapped.map_err(|e| gpu.refused(&e.to_string()))?;
        let stamps: Vec<u64> = {
            let view = staging.get_mapped_range(..).map_err(|e| gpu.refused(&e.to_string()))?;
            bytemuck::pod_collect_to_vec(&view)
        };
        staging.unmap();
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let seconds = |pass: &[u64]| pass[1].saturating_sub(pass[0]) as f64 * period;
        Ok(stamps.chunks_exact(2).take(passes).map(seconds).collect())
    }
}
