//! The kernels of `shaders/`, as the build script found them.

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Parameters.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written.
    ReadWrite,
}

/// A pipeline that can be made from a kernel.
#[derive(Debug)]
pub struct Variant {
    /// Name.
    pub name: &'static str,
    /// Override constants.
    pub constants: &'static [(&'static str, f64)],
    /// Bytes that the invocations of a workgroup share.
    pub shared: u32,
}

impl Variant {
    /// The value of a constant.
    pub fn constant(&self, name: &str) -> Option<f64> {
        self.constants.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A kernel.
#[derive(Debug)]
pub struct Source {
    /// Name of its file, without the ending.
    pub name: &'static str,
    /// Text, with the shared files before it.
    pub wgsl: &'static str,
    /// Bindings of group 0, from 0 on.
    pub bindings: &'static [Binding],
    /// Its variants.
    pub variants: &'static [Variant],
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
