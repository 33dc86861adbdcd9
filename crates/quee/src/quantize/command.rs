//! `quee quantize`: quantizers of a backbone as a file, the places that lose most, quantizers beside each other.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quee_quant::{ActQuantizer, Width};

use super::{compare, sensitivity, speed, widths};
use crate::backend::Device;
use crate::cancel::Cancel;
use crate::output::print;
use crate::recipe::Recipe;
use crate::run::{Options, Quality, calibrate};
use crate::stages::prepare::prepare;

/// What to do with the quantizers of a recipe.
#[derive(Args)]
pub struct QuantizeArgs {
    /// File to write
    #[arg(long, value_name = "FILE", required_unless_present_any = ["sensitivity", "compare", "speed"])]
    out: Option<PathBuf>,
    /// Instead: measure what each place loses when it alone runs at a width and all others at w8a8
    #[arg(long, conflicts_with_all = ["out", "compare"])]
    sensitivity: bool,
    /// Instead: measure the accuracy of the static backbone with each quantizer, on pictures of test
    #[arg(long, conflicts_with = "out")]
    compare: bool,
    /// Instead: measure what each quantizer costs at run time, the first one being 1
    #[arg(long, conflicts_with_all = ["out", "compare", "sensitivity"])]
    speed: bool,
    /// Widths, e.g. w4a4,w4a8 [default: those of the recipe]
    #[arg(long, value_delimiter = ',', value_name = "WIDTHS")]
    widths: Vec<Width>,
    /// With --compare or --speed: quantizers of activations [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", conflicts_with_all = ["out", "sensitivity"], value_parser = names())]
    quantizers: Vec<ActQuantizer>,
    /// With --compare: draws of the calibration pictures
    #[arg(long, default_value_t = 3, value_name = "N", requires = "compare")]
    draws: usize,
    /// With --compare or --sensitivity: most pictures to measure on
    #[arg(long, value_name = "N")]
    pictures: Option<usize>,
    /// With --compare, --sensitivity or --speed: print CSV
    #[arg(long)]
    csv: bool,
}

/// Takes the names of recipes.
pub fn names() -> impl TypedValueParser<Value = ActQuantizer> {
    let of = |name: String| ActQuantizer::ALL.into_iter().find(|known| known.name() == name).expect("a listed name");
    PossibleValuesParser::new(ActQuantizer::ALL.map(ActQuantizer::name)).map(of)
}

/// Runs the command.
///
/// # Errors
/// When something from outside is missing or wrong, or on a wish to stop.
pub fn run(mut recipe: Recipe, options: &Options, args: &QuantizeArgs, cancel: &Cancel) -> Result<()> {
    if !args.widths.is_empty() {
        // Calibration and costs know the widths of the recipe, so these become the wanted ones.
        recipe.quant.widths.clone_from(&args.widths);
        recipe.quant.widths.sort();
        recipe.quant.widths.dedup();
        recipe.quant.static_widths.clear();
    }
    recipe.quant.file = PathBuf::new();
    ensure!(!widths(&recipe.quant).is_empty(), "no integer width; hint: name some with --widths or `quant.widths`");
    if args.sensitivity {
        return print(&sensitivity::measure(recipe, options, args.pictures, args.csv, cancel)?);
    }
    let quantizers = match &args.quantizers[..] {
        [] => &ActQuantizer::ALL,
        some => some,
    };
    if args.speed {
        return print(&speed::measure(&recipe, options, quantizers, args.csv, cancel)?);
    }
    if args.compare {
        let request = compare::Request { quantizers, draws: args.draws, pictures: args.pictures, csv: args.csv };
        return print(&compare::measure(&recipe, options, &request, cancel)?);
    }
    let out = args.out.as_ref().context("--out says where the file goes")?;
    let prepared = prepare(&recipe, options.data.as_deref(), options.weights.as_deref())?;
    let device = Device::open(recipe.backend, &recipe.gpu)?;
    let backbone = prepared.backbone.as_ref();
    let (mut stored, outcome) =
        calibrate(&recipe, &prepared, &device, Quality::Measured, cancel, &|text| eprintln!("{text}"))?;
    stored.complete(backbone)?;
    cancel.check()?;
    stored.write(out)?;
    let widths = widths(&recipe.quant);
    let float = stored.bytes(backbone, Width::FLOAT);
    let mut text = format!("{}: {}, {outcome}\n", out.display(), backbone.name());
    for width in widths {
        let bytes = stored.bytes(backbone, width);
        text += &format!("  {width}: {:.3} MB of {:.3} MB in float\n", bytes as f64 / 1e6, float as f64 / 1e6);
    }
    print(&text)
}
