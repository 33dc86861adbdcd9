//! What a backbone is trained on.

use burn::tensor::Device;

use crate::TrainError;
use crate::executor::flex_device;

/// The processor, or a GPU where the program was built with the feature `train-gpu`.
#[derive(Clone, Debug)]
pub struct TrainDevice {
    device: Device,
    name: String,
    gpu: bool,
}

impl TrainDevice {
    /// The processor: pieces of a batch side by side, one per thread. The same seed gives the same bits, whatever the
    /// number of threads.
    pub fn cpu() -> Self {
        Self { device: flex_device(), name: "cpu".into(), gpu: false }
    }

    /// The GPU that the graphics interface prefers, by burn's wgpu backend. Sums may be in another order than on the
    /// processor, so losses agree to rounding only.
    ///
    /// # Errors
    /// When no adapter is to be had, or the program was built without the feature `train-gpu`.
    #[cfg(feature = "train-gpu")]
    pub fn gpu() -> Result<Self, TrainError> {
        use std::sync::{Mutex, PoisonError};
        // burn opens each adapter once per process and answers a second request with an error.
        static OPEN: Mutex<Option<TrainDevice>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = &*open {
            return Ok(device.clone());
        }
        let (device, setup) =
            Device::wgpu_options().init_with_setup().map_err(|e| TrainError::Gpu { reason: e.to_string() })?;
        let info = setup.adapter.get_info();
        let software = if info.device_type == burn::tensor::wgpu::wgpu::DeviceType::Cpu { ", in software" } else { "" };
        let name = format!("gpu ({}, {:?}{software})", info.name, info.backend);
        Ok(open.insert(Self { device, name, gpu: true }).clone())
    }

    /// Always an error: the program was built without the feature `train-gpu`.
    ///
    /// # Errors
    /// Says how to build it with the feature.
    #[cfg(not(feature = "train-gpu"))]
    pub fn gpu() -> Result<Self, TrainError> {
        Err(TrainError::NoGpu)
    }

    /// For people: `cpu`, or the name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Held while something small is trained. Networks of exits and gates are trained side by side on the processor, and one after the other on
    /// a GPU, which has one queue for all.
    pub(crate) fn turn(&self) -> Option<std::sync::MutexGuard<'static, ()>> {
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        self.gpu.then(|| TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Samples of a batch that are worked on at a time; fixed, so that gradients are always added in the same order.
    pub(crate) fn piece(&self) -> usize {
        // The processor: small, so that activations stay in the cache. A GPU: as much as its memory may hold.
        if self.gpu { 256 } else { 16 }
    }

    /// Whether pieces are worked on side by side.
    pub(crate) fn side_by_side(&self) -> bool {
        !self.gpu
    }
}
