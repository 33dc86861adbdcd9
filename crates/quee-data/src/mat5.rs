//! A bounded reader for the part of the MATLAB 5 format that data sets use: numeric arrays, compressed or not.
//!
//! The source is *MAT-File Format* (The MathWorks). A file is a head of 128 bytes, then elements: a tag of 8 bytes
//! (type, size), the content, and padding to 8 bytes. An array is an element of type `miMATRIX` made of elements: flags,
//! dimensions, name, values. Type `miCOMPRESSED` holds one array in zlib's format. An element of at most 4 bytes may be
//! packed into its tag.
//!
//! Nothing that a file says makes the reader take more than [`MEMORY`] times the file's size, the file included.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// Most memory that reading takes, in file sizes.
pub const MEMORY: usize = 10;

/// Share of [`MEMORY`] that values may take. The file itself, its elements' heads and a decoder's window are the rest.
const VALUES: usize = 8;

/// Bytes of the head.
const HEAD: usize = 128;

/// Type of an element.
mod kind {
    pub const INT32: u32 = 5;
    pub const INT8: u32 = 1;
    pub const UINT32: u32 = 6;
    pub const MATRIX: u32 = 14;
    pub const COMPRESSED: u32 = 15;
}

/// Class of an array: what MATLAB takes its values for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Floats of 64 bits.
    Double,
    /// Bytes.
    Uint8,
}

/// How the values of an array are stored, which may be smaller than its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Double,
}

/// A numeric array of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Name of the variable.
    pub name: String,
    /// Dimensions; values are stored with the first one running fastest.
    pub dims: Vec<usize>,
    /// Class.
    pub class: Class,
    storage: Storage,
    big_endian: bool,
    bytes: Vec<u8>,
}

/// A file that is not of the format, or of a part of it that isn't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct MatError {
    /// Place in the file; for compressed arrays, where the compressed element starts.
    pub offset: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Array {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value number `index`.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn value(&self, index: usize) -> f64 {
        let size = self.storage.size();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.bytes[index * size..(index + 1) * size]);
        if self.big_endian {
            bytes[..size].reverse();
        }
        let low = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        match self.storage {
            Storage::Uint8 | Storage::Uint16 | Storage::Uint32 => f64::from(low),
            Storage::Int16 => f64::from(low as u16 as i16),
            Storage::Int32 => f64::from(low as i32),
            Storage::Double => f64::from_le_bytes(bytes),
        }
    }

    /// The values, where they are bytes.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        (self.storage == Storage::Uint8).then_some(self.bytes)
    }
}

/// The arrays of `file` whose names are `wanted`, in the order of the file. Others are passed over.
///
/// # Errors
/// When the bytes are not of the format, end early, or would need too much memory; an array is not one of bytes or
/// doubles; or a wanted name occurs twice.
pub fn read(file: &[u8], wanted: &[&str]) -> Result<Vec<Array>, MatError> {
    let mut reader = Reader { big_endian: head(file)?, budget: VALUES.saturating_mul(file.len()) };
    let mut arrays: Vec<Array> = Vec::new();
    let mut at = HEAD;
    while at < file.len() {
        let error = |reason: String| MatError { offset: at, reason };
        let mut rest = &file[at..];
        let (kind, size) = reader.plain_tag(&mut rest).map_err(error)?;
        let Some(content) = rest.get(..size) else {
            return Err(error(format!("an element of {size} bytes, but {} are left in the file", rest.len())));
        };
        let array = match kind {
            kind::COMPRESSED => reader.compressed(content, wanted),
            kind::MATRIX => reader.matrix(&mut &content[..], size, wanted),
            other => Err(format!("an element of type {other} where an array is expected")),
        }
        .map_err(error)?;
        if let Some(array) = array {
            if arrays.iter().any(|other| other.name == array.name) {
                return Err(error(format!("a second variable `{}`", array.name)));
            }
            arrays.push(array);
        }
        at += 8 + size;
    }
    Ok(arrays)
}

/// Checks the head; whether numbers are stored with the largest byte first.
fn head(file: &[u8]) -> Result<bool, MatError> {
    let error = |offset, reason: &str| MatError { offset, reason: reason.into() };
    let Some(mark) = file.get(124..HEAD) else {
        return Err(error(file.len(), "the file ends inside the head of 128 bytes"));
    };
    if !file.starts_with(b"MATLAB 5.0") {
        let hint = "does not start with `MATLAB 5.0`; files of version 7.3 are HDF5 and are not read";
        return Err(error(0, hint));
    }
    match mark {
        [0, 1, b'I', b'M'] => Ok(false),
        [1, 0, b'M', b'I'] => Ok(true),
        _ => Err(error(124, "neither version 1 with mark `IM` nor with mark `MI`")),
    }
}

impl Storage {
    fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            2 => Self::Uint8,
            3 => Self::Int16,
            4 => Self::Uint16,
            5 => Self::Int32,
            6 => Self::Uint32,
            9 => Self::Double,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int32 | Self::Uint32 => 4,
            Self::Double => 8,
        }
    }
}

struct Reader {
    big_endian: bool,
    /// Bytes of values that may still be taken.
    budget: usize,
}

/// Type and size of an element, and its content where that is packed into the tag.
struct Tag {
    kind: u32,
    size: usize,
    packed: Option<[u8; 4]>,
}

impl Reader {
    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// A tag whose element is not packed into it.
    fn plain_tag(&self, source: &mut impl Read) -> Result<(u32, usize), String> {
        let (kind, size) = (self.u32(take(source)?), self.u32(take(source)?));
        Ok((kind, size as usize))
    }

    fn tag(&self, source: &mut impl Read) -> Result<Tag, String> {
        let (first, second): ([u8; 4], [u8; 4]) = (take(source)?, take(source)?);
        let word = self.u32(first);
        match word >> 16 {
            0 => Ok(Tag { kind: word, size: self.u32(second) as usize, packed: None }),
            size @ 1..=4 => Ok(Tag { kind: word & 0xFFFF, size: size as usize, packed: Some(second) }),
            size => Err(format!("a packed element of {size} bytes, at most 4 fit")),
        }
    }

    /// A small element of exactly the type `kind` and at most `most` bytes.
    fn small(&self, source: &mut impl Read, what: &str, kind: u32, most: usize) -> Result<Vec<u8>, String> {
        let tag = self.tag(source)?;
        if tag.kind != kind || tag.size > most {
            return Err(format!("{what}: type {} of {} bytes, expected type {kind}", tag.kind, tag.size));
        }
        if let Some(bytes) = tag.packed {
            return Ok(bytes[..tag.size].to_vec());
        }
        let mut bytes = vec![0; tag.size];
        fill(source, &mut bytes)?;
        skip(source, padding(tag.size))?;
        Ok(bytes)
    }

    /// The array of a compressed element.
    fn compressed(&mut self, content: &[u8], wanted: &[&str]) -> Result<Option<Array>, String> {
        let mut inflated = ZlibDecoder::new(content);
        let (kind, size) = self.plain_tag(&mut inflated)?;
        if kind != kind::MATRIX {
            return Err(format!("an element of type {kind} in a compressed one, expected an array"));
        }
        let Some(array) = self.matrix(&mut inflated, size, wanted)? else { return Ok(None) };
        // The checksum stands at the end: reading beyond the last value makes the decoder compare it.
        let mut beyond = [0];
        match inflated.read(&mut beyond) {
            Ok(0) if inflated.total_in() == content.len() as u64 => Ok(Some(array)),
            Ok(_) => Err(format!("variable `{}`: more data than its array", array.name)),
            Err(reason) => Err(format!("variable `{}`: damaged data: {reason}", array.name)),
        }
    }

    /// The array in an element of `size` bytes; `None` when it isn't wanted, and then only its head has been read.
    fn matrix(&mut self, source: &mut impl Read, size: usize, wanted: &[&str]) -> Result<Option<Array>, String> {
        let mut source = source.take(size as u64);
        let source = &mut source;
        let flags = self.small(source, "array flags", kind::UINT32, 8)?;
        let flags = self.u32(flags.get(..4).and_then(|b| b.try_into().ok()).ok_or("array flags are too short")?);
        let dims = self.small(source, "dimensions", kind::INT32, 64)?;
        let dims: Vec<usize> = dims.chunks_exact(4).map(|b| self.u32([b[0], b[1], b[2], b[3]]) as usize).collect();
        let name = self.small(source, "name", kind::INT8, 64)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if !wanted.contains(&name.as_str()) {
            return Ok(None);
        }
        let class = match (flags & 0xFF, flags & 0x800) {
            (6, 0) => Class::Double,
            (9, 0) => Class::Uint8,
            (class, _) => {
                return Err(format!("variable `{name}`: array class {class}; real bytes and doubles are read"));
            }
        };
        let tag = self.tag(source)?;
        let storage = Storage::of(tag.kind).ok_or_else(|| format!("variable `{name}`: values of type {}", tag.kind))?;
        let count = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if count.and_then(|count| count.checked_mul(storage.size())) != Some(tag.size) {
            return Err(format!("variable `{name}`: {} bytes of values do not fill {dims:?}", tag.size));
        }
        if tag.size > self.budget || (tag.packed.is_none() && tag.size > size) {
            return Err(format!(
                "variable `{name}`: {} bytes of values are more than a file of this size may hold",
                tag.size
            ));
        }
        self.budget -= tag.size;
        let mut bytes = vec![0; tag.size];
        match tag.packed {
            Some(packed) => bytes.copy_from_slice(&packed[..tag.size]),
            None => {
                fill(source, &mut bytes).map_err(|reason| format!("variable `{name}`: {reason}"))?;
                skip(source, padding(tag.size)).map_err(|reason| format!("variable `{name}`: {reason}"))?;
            }
        }
        if source.limit() != 0 {
            return Err(format!("variable `{name}`: {} bytes follow the values", source.limit()));
        }
        Ok(Some(Array { name, dims, class, storage, big_endian: self.big_endian, bytes }))
    }
}

fn padding(size: usize) -> usize {
    size.next_multiple_of(8) - size
}

fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<(), String> {
    source.read_exact(bytes).map_err(|reason| match reason.kind() {
        std::io::ErrorKind::UnexpectedEof => "the data end early".to_owned(),
        _ => format!("damaged data: {reason}"),
    })
}

fn take<const N: usize>(source: &mut impl Read) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    fill(source, &mut bytes)?;
    Ok(bytes)
}

fn skip(source: &mut impl Read, count: usize) -> Result<(), String> {
    let mut bytes = [0; 8];
    fill(source, &mut bytes[..count])
}
