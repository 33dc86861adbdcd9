//! Writing safetensors files, the same bytes for the same content.
//!
//! The safetensors crate writes notes in the random order of a hash map; results should not differ from run to run.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Element type of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
}

impl Element {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::U16 => "U16",
            Self::U32 => "U32",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::U16 => 2,
        }
    }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorData {
    /// Name.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl TensorData {
    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: impl IntoIterator<Item = f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self { name: name.into(), element: Element::F32, shape, bytes }
    }

    /// A tensor of 16-bit unsigned integers.
    pub fn u16(name: impl Into<String>, shape: Vec<usize>, values: impl IntoIterator<Item = u16>) -> Self {
        let bytes = values.into_iter().flat_map(u16::to_le_bytes).collect();
        Self { name: name.into(), element: Element::U16, shape, bytes }
    }

    /// A tensor of 32-bit unsigned integers.
    pub fn u32(name: impl Into<String>, shape: Vec<usize>, values: impl IntoIterator<Item = u32>) -> Self {
        let bytes = values.into_iter().flat_map(u32::to_le_bytes).collect();
        Self { name: name.into(), element: Element::U32, shape, bytes }
    }
}

/// The bytes of a safetensors file with these tensors, in this order, and free-form notes.
///
/// # Panics
/// When the elements of a tensor do not fill its shape.
pub fn encode(tensors: &[TensorData], notes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = Map::new();
    if !notes.is_empty() {
        header.insert("__metadata__".into(), json!(notes));
    }
    let mut end = 0;
    for TensorData { name, element, shape, bytes } in tensors {
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * element.size(), "elements of `{name}`");
        let start = end;
        end += bytes.len();
        header.insert(name.clone(), json!({ "dtype": element.name(), "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(header).to_string();
    // The format aligns the data to 8 bytes with blanks.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    tensors.iter().for_each(|tensor| file.extend(&tensor.bytes));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn what_is_written_can_be_read() {
        let tensors = [TensorData::f32("a", vec![2, 2], [1.0, -2.0, 3.5, 0.25]), TensorData::f32("b", vec![1], [7.0])];
        let notes = BTreeMap::from([("x".to_owned(), "1 \"2\"".to_owned()), ("y".to_owned(), "z".to_owned())]);
        let bytes = encode(&tensors, &notes);
        assert_eq!(bytes, encode(&tensors, &notes));
        let mut read = Checkpoint::parse(&bytes, "test").unwrap();
        assert_eq!(read.metadata(), &notes);
        assert_eq!(&*read.take("a", &[2, 2]).unwrap(), [1.0, -2.0, 3.5, 0.25]);
        assert_eq!(&*read.take("b", &[1]).unwrap(), [7.0]);
        read.finish().unwrap();
    }

    #[test]
    fn other_elements_have_their_own_size() {
        let tensors = [TensorData::u16("a", vec![3], [1, 2, 65535]), TensorData::u32("b", vec![1], [1 << 20])];
        let bytes = encode(&tensors, &BTreeMap::new());
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("a").unwrap().data(), [1, 0, 2, 0, 255, 255]);
        assert_eq!(file.tensor("b").unwrap().shape(), [1]);
    }
}
