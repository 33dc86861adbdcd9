//! The safetensors format: the length of a header, the header in JSON, the elements.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use super::CheckpointError;
use super::dtype::Dtype;
use super::source::Source;
use super::view::{Storage, View};

/// Real headers take a hundred bytes per tensor. The JSON parser needs many times the header's length.
const LONGEST_HEADER: u64 = 8 << 20;

const HINT: &str = "the download may be incomplete, or the file is of another format";

/// Whether the first nine bytes can be those of a safetensors file.
pub(super) fn matches(start: &[u8]) -> bool {
    start.get(8) == Some(&b'{')
}

/// Reads the header: tensors by name, and the file's notes.
#[allow(clippy::type_complexity)]
pub(super) fn read(source: &Source) -> Result<(BTreeMap<String, View>, BTreeMap<String, String>), CheckpointError> {
    let invalid = |reason: String| source.invalid("safetensors", reason, HINT);
    let mut length = [0; 8];
    source.read_into(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > source.length() - 8 {
        let size = source.length();
        return Err(invalid(format!("it has {size} bytes, but its header claims to have {length}")));
    }
    let header = source.bytes(8, length)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| invalid(e.to_string()))?;
    let data = source.length() - 8 - length;
    if header.data_len() as u64 != data {
        return Err(invalid(format!("its header describes {} bytes of tensors, {data} follow", header.data_len())));
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        let dtype = Dtype::of_safetensors(info.dtype)
            .ok_or_else(|| invalid(format!("tensor `{name}` has the unknown type {}", info.dtype)))?;
        let (start, end) = info.data_offsets;
        let storage = Storage { position: 8 + length + start as u64, bytes: (end - start) as u64 };
        let shape = info.shape.clone();
        // Elements of less than a byte are never loaded: only their shape is told.
        let view = match dtype {
            Dtype::SubByte => View::opaque(dtype, shape),
            _ => {
                View::row_major(dtype, storage, shape).map_err(|reason| invalid(format!("tensor `{name}` {reason}")))?
            }
        };
        tensors.insert(name, view);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default().into_iter().collect()))
}
