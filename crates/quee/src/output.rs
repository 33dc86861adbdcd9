//! What a command leaves: text on the standard output, and the results folder of a run, in which nothing is ever half-written.
//!
//! Files are written into a hidden folder beside the final one, which is renamed when everything is there. A run that
//! fails or is stopped leaves no trace; what a run that was killed has left, the next one removes. So it is with single files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Writes to the standard output; a reader that has gone is no error.
///
/// # Errors
/// When it cannot be written to.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("cannot write to the standard output"),
        _ => Ok(()),
    }
}

/// A results folder under construction.
pub struct RunFolder {
    partial: PathBuf,
    target: PathBuf,
    finished: bool,
    /// Whether `latest` beside it shall point at it.
    latest: bool,
    /// Locked as long as this process is alive: so that others know.
    _lock: Option<fs::File>,
}

impl RunFolder {
    /// Prepares `<out>/<recipe>/<id>`, with an id made of the present time (UTC).
    ///
    /// # Errors
    /// When the place cannot be written to.
    pub fn create(out: &Path, recipe: &str) -> Result<Self> {
        let parent = out.join(recipe);
        let hint =
            || format!("{}: cannot create the results folder; hint: choose another place with --out", parent.display());
        fs::create_dir_all(&parent).with_context(hint)?;
        remove_dead(&parent);
        for id in ids() {
            let partial = parent.join(format!(".{id}{PARTIAL}"));
            let target = parent.join(&id);
            if target.exists() {
                continue;
            }
            // Creating the hidden folder claims the id: two runs that start together get different ones.
            match fs::create_dir(&partial) {
                Ok(()) => match Hold::take(&partial) {
                    Hold::Taken(lock) => return Ok(Self::at(partial, target, true, Some(lock))),
                    Hold::Impossible => return Ok(Self::at(partial, target, true, None)),
                    // Taken for a dead run's in the moment before it was locked.
                    Hold::Lost => {}
                },
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(hint),
            }
        }
        Err(anyhow!("{}: no free name for a results folder", parent.display()))
    }

    /// Prepares the folder `target`, which does not exist yet.
    ///
    /// # Errors
    /// When it exists, another process makes it, or the place cannot be written to.
    pub fn exactly(target: &Path) -> Result<Self> {
        let shown = target.display();
        ensure!(!target.exists(), "--into {shown}: exists already; hint: name a folder that is to be made");
        let parent = folder_of(target);
        let name = target.file_name().with_context(|| format!("--into {shown}: not the name of a folder"))?;
        let hint = || format!("{shown}: cannot create the results folder; hint: choose another place with --into");
        fs::create_dir_all(parent).with_context(hint)?;
        remove_dead(parent);
        let partial = parent.join(format!(".{}{PARTIAL}", name.to_string_lossy()));
        match fs::create_dir(&partial) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("--into {shown}: another run is writing it; hint: wait for it, or name another folder");
            }
            Err(e) => return Err(e).with_context(hint),
        }
        let lock = if let Hold::Taken(lock) = Hold::take(&partial) { Some(lock) } else { None };
        Ok(Self::at(partial, target.to_path_buf(), false, lock))
    }

    fn at(partial: PathBuf, target: PathBuf, latest: bool, lock: Option<fs::File>) -> Self {
        Self { partial, target, finished: false, latest, _lock: lock }
    }

    /// Writes one file of the results.
    ///
    /// # Errors
    /// When the disk is full or the folder is not writable.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let target = self.target.join(name);
        write().with_context(|| {
            format!("{}: cannot write; hint: is the disk full? choose another place with --out", target.display())
        })
    }

    /// Where files lie until the results are finished.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Where the results will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the results visible, and points `latest` at them where the id was chosen here.
    ///
    /// # Errors
    /// When renaming fails.
    pub fn finish(mut self) -> Result<PathBuf> {
        fs::rename(&self.partial, &self.target)
            .with_context(|| format!("{}: cannot rename the finished results", self.target.display()))?;
        self.finished = true;
        if self.latest {
            point_latest(&self.target)?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing more can be done about a failure here; the hidden name says that the folder is incomplete.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Names for a new results folder, made of the present time (UTC): one, and more should it be taken.
pub fn ids() -> impl Iterator<Item = String> {
    let stamp = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let stamp: String = stamp.trim_end_matches('Z').chars().filter(|c| *c != '-' && *c != ':').collect();
    let stamp = stamp.replace('T', "-");
    (0..1000).map(move |attempt| if attempt == 0 { stamp.clone() } else { format!("{stamp}-{attempt}") })
}

/// What the names of files and folders under construction end with; they begin with a dot.
const PARTIAL: &str = ".partial";

/// The lock of a file or folder under construction, which the system takes from a process that dies.
enum Hold {
    Taken(fs::File),
    /// Another process has it, or it is gone.
    Lost,
    /// The file system knows no such locks.
    Impossible,
}

impl Hold {
    fn take(path: &Path) -> Self {
        let Ok(file) = fs::File::open(path) else {
            return if path.exists() { Self::Impossible } else { Self::Lost };
        };
        match file.try_lock() {
            Ok(()) if path.exists() => Self::Taken(file),
            Ok(()) | Err(fs::TryLockError::WouldBlock) => Self::Lost,
            Err(fs::TryLockError::Error(_)) => Self::Impossible,
        }
    }
}

/// Removes from `parent` the files and folders under construction whose process has died.
pub fn remove_dead(parent: &Path) {
    remove_dead_of(parent, ".");
}

/// Of these, the ones whose names begin so.
fn remove_dead_of(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_partial = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(PARTIAL));
        if let (true, Hold::Taken(_lock)) = (is_partial, Hold::take(&entry.path())) {
            // What cannot be removed now is hidden, and tried again by the next run.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

/// Writes a file that is either there as a whole or not at all.
///
/// # Errors
/// When its folder is missing, not writable or full.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder_of(path);
    remove_dead_of(folder, &hidden_prefix(path));
    let mut file = hidden_file(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name survives a power cut only with its folder; Windows does not open folders.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Whether a file can be written at `path`.
///
/// # Errors
/// When it cannot.
pub fn is_writable(path: &Path) -> std::io::Result<()> {
    hidden_file(path).map(drop)
}

/// The folder of a file.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What names of files begin with that are to become `path`.
fn hidden_prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

/// A file beside `path` without a lasting name, with the rights of any other new file, locked as long as it is open.
fn hidden_file(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let prefix = hidden_prefix(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(PARTIAL);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder_of(path))?;
        let locked = file.as_file().try_lock();
        // Otherwise it was taken for a dead process's in the moment before it was locked.
        if !matches!(locked, Err(fs::TryLockError::WouldBlock)) && file.path().exists() {
            return Ok(file);
        }
    }
}

/// `latest` becomes a link to the newest run, or a text file with its name where links are not to be had.
///
/// # Errors
/// When the folder beside it cannot be written to.
pub fn point_latest(target: &Path) -> Result<()> {
    let (Some(parent), Some(id)) = (target.parent(), target.file_name()) else { return Ok(()) };
    let fresh = parent.join(format!(".latest-{}", id.to_string_lossy()));
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(id, &fresh);
    #[cfg(not(unix))]
    let made = fs::write(&fresh, id.to_string_lossy().as_bytes());
    made.and_then(|()| fs::rename(&fresh, parent.join("latest")))
        .with_context(|| format!("{}: cannot point `latest` at the new results", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_run_leaves_nothing_behind() {
        let out = tempfile::tempdir().unwrap();
        let run = RunFolder::create(out.path(), "r").unwrap();
        run.write("a.csv", b"1").unwrap();
        drop(run);
        assert_eq!(fs::read_dir(out.path().join("r")).unwrap().count(), 0);
    }

    #[test]
    fn a_named_folder_is_made_once_and_leaves_no_link() {
        let out = tempfile::tempdir().unwrap();
        let target = out.path().join("a/results");
        let run = RunFolder::exactly(&target).unwrap();
        let message = RunFolder::exactly(&target).err().unwrap().to_string();
        assert!(message.contains("another run"), "{message}");
        run.write("a.csv", b"1").unwrap();
        assert_eq!(run.finish().unwrap(), target);
        assert_eq!(fs::read_dir(out.path().join("a")).unwrap().count(), 1);
        assert!(RunFolder::exactly(&target).err().unwrap().to_string().contains("exists already"));
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_what_a_live_one_has_is_not() {
        let out = tempfile::tempdir().unwrap();
        let dead = out.path().join("r/.20200101-000000.partial");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("a.csv"), b"1").unwrap();
        let live = RunFolder::create(out.path(), "r").unwrap();
        let other = RunFolder::create(out.path(), "r").unwrap();
        assert_eq!(dead.exists(), !cfg!(unix));
        assert!(live.partial.exists() && other.partial.exists());
    }

    #[test]
    fn a_whole_file_replaces_another_or_fails_without_a_trace() {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("x");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert!(write_whole(&out.path().join("no/x"), b"1").is_err());
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_has_left_of_a_file_is_removed_and_what_is_being_written_is_not() {
        let out = tempfile::tempdir().unwrap();
        let dead = out.path().join(".state.json.a1b2c3.partial");
        fs::write(&dead, b"half").unwrap();
        let live = hidden_file(&out.path().join("state.json")).unwrap();
        write_whole(&out.path().join("state.json"), b"1").unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() || !cfg!(unix));
    }

    #[test]
    fn latest_follows_the_newest_run() {
        let out = tempfile::tempdir().unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let run = RunFolder::create(out.path(), "r").unwrap();
            run.write("a.csv", b"1").unwrap();
            ids.push(run.finish().unwrap());
        }
        assert_ne!(ids[0], ids[1]);
        let latest = out.path().join("r/latest").canonicalize().unwrap();
        assert_eq!(latest, ids[1].canonicalize().unwrap());
        assert_eq!(fs::read(latest.join("a.csv")).unwrap(), b"1");
    }
}
