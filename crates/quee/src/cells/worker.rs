//! One cell: a run of the program in a process of its own, watched until it ends.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::folder::SweepFolder;
use super::state::{Lock, RESULTS, Ran, State, host, is_done, now};
use crate::cancel::Cancel;

/// What a cell's runs write on both streams, one after the other.
pub const LOG: &str = "log.txt";
/// Lines that are kept of a run that fails.
const LINES: usize = 20;
/// Most bytes of the log that are searched for them.
const TAIL: u64 = 1 << 14;
/// How often to look at a run.
const LOOK: Duration = Duration::from_millis(50);
/// Looks between two that read the log.
const SELDOM: u32 = 10;

/// How to run cells.
pub struct How<'a> {
    /// Threads of each; `None` leaves it to its recipe.
    pub threads: Option<usize>,
    /// Whether a signal from the terminal reaches this process only, which then hands it on.
    pub apart: bool,
    /// A wish to stop.
    pub cancel: &'a Cancel,
}

/// Runs cell `index` and writes how it ended. `lock` is the right to do so; `memory` gets the most bytes that it held so far, `say` its last line.
///
/// # Errors
/// When the cell's folder cannot be written to or the program cannot be started. That a run fails is no error.
pub fn run(
    sweep: &SweepFolder,
    index: usize,
    lock: &Lock,
    how: &How,
    memory: &AtomicU64,
    say: &dyn Fn(&str),
) -> Result<State> {
    let folder = sweep.cell(index);
    let log_file = folder.join(LOG);
    let open = File::options().read(true).append(true).create(true).open(&log_file);
    let mut log = open.with_context(|| format!("{}: cannot write", log_file.display()))?;
    let (host, started, clock) = (host(), now(), Instant::now());
    writeln!(log, "--- {started} on {host}").with_context(|| format!("{}: cannot write", log_file.display()))?;
    let begin = log.metadata()?.len();

    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let mut command = Command::new(&program);
    command.arg("run").arg(sweep.recipe_file(index)).arg("--into").arg(folder.join(RESULTS));
    command.args(&sweep.cache);
    if let Some(threads) = how.threads.filter(|_| sweep.threads_are_free(index)) {
        command.arg(format!("--threads={threads}"));
    }
    // The copy of the lock is what keeps others away should the run outlive this process.
    command.current_dir(&sweep.directory).stdin(Stdio::from(lock.0.try_clone()?));
    command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log.try_clone()?));
    #[cfg(unix)]
    if how.apart {
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
    }
    let mut child = command.spawn().with_context(|| format!("{}: cannot start", program.display()))?;
    State::Running { host: host.clone(), pid: child.id(), started: started.clone() }.write(&folder)?;
    let status = watch(&mut child, how, memory, &|| say(&tail(&log_file, begin, 1).concat()))?;

    let peak = memory.load(Ordering::Relaxed);
    let ran = Ran { host, started, seconds: clock.elapsed().as_secs_f64(), memory: (peak > 0).then_some(peak) };
    let state = if status.success() && is_done(&folder) {
        State::Done(ran)
    } else if how.cancel.check().is_err() {
        State::Waiting
    } else {
        State::Failed { ran, ended: ended(status), lines: tail(&log_file, begin, LINES) }
    };
    state.write(&folder)?;
    Ok(state)
}

/// Waits until the run ends; a wish to stop is handed on once.
fn watch(child: &mut Child, how: &How, memory: &AtomicU64, look: &dyn Fn()) -> Result<ExitStatus> {
    let (mut told, mut looks) = (false, 0u32);
    loop {
        if let Some(status) = child.try_wait().context("a run cannot be waited for")? {
            return Ok(status);
        }
        memory.fetch_max(held(child.id()).unwrap_or(0), Ordering::Relaxed);
        if how.apart && !told && how.cancel.check().is_err() {
            interrupt(child);
            told = true;
        }
        if looks.is_multiple_of(SELDOM) {
            look();
        }
        looks = looks.wrapping_add(1);
        std::thread::sleep(LOOK);
    }
}

/// Most bytes of memory that a process has held so far, where the system tells.
fn held(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether `held` works on this system.
pub fn memory_is_told() -> bool {
    held(std::process::id()).is_some()
}

/// What Ctrl-C does: asks a run to stop at its next batch. The shell's own `kill` is everywhere.
#[cfg(unix)]
fn interrupt(child: &mut Child) {
    let told = Command::new("sh").args(["-c", "kill -INT \"$0\""]).arg(child.id().to_string()).status();
    if !told.is_ok_and(|status| status.success()) {
        // Without a shell there is no polite way; what was computed is kept all the same.
        let _ = child.kill();
    }
}

#[cfg(not(unix))]
fn interrupt(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
}

fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return match signal {
            9 => "killed (signal 9; the system does so when memory runs out)".to_owned(),
            other => format!("signal {other}"),
        };
    }
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// The last `count` lines of a log from byte `begin` on; what cannot be read is left out.
fn tail(file: &Path, begin: u64, count: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut log = File::open(file)?;
        let from = begin.max(log.metadata()?.len().saturating_sub(TAIL));
        log.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        log.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_this_attempt_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(LOG);
        let before = "old\n".repeat(3);
        std::fs::write(&file, format!("{before}one\n\ntwo\nthree")).unwrap();
        assert_eq!(tail(&file, before.len() as u64, 20), ["one", "two", "three"]);
        assert_eq!(tail(&file, before.len() as u64, 1), ["three"]);
        std::fs::write(&file, "x".repeat(1 << 16) + "\nend").unwrap();
        assert_eq!(tail(&file, 0, 1), ["end"]);
        assert!(tail(&folder.path().join("none"), 0, 1).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_memory_of_a_process_is_told() {
        assert!(memory_is_told() && held(std::process::id()).unwrap() > 100_000);
        assert_eq!(held(u32::MAX), None);
    }
}
