//! What can go wrong between a file's address and its place on the disk.

use std::io;
use std::path::{Path, PathBuf};

use super::Algorithm;

/// A file that could not be fetched, checked or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that is none, or that leads from https to http.
    #[error("{url}: {reason}; hint: an address starts with http:// or https://")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server cannot be reached at all.
    #[error("{url}: cannot reach the server: {reason}; hint: {}", by_hand(url, target))]
    Unreachable {
        /// The address.
        url: String,
        /// What the operating system says.
        reason: String,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// The server refuses.
    #[error(
        "{url}: the server answers with status {status}{}; hint: if the file has moved, fetch it from a mirror, or {}",
        if *status == 404 { " (not found)" } else { "" },
        by_hand(url, target)
    )]
    Status {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// The server sends from one address to the next without end.
    #[error("{url}: more than {limit} redirects; hint: try again later, or fetch the file from a mirror")]
    Redirects {
        /// The address.
        url: String,
        /// Number that is followed.
        limit: u32,
    },
    /// Faults that did not pass.
    #[error(
        "{url}: broke off {tries} times, last: {reason}; {have} bytes have come; hint: the same command goes on from there later, or {}",
        by_hand(url, target)
    )]
    GaveUp {
        /// The address.
        url: String,
        /// Number of attempts.
        tries: u32,
        /// What went wrong the last time.
        reason: String,
        /// Bytes that have come.
        have: u64,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// A file of unknown length without a checksum: its end cannot be told from a lost connection.
    #[error(
        "{url}: the server does not say how long the file is, and there is no checksum; hint: give one, or {}",
        by_hand(url, target)
    )]
    UnknownLength {
        /// The address.
        url: String,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// A file that is larger than it can be.
    #[error(
        "{url}: larger than {limit} bytes, which this file cannot be; nothing was kept; hint: is this the right address?"
    )]
    TooLarge {
        /// The address.
        url: String,
        /// Bytes allowed.
        limit: u64,
    },
    /// A download with another checksum.
    #[error(
        "{url}: the {algorithm} is {found}, expected {expected}; nothing was kept; hint: try again; if it happens again, the file was changed on the server or on the way"
    )]
    Mismatch {
        /// The address.
        url: String,
        /// Kind of checksum.
        algorithm: Algorithm,
        /// The one published.
        expected: String,
        /// The one that came.
        found: String,
    },
    /// A file in the place of the download that is not the one expected.
    #[error(
        "{}: is there already, but its {algorithm} is {found}, expected {expected}; hint: remove it and fetch again",
        path.display()
    )]
    Occupied {
        /// The file.
        path: PathBuf,
        /// Kind of checksum.
        algorithm: Algorithm,
        /// The one published.
        expected: String,
        /// Its own.
        found: String,
    },
    /// The disk is full.
    #[error("{}: the disk is full; the incomplete file was removed; hint: make room, or choose another folder", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}; hint: check the path and your rights there, or choose another folder", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Another process is at work on the same file.
    #[error("{}: another process is downloading this file; hint: wait for it", path.display())]
    Busy {
        /// The incomplete file.
        path: PathBuf,
    },
    /// An archive with something in it that an honest one does not have.
    #[error("{}: entry `{entry}`: {reason}; nothing was unpacked; hint: get the archive from its official address", archive.display())]
    Hostile {
        /// The archive.
        archive: PathBuf,
        /// Name of the entry, escaped.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive that cannot be read to its end.
    #[error("{}: damaged archive: {reason}; nothing was unpacked; hint: remove it and fetch again", archive.display())]
    Damaged {
        /// The archive.
        archive: PathBuf,
        /// What the decoder says.
        reason: String,
    },
    /// A list of checksums that is none.
    #[error("{}: line {line}: not a checksum and a file name; hint: remove the folder and fetch again", path.display())]
    SumsFile {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A data set that is not there.
    #[error("{}: no `{name}` here; hint: {how}", folder.display())]
    Absent {
        /// The data set.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// How to get it.
        how: String,
    },
    /// A data set that cannot be downloaded.
    #[error("`{name}` cannot be downloaded; hint: {how}")]
    ByHand {
        /// The data set.
        name: String,
        /// How to get it.
        how: String,
    },
    /// A name without an entry.
    #[error("no {what} named `{name}`; hint: the known ones are: {known}")]
    UnknownName {
        /// Data set or weights.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A wish to stop.
    #[error("stopped on request; what has come of {} stays, and the same command goes on from there", target.display())]
    Stopped {
        /// The file, incomplete.
        target: PathBuf,
    },
}

/// What to do without a network.
fn by_hand(url: &str, target: &Path) -> String {
    format!(
        "without a network, get {url} elsewhere, put it there as {} and run the same command again",
        target.display()
    )
}

impl FetchError {
    /// Failure to read or write `path`; a full disk is told apart.
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.into() },
            _ => Self::File { path: path.into(), source },
        }
    }
}
