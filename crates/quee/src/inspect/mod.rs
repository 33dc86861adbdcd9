//! `quee inspect backbone`: the program of a backbone, operation by operation. `quee inspect quant`: its quantizers, place by place.

mod quant;
mod subject;
mod text;

use std::path::Path;

use anyhow::Result;
use clap::{Args, Subcommand};
use quee_backbone::cost::{BackboneCost, OpCost, OpKind, PartCost};
use quee_backbone::presets;
use quee_quant::Width;
use serde::Serialize;

use subject::Subject;
pub use subject::usual_classes;

/// What to look at.
#[derive(Subcommand)]
pub enum InspectCommand {
    /// Print the operations of a backbone: shapes, parameters, multiply-accumulates, what is quantized
    Backbone(BackboneArgs),
    /// Print where a backbone is quantized, at which bits and steps, and how well that holds the values
    Quant(quant::QuantArgs),
}

/// Which backbone.
#[derive(Args)]
pub struct BackboneArgs {
    /// Name of a preset, e.g. vit_tiny_patch16_224, or a safetensors or PyTorch file
    #[arg(value_name = "NAME|FILE")]
    what: String,
    /// Side of the square pictures in pixels [default: the preset's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2048))]
    image: Option<u16>,
    /// Classes [default: those of the file; of a preset 10 below 64 pixels, else 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classes: Option<u32>,
    /// Print JSON, every block on its own
    #[arg(long)]
    json: bool,
}

/// Carries a command out; the text to print.
///
/// # Errors
/// When there is no such preset, file or folder, or what is there does not fit.
pub fn run(command: &InspectCommand) -> Result<String> {
    let args = match command {
        InspectCommand::Backbone(args) => args,
        InspectCommand::Quant(args) => return quant::run(args),
    };
    let image = args.image.map(usize::from);
    let classes = args.classes.map(|classes| classes as usize);
    // A preset wins over a file of the same name: `./NAME` is always the file.
    let subject = match presets::find(&args.what) {
        Ok(preset) => subject::of_preset(&preset, image, classes)?,
        Err(unknown) => subject::of_file(Path::new(&args.what), unknown, image, classes)?,
    };
    let inspection = Inspection::new(&subject);
    if args.json { Ok(serde_json::to_string_pretty(&inspection)? + "\n") } else { Ok(text::text(&inspection)) }
}

/// Widths of stem and blocks in the totals.
fn totals_width() -> Width {
    Width::new(8, 8).expect("8 bits are a width")
}

/// A backbone as it is printed.
#[derive(Serialize)]
struct Inspection {
    /// Presets; more than one where a file fits several.
    backbone: Vec<Named>,
    /// The file and the key inside it.
    file: Option<String>,
    image: [usize; 3],
    classes: usize,
    parts: Vec<Part>,
    totals: Totals,
}

/// A preset and how it wants its pictures.
#[derive(Serialize)]
struct Named {
    name: String,
    mean: Vec<f32>,
    std: Vec<f32>,
    crop: f32,
}

/// Stem, block or head.
#[derive(Serialize)]
struct Part {
    name: String,
    parameters: u64,
    macs: u64,
    operations: Vec<Operation>,
}

/// One operation, per picture.
#[derive(Clone, PartialEq, Serialize)]
struct Operation {
    operation: &'static str,
    site: String,
    input: Vec<usize>,
    output: Vec<usize>,
    parameters: u64,
    macs: u64,
    arithmetic: Arithmetic,
}

/// What an operation computes with, at widths below float.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Arithmetic {
    /// Quantized activations times quantized weights.
    QuantizedWeights,
    /// Quantized activations times quantized activations.
    QuantizedActivations,
    /// 32-bit floats.
    Float,
    /// None: values change their place.
    None,
}

/// The whole backbone, per picture. Stem and blocks are quantized; the head is not, as exits are not.
#[derive(Serialize)]
struct Totals {
    parameters: u64,
    macs: u64,
    /// Of operations that are quantized.
    quantized_macs: u64,
    gbops_w8a8: f64,
    gbops_float: f64,
    /// Bytes of the parameters where quantized weights have so many bits.
    bytes_4_bits: u64,
    bytes_8_bits: u64,
    bytes_32_bits: u64,
}

impl Inspection {
    fn new(subject: &Subject) -> Self {
        let Subject { presets, file, cost, image } = subject;
        let names = ["stem".to_owned()].into_iter().chain((0..cost.blocks.len()).map(|l| format!("block {l}")));
        let quantized = names.zip(cost.parts()).map(|(name, part)| Part::new(name, part, true));
        Self {
            backbone: presets.iter().map(Named::new).collect(),
            file: file.clone(),
            image: *image,
            classes: cost.classes(),
            parts: quantized.chain([Part::new("head".into(), &cost.head, false)]).collect(),
            totals: Totals::new(cost),
        }
    }
}

impl Named {
    fn new(preset: &presets::Preset) -> Self {
        let (mean, std) = (preset.mean.to_vec(), preset.std.to_vec());
        Self { name: preset.name.to_owned(), mean, std, crop: preset.crop }
    }
}

impl Part {
    fn new(name: String, cost: &PartCost, quantized: bool) -> Self {
        let operations = cost.ops.iter().map(|op| Operation::new(op, quantized)).collect();
        Self { name, parameters: cost.parameters(), macs: cost.macs(), operations }
    }
}

impl Operation {
    fn new(op: &OpCost, quantized: bool) -> Self {
        Self {
            operation: op.op,
            site: op.site.clone(),
            input: op.input.clone(),
            output: op.output.clone(),
            parameters: op.weights + op.others,
            macs: op.macs,
            arithmetic: match op.kind {
                OpKind::Move => Arithmetic::None,
                OpKind::Linear if quantized => Arithmetic::QuantizedWeights,
                OpKind::Product if quantized => Arithmetic::QuantizedActivations,
                _ => Arithmetic::Float,
            },
        }
    }
}

impl Totals {
    fn new(cost: &BackboneCost) -> Self {
        let body: Vec<&PartCost> = cost.parts().take(1 + cost.blocks.len()).collect();
        let quantized = body.iter().flat_map(|part| &part.ops).filter(|op| op.kind.is_quantized());
        let bops = |width| body.iter().map(|part| part.bops(width)).sum::<u64>() + cost.head.bops(Width::FLOAT);
        let bytes =
            |bits| body.iter().map(|part| part.parameter_bytes(bits)).sum::<u64>() + cost.head.parameter_bytes(32);
        Self {
            parameters: cost.parameters(),
            macs: cost.macs(),
            quantized_macs: quantized.map(|op| op.macs).sum(),
            gbops_w8a8: bops(totals_width()) as f64 / 1e9,
            gbops_float: bops(Width::FLOAT) as f64 / 1e9,
            bytes_4_bits: bytes(4),
            bytes_8_bits: bytes(8),
            bytes_32_bits: bytes(32),
        }
    }
}

#[cfg(test)]
mod tests;
