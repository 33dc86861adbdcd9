//! `quee inspect quant`: quantizers, place by place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use quee_quant::{SiteQuant, Width};

use crate::quantize::file::{Notes, Quantizers};

/// Which quantizers.
#[derive(Args)]
pub struct QuantArgs {
    /// Results folder of a run, or a file that `quee quantize` has written
    #[arg(value_name = "DIR|FILE")]
    what: PathBuf,
    /// Print JSON, all that is known
    #[arg(long)]
    json: bool,
}

/// The text to print.
///
/// # Errors
/// When there are no quantizers at that place, or they are damaged.
pub fn run(args: &QuantArgs) -> Result<String> {
    let notes = read(&args.what)?;
    if args.json { Ok(serde_json::to_string_pretty(&notes)? + "\n") } else { Ok(text(&notes)) }
}

fn read(what: &Path) -> Result<Notes> {
    if !what.is_dir() {
        return Ok(Quantizers::read(what)?.notes(&mut Vec::new()));
    }
    let path = what.join("quant.json");
    let file = path.display();
    ensure!(
        path.is_file(),
        "{file}: no such file; hint: name the results folder of a finished run, e.g. runs/digits/latest"
    );
    let text = std::fs::read_to_string(&path).with_context(|| format!("{file}: cannot read"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{file}: damaged or of another version; hint: run the recipe again"))
}

fn text(notes: &Notes) -> String {
    let Notes { origin, plan, activation_quality, weight_quality } = notes;
    let widths: Vec<String> = origin.widths.iter().map(Width::to_string).collect();
    let mut out = format!(
        "{}, weights {} (sha256 {}…)\nquantizers: weights {:?}, rounding {:?}, bias correction {}, activations {:?}; {}\ncalibration pictures: {} of {}\n",
        origin.backbone,
        origin.weights,
        &origin.fingerprint[..origin.fingerprint.len().min(12)],
        plan.weights,
        origin.settings.rounding,
        origin.settings.bias_correction,
        plan.activations,
        widths.join(", "),
        origin.pictures.len(),
        origin.dataset
    );
    out += "\nActivations, signal to noise in dB\n";
    out += &format!("  {:30}  {:4}  {:>7}  {}\n", "place", "bits", "dB", "quantizer");
    for (site, of_site) in activation_quality {
        for (bits, decibels) in of_site {
            let quant = plan.sites.get(site).and_then(|quants| quants.iter().find(|quant| quant.bits() == *bits));
            let quant = quant.map_or_else(|| "per token at run time".to_owned(), described);
            out += &format!("  {site:30}  {bits:4}  {decibels:7.2}  {quant}\n");
        }
    }
    let wider: BTreeSet<&str> = plan.wider.sites().collect();
    if !wider.is_empty() {
        out += "\nPlaces at other widths\n";
        for site in wider {
            let changes = origin.widths.iter().filter(|&&width| plan.wider.at(site, width) != width);
            let changes: Vec<String> =
                changes.map(|&width| format!("{} for {width}", plan.wider.at(site, width))).collect();
            out += &format!("  {site:30}  {}\n", changes.join(", "));
        }
    }
    if weight_quality.is_empty() {
        return out
            + "\nWeights are rounded when they are first used; `quee quantize --out FILE` stores and measures them.\n";
    }
    out += "\nWeights, signal to noise in dB\n";
    out += &format!("  {:30}  {:>11}  {:4}  {:>7}\n", "layer", "shape", "bits", "dB");
    for (site, of_site) in weight_quality {
        let shape = plan.layers.get(site).map_or_else(String::new, |layer| format!("{}x{}", layer.n, layer.k));
        let changed = plan.layers.get(site).is_some_and(|layer| layer.norm);
        for (bits, decibels) in of_site {
            let said = if changed { "  with a changed normalisation" } else { "" };
            out += &format!("  {site:30}  {shape:>11}  {bits:4}  {decibels:7.2}{said}\n");
        }
    }
    out
}

/// A quantizer in words.
fn described(quant: &SiteQuant) -> String {
    match quant {
        SiteQuant::Uniform(quant) => {
            let (lo, hi) = (quant.value(quant.qmin as i8), quant.value(quant.qmax as i8));
            format!("steps of {:.4e} from {lo:.4} to {hi:.4}, zero point {}", quant.scale, quant.zero)
        }
        SiteQuant::Twin(twin) => {
            let where_small = if twin.signed { "below 0" } else { "near 0" };
            format!("steps of {:.4e} {where_small}, of {:.4e} elsewhere", twin.small, twin.large())
        }
        SiteQuant::LogSqrt2(log) => {
            format!("{} powers of the root of 2 from {:.4} down, and 0", log.codes(), log.scale)
        }
    }
}
