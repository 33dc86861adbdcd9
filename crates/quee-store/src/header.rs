//! What every file of the store begins with: what it is, whose it is, and in words what it was computed from.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::error::Damage;
use crate::key::{Description, Key, KeyHash};

/// Version of entries and part files.
pub(crate) const VERSION: u32 = 1;
/// Longest description, bytes.
pub(crate) const MAX_DESCRIPTION: usize = 1 << 20;
/// Bytes before the description.
const FIXED: u64 = 48;
/// Bytes of a checksum.
pub(crate) const SUM: u64 = 32;

/// A kind of file, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Magic(pub(crate) [u8; 8]);

/// What a file of the store begins with.
///
/// | bytes | what |
/// | --- | --- |
/// | 8 | magic: the kind of file |
/// | 4 | format version |
/// | 4 | length of the description |
/// | 32 | key |
/// | … | description, JSON |
/// | 32 | SHA-256 of all before |
///
/// Numbers are little-endian. The checksums further on in the file begin with this one, so that they cover the header as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key that the file states.
    pub hash: KeyHash,
    /// In words what it was computed from.
    pub description: Description,
    /// Bytes of the header, its checksum included.
    pub length: u64,
    pub(crate) sum: [u8; 32],
}

/// The description as it is stored.
pub(crate) fn json(description: &Description) -> Vec<u8> {
    serde_json::to_vec(description).expect("texts and a map of texts are representable")
}

/// The header of a file for `key`, and its checksum.
pub(crate) fn encode(magic: Magic, key: &Key) -> (Vec<u8>, [u8; 32]) {
    let json = json(key.description());
    let mut bytes = Vec::with_capacity(json.len() + (FIXED + SUM) as usize);
    bytes.extend(magic.0);
    bytes.extend(VERSION.to_le_bytes());
    // Keys with more than MAX_DESCRIPTION are not made.
    bytes.extend((json.len() as u32).to_le_bytes());
    bytes.extend(key.hash().as_bytes());
    bytes.extend(json);
    let sum: [u8; 32] = Sha256::digest(&bytes).into();
    bytes.extend(sum);
    (bytes, sum)
}

/// Reads the header of a file of `length` bytes.
pub(crate) fn decode(mut reader: impl Read, magic: Magic, length: u64) -> Result<Header, Damage> {
    let truncated = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Damage::Truncated { length, what: "header" },
        _ => Damage::Unreadable(e),
    };
    let mut fixed = [0; FIXED as usize];
    reader.read_exact(&mut fixed).map_err(truncated)?;
    let field = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if fixed[..8] != magic.0 {
        return Err(Damage::Foreign);
    }
    if field(8) != VERSION {
        return Err(Damage::Version { found: field(8) });
    }
    let stated = u64::from(field(12));
    let possible = length.saturating_sub(FIXED + SUM).min(MAX_DESCRIPTION as u64);
    if stated > possible {
        return Err(Damage::Length { what: "description", stated, possible });
    }
    let mut key = [0; 32];
    key.copy_from_slice(&fixed[16..]);
    // At most MAX_DESCRIPTION, and no more than the file has.
    let mut json = vec![0; stated as usize];
    let mut sum = [0; SUM as usize];
    reader.read_exact(&mut json).map_err(truncated)?;
    reader.read_exact(&mut sum).map_err(truncated)?;
    let found: [u8; 32] = Sha256::new().chain_update(fixed).chain_update(&json).finalize().into();
    if found != sum {
        return Err(Damage::Checksum { what: "header" });
    }
    let description = serde_json::from_slice(&json).map_err(|e| Damage::Description { reason: e.to_string() })?;
    Ok(Header { hash: KeyHash::from_bytes(key), description, length: FIXED + stated + SUM, sum })
}

impl Header {
    /// Refuses the file of another key.
    pub(crate) fn expect(self, hash: &KeyHash) -> Result<Self, Damage> {
        if self.hash == *hash { Ok(self) } else { Err(Damage::OtherKey { found: self.hash }) }
    }
}

/// Feeds `count` bytes of `reader` to `sum`; false where there are fewer.
pub(crate) fn digest(reader: &mut impl Read, count: u64, sum: &mut Sha256, buffer: &mut [u8]) -> io::Result<bool> {
    let mut left = count;
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match reader.read(&mut buffer[..most]) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                sum.update(&buffer[..read]);
                left -= read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
