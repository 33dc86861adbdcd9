//! What a run tells of itself beside its results: one record per stage, in `log.jsonl` and, while it runs, in the file of `--log`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// End of the stage, UTC.
    pub time: String,
    /// Its name.
    pub stage: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Most memory of the program during the stage, where the system tells it.
    pub peak_bytes: Option<u64>,
    /// What came out, in a few words.
    pub outcome: String,
    /// What the user was told meanwhile.
    pub said: Vec<String>,
}

impl Record {
    /// A stage that ends now.
    pub fn now(stage: &str, seconds: f64, peak_bytes: Option<u64>, outcome: String, said: Vec<String>) -> Self {
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        Self { time, stage: stage.to_owned(), seconds, peak_bytes, outcome, said }
    }

    /// The record as one line of JSON.
    ///
    /// # Errors
    /// When it is not representable.
    pub fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self).context("a record is not representable in JSON")? + "\n")
    }
}

/// A file that records are appended to as stages end.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Opens or makes `path`.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        file.map(Self)
            .with_context(|| format!("{}: cannot write; hint: choose another place with --log", path.display()))
    }

    /// Appends a record. A disk that is full costs records, not the run.
    pub fn append(&mut self, record: &Record) {
        if let Ok(line) = record.line() {
            let _ = self.0.write_all(line.as_bytes());
        }
    }
}

/// Forgets the most memory that the program has taken so far.
pub fn reset_peak() {
    // Linux: 5 resets the peak; elsewhere there is no such file, and no peak to be read.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Most memory that the program has taken since [`reset_peak`], in bytes; `None` where the system does not tell.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_peak_holds_what_was_given_back_and_can_be_forgotten() {
        const SIZE: usize = 200 << 20;
        if std::fs::write("/proc/self/clear_refs", "5").is_err() {
            // Not allowed here; then peaks are those of the whole run.
            return;
        }
        let used = vec![1u8; SIZE];
        assert!(std::hint::black_box(&used)[SIZE - 1] == 1);
        drop(used);
        let before = peak().unwrap();
        assert!(before >= SIZE as u64);
        reset_peak();
        // Other tests of this process take memory, too, though not as much.
        assert!(peak().unwrap() < before);
    }

    #[test]
    fn records_are_lines_of_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let record = Record::now("a \"stage\"", 1.5, None, "two\nlines".into(), vec!["said".into()]);
        for _ in 0..2 {
            Log::open(&path).unwrap().append(&record);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["stage"], &lines[1]["said"][0]), (&"a \"stage\"".into(), &"said".into()));
        assert!(Log::open(&folder.path().join("no/log")).is_err());
    }
}
