//! `quee compare`: finished runs on one axis, and which of them is better where.

mod contest;
mod differing;
mod slots;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
mod text;
mod warnings;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

pub use slots::Asked;
pub use stored::CompareError;

use crate::output::write_whole;
use crate::report::compare::CompareReport;
use crate::report::compare_page;
use stored::StoredRun;

/// Most runs: as many as there are colours.
const MOST: usize = 8;

/// Which runs, which methods, and where the page goes.
#[derive(Args)]
pub struct CompareArgs {
    /// Results folders, e.g. runs/digits/latest; differences are taken to the first
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Methods by name or a part of it, e.g. "open loop,naive" [default: the open-loop policy, the naive combination, each run's best single technique]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<String>,
    /// All methods
    #[arg(long, conflicts_with = "methods")]
    all: bool,
    /// Folder for a page with figures (report.html) and the table (compare.csv)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compares the runs, writes the page where one is asked for; the text to print.
///
/// # Errors
/// When a run cannot be read, the runs have no common axis, a method is unknown, or the page cannot be written.
pub fn run(args: &CompareArgs) -> Result<String> {
    let asked = match (args.all, args.methods.is_empty()) {
        (true, _) => Asked::All,
        (_, true) => Asked::Leading,
        _ => Asked::Named(args.methods.clone()),
    };
    if let Some(folder) = &args.out {
        let occupied = ["summary.json", "recipe.toml"].iter().any(|file| folder.join(file).exists());
        if occupied {
            return Err(CompareError::Occupied { folder: folder.display().to_string() }.into());
        }
    }
    let report = compare(&args.runs, &asked)?;
    if let Some(folder) = &args.out {
        let hint = || format!("{}: cannot write; hint: choose another place with --out", folder.display());
        fs::create_dir_all(folder).with_context(hint)?;
        write_whole(&folder.join("compare.csv"), text::csv(&report).as_bytes()).with_context(hint)?;
        write_whole(&folder.join("report.html"), compare_page(&report).as_bytes()).with_context(hint)?;
    }
    Ok(if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { text::text(&report) })
}

/// Reads and compares the runs in `folders`.
///
/// # Errors
/// As [`run`], but for the page.
pub fn compare(folders: &[PathBuf], asked: &Asked) -> Result<CompareReport, CompareError> {
    if !(2..=MOST).contains(&folders.len()) {
        return Err(CompareError::Number { given: folders.len(), most: MOST });
    }
    let mut runs = folders.iter().map(|folder| StoredRun::read(folder)).collect::<Result<Vec<_>, _>>()?;
    let slots = slots::slots(&runs, asked)?;
    contest::compare(&mut runs, &slots)
}
