//! Bounded reading of a pickle.

use super::Fault;
use crate::checkpoint::source::Source;

/// Longest module or class name.
const LONGEST_NAME: usize = 1024;

/// Reads forward through a part of a source.
pub(in crate::checkpoint) struct Input<'a> {
    pub(super) source: &'a Source,
    /// Name of the part in messages.
    pub(super) place: &'static str,
    pub(super) start: u64,
    end: u64,
    /// Position in the source of the byte after the buffer.
    ahead: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Input<'a> {
    /// Reads the bytes from `start` to `end`, which lie in the source.
    pub fn new(source: &'a Source, start: u64, end: u64, place: &'static str) -> Self {
        Self { source, place, start, end, ahead: start, buffer: Vec::new(), used: 0 }
    }

    /// Position in the source of the next byte.
    pub fn position(&self) -> u64 {
        self.ahead - (self.buffer.len() - self.used) as u64
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        if self.used == self.buffer.len() {
            let length = (self.end - self.ahead).min(4096);
            if length == 0 {
                return Err("it ends too early".into());
            }
            self.buffer = self.source.bytes(self.ahead, length)?;
            self.ahead += length;
            self.used = 0;
        }
        self.used += 1;
        Ok(self.buffer[self.used - 1])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// The next bytes; the length is checked before anything is allocated.
    pub(super) fn take(&mut self, length: u64) -> Result<Box<[u8]>, Fault> {
        let position = self.position();
        if length > self.end - position {
            return Err("it ends too early".into());
        }
        let bytes = self.source.bytes(position, length)?;
        (self.ahead, self.used) = (position + length, 0);
        self.buffer.clear();
        Ok(bytes.into())
    }

    /// Text up to the end of the line.
    pub(super) fn line(&mut self) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8(bytes).map_err(|_| "a name that is not UTF-8")?),
                _ if bytes.len() == LONGEST_NAME => return Err("a name without an end".into()),
                byte => bytes.push(byte),
            }
        }
    }
}
