//! What can go wrong before anything runs: finding an adapter and opening it.

/// Why there is no GPU to work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The library that finds Vulkan drivers is missing.
    #[error(
        "no Vulkan loader (libvulkan.so.1) on this machine; hint: install it and a driver, on Debian and Ubuntu `apt-get install libvulkan1 \
         mesa-vulkan-drivers`, or use --backend cpu"
    )]
    NoLoader,
    /// No graphics interface reports an adapter.
    #[error(
        "no graphics adapter: {interfaces} found none; hint: install the driver of your GPU, or for a software adapter Mesa's (on Debian and \
         Ubuntu `apt-get install mesa-vulkan-drivers`), or use --backend cpu"
    )]
    NoAdapter {
        /// Graphics interfaces that were asked.
        interfaces: String,
    },
    /// No adapter has the name that was asked for.
    #[error("no adapter whose name contains `{name}`; there are: {}; hint: see `quee backends`", known.join(", "))]
    UnknownAdapter {
        /// What was asked for.
        name: String,
        /// Names of the adapters that exist.
        known: Vec<String>,
    },
    /// The adapter exists, but gives no device.
    #[error("adapter `{adapter}` cannot be opened: {reason}")]
    Refused {
        /// Name of the adapter.
        adapter: String,
        /// What the driver says.
        reason: String,
    },
}
