//! One file over HTTP.
//!
//! Bytes go to `<target>.part`. Only when all have come and the checksum is right is the file synchronised and renamed,
//! so that `target` is never half-written. A transfer that breaks off goes on where it stopped (`Range`, RFC 9110 §14),
//! within one call and from one call to the next; a file without a checksum starts again in a new call, because two
//! halves of different versions could not be told from one.
//!
//! The `.part` file stays after a fault of the network or a wish to stop. It is removed when the checksum is wrong, the
//! file is too large or the disk is full.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body, http::Response};

use super::{Checksum, FetchError, Progress, Watch};

/// What to download, and where to.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// Address, http or https. From https no redirect leads to http.
    pub url: &'a str,
    /// The file.
    pub target: &'a Path,
    /// What it must have.
    pub checksum: Option<&'a Checksum>,
    /// Bytes that it can have at most.
    pub limit: u64,
    /// How long to wait and how often to try.
    pub patience: Patience,
}

/// How long to wait and how often to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and for an answer after that.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// Attempts in a row that bring nothing new; ten times as many in all.
    pub tries: u32,
    /// Pause before the second attempt; it doubles each time.
    pub pause: Duration,
    /// Redirects that are followed.
    pub redirects: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(30),
            tries: 4,
            pause: Duration::from_secs(1),
            redirects: 8,
        }
    }
}

/// How a download ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// The file was there, with the right checksum where there is one. No connection was made.
    AlreadyThere,
    /// It came.
    Fresh {
        /// Its size.
        bytes: u64,
        /// How many of them an earlier call had left.
        resumed: u64,
    },
}

/// Downloads a file, unless it is there.
///
/// # Errors
/// When the server cannot be reached or refuses, the file is not the one expected, or the disk is full; then there is no
/// `target`. When `watch` asks to stop: [`FetchError::Stopped`].
pub fn download(request: &Download<'_>, watch: Watch<'_>) -> Result<Downloaded, FetchError> {
    if already_there(request)? {
        return Ok(Downloaded::AlreadyThere);
    }
    let agent = agent(request)?;
    let mut part = Part::open(request.target)?;
    // Another process may have finished the file since the first look.
    if already_there(request)? {
        part.discard();
        return Ok(Downloaded::AlreadyThere);
    }
    if request.checksum.is_none() {
        part.restart()?;
    }
    let mut resumed = part.length;
    let mut done = transfer(&agent, request, &mut part, watch).and_then(|()| check(request, &part));
    if resumed > 0 && matches!(done, Err(FetchError::Mismatch { .. })) {
        // The remains of the earlier call may be the reason.
        resumed = 0;
        part.restart()?;
        done = transfer(&agent, request, &mut part, watch).and_then(|()| check(request, &part));
    }
    let done = done.and_then(|()| part.publish(request.target));
    if let Err(error) = done {
        let useless =
            matches!(error, FetchError::Mismatch { .. } | FetchError::TooLarge { .. } | FetchError::DiskFull { .. });
        if useless || part.length == 0 {
            part.discard();
        }
        return Err(error);
    }
    Ok(Downloaded::Fresh { bytes: part.length, resumed: resumed.min(part.kept) })
}

fn already_there(request: &Download<'_>) -> Result<bool, FetchError> {
    let target = request.target;
    if !target.try_exists().map_err(|e| FetchError::file(target, e))? {
        return Ok(false);
    }
    if let Some(Checksum { algorithm, hex }) = request.checksum {
        let found = algorithm.of_file(target).map_err(|e| FetchError::file(target, e))?;
        if !found.starts_with(hex.as_ref()) {
            let expected = hex.clone().into_owned();
            return Err(FetchError::Occupied { path: target.into(), algorithm: *algorithm, expected, found });
        }
    }
    Ok(true)
}

fn check(request: &Download<'_>, part: &Part) -> Result<(), FetchError> {
    let Some(checksum) = request.checksum else { return Ok(()) };
    let found = checksum.algorithm.of_file(&part.path).map_err(|e| FetchError::file(&part.path, e))?;
    if checksum.matches(&found) {
        return Ok(());
    }
    let expected = checksum.hex.clone().into_owned();
    Err(FetchError::Mismatch { url: request.url.into(), algorithm: checksum.algorithm, expected, found })
}

fn agent(request: &Download<'_>) -> Result<Agent, FetchError> {
    let bad = |reason: String| FetchError::Address { url: request.url.into(), reason };
    let uri: Uri = request.url.parse().map_err(|e| bad(format!("not an address: {e}")))?;
    let https = uri.scheme_str() == Some("https");
    if !https && uri.scheme_str() != Some("http") {
        return Err(bad("neither http nor https".into()));
    }
    let patience = &request.patience;
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(https)
        .max_redirects(patience.redirects)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.connect))
        .timeout_per_read(Some(patience.silence))
        .user_agent(concat!("quee/", env!("CARGO_PKG_VERSION")));
    if matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        // A proxy would look for the file on its own machine.
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// Why an attempt failed.
enum Fault {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Final(FetchError),
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

/// Attempts until the whole file is in `part`.
fn transfer(agent: &Agent, request: &Download<'_>, part: &mut Part, watch: Watch<'_>) -> Result<(), FetchError> {
    let Patience { tries, mut pause, .. } = request.patience;
    let (mut in_vain, mut all) = (0, 0);
    loop {
        let before = part.length;
        let reason = match attempt(agent, request, part, watch) {
            Ok(()) => return Ok(()),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Passing(reason)) => reason,
        };
        all += 1;
        if part.length > before {
            (in_vain, pause) = (0, request.patience.pause);
        }
        in_vain += 1;
        if in_vain >= tries || all >= 10 * tries {
            return Err(FetchError::GaveUp {
                url: request.url.into(),
                tries: all,
                reason,
                have: part.length,
                target: request.target.into(),
            });
        }
        let started = Instant::now();
        while started.elapsed() < pause {
            go_on(request, part.length, None, watch)?;
            thread::sleep(Duration::from_millis(20).min(pause));
        }
        pause *= 2;
    }
}

fn go_on(request: &Download<'_>, have: u64, total: Option<u64>, watch: Watch<'_>) -> Result<(), FetchError> {
    let name = request.target.file_name().unwrap_or_default().to_string_lossy();
    match watch(Progress { what: &name, have, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FetchError::Stopped { target: request.target.into() }),
    }
}

/// One request; what comes is appended to `part`.
fn attempt(agent: &Agent, request: &Download<'_>, part: &mut Part, watch: Watch<'_>) -> Result<(), Fault> {
    // Compression on the way would change what a byte range means.
    let mut call = agent.get(request.url).header("accept-encoding", "identity");
    if part.length > 0 {
        call = call.header("range", format!("bytes={}-", part.length));
        if let Some(version) = &part.version {
            call = call.header("if-range", version);
        }
    }
    let mut response = call.call().map_err(|error| judge(error, request))?;
    let total = match response.status().as_u16() {
        200 => {
            part.restart()?;
            response.body().content_length()
        }
        206 => match content_range(response.headers()) {
            Some((Some(start), total)) if start == part.length => {
                total.or_else(|| response.body().content_length().map(|rest| start + rest))
            }
            _ => {
                part.restart()?;
                return Err(Fault::Passing("the server sent another range than the one asked for".into()));
            }
        },
        416 if part.length > 0 => {
            let complete = matches!(content_range(response.headers()), Some((None, Some(n))) if n == part.length);
            if complete || (request.checksum.is_some() && check(request, part).is_ok()) {
                return Ok(());
            }
            part.restart()?;
            return Err(Fault::Passing("the server does not have the range asked for".into()));
        }
        status @ (408 | 425 | 429 | 500..=599) => return Err(Fault::Passing(format!("status {status}"))),
        status => {
            let (url, target) = (request.url.into(), request.target.into());
            return Err(FetchError::Status { url, status, target }.into());
        }
    };
    let too_large = || FetchError::TooLarge { url: request.url.into(), limit: request.limit };
    match total {
        Some(total) if total > request.limit => return Err(too_large().into()),
        None if request.checksum.is_none() => {
            return Err(FetchError::UnknownLength { url: request.url.into(), target: request.target.into() }.into());
        }
        _ => {}
    }
    part.version = strong_version(&response);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        go_on(request, part.length, total, watch)?;
        let n = body.read(&mut buffer).map_err(|error| Fault::Passing(error.to_string()))?;
        if n == 0 {
            break;
        }
        if part.length + n as u64 > request.limit {
            return Err(too_large().into());
        }
        part.append(&buffer[..n])?;
    }
    match total {
        Some(total) if part.length < total => {
            Err(Fault::Passing(format!("the connection ended at byte {} of {total}", part.length)))
        }
        _ => Ok(()),
    }
}

/// `ETag`, unless it is a weak one: those don't promise equal bytes.
fn strong_version(response: &Response<Body>) -> Option<String> {
    let tag = response.headers().get("etag")?.to_str().ok()?;
    tag.starts_with('"').then(|| tag.to_owned())
}

/// First byte and total size in `Content-Range: bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = headers.get("content-range")?.to_str().ok()?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = match range.trim() {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start, total))
}

/// Whether an error of the client may pass.
fn judge(error: ureq::Error, request: &Download<'_>) -> Fault {
    use std::io::ErrorKind as Kind;
    let url = || request.url.to_owned();
    let unreachable =
        |reason: String| FetchError::Unreachable { url: url(), reason, target: request.target.into() }.into();
    match error {
        ureq::Error::TooManyRedirects => FetchError::Redirects { url: url(), limit: request.patience.redirects }.into(),
        ureq::Error::RequireHttpsOnly(to) => {
            FetchError::Address { url: url(), reason: format!("redirects from https to {to}") }.into()
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RedirectFailed => {
            FetchError::Address { url: url(), reason: error.to_string() }.into()
        }
        ureq::Error::HostNotFound => unreachable("the name of the server is not known".into()),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::InvalidProxyUrl => unreachable(error.to_string()),
        ureq::Error::Io(error) => match error.kind() {
            Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::UnexpectedEof => Fault::Passing(error.to_string()),
            _ => unreachable(error.to_string()),
        },
        _ => Fault::Passing(error.to_string()),
    }
}

/// `<target>.part`, locked against other processes.
struct Part {
    path: PathBuf,
    file: File,
    /// Bytes in it.
    length: u64,
    /// The least that `length` has been: bytes of an earlier call that are still in it.
    kept: u64,
    /// `ETag` of what is in it.
    version: Option<String>,
}

impl Part {
    fn open(target: &Path) -> Result<Self, FetchError> {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let path = target.with_file_name(name);
        let fail = |e| FetchError::file(&path, e);
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(|e| FetchError::file(folder, e))?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FetchError::Busy { path }),
            // Some network file systems have no locks; two downloads at once then end in a wrong checksum.
            Err(TryLockError::Error(_)) => {}
        }
        let length = file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(Self { path, file, length, kept: length, version: None })
    }

    fn restart(&mut self) -> Result<(), FetchError> {
        (self.length, self.kept, self.version) = (0, 0, None);
        let empty = self.file.set_len(0).and_then(|()| self.file.rewind());
        empty.map_err(|e| FetchError::file(&self.path, e))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|e| FetchError::file(&self.path, e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn publish(&mut self, target: &Path) -> Result<(), FetchError> {
        self.file.sync_all().map_err(|e| FetchError::file(&self.path, e))?;
        fs::rename(&self.path, target).map_err(|e| FetchError::file(target, e))?;
        sync_folder(target);
        Ok(())
    }

    fn discard(&self) {
        // Nothing more can be done about a failure here; the name says that the file is incomplete.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the new name of `path` last through a loss of power, where folders can be synchronised.
pub(crate) fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}
