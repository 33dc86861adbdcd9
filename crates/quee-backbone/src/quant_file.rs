//! Quantizers in files: the small part as notes in JSON, codes and changed parameters as tensors.
//!
//! Of the linear layer at `SITE`, under a prefix: `SITE.w<bits>.codes` (32-bit words, [packed](quee_quant::packing), as many bits for each code as it
//! has), `SITE.w<bits>.scales` `[n]`, `SITE.w<bits>.bias` `[n]` where there is one. Where the normalisation before the layer is changed,
//! `SITE.norm.gain` and `SITE.norm.offset` `[k]`, and `SITE.norm.factors` `[k]`, by which the input channels of the weight were multiplied.

use std::collections::BTreeMap;
use std::sync::Arc;

use quee_quant::{ActQuantizer, QuantWeight, SiteQuant, WeightQuantizer, packing};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::quant_plan::{LayerPlan, LayerWeight, QuantPlan, Wider};
use crate::tensor_file::TensorData;

/// The part of a plan that goes into notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanNotes {
    /// How weights get their scales.
    pub weights: WeightQuantizer,
    /// How activations get their scales and zero points.
    pub activations: ActQuantizer,
    /// Quantizers of each site.
    pub sites: BTreeMap<String, Vec<SiteQuant>>,
    /// Sites that run at other widths.
    pub wider: Wider,
    /// Layers whose tensors are in the file.
    pub layers: BTreeMap<String, LayerNotes>,
}

/// What is needed to find a layer's tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNotes {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// Whether the normalisation before it is changed.
    pub norm: bool,
    /// Whether it has a bias.
    pub bias: bool,
    /// Numbers of weight bits.
    pub bits: Vec<u8>,
}

impl QuantPlan {
    /// Appends the tensors of the plan, with names that begin with `prefix`; the rest as notes.
    pub fn store(&self, prefix: &str, tensors: &mut Vec<TensorData>) -> PlanNotes {
        let mut layers = BTreeMap::new();
        for (site, layer) in self.layers() {
            if let Some(changed) = &layer.norm {
                for (name, values) in ["gain", "offset", "factors"].iter().zip(changed.iter().chain(&layer.factors)) {
                    let name = format!("{prefix}{site}.norm.{name}");
                    tensors.push(TensorData::f32(name, vec![values.len()], values.iter().copied()));
                }
            }
            let mut notes = LayerNotes { n: 0, k: 0, norm: layer.norm.is_some(), bias: false, bits: Vec::new() };
            for (&bits, LayerWeight { weight, bias }) in layer.weights.iter().map(|(bits, weight)| (bits, &**weight)) {
                let name = |part: &str| format!("{prefix}{site}.w{bits}.{part}");
                let words = packing::pack(weight.n, weight.k, bits, &weight.codes);
                tensors.push(TensorData::u32(name("codes"), vec![words.len()], words));
                tensors.push(TensorData::f32(name("scales"), vec![weight.n], weight.scales.iter().copied()));
                if let Some(bias) = bias {
                    tensors.push(TensorData::f32(name("bias"), vec![weight.n], bias.iter().copied()));
                }
                (notes.n, notes.k, notes.bias) = (weight.n, weight.k, bias.is_some());
                notes.bits.push(bits);
            }
            layers.insert(site.to_owned(), notes);
        }
        PlanNotes {
            weights: self.weights,
            activations: self.activations,
            sites: self.sites().map(|(site, quants)| (site.to_owned(), quants.values().copied().collect())).collect(),
            wider: self.wider().clone(),
            layers,
        }
    }

    /// Reads a plan back: takes its tensors out of `file`.
    ///
    /// # Errors
    /// When a tensor is missing or does not fit, or holds what cannot be.
    pub fn load(notes: PlanNotes, prefix: &str, file: &mut Checkpoint) -> Result<Self, CheckpointError> {
        let PlanNotes { weights, activations, sites, wider, layers } = notes;
        let mut plan = Self::new(weights, activations);
        for (site, quants) in sites {
            quants.into_iter().for_each(|quant| plan.set_site(&site, quant));
        }
        plan.set_wider(wider.checked());
        for (site, LayerNotes { n, k, norm, bias, bits }) in layers {
            let mut layer = LayerPlan::default();
            if norm {
                let mut take = |part: &str| file.take(&format!("{prefix}{site}.norm.{part}"), &[k]);
                layer.norm = Some([take("gain")?, take("offset")?]);
                layer.factors = Some(take("factors")?);
            }
            for bits in bits {
                let name = |part: &str| format!("{prefix}{site}.w{bits}.{part}");
                let damaged = |reason: &str| CheckpointError::Format {
                    origin: file.origin().to_owned(),
                    format: "quantized weights",
                    reason: format!("`{}`: {reason}", name("codes")),
                    hint: "quantize again",
                };
                let size =
                    k.checked_add(packing::BLOCK).and_then(|k| n.checked_mul(k)).and_then(|size| size.checked_mul(8));
                if size.is_none() || !(2..=8).contains(&bits) {
                    return Err(damaged("shape or bits out of range"));
                }
                let wrong = damaged("scales must be positive numbers");
                let words = file.take_words(&name("codes"), &[packing::words(n, k, bits)])?;
                let scales = file.take(&name("scales"), &[n])?.to_vec();
                if !scales.iter().all(|&scale| scale > 0.0) {
                    return Err(wrong);
                }
                let codes = packing::unpack(n, k, bits, &words);
                let bias = if bias { Some(file.take(&name("bias"), &[n])?) } else { None };
                let weight = QuantWeight::from_codes(n, k, bits, codes, scales);
                layer.weights.insert(bits, Arc::new(LayerWeight { weight, bias }));
            }
            plan.set_layer(&site, layer);
        }
        Ok(plan)
    }
}
