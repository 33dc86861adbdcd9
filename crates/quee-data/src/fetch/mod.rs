//! Getting data sets and weights from their official addresses, and checking what is there.
//!
//! - [`sources`]: where each data set comes from
//! - [`weights`]: where published weights come from
//! - [`dataset`]: a whole data set, from its address to the folder that [`crate::load`] reads
//! - [`download`](mod@download): one file over HTTP, resumed where it broke off
//! - [`unpack`](mod@unpack): tar.gz archives that nobody vouches for
//! - [`verify`](mod@verify): is a data set complete and unchanged?
//! - [`checksum`]: md5 and sha256
//! - [`error`]: what can go wrong
//!
//! A file under its final name is complete and checked. What has come of it so far lies beside it as `<name>.part`.

pub mod checksum;
pub mod dataset;
pub mod download;
pub mod error;
pub mod sources;
pub mod unpack;
pub mod verify;
pub mod weights;

use std::ops::ControlFlow;

pub use checksum::{Algorithm, Checksum};
pub use dataset::{Mirror, fetch_dataset};
pub use download::{Download, Downloaded, Patience, download};
pub use error::FetchError;
pub use sources::{RemoteFile, Source};
pub use unpack::{Limits, unpack};
pub use verify::{FileState, Report, verify};
pub use weights::{PublishedWeights, WeightsFile, fetch_weights, weights_file};

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is going on, e.g. the name of the file.
    pub what: &'a str,
    /// Bytes done.
    pub have: u64,
    /// Bytes in all, where the server says so.
    pub total: Option<u64>,
}

/// Is told about progress and says whether to go on. Called for every piece of at most 64 KiB and during pauses.
pub type Watch<'a> = &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>;
