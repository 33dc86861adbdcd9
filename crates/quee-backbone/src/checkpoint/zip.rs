//! The subset of the zip format that `torch.save` writes: entries that are stored without compression.
//!
//! Tensors are read where they lie in the file, so what is needed is the place of every entry, including those of files
//! over 4 GiB (zip64). Everything is checked against the length of the file before it is believed.

use std::collections::BTreeMap;

use super::CheckpointError;
use super::source::Source;
use super::view::Storage;

const FORMAT: &str = "PyTorch (zip)";
const HINT: &str = "the download may be incomplete";

const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: u64 = 22;
const LONGEST_COMMENT: u64 = u16::MAX as u64;

/// Whether the file begins like a zip archive.
pub(super) fn matches(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(END)
}

/// An entry of an archive.
#[derive(Clone, Copy, Debug)]
struct Entry {
    data: Storage,
    crc: u32,
}

/// The entries of an archive by name.
pub(super) struct Archive<'a> {
    source: &'a Source,
    entries: BTreeMap<String, Entry>,
}

/// Little-endian numbers at fixed places of a record whose length was checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl<'a> Archive<'a> {
    /// Reads the directory.
    pub fn open(source: &'a Source) -> Result<Self, CheckpointError> {
        let invalid = |reason: String| source.invalid(FORMAT, reason, HINT);
        let (start, length, count) = directory(source)?;
        let directory = source.bytes(start, length)?;
        let mut entries = BTreeMap::new();
        let (mut rest, mut total) = (directory.as_slice(), 0u64);
        while !rest.is_empty() {
            let (name, entry, after) = entry(source, rest)?;
            total = total.saturating_add(entry.data.bytes);
            // Entries that share bytes are the trick of archives that unpack to more than they hold.
            if total > source.length() {
                return Err(invalid("its entries claim more bytes than the file has".into()));
            }
            if entries.insert(name.clone(), entry).is_some() {
                return Err(invalid(format!("it has two entries of the name `{name}`")));
            }
            rest = after;
        }
        if entries.len() as u64 != count {
            return Err(invalid(format!("its directory has {} entries instead of {count}", entries.len())));
        }
        Ok(Self { source, entries })
    }

    /// Names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where an entry lies.
    pub fn find(&self, name: &str) -> Option<Storage> {
        self.entries.get(name).map(|entry| entry.data)
    }

    /// Compares an entry with its checksum. Zero stands for none: `torch.save` can be told not to compute any.
    pub fn verify(&self, name: &str) -> Result<(), CheckpointError> {
        let Some(Entry { data, crc }) = self.entries.get(name) else { return Ok(()) };
        if *crc == 0 {
            return Ok(());
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = [0; 4096];
        let mut done = 0;
        while done < data.bytes {
            let part = &mut buffer[..(data.bytes - done).min(4096) as usize];
            self.source.read_into(data.position + done, part)?;
            hasher.update(part);
            done += part.len() as u64;
        }
        if hasher.finalize() != *crc {
            let reason = format!("the checksum of its entry `{name}` does not match");
            return Err(self.source.invalid(FORMAT, reason, "the file is damaged: download or copy it again"));
        }
        Ok(())
    }
}

/// First byte and length of the directory, and the number of its entries.
fn directory(source: &Source) -> Result<(u64, u64, u64), CheckpointError> {
    let invalid = |reason: &str| source.invalid(FORMAT, reason, HINT);
    let tail_length = source.length().min(END_LENGTH + LONGEST_COMMENT);
    let tail_start = source.length() - tail_length;
    let tail = source.bytes(tail_start, tail_length)?;
    let end = (0..tail.len().saturating_sub(END_LENGTH as usize - 1))
        .rev()
        .find(|&at| {
            tail[at..].starts_with(END) && at + END_LENGTH as usize + usize::from(u16_at(&tail, at + 20)) == tail.len()
        })
        .ok_or_else(|| invalid("the directory at its end is missing"))?;
    let record = &tail[end..];
    let mut count = u64::from(u16_at(record, 10));
    let mut length = u64::from(u32_at(record, 12));
    let mut start = u64::from(u32_at(record, 16));
    let mut limit = tail_start + end as u64;
    // PyTorch always writes a longer record as well (zip64), for files of over 4 GiB, found by a locator before this one.
    if let Some(at) = end.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07")) {
        let position = u64_at(&tail, at + 8);
        let longer = source.bytes(position, 56).map_err(|_| invalid("the directory at its end is damaged"))?;
        if !longer.starts_with(b"PK\x06\x06") {
            return Err(invalid("the directory at its end is damaged"));
        }
        (count, length, start) = (u64_at(&longer, 32), u64_at(&longer, 40), u64_at(&longer, 48));
        limit = position;
    }
    if start.checked_add(length).is_none_or(|end| end > limit) {
        return Err(invalid("the directory at its end is damaged"));
    }
    Ok((start, length, count))
}

/// The first entry of a directory, and the rest of the directory.
fn entry<'d>(source: &Source, directory: &'d [u8]) -> Result<(String, Entry, &'d [u8]), CheckpointError> {
    let invalid = |reason: String| source.invalid(FORMAT, reason, HINT);
    let damaged = || invalid("the directory at its end is damaged".into());
    if directory.len() < 46 || !directory.starts_with(b"PK\x01\x02") {
        return Err(damaged());
    }
    let (flags, method, crc) = (u16_at(directory, 8), u16_at(directory, 10), u32_at(directory, 16));
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(directory, at)));
    let whole = 46 + lengths.iter().sum::<usize>();
    let variable = directory.get(46..whole).ok_or_else(damaged)?;
    let name = std::str::from_utf8(&variable[..lengths[0]]).map_err(|_| damaged())?.to_owned();
    let mut packed = u64::from(u32_at(directory, 20));
    let mut size = u64::from(u32_at(directory, 24));
    let mut header = u64::from(u32_at(directory, 42));
    let mut extra = &variable[lengths[0]..][..lengths[1]];
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length).ok_or_else(damaged)?;
        if kind == 1 {
            // Zip64: only those of the numbers that do not fit into 32 bits, in this order.
            let mut numbers = field.chunks_exact(8).map(|b| u64_at(b, 0));
            for number in [&mut size, &mut packed, &mut header] {
                if *number == u64::from(u32::MAX) {
                    *number = numbers.next().ok_or_else(damaged)?;
                }
            }
        }
        extra = &extra[4 + length..];
    }
    if flags & 1 != 0 {
        return Err(source.invalid(FORMAT, format!("its entry `{name}` is encrypted"), "decrypt it first"));
    }
    if method != 0 || packed != size {
        let hint = "torch.save does not compress: unpack the archive and zip it anew with `zip -0`";
        return Err(source.invalid(FORMAT, format!("its entry `{name}` is compressed"), hint));
    }
    // The data follow a second header, whose names and extra fields have lengths of their own.
    let local = source.bytes(header, 30).map_err(|_| damaged())?;
    if !local.starts_with(b"PK\x03\x04") {
        return Err(invalid(format!("its entry `{name}` is not where the directory says")));
    }
    let position = header + 30 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
    if position.checked_add(size).is_none_or(|end| end > source.length()) {
        return Err(invalid(format!("its entry `{name}` reaches beyond the end of the file")));
    }
    Ok((name, Entry { data: Storage { position, bytes: size }, crc }, &directory[whole..]))
}
