//! tar.gz archives that nobody vouches for.
//!
//! Only plain files and folders below one named folder are accepted: no absolute path, no `..`, no link, no device,
//! nothing twice, nothing beyond the limits. Everything is written into a hidden folder beside the target, which gets its
//! final name when the whole archive has been read. A list of checksums, [`SUMS`], is put with the files, so that they can
//! be checked when the archive is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::checksum::hex;
use super::download::sync_folder;
use super::{FetchError, Progress, Watch};

/// Name of the list of checksums, in the format of `sha256sum`.
pub const SUMS: &str = "SHA256SUMS";

/// How much an archive may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tar archive, after decompression.
    pub bytes: u64,
    /// Files and folders.
    pub entries: usize,
}

/// Folders inside folders.
const DEPTH: usize = 16;

/// Unpacks the folder `root` of `archive` as `target`; the archive must hold nothing else.
///
/// # Errors
/// When the archive is damaged or holds something that it should not, or the disk is full; then there is no `target`.
pub fn unpack(archive: &Path, root: &str, target: &Path, limits: Limits, watch: Watch<'_>) -> Result<(), FetchError> {
    let file = File::open(archive).map_err(|e| FetchError::file(archive, e))?;
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = tempfile::Builder::new()
        .prefix(&format!(".{root}.unpacking-"))
        .tempdir_in(folder)
        .map_err(|e| FetchError::file(folder, e))?;
    let mut stream = Bounded { inner: GzDecoder::new(io::BufReader::new(file)), left: limits.bytes, exceeded: false };
    let unpacker = Unpacker { archive, root, into: hidden.path(), target, limits };
    let sums = unpacker.entries(&mut stream, watch);
    if stream.exceeded {
        let reason = format!("the archive is larger than {} bytes when unpacked", limits.bytes);
        return Err(unpacker.hostile("", reason));
    }
    let sums = sums?;
    let unpacked = hidden.path().join(root);
    let list = unpacked.join(SUMS);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&list)?;
        file.write_all(sums.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| FetchError::file(&target.join(SUMS), e))?;
    fs::rename(&unpacked, target).map_err(|e| FetchError::file(target, e))?;
    sync_folder(target);
    Ok(())
}

struct Unpacker<'a> {
    archive: &'a Path,
    root: &'a str,
    into: &'a Path,
    target: &'a Path,
    limits: Limits,
}

impl Unpacker<'_> {
    /// Writes every entry; lines of the list of checksums.
    fn entries(&self, stream: &mut Bounded<impl Read>, watch: Watch<'_>) -> Result<String, FetchError> {
        let mut archive = tar::Archive::new(&mut *stream);
        let mut sums = Vec::new();
        let mut have = 0;
        for (number, entry) in archive.entries().map_err(|e| self.damaged(&e))?.enumerate() {
            let mut entry = entry.map_err(|e| self.damaged(&e))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if number >= self.limits.entries {
                return Err(self.hostile(&name, format!("more than {} entries", self.limits.entries)));
            }
            let kind = entry.header().entry_type();
            if kind == EntryType::XGlobalHeader {
                continue;
            }
            let path = self.place(&name, &entry.path_bytes())?;
            let here = self.into.join(&path);
            match kind {
                EntryType::Directory => fs::create_dir_all(&here).map_err(|e| self.write(&path, e))?,
                EntryType::Regular => {
                    if entry.size() > self.limits.bytes {
                        return Err(self.hostile(&name, format!("says that it has {} bytes", entry.size())));
                    }
                    if here == self.into.join(self.root) {
                        return Err(self.hostile(&name, "is a file, not a folder".into()));
                    }
                    let size = entry.size();
                    let sum = self.file(&mut entry, size, &name, &path, &mut have, watch)?;
                    let below = path.strip_prefix(self.root).unwrap_or(&path);
                    sums.push(format!("{sum}  {}\n", below.display()));
                }
                other => return Err(self.hostile(&name, format!("is a {}", kind_name(other)))),
            }
        }
        // The end of the stream holds the checksum of gzip.
        io::copy(stream, &mut io::sink()).map_err(|e| self.damaged(&e))?;
        if sums.is_empty() {
            return Err(self.hostile("", format!("no file in a folder `{}`", self.root)));
        }
        sums.sort_by(|a, b| a[66..].cmp(&b[66..]));
        Ok(sums.concat())
    }

    /// Writes one file; its sha256.
    fn file(
        &self,
        entry: &mut impl Read,
        size: u64,
        name: &str,
        path: &Path,
        have: &mut u64,
        watch: Watch<'_>,
    ) -> Result<String, FetchError> {
        let here = self.into.join(path);
        if let Some(folder) = here.parent() {
            fs::create_dir_all(folder).map_err(|e| self.write(path, e))?;
        }
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&here) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.hostile(name, "occurs twice".into()));
            }
            Err(e) => return Err(self.write(path, e)),
        };
        let (mut hasher, mut buffer, mut length) = (Sha256::new(), vec![0; 1 << 16], 0);
        loop {
            let n = entry.read(&mut buffer).map_err(|e| self.damaged(&e))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|e| self.write(path, e))?;
            length += n as u64;
            *have += n as u64;
            let progress = Progress { what: "unpacking", have: *have, total: None };
            if watch(progress) == ControlFlow::Break(()) {
                return Err(FetchError::Stopped { target: self.target.into() });
            }
        }
        if length != size {
            return Err(self.damaged(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        file.sync_all().map_err(|e| self.write(path, e))?;
        Ok(hex(&hasher.finalize()))
    }

    /// Path of an entry below the hidden folder.
    fn place(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, FetchError> {
        let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':');
        if std::str::from_utf8(bytes).is_err() || !name.chars().all(plain) {
            return Err(self.hostile(name, "has a name with odd characters".into()));
        }
        let mut path = PathBuf::new();
        for component in Path::new(name).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::ParentDir => return Err(self.hostile(name, "leads out of its folder by `..`".into())),
                _ => return Err(self.hostile(name, "is an absolute path".into())),
            }
        }
        if path.components().count() > DEPTH {
            return Err(self.hostile(name, format!("lies more than {DEPTH} folders deep")));
        }
        if !path.starts_with(self.root) {
            return Err(self.hostile(name, format!("does not lie in the folder `{}`", self.root)));
        }
        Ok(path)
    }

    fn hostile(&self, name: &str, reason: String) -> FetchError {
        let entry = name.chars().take(200).collect::<String>().escape_debug().to_string();
        FetchError::Hostile { archive: self.archive.into(), entry, reason }
    }

    fn damaged(&self, error: &io::Error) -> FetchError {
        FetchError::Damaged { archive: self.archive.into(), reason: error.to_string() }
    }

    fn write(&self, path: &Path, error: io::Error) -> FetchError {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        FetchError::file(&self.target.join(below), error)
    }
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "symbolic link",
        EntryType::Link => "hard link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "named pipe",
        _ => "entry of a kind that is not needed",
    }
}

/// A stream that fails after a number of bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("too large"));
            }
        }
        Ok(n)
    }
}
