//! Where a device's time goes, kernel by kernel: every dispatch in a pass of its own, between two timestamps.

use quee_backbone::ExecError;

use crate::clock::Stamps;
use crate::device::Gpu;

/// Time of the dispatches of one kernel at one kind of place.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// Kernel.
    pub kernel: &'static str,
    /// At which kind of place: its site without the number of the block, e.g. `attn.qkv`. Empty where there is no site.
    pub place: String,
    /// Workgroups of a dispatch along three axes.
    pub workgroups: [u32; 3],
    /// Dispatches.
    pub calls: u64,
    /// Seconds of all of them.
    pub seconds: f64,
}

/// Times so far.
pub(crate) struct Profile {
    /// Two for each dispatch of a submission.
    pub stamps: Stamps,
    rows: Vec<KernelTime>,
}

impl Profile {
    /// `None` where the device has no timestamps.
    pub fn new(gpu: &Gpu, dispatches: usize) -> Result<Option<Self>, ExecError> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        Ok(Some(Self { stamps: Stamps::new(gpu, 2 * dispatches as u32)?, rows: Vec::new() }))
    }

    pub fn rows(&self) -> &[KernelTime] {
        &self.rows
    }

    /// Adds a dispatch.
    pub fn add(&mut self, kernel: &'static str, place: &str, workgroups: [u32; 3], seconds: f64) {
        let same = |row: &&mut KernelTime| (row.kernel, &*row.place, row.workgroups) == (kernel, place, workgroups);
        match self.rows.iter_mut().find(same) {
            Some(row) => {
                row.calls += 1;
                row.seconds += seconds;
            }
            None => self.rows.push(KernelTime { kernel, place: place.to_owned(), workgroups, calls: 1, seconds }),
        }
    }
}
