//! The inspection as a table.

use super::{Arithmetic, Inspection, Named, Operation, Part, Totals};
use crate::report::text::count;

/// The whole text.
pub fn text(inspection: &Inspection) -> String {
    let [channels, height, width] = inspection.image;
    let names: Vec<&str> = inspection.backbone.iter().map(|b| b.name.as_str()).collect();
    let mut out = match &inspection.file {
        Some(file) => format!("{file}\n{}", names.join(" or ")),
        None => names.join(" or "),
    };
    out += &format!(": pictures {channels}×{height}×{width}, {} classes; figures per picture\n", inspection.classes);
    if let [_, _, ..] = inspection.backbone[..] {
        out += "These presets have the same tensors and operations; their pictures differ:\n";
        inspection.backbone.iter().for_each(|named| out += &pictures(named));
    }
    let groups = grouped(&inspection.parts);
    let rows: Vec<(String, Vec<[String; 6]>)> =
        groups.iter().map(|group| (title(group), group.operations.iter().map(row).collect())).collect();
    let mut widths = HEADER.map(|text| text.chars().count());
    for cells in rows.iter().flat_map(|(_, rows)| rows) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    out += &format!("\n{}", line(&HEADER.map(str::to_owned), &widths));
    for (title, rows) in &rows {
        out += &format!("{title}\n");
        rows.iter().for_each(|row| out += &line(row, &widths));
    }
    out + "\n" + &totals(&inspection.totals)
}

const HEADER: [&str; 6] = ["operation", "place", "input → output", "parameters", "MACs", "computes with"];

/// Consecutive blocks with the same operations.
struct Group {
    first: usize,
    last: usize,
    name: String,
    parameters: u64,
    macs: u64,
    /// Of one block; places without the block's own name.
    operations: Vec<Operation>,
}

/// Stem, blocks and head, equal blocks together.
fn grouped(parts: &[Part]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for part in parts {
        let block = part.name.strip_prefix("block ").and_then(|index| index.parse::<usize>().ok());
        let mut operations = part.operations.clone();
        if let Some(index) = block {
            operations.iter_mut().for_each(|op| op.site = within_block(&op.site, index));
        }
        match (groups.last_mut(), block) {
            (Some(last), Some(index)) if last.name == "block" && last.operations == operations => last.last = index,
            _ => {
                let (first, name) = (block.unwrap_or(0), block.map_or(part.name.clone(), |_| "block".to_owned()));
                let (parameters, macs) = (part.parameters, part.macs);
                groups.push(Group { first, last: first, name, parameters, macs, operations });
            }
        }
    }
    groups
}

/// What follows the block's number in a name: `attn.qkv` of `blocks.3.attn.qkv`.
fn within_block(site: &str, index: usize) -> String {
    let number = format!(".{index}.");
    site.split_once(&number).map_or(site, |(_, rest)| rest).to_owned()
}

fn title(group: &Group) -> String {
    let name = match (group.name.as_str(), group.last - group.first) {
        ("block", 0) => format!("block {}", group.first),
        ("block", _) => format!("blocks {}–{}, each", group.first, group.last),
        (name, _) => name.to_owned(),
    };
    format!("{name}: {} parameters, {} MACs", number(group.parameters), number(group.macs))
}

fn row(op: &Operation) -> [String; 6] {
    let shape = |axes: &[usize]| axes.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let some = |n: u64| if n == 0 { String::new() } else { number(n) };
    let arithmetic = match op.arithmetic {
        Arithmetic::QuantizedWeights => "integers: activations × weights",
        Arithmetic::QuantizedActivations => "integers: activations × activations",
        Arithmetic::Float => "floats",
        Arithmetic::None => "",
    };
    [
        op.operation.to_owned(),
        op.site.clone(),
        format!("{} → {}", shape(&op.input), shape(&op.output)),
        some(op.parameters),
        some(op.macs),
        arithmetic.to_owned(),
    ]
}

/// One row, figures to the right.
fn line(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let mut out = String::from(" ");
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let pad = " ".repeat(width - cell.chars().count());
        let figures = (3..5).contains(&column);
        out += &if figures { format!(" {pad}{cell} ") } else { format!(" {cell}{pad} ") };
    }
    out.trim_end().to_owned() + "\n"
}

fn pictures(named: &Named) -> String {
    format!("  {}: mean {:?}, deviation {:?}, centre crop {}\n", named.name, named.mean, named.std, named.crop)
}

fn totals(totals: &Totals) -> String {
    let share = 100.0 * totals.quantized_macs as f64 / totals.macs.max(1) as f64;
    format!(
        "total: {} parameters, {} MACs, {share:.2}% of them in integers at widths below float\n\
         bit operations: {:.4} G with stem and blocks at w8a8 and the head in floats, {:.4} G in floats\n\
         bytes of the parameters: {} with weights of stem and blocks in 4 bits, {} in 8, {} in floats; scales are not counted\n",
        number(totals.parameters),
        number(totals.macs),
        totals.gbops_w8a8,
        totals.gbops_float,
        number(totals.bytes_4_bits),
        number(totals.bytes_8_bits),
        number(totals.bytes_32_bits),
    )
}

fn number(n: u64) -> String {
    usize::try_from(n).map_or_else(|_| n.to_string(), count)
}
