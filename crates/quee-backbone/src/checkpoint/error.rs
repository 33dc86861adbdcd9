//! What can be wrong with a checkpoint.

/// What is wrong with a checkpoint. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("{origin}: cannot read the checkpoint: {source}; hint: check the path and its permissions")]
    Io {
        /// File.
        origin: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are of no format that is known here.
    #[error("{origin}: neither a safetensors file nor a PyTorch checkpoint; hint: {hint}")]
    Unknown {
        /// File.
        origin: String,
        /// What it may be instead.
        hint: &'static str,
    },
    /// A file of a known format that does not keep to it.
    #[error("{origin}: not a valid {format} file: {reason}; hint: {hint}")]
    Format {
        /// File.
        origin: String,
        /// Name of the format.
        format: &'static str,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// A pickle names a function or class that is not known to be plain data.
    #[error(
        "{origin}: the pickle refers to `{global}` at byte {position} of {place}, which is not loaded; hint: code in a pickle is never run here. If you trust the file, open it in Python and save the tensors alone: torch.save(model.state_dict(), path)"
    )]
    Global {
        /// File.
        origin: String,
        /// Module and name.
        global: String,
        /// Byte of the reference.
        position: u64,
        /// Part of the file.
        place: &'static str,
    },
    /// A pickle holds an instruction that PyTorch does not write.
    #[error(
        "{origin}: the pickle holds the instruction {opcode} at byte {position} of {place}, which PyTorch does not write; hint: the file is damaged, or not made by torch.save with protocol 2 to 5"
    )]
    Opcode {
        /// File.
        origin: String,
        /// Name of the instruction, or its number.
        opcode: String,
        /// Byte of the instruction.
        position: u64,
        /// Part of the file.
        place: &'static str,
    },
    /// A pickle that makes no sense.
    #[error(
        "{origin}: the pickle cannot be read at byte {position} of {place}: {reason}; hint: the file is damaged: download or copy it again"
    )]
    Pickle {
        /// File.
        origin: String,
        /// What is wrong.
        reason: String,
        /// Byte of the instruction.
        position: u64,
        /// Part of the file.
        place: &'static str,
    },
    /// A PyTorch file without named tensors.
    #[error(
        "{origin}: no named tensors in the file, which holds {found}; hint: the tensors are looked for under `state_dict_ema`, `model_ema`, `state_dict` and `model`, then at the top"
    )]
    NoTensors {
        /// File.
        origin: String,
        /// What is there instead.
        found: String,
    },
    /// A tensor whose elements are not where they should be.
    #[error("{origin}: tensor `{tensor}` {reason}; hint: the file is damaged")]
    Layout {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor whose elements cannot become 32-bit floats.
    #[error(
        "{origin}: tensor `{tensor}` has type {dtype}; hint: weights may be float32, float16, bfloat16 or float64: save the checkpoint in float32"
    )]
    Type {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// Its type.
        dtype: &'static str,
    },
    /// A tensor that the architecture needs is not there.
    #[error("{origin}: tensor `{tensor}` is missing; hint: is this a checkpoint of the chosen preset? {near}")]
    Missing {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// What the file has instead.
        near: String,
    },
    /// A tensor of another shape.
    #[error(
        "{origin}: tensor `{tensor}` has shape {got:?}, but the preset needs {expected:?}; hint: choose the preset that the file was made for"
    )]
    Shape {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// Shape of the architecture.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// Tensors that no part of the architecture uses.
    #[error(
        "{origin}: {count} tensors belong to no part of the preset, `{tensor}` among them; hint: choose the preset that the file was made for"
    )]
    Extra {
        /// File.
        origin: String,
        /// How many.
        count: usize,
        /// One of them.
        tensor: String,
    },
    /// NaN or infinity among the weights.
    #[error(
        "{origin}: tensor `{tensor}` holds NaN or infinity at element {index}; hint: the training run or the file is damaged"
    )]
    NotFinite {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// Position of the first such value.
        index: usize,
    },
}
