//! `quee data`: list, fetch and verify data sets.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use quee_data::PartSizes;
use quee_data::fetch::sources::{self, Origin, SOURCES};
use quee_data::fetch::verify::{locate, thousands};
use quee_data::fetch::{Checksum, FileState, Mirror, Report, Source, fetch_dataset, verify};

use crate::cancel::Cancel;
use crate::folders;
use crate::transfer::{Transfer, outcome};

/// What to do with data sets.
#[derive(Subcommand)]
pub enum DataCommand {
    /// List the data sets: pictures, classes, and where they are or how to get them
    List(Folder),
    /// Download a data set from its official address, check and unpack it; goes on where it broke off
    Fetch(FetchArgs),
    /// Check that a data set is complete and unchanged
    Verify(VerifyArgs),
}

/// Where the data sets are.
#[derive(Args)]
pub struct Folder {
    /// Folder of all data sets [default: QUEE_DATA, or the user's data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What to fetch.
#[derive(Args)]
pub struct FetchArgs {
    /// Name of the data set, as `quee data list` has it
    name: String,
    #[command(flatten)]
    folder: Folder,
    /// Mirror: address of a folder that holds the files under their official names
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Checksum of the archive on the mirror, if it is not the official one
    #[arg(long, value_name = "HEX", requires = "from")]
    sha256: Option<String>,
}

/// What to check.
#[derive(Args)]
pub struct VerifyArgs {
    /// Name of the data set, as `quee data list` has it
    name: String,
    #[command(flatten)]
    folder: Folder,
}

/// Carries out a command; what to print.
///
/// # Errors
/// When something cannot be fetched, is not there or is broken.
pub fn run(command: &DataCommand, cancel: &Cancel) -> Result<String> {
    match command {
        DataCommand::List(folder) => list(folder),
        DataCommand::Fetch(args) => fetch(args, cancel),
        DataCommand::Verify(args) => check(args),
    }
}

fn list(folder: &Folder) -> Result<String> {
    let data = folders::data(folder.data.as_deref())?;
    let mut text = format!("{:10} {:>10} {:>8} {:>8}  where\n", "name", "training", "test", "classes");
    for source in SOURCES {
        let place = locate(source, &data);
        let place = match (&source.origin, place.exists()) {
            (_, true) => place.display().to_string(),
            (Origin::Inside, false) => "inside the program".into(),
            (Origin::ByHand(_), false) => format!("by hand: `quee data fetch {}` tells how", source.name),
            (_, false) => source.how(),
        };
        let (train, test) = (thousands(source.size().train), thousands(source.size().test));
        writeln!(text, "{:10} {train:>10} {test:>8} {:>8}  {place}", source.name, source.classes)?;
    }
    Ok(text)
}

fn fetch(args: &FetchArgs, cancel: &Cancel) -> Result<String> {
    let source = sources::find(&args.name)?;
    let checksum = match &args.sha256 {
        None => None,
        Some(_) if source.files().len() != 1 => {
            bail!("--sha256 is for data sets of one archive; hint: leave it out for `{}`", source.name)
        }
        Some(hex) => Some(
            Checksum::parse_sha256(hex)
                .context("--sha256 needs 64 hexadecimal digits; hint: `sha256sum FILE` prints them")?,
        ),
    };
    let folder = folders::data(args.folder.data.as_deref())?.join(source.name);
    eprintln!("{}: {}", source.name, source.terms);
    let mut transfer = Transfer::new(cancel);
    let mirror = Mirror { base: args.from.clone(), checksum };
    let done = outcome(fetch_dataset(source, &folder, &mirror, &mut |progress| transfer.report(progress)))?;
    drop(transfer);
    let name = source.name;
    if let Origin::Inside = source.origin {
        return Ok(format!("`{name}` is inside the program\n"));
    }
    let what = match (done.downloaded, done.unpacked) {
        (0, false) => "was there already".to_owned(),
        (0, true) => "unpacked from the archive that was there".to_owned(),
        (bytes, _) => format!("{} bytes downloaded, checksum right", thousands(usize::try_from(bytes)?)),
    };
    Ok(format!("{}: {what}; `quee data verify {name}` checks all files\n", folder.display()))
}

fn check(args: &VerifyArgs) -> Result<String> {
    let source = sources::find(&args.name)?;
    let data = folders::data(args.folder.data.as_deref())?;
    let report = verify(source, &data)?;
    let text = describe(source, &report);
    if report.broken() {
        bail!("`{}` is broken\n{text}hint: remove the files named, and fetch them again", source.name);
    }
    Ok(text)
}

fn describe(source: &Source, report: &Report) -> String {
    let mut text = match &report.place {
        Some(place) => format!("{}: {}\n", source.name, place.display()),
        None => format!("{}: inside the program\n", source.name),
    };
    for (name, state) in &report.files {
        let state = match state {
            FileState::Matches(algorithm) => format!("{algorithm} right"),
            FileState::Differs { algorithm, expected, found } => {
                format!("DIFFERS: {algorithm} is {found}, expected {expected}")
            }
            FileState::Missing => "MISSING".into(),
            FileState::NoReference => "no checksum is known, structure only".into(),
        };
        text += &format!("  {name:40} {state}\n");
    }
    match &report.structure {
        Err(error) => text += &format!("  UNREADABLE: {error}\n"),
        Ok(PartSizes { train, test }) => {
            text += &format!("  {} training and {} test pictures", thousands(*train), thousands(*test));
            text += &report.subset(source).map_or(", complete\n".into(), |subset| format!("\n  {subset}\n"));
        }
    }
    text
}
