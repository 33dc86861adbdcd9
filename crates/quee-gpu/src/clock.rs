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
            Stamps::new(gpu).map(Self::Stamps)
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

/// Two timestamps.
pub(crate) struct Stamps {
    queries: wgpu::QuerySet,
    resolved: Memory,
    staging: Memory,
}

/// Bytes of two timestamps.
const BYTES: u64 = 16;

impl Stamps {
    fn new(gpu: &Gpu) -> Result<Self, ExecError> {
        use wgpu::BufferUsages as Usage;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = gpu.allocate(BYTES, Usage::QUERY_RESOLVE | Usage::COPY_SRC, false)?;
        let staging = gpu.allocate(BYTES, Usage::MAP_READ | Usage::COPY_DST, false)?;
        Ok(Self { queries, resolved, staging })
    }

    /// What a pass writes.
    pub fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Records the copies that [`read`](Self::read) needs.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved.buffer, 0);
        encoder.copy_buffer_to_buffer(&self.resolved.buffer, 0, &self.staging.buffer, 0, BYTES);
    }

    /// Seconds between the stamps of a submission that is done; 0 where the driver's stamps do not advance.
    pub fn read(&self, gpu: &Gpu) -> Result<f64, ExecError> {
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
        let ticks = stamps[1].saturating_sub(stamps[0]);
        Ok(ticks as f64 * f64::from(gpu.queue.get_timestamp_period()) * 1e-9)
    }
}
