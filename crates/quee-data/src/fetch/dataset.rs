//! A whole data set, from its address to the folder that [`crate::load`] reads.

use std::fs;
use std::path::Path;

use super::sources::Origin;
use super::{Checksum, Download, Downloaded, FetchError, Patience, RemoteFile, Source, Watch, download, unpack};

/// Another place than the official one.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// Address of the folder with the files, under their official names; `None` for the official address.
    pub base: Option<String>,
    /// Checksum of a file that the mirror has packed anew; `None` for the official one.
    pub checksum: Option<Checksum>,
}

/// What [`fetch_dataset`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that came.
    pub downloaded: u64,
    /// Whether an archive was unpacked.
    pub unpacked: bool,
}

/// Downloads a data set into `folder`, checks and unpacks it. What is there already is not fetched again: an archive put
/// there by hand is checked and unpacked without a network, and stays. One that came in this call is removed afterwards.
///
/// # Errors
/// As [`download`](super::download()) and [`unpack`](super::unpack()), and when the data set cannot be downloaded.
pub fn fetch_dataset(source: &Source, folder: &Path, mirror: &Mirror, watch: Watch<'_>) -> Result<Fetched, FetchError> {
    match &source.origin {
        Origin::Inside => Ok(Fetched { downloaded: 0, unpacked: false }),
        Origin::ByHand(how) => {
            let how = format!("{how}; the folder is {}", folder.display());
            Err(FetchError::ByHand { name: source.name.into(), how })
        }
        Origin::Files(files) => {
            let mut downloaded = 0;
            for file in *files {
                if let Downloaded::Fresh { bytes, .. } = get(file, folder, mirror, watch)? {
                    downloaded += bytes;
                }
            }
            Ok(Fetched { downloaded, unpacked: false })
        }
        Origin::Archive { file, root, limits } => {
            let target = folder.join(root);
            if target.try_exists().map_err(|e| FetchError::file(&target, e))? {
                return Ok(Fetched { downloaded: 0, unpacked: false });
            }
            let came = get(file, folder, mirror, watch)?;
            let archive = folder.join(file.name);
            let done = unpack(&archive, root, &target, *limits, watch);
            let Downloaded::Fresh { bytes, .. } = came else {
                return done.map(|()| Fetched { downloaded: 0, unpacked: true });
            };
            let spent = matches!(done, Ok(()) | Err(FetchError::Hostile { .. } | FetchError::Damaged { .. }));
            if spent {
                fs::remove_file(&archive).map_err(|e| FetchError::file(&archive, e))?;
            }
            done.map(|()| Fetched { downloaded: bytes, unpacked: true })
        }
    }
}

fn get(file: &RemoteFile, folder: &Path, mirror: &Mirror, watch: Watch<'_>) -> Result<Downloaded, FetchError> {
    let base = mirror.base.as_deref().unwrap_or(file.base);
    let request = Download {
        url: &format!("{}/{}", base.trim_end_matches('/'), file.name),
        target: &folder.join(file.name),
        checksum: Some(mirror.checksum.as_ref().unwrap_or(&file.checksum)),
        limit: 2 * file.bytes,
        patience: Patience::default(),
    };
    download(&request, watch)
}
