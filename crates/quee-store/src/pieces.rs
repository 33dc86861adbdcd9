//! The bytes of a part file: what is finished of a result that is not.
//!
//! After the [header](crate::Header), pieces:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | number of the piece |
//! | 8 | length of its payload |
//! | 32 | SHA-256 of the header's checksum, the number, the length and the payload |
//! | … | payload |
//!
//! A process that dies while it appends leaves an incomplete last piece, which is cut off.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::error::Damage;
use crate::header::{self, Header, Magic};
use crate::key::KeyHash;

pub(crate) const MAGIC: Magic = Magic(*b"quee\x01prt");
/// Bytes before the payload of a piece.
pub(crate) const HEAD: u64 = 48;

/// Where the payload of a piece lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// What a part file holds.
#[derive(Debug)]
pub struct Scan {
    /// Its header.
    pub header: Header,
    /// The whole pieces by number.
    pub pieces: BTreeMap<u64, Place>,
    /// Bytes up to the end of the last whole piece.
    pub whole: u64,
    /// What is wrong with the bytes after, if there are any.
    pub rest: Option<Damage>,
}

/// Checks a part file of `length` bytes that should belong to `hash`, up to its first piece that is not whole.
///
/// # Errors
/// What is wrong with its header; then nothing of it can be used.
pub fn scan(mut reader: impl Read, length: u64, hash: &KeyHash) -> Result<Scan, Damage> {
    let header = read_header(&mut reader, length)?.expect(hash)?;
    let mut scan = Scan { whole: header.length, header, pieces: BTreeMap::new(), rest: None };
    let mut buffer = vec![0; 1 << 16];
    while scan.whole < length {
        match next(&mut reader, &scan, length, &mut buffer) {
            Ok((number, place)) => {
                scan.pieces.insert(number, place);
                scan.whole = place.offset + place.length;
            }
            Err(damage) => {
                scan.rest = Some(damage);
                break;
            }
        }
    }
    Ok(scan)
}

/// The piece that begins at `scan.whole`.
fn next(reader: &mut impl Read, scan: &Scan, length: u64, buffer: &mut [u8]) -> Result<(u64, Place), Damage> {
    let truncated = || Damage::Truncated { length, what: "last piece" };
    let mut head = [0; HEAD as usize];
    reader.read_exact(&mut head).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => truncated(),
        _ => Damage::Unreadable(e),
    })?;
    let field = |at: usize| head[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let (number, stated) = (field(0), field(8));
    let offset = scan.whole + HEAD;
    let possible = length.checked_sub(offset).ok_or_else(truncated)?;
    if stated > possible {
        return Err(Damage::Length { what: "last piece", stated, possible });
    }
    let mut sum = Sha256::new().chain_update(scan.header.sum).chain_update(&head[..16]);
    if !header::digest(reader, stated, &mut sum, buffer)? {
        return Err(truncated());
    }
    if sum.finalize()[..] != head[16..] {
        return Err(Damage::Checksum { what: "last piece" });
    }
    if scan.pieces.contains_key(&number) {
        return Err(Damage::PieceTwice { number });
    }
    Ok((number, Place { offset, length: stated }))
}

/// What stands before the payload of a piece in the file whose header has the checksum `sum`.
pub(crate) fn head(sum: &[u8; 32], number: u64, payload: &[u8]) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let digest = Sha256::new().chain_update(sum).chain_update(&head[..16]).chain_update(payload).finalize();
    head[16..].copy_from_slice(&digest);
    head
}

/// Checks and reads the header of a part file alone.
///
/// # Errors
/// What is wrong with it.
pub fn read_header(reader: impl Read, length: u64) -> Result<Header, Damage> {
    header::decode(reader, MAGIC, length)
}
