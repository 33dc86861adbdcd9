//! Named tensors from the files that pretrained weights come in, checked one by one.
//!
//! - `safetensors`: the format that this project writes, too
//! - `torch`: what PyTorch's `torch.save` writes, by way of `zip` and `pickle`
//! - `source`, `view`, `dtype`: bounded reads, where a tensor's elements lie, and what becomes a 32-bit float
//!
//! A file is recognised by its first bytes, whatever its name is. Tensors are read when they are taken.

mod dtype;
mod error;
mod pickle;
mod safetensors;
mod source;
mod torch;
mod view;
mod zip;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use dtype::Dtype;
pub use error::CheckpointError;
use source::Source;
use view::View;

/// Named tensors that wait to be taken by an architecture, and the file's own notes.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    origin: String,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Tensor {
    Ready { shape: Vec<usize>, values: Arc<[f32]> },
    Stored { view: View, source: Source },
}

impl Tensor {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Ready { shape, .. } => shape,
            Self::Stored { view, .. } => view.shape(),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::Ready { .. } => Dtype::F32,
            Self::Stored { view, .. } => view.dtype(),
        }
    }
}

/// What a file that is no checkpoint may be, by its first bytes.
const LOOK_ALIKES: &[(&[u8], &str)] = &[
    (b"<!", "it looks like a web page: download the file itself"),
    (b"<html", "it looks like a web page: download the file itself"),
    (b"version https://git-lfs", "it stands for a file in git-lfs: fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
    (b"\x89HDF", "it is an HDF5 file: convert it to safetensors"),
];

impl Checkpoint {
    /// Opens a safetensors or PyTorch file; the content says which. Of a PyTorch file, the weights are the dictionary
    /// under `state_dict_ema`, `model_ema`, `state_dict` or `model`, the first there is, or the tensors at the top, and
    /// [`origin`](Self::origin) tells the key. A common prefix `module.` is dropped. Nothing in a pickle is executed.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or refers to anything but plain data.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        Self::open(&Source::open(path)?)
    }

    /// Reads the bytes of such a file; `origin` is its name in messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self, CheckpointError> {
        Self::open(&Source::memory(bytes, origin))
    }

    fn open(source: &Source) -> Result<Self, CheckpointError> {
        let start = source.bytes(0, source.length().min(32))?;
        let (views, key, metadata) = if zip::matches(&start) {
            let (views, key) = torch::read_zip(source)?;
            (views, key, BTreeMap::new())
        } else if torch::matches_pickle(&start) {
            let (views, key) = torch::read_legacy(source)?;
            (views, key, BTreeMap::new())
        } else if safetensors::matches(&start) {
            let (views, notes) = safetensors::read(source)?;
            (views, None, notes)
        } else {
            let known = LOOK_ALIKES.iter().find(|(bytes, _)| start.starts_with(bytes));
            let hint =
                known.map_or("the download may be incomplete, or the file is of another format", |(_, hint)| hint);
            return Err(CheckpointError::Unknown { origin: source.origin().to_owned(), hint });
        };
        let stored = |(name, view)| (name, Tensor::Stored { view, source: source.clone() });
        let origin = match key {
            Some(key) => format!("{} [{key}]", source.origin()),
            None => source.origin().to_owned(),
        };
        Ok(Self { origin, tensors: views.into_iter().map(stored).collect(), metadata })
    }

    /// Tensors that did not come from a file; `origin` says where from.
    pub fn from_tensors(origin: &str, tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Self {
        let ready = |(name, shape, data): (_, _, Vec<f32>)| (name, Tensor::Ready { shape, values: data.into() });
        Self { origin: origin.to_owned(), tensors: tensors.into_iter().map(ready).collect(), metadata: BTreeMap::new() }
    }

    /// File name with the key of the weights inside, or what else the tensors came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The file's free-form notes. PyTorch files have none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of the tensors that have not been taken yet, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor that has not been taken yet.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::shape)
    }

    /// Names and shapes of the tensors that have not been taken yet.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Puts a tensor in, in place of what has that name.
    ///
    /// # Panics
    /// When the values do not fill the shape.
    pub fn insert(&mut self, name: &str, shape: Vec<usize>, data: Vec<f32>) {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "values of `{name}`");
        self.tensors.insert(name.to_owned(), Tensor::Ready { shape, values: data.into() });
    }

    /// Moves all tensors whose names begin with `prefix` to a checkpoint of their own, without the prefix; `origin` is its
    /// name in messages.
    pub fn split_prefix(&mut self, prefix: &str, origin: &str) -> Self {
        let (mut inside, mut outside) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            match name.strip_prefix(prefix) {
                Some(name) => inside.insert(name.to_owned(), tensor),
                None => outside.insert(name, tensor),
            };
        }
        self.tensors = outside;
        Self { origin: origin.to_owned(), tensors: inside, metadata: BTreeMap::new() }
    }

    /// Element type in the file of a tensor that has not been taken yet.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(Tensor::dtype)
    }

    /// Takes a tensor out, row-major. 16-bit and 64-bit floats are converted.
    ///
    /// # Errors
    /// When it is missing, of another shape, not of floats, or not finite, or when the file can no longer be read.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Arc<[f32]>, CheckpointError> {
        let found = self.remove(name, shape)?;
        let (origin, tensor) = (self.origin.clone(), name.to_owned());
        let data = match found {
            Tensor::Ready { values, .. } => values,
            Tensor::Stored { view, .. } if !view.dtype().converts() => {
                return Err(CheckpointError::Type { origin, tensor, dtype: view.dtype().name() });
            }
            Tensor::Stored { view, source } => view.load(&source)?,
        };
        if let Some(index) = data.iter().position(|x| !x.is_finite()) {
            return Err(CheckpointError::NotFinite { origin, tensor, index });
        }
        Ok(data)
    }

    /// Takes a tensor of 32-bit unsigned integers out, row-major.
    ///
    /// # Errors
    /// When it is missing, of another shape or of another type, or when the file can no longer be read.
    pub fn take_words(&mut self, name: &str, shape: &[usize]) -> Result<Vec<u32>, CheckpointError> {
        match self.remove(name, shape)? {
            Tensor::Stored { view, source } if view.dtype() == Dtype::U32 => view.load_words(&source),
            other => {
                let (origin, tensor) = (self.origin.clone(), name.to_owned());
                Err(CheckpointError::Type { origin, tensor, dtype: other.dtype().name() })
            }
        }
    }

    fn remove(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let (origin, tensor) = (self.origin.clone(), name.to_owned());
        let Some(found) = self.tensors.remove(name) else {
            let left: Vec<&str> = self.tensors.keys().take(3).map(String::as_str).collect();
            let near = if left.is_empty() { String::new() } else { format!("(the file has {} …)", left.join(", ")) };
            return Err(CheckpointError::Missing { origin, tensor, near });
        };
        if found.shape() != shape {
            let got = found.shape().to_vec();
            return Err(CheckpointError::Shape { origin, tensor, expected: shape.to_vec(), got });
        }
        Ok(found)
    }

    /// Ends the import. Integers that nobody took are no error: they are counters such as `num_batches_tracked` or
    /// tables of indices, no weights.
    ///
    /// # Errors
    /// When other tensors are left that nobody took.
    pub fn finish(self) -> Result<(), CheckpointError> {
        let mut left = self.tensors.into_iter().filter(|(_, tensor)| !tensor.dtype().is_integer());
        match left.next() {
            None => Ok(()),
            Some((tensor, _)) => Err(CheckpointError::Extra { origin: self.origin, count: 1 + left.count(), tensor }),
        }
    }
}
