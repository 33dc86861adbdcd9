//! Named tensors from safetensors files, checked one by one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors};

/// Named float tensors that wait to be taken by an architecture, and the file's own notes.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    origin: String,
    tensors: BTreeMap<String, (Vec<usize>, Arc<[f32]>)>,
    metadata: BTreeMap<String, String>,
}

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
    /// The bytes are no safetensors file.
    #[error(
        "{origin}: not a valid safetensors file: {reason}; hint: the download may be incomplete, or the file is of another format"
    )]
    Format {
        /// File.
        origin: String,
        /// What the parser says.
        reason: String,
    },
    /// A tensor that is not in 32-bit floats.
    #[error("{origin}: tensor `{tensor}` has type {dtype}; hint: save the checkpoint in float32")]
    Type {
        /// File.
        origin: String,
        /// Tensor name.
        tensor: String,
        /// Its type.
        dtype: String,
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

impl Checkpoint {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or holds another type than 32-bit floats.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let origin = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io { origin: origin.clone(), source })?;
        Self::parse(&bytes, &origin)
    }

    /// Reads the bytes of a safetensors file; `origin` is its name in messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self, CheckpointError> {
        let format = |e: safetensors::SafeTensorError| CheckpointError::Format {
            origin: origin.to_owned(),
            reason: e.to_string(),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = SafeTensors::deserialize(bytes).map_err(format)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                let (origin, dtype) = (origin.to_owned(), format!("{:?}", view.dtype()));
                return Err(CheckpointError::Type { origin, tensor: name, dtype });
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            tensors.insert(name, (view.shape().to_vec(), values.collect()));
        }
        Ok(Self { origin: origin.to_owned(), tensors, metadata })
    }

    /// Tensors that did not come from a file; `origin` says where from.
    pub fn from_tensors(origin: &str, tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Self {
        let tensors = tensors.into_iter().map(|(name, shape, data)| (name, (shape, data.into()))).collect();
        Self { origin: origin.to_owned(), tensors, metadata: BTreeMap::new() }
    }

    /// File name, or what else the tensors came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The file's free-form notes.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Shape of a tensor that has not been taken yet.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// Puts a tensor in, in place of what has that name.
    ///
    /// # Panics
    /// When the values do not fill the shape.
    pub fn insert(&mut self, name: &str, shape: Vec<usize>, data: Vec<f32>) {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "values of `{name}`");
        self.tensors.insert(name.to_owned(), (shape, data.into()));
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not finite.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Arc<[f32]>, CheckpointError> {
        let (origin, tensor) = (self.origin.clone(), name.to_owned());
        let Some((got, data)) = self.tensors.remove(name) else {
            let left: Vec<&str> = self.tensors.keys().take(3).map(String::as_str).collect();
            let near = if left.is_empty() { String::new() } else { format!("(the file has {} …)", left.join(", ")) };
            return Err(CheckpointError::Missing { origin, tensor, near });
        };
        if got != shape {
            return Err(CheckpointError::Shape { origin, tensor, expected: shape.to_vec(), got });
        }
        if let Some(index) = data.iter().position(|x| !x.is_finite()) {
            return Err(CheckpointError::NotFinite { origin, tensor, index });
        }
        Ok(data)
    }

    /// Ends the import.
    ///
    /// # Errors
    /// When tensors are left that nobody took.
    pub fn finish(self) -> Result<(), CheckpointError> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(tensor) => {
                let (count, tensor) = (self.tensors.len(), tensor.clone());
                Err(CheckpointError::Extra { origin: self.origin, count, tensor })
            }
        }
    }
}
