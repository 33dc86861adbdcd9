//! What can go wrong with the store itself, and what can be wrong with one of its files.

use std::io;
use std::path::{Path, PathBuf};

use crate::key::KeyHash;

/// Something could not be stored, locked or removed. Nothing half-written is left under a final name.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A result is larger than all results together may be.
    #[error("{}: the result of `{stage}` is larger than the limit of the store, {limit} bytes; hint: raise the limit", folder.display())]
    TooLarge {
        /// The store.
        folder: PathBuf,
        /// The stage.
        stage: String,
        /// Most bytes of all results together.
        limit: u64,
    },
    /// Two parts of a key have one name.
    #[error("a key of `{stage}` has two parts named `{name}`")]
    PartTwice {
        /// The stage.
        stage: String,
        /// The name.
        name: String,
    },
    /// The readable description of a key is too long to be stored.
    #[error("the description of a key of `{stage}` has {length} bytes, {most} are possible")]
    Description {
        /// The stage.
        stage: String,
        /// Its length.
        length: usize,
        /// The limit.
        most: usize,
    },
    /// The part file of a key is open already.
    #[error("{}: the part file is in use by the same process", path.display())]
    PartsOpen {
        /// The part file.
        path: PathBuf,
    },
    /// A piece of that number is there already.
    #[error("{}: piece {number} is there already", path.display())]
    PieceTwice {
        /// The part file.
        path: PathBuf,
        /// The number.
        number: u64,
    },
}

impl StoreError {
    /// For `map_err`: an I/O error on `path` while doing something.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }
}

/// What is wrong with the bytes of a file of the store.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It does not begin as such a file does.
    #[error("it is not a file of the store")]
    Foreign,
    /// It was written by another version of the program.
    #[error("its format version is {found}, expected {}", crate::header::VERSION)]
    Version {
        /// The version that it states.
        found: u32,
    },
    /// It ends too early.
    #[error("it ends after {length} bytes, in the middle of its {what}")]
    Truncated {
        /// Bytes that are there.
        length: u64,
        /// What is incomplete.
        what: &'static str,
    },
    /// A length that it states cannot be true.
    #[error("its {what} states {stated} bytes, {possible} are possible")]
    Length {
        /// What states the length.
        what: &'static str,
        /// The length stated.
        stated: u64,
        /// Most that it could be, or what it is.
        possible: u64,
    },
    /// Bytes have changed since it was written.
    #[error("the checksum of its {what} is wrong")]
    Checksum {
        /// The part whose checksum is wrong.
        what: &'static str,
    },
    /// It holds the result of another key.
    #[error("it belongs to the key {found}")]
    OtherKey {
        /// The key that it states.
        found: KeyHash,
    },
    /// Its description has the right checksum but cannot be understood.
    #[error("its description cannot be read: {reason}")]
    Description {
        /// What the parser says.
        reason: String,
    },
    /// Two pieces have one number.
    #[error("it holds piece {number} twice")]
    PieceTwice {
        /// The number.
        number: u64,
    },
    /// The system does not give its bytes.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}
