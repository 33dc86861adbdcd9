//! Which places run one step wider than the rest.

use anyhow::{Result, bail};
use quee_backbone::cost::{BackboneCost, OpKind};
use quee_backbone::params::AttentionOperand;
use quee_backbone::{Backbone, Wider};
use quee_quant::Width;

/// Bits of a step.
const STEP: u8 = 2;
/// Most bits of an integer.
const MOST: u8 = 8;

/// One step wider, where there is one.
pub fn steps(width: Width) -> Option<Width> {
    let more = |bits: u8| (bits + STEP).min(MOST);
    let wider = Width::new(more(width.weight_bits()), more(width.act_bits())).ok()?;
    (!width.is_float() && wider != width).then_some(wider)
}

/// Names of all places where values are quantized: linear layers, and the operands of attention.
pub fn sites(cost: &BackboneCost) -> Vec<String> {
    let mut sites = Vec::new();
    // Classifiers are in floats.
    for op in std::iter::once(&cost.stem).chain(&cost.blocks).flat_map(|part| &part.ops) {
        let operand = |operand: AttentionOperand| operand.site(&op.site);
        match (op.kind, op.op) {
            (OpKind::Linear, _) => sites.push(op.site.clone()),
            (OpKind::Product, "attention_scores") => {
                sites.extend([AttentionOperand::Query, AttentionOperand::Key].map(operand));
            }
            (OpKind::Product, _) => {
                sites.extend([AttentionOperand::Value, AttentionOperand::Probabilities].map(operand))
            }
            _ => {}
        }
    }
    sites
}

/// The widths of the places that `patterns` name, in which `*` stands for any letters, when the program runs at one of `widths`.
///
/// # Errors
/// When a pattern names no place.
pub fn wider(patterns: &[String], backbone: &dyn Backbone, widths: &[Width]) -> Result<Wider> {
    let mut wider = Wider::default();
    if patterns.is_empty() {
        return Ok(wider);
    }
    let sites = sites(&BackboneCost::count(backbone)?);
    for pattern in patterns {
        let chosen: Vec<&String> = sites.iter().filter(|site| matches(pattern, site)).collect();
        if chosen.is_empty() {
            let some: Vec<&str> = sites.iter().map(String::as_str).take(8).collect();
            bail!(
                "`quant.wider`: `{pattern}` is no place of `{}`; hint: it has {} …, and `*` stands for any letters; `quee quantize RECIPE \
                 --sensitivity` lists all",
                backbone.name(),
                some.join(", ")
            );
        }
        for (site, &width) in chosen.into_iter().flat_map(|site| widths.iter().map(move |width| (site, width))) {
            if let Some(actual) = steps(width) {
                wider.set(site, width, actual);
            }
        }
    }
    Ok(wider)
}

/// Whether `pattern`, in which `*` stands for any letters, is all of `name`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).filter(|&at| name.is_char_boundary(at)).any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quee_backbone::presets;

    fn width(text: &str) -> Width {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, is) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.c", "a.b.c", true),
            ("a*b*c", "a.b.c", true),
            ("a*b*c", "a.c.b", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn a_step_is_two_bits_up_to_eight() {
        assert_eq!(steps(width("w4a4")), Some(width("w6a6")));
        assert_eq!(steps(width("w7a3")), Some(width("w8a5")));
        assert_eq!(steps(width("w8a8")), None);
        assert_eq!(steps(Width::FLOAT), None);
    }

    #[test]
    fn every_place_of_a_backbone_can_be_named() {
        let backbone = presets::find("vit_d6_w80_p2_8").unwrap().skeleton(10);
        let sites = sites(&BackboneCost::count(&*backbone).unwrap());
        assert_eq!(sites.len(), 1 + 6 * 8);
        let wider =
            wider(&["blocks.0.*".into(), "*.softmax".into()], &*backbone, &[width("w3a3"), width("w8a8")]).unwrap();
        assert_eq!(wider.sites().count(), 8 + 5);
        assert_eq!(wider.at("blocks.0.mlp.fc2", width("w3a3")), width("w5a5"));
        assert_eq!(wider.at("blocks.0.mlp.fc2", width("w8a8")), width("w8a8"));
        assert_eq!(wider.at("blocks.1.mlp.fc2", width("w3a3")), width("w3a3"));
        let message = super::wider(&["nowhere".into()], &*backbone, &[]).unwrap_err().to_string();
        assert!(message.contains("`nowhere` is no place") && message.contains("blocks.0"), "{message}");
    }
}
