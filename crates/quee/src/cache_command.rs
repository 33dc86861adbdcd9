//! `quee cache`: what is stored of finished stages, and how to get rid of it.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use quee_store::{Item, Kind, Pruned, Store};
use serde::Serialize;

use crate::folders;

/// Most bytes of all stored results together.
pub const LIMIT: Size = Size(20_000_000_000);

/// What to do with stored results.
#[derive(Subcommand)]
pub enum CacheCommand {
    /// List what is stored: stage, key, size and last use, the one used last first
    List(ListArgs),
    /// Throw away results that were not used for longest, until the others are within a limit
    Prune(PruneArgs),
    /// Throw away everything that no running process uses
    Clear(Folder),
    /// Print the folder
    Path(Folder),
}

/// Where results are stored.
#[derive(Args)]
pub struct Folder {
    /// Folder of stored results [default: QUEE_CACHE, or the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// What to list.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print what each was computed from as well
    #[arg(long)]
    parts: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "parts")]
    json: bool,
}

/// What to throw away.
#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    folder: Folder,
    /// Most bytes of all results together, e.g. 500MB
    #[arg(long, value_name = "SIZE", default_value_t = LIMIT)]
    limit: Size,
}

/// A number of bytes; written and read as `20 GB`, with powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 4] = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) if self.0.is_multiple_of(*unit) => write!(f, "{} {name}", self.0 / unit),
            Some((name, unit)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            lower => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(lower)).map(|(_, unit)| *unit),
        };
        let bytes = match (number.parse::<u64>(), number.parse::<f64>(), unit) {
            (Ok(whole), _, Some(unit)) => whole.checked_mul(unit),
            (_, Ok(number), Some(unit)) => {
                let bytes = number * unit as f64;
                (bytes < u64::MAX as f64).then_some(bytes as u64)
            }
            _ => None,
        };
        bytes.map(Self).ok_or_else(|| "expected a number of bytes, e.g. 20GB, 500MB, 1.5TB, 0".to_owned())
    }
}

/// A result, as `--json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    key: String,
    finished: bool,
    bytes: u64,
    /// Seconds since 1970 (UTC); none before.
    last_use: Option<u64>,
    stage: Option<&'a str>,
    parts: Option<&'a std::collections::BTreeMap<String, String>>,
    /// What is wrong with it.
    damage: Option<String>,
}

/// Carries out a command; what to print.
///
/// # Errors
/// When the folder cannot be read, or when something in it cannot be removed for want of rights.
pub fn run(command: &CacheCommand) -> Result<String> {
    match command {
        CacheCommand::List(args) => list(args),
        CacheCommand::Prune(args) => discard(&args.folder, args.limit),
        CacheCommand::Clear(folder) => discard(folder, Size(0)),
        CacheCommand::Path(folder) => Ok(format!("{}\n", folder.path()?.display())),
    }
}

impl Folder {
    fn path(&self) -> Result<PathBuf> {
        folders::cache(self.cache.as_deref())
    }

    /// The store, unless nothing was ever stored there: looking makes no folder.
    fn existing(&self) -> Result<(PathBuf, Option<Store>)> {
        let path = self.path()?;
        let store = path.exists().then(|| Store::open(&path, LIMIT.0)).transpose().with_context(hint)?;
        Ok((path, store))
    }
}

fn hint() -> &'static str {
    "the stored results are not accessible; hint: name a folder with --cache or QUEE_CACHE"
}

fn list(args: &ListArgs) -> Result<String> {
    let (path, store) = args.folder.existing()?;
    let items = store.map_or(Ok(Vec::new()), |store| store.list()).with_context(hint)?;
    if args.json {
        let listed: Vec<Listed> = items.iter().map(listed).collect();
        return Ok(serde_json::to_string_pretty(&listed)? + "\n");
    }
    if items.is_empty() {
        return Ok(format!("{}: nothing is stored\n", path.display()));
    }
    let mut text = format!("{:12}  {:>10}  {:20}  stage\n", "key", "size", "last use (UTC)");
    for item in &items {
        let (key, size) = (item.hash.to_string(), Size(item.size).to_string());
        let unfinished = if item.kind == Kind::Unfinished { " (unfinished)" } else { "" };
        let stage = match &item.description {
            Ok(description) => &description.stage,
            Err(damage) => &format!("UNUSABLE: {damage}"),
        };
        writeln!(text, "{:12}  {size:>10}  {:20}  {stage}{unfinished}", &key[..12], date(item.last_use))?;
        if args.parts {
            let parts = item.description.iter().flat_map(|description| &description.parts);
            parts.for_each(|(name, value)| text += &format!("  {name} = {value}\n"));
        }
    }
    let total = Size(items.iter().map(|item| item.size).sum());
    writeln!(text, "{}: {total}", path.display())?;
    Ok(text)
}

fn listed(item: &Item) -> Listed<'_> {
    let description = item.description.as_ref();
    Listed {
        key: item.hash.to_string(),
        finished: item.kind == Kind::Finished,
        bytes: item.size,
        last_use: since_1970(item.last_use).map(|time| time.as_secs()),
        stage: description.ok().map(|description| description.stage.as_str()),
        parts: description.ok().map(|description| &description.parts),
        damage: description.err().map(ToString::to_string),
    }
}

fn since_1970(time: SystemTime) -> Option<Duration> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// Date and time; empty where a file system tells what cannot be written in four digits of years.
fn date(time: SystemTime) -> String {
    const YEAR_10000: u64 = 253_402_300_800;
    let representable = since_1970(time).is_some_and(|time| time.as_secs() < YEAR_10000);
    if representable { humantime::format_rfc3339_seconds(time).to_string() } else { String::new() }
}

fn discard(folder: &Folder, limit: Size) -> Result<String> {
    let (path, store) = folder.existing()?;
    let pruned = store.map_or(Ok(Pruned::default()), |store| store.prune(limit.0)).with_context(hint)?;
    Ok(told(&path, &pruned))
}

fn told(path: &Path, pruned: &Pruned) -> String {
    let Pruned { removed, freed, kept, left } = *pruned;
    let kept = match kept {
        0 => String::new(),
        kept => format!("; in use or impossible to remove: {kept}"),
    };
    format!("{}: results removed: {removed} ({}); left: {}{kept}\n", path.display(), Size(freed), Size(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("0", 0), ("999 B", 999), ("20 GB", LIMIT.0), ("1.5 TB", 1_500_000_000_000), ("7 kB", 7000)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        assert_eq!("500mb".parse(), Ok(Size(500_000_000)));
        assert_eq!("18446744073709551615".parse(), Ok(Size(u64::MAX)));
        for text in ["", "GB", "-1", "1 GiB", "1e3", "1.2.3 MB", "18446744073709551616", "99999999 TB", "١", "∞"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn any_time_of_a_file_is_printed() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(date(at(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(date(at(253_402_300_799)), "9999-12-31T23:59:59Z");
        assert_eq!(date(at(253_402_300_800)), "");
        assert_eq!(date(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "");
    }
}
