//! `quee weights`: list and fetch published weights.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use quee_data::fetch::weights::{Compared, PUBLISHED, find};
use quee_data::fetch::{Downloaded, fetch_weights, weights_file};

use crate::cancel::Cancel;
use crate::folders;
use crate::transfer::{Transfer, outcome};

/// What to do with published weights.
#[derive(Subcommand)]
pub enum WeightsCommand {
    /// List the published weights, by timm name
    List(Folder),
    /// Download the weights of a backbone, where `quee run` finds them
    Fetch(FetchArgs),
}

/// Where the weights are.
#[derive(Args)]
pub struct Folder {
    /// Folder of all data sets, weights below it in weights/ [default: QUEE_DATA, or the user's data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What to fetch.
#[derive(Args)]
pub struct FetchArgs {
    /// Name of the backbone, as `quee weights list` has it
    name: String,
    #[command(flatten)]
    folder: Folder,
    /// Mirror: address of a folder that holds the file under its official name
    #[arg(long, value_name = "URL")]
    from: Option<String>,
}

/// Carries out a command; what to print.
///
/// # Errors
/// When something cannot be fetched.
pub fn run(command: &WeightsCommand, cancel: &Cancel) -> Result<String> {
    match command {
        WeightsCommand::List(folder) => list(folder),
        WeightsCommand::Fetch(args) => fetch(args, cancel),
    }
}

fn list(folder: &Folder) -> Result<String> {
    let folder = folders::weights(folder.data.as_deref())?;
    let mut text = format!("{:32} {:16}  where\n", "name", "checksum");
    for weights in PUBLISHED {
        let checksum = match &weights.checksum {
            Some(checksum) if checksum.hex.len() == 64 => "sha256",
            Some(_) => "sha256, 8 digits",
            None => "none published",
        };
        let place = weights_file(&folder, weights.name);
        let place = place.map_or(format!("{}/{}", weights.base, weights.file), |path| path.display().to_string());
        writeln!(text, "{:32} {checksum:16}  {place}", weights.name)?;
    }
    Ok(text)
}

fn fetch(args: &FetchArgs, cancel: &Cancel) -> Result<String> {
    let weights = find(&args.name)?;
    let folder = folders::weights(args.folder.data.as_deref())?;
    eprintln!("{}: {}", weights.name, weights.terms);
    let mut transfer = Transfer::new(cancel);
    let done =
        outcome(fetch_weights(weights, &folder, args.from.as_deref(), &mut |progress| transfer.report(progress)))?;
    drop(transfer);
    let how = match done.outcome {
        Downloaded::AlreadyThere => "was there already",
        Downloaded::Fresh { .. } => "downloaded",
    };
    let compared = match done.compared {
        Compared::Published => "as published".into(),
        Compared::Noted => "as noted at the first download".into(),
        Compared::Nothing => {
            format!("not compared: none is published; noted in {}.sha256 for the next time", done.path.display())
        }
    };
    Ok(format!("{}: {how}\nsha256 {} ({compared})\n", done.path.display(), done.sha256))
}
