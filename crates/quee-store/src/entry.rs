//! The bytes of an entry: a finished result.
//!
//! | bytes | what |
//! | --- | --- |
//! | … | [header](crate::Header) |
//! | … | payload |
//! | 8 | length of the payload |
//! | 32 | SHA-256 of the header's checksum, the payload and its length |
//!
//! Length and checksum stand at the end, so that a payload is written without being held in memory.

use std::io::{self, Read, Write};
use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::error::Damage;
use crate::header::{self, Header, Magic, SUM};
use crate::key::{Key, KeyHash};

pub(crate) const MAGIC: Magic = Magic(*b"quee\x01ent");
/// Bytes after the payload.
const TRAILER: u64 = 8 + SUM;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 17;

/// Writes an entry; the payload is what is written into it.
#[derive(Debug)]
pub struct EntryWriter<W> {
    inner: W,
    sum: Sha256,
    payload: u64,
    /// Bytes of payload that may still come.
    room: u64,
    state: State,
}

/// What has happened to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// More was written than there is room for.
    Full,
    /// A write has failed, so that bytes are missing even if whoever wrote them did not look.
    Failed,
}

impl<W: Write> EntryWriter<W> {
    /// Writes the header; the whole entry may have `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut inner: W, key: &Key, limit: u64) -> io::Result<Self> {
        let (bytes, sum) = header::encode(MAGIC, key);
        inner.write_all(&bytes)?;
        let room = limit.saturating_sub(bytes.len() as u64 + TRAILER);
        Ok(Self { inner, sum: Sha256::new_with_prefix(sum), payload: 0, room, state: State::Good })
    }

    /// Whether more was written than the limit allows.
    pub fn is_full(&self) -> bool {
        self.state == State::Full
    }

    /// Writes what stands after the payload; gives back what was written to.
    ///
    /// # Errors
    /// When it cannot be written, or when any part of the payload could not be.
    pub fn finish(mut self) -> io::Result<W> {
        if self.state != State::Good {
            return Err(io::Error::other("a part of the result could not be written"));
        }
        let length = self.payload.to_le_bytes();
        self.sum.update(length);
        self.inner.write_all(&length)?;
        self.inner.write_all(&self.sum.finalize())?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for EntryWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.room || self.state != State::Good {
            self.state = if self.state == State::Failed { State::Failed } else { State::Full };
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match self.inner.write(bytes) {
            Ok(written) => {
                self.sum.update(&bytes[..written]);
                self.payload += written as u64;
                self.room -= written as u64;
                Ok(written)
            }
            Err(e) => {
                if e.kind() != io::ErrorKind::Interrupted {
                    self.state = State::Failed;
                }
                Err(e)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        if flushed.is_err() {
            self.state = State::Failed;
        }
        flushed
    }
}

/// Checks every byte of an entry of `length` bytes that should belong to `hash`; the header, and where the payload lies.
///
/// Needs a fixed amount of memory, whatever the bytes say.
///
/// # Errors
/// What is wrong with it.
pub fn verify(mut reader: impl Read, length: u64, hash: &KeyHash) -> Result<(Header, Range<u64>), Damage> {
    let header = read_header(&mut reader, length)?.expect(hash)?;
    let truncated = |what| Damage::Truncated { length, what };
    let payload = length.checked_sub(header.length + TRAILER).ok_or(truncated("payload"))?;
    let mut sum = Sha256::new_with_prefix(header.sum);
    if !header::digest(&mut reader, payload, &mut sum, &mut vec![0; BUFFER])? {
        return Err(truncated("payload"));
    }
    let mut trailer = [0; TRAILER as usize];
    reader.read_exact(&mut trailer).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => truncated("checksum"),
        _ => Damage::Unreadable(e),
    })?;
    let (stated, expected) = trailer.split_at(8);
    sum.update(stated);
    let stated = stated.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    if stated != payload {
        return Err(Damage::Length { what: "end", stated, possible: payload });
    }
    if sum.finalize()[..] != *expected {
        return Err(Damage::Checksum { what: "payload" });
    }
    let start = header.length;
    Ok((header, start..start + payload))
}

/// Checks and reads the header of an entry alone.
///
/// # Errors
/// What is wrong with it.
pub fn read_header(reader: impl Read, length: u64) -> Result<Header, Damage> {
    header::decode(reader, MAGIC, length)
}
