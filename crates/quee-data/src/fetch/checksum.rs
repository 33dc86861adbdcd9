//! md5 and sha256 of files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5: finds damage, not malice; older data sets publish nothing better.
    Md5,
    /// SHA-256.
    Sha256,
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
        })
    }
}

/// The checksum that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Lower-case hexadecimal digits; the first ones only, where no more are published.
    pub hex: Cow<'static, str>,
}

impl Checksum {
    /// A published md5.
    pub const fn md5(hex: &'static str) -> Self {
        Self { algorithm: Algorithm::Md5, hex: Cow::Borrowed(hex) }
    }

    /// A published sha256, or its first digits.
    pub const fn sha256(hex: &'static str) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: Cow::Borrowed(hex) }
    }

    /// A sha256 that somebody typed: 64 hexadecimal digits. `None` for anything else.
    pub fn parse_sha256(text: &str) -> Option<Self> {
        let valid = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| Self { algorithm: Algorithm::Sha256, hex: text.to_ascii_lowercase().into() })
    }

    /// Whether `digest`, all its digits in lower case, is the one expected.
    pub fn matches(&self, digest: &str) -> bool {
        !self.hex.is_empty() && digest.starts_with(self.hex.as_ref())
    }
}

impl Algorithm {
    /// Checksum of a file, in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_file(self, path: &Path) -> io::Result<String> {
        match self {
            Self::Md5 => digest::<Md5>(File::open(path)?),
            Self::Sha256 => digest::<Sha256>(File::open(path)?),
        }
    }
}

fn digest<D: Digest>(mut from: impl Read) -> io::Result<String> {
    let (mut hasher, mut buffer) = (D::new(), vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_digests_of_abc() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        // RFC 1321, appendix A.5, and FIPS 180-2, appendix B.1.
        assert_eq!(Algorithm::Md5.of_file(&file).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        let sha256 = Algorithm::Sha256.of_file(&file).unwrap();
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Checksum::sha256("ba7816bf").matches(&sha256));
        assert!(!Checksum::sha256("ba7816be").matches(&sha256));
        assert!(!Checksum::sha256("").matches(&sha256), "an empty checksum proves nothing");
    }

    #[test]
    fn typed_checksums_have_64_digits() {
        let digits = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(Checksum::parse_sha256(digits).unwrap().hex, digits.to_lowercase());
        assert_eq!(Checksum::parse_sha256(&digits[1..]), None);
        assert_eq!(Checksum::parse_sha256(&digits.replace('A', "g")), None);
    }
}
