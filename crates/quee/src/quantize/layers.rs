//! Weights, biases and changed normalisations of linear layers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use quee_backbone::layers::linears;
use quee_backbone::{Backbone, ExecError, LayerPlan, LayerWeight, QuantPlan};
use quee_quant::gptq::gptq;
use quee_quant::{ActQuantizer, QuantWeight, Width};
use quee_train::capture::{LayerSample, Moments};
use rayon::prelude::*;

use crate::recipe::{Quant, Rounding};

/// How the inputs of a layer are changed: `x ← (x − offset) / factor`, channel by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is subtracted, `[k]`.
    pub offset: Vec<f32>,
    /// What it is divided by then, `[k]`.
    pub factor: Vec<f32>,
}

/// Channels whose range is smaller than this share of the mean are widened less than it would take.
const LEAST_RANGE: f32 = 0.02;

impl Change {
    /// Brings every channel to the mean range, around 0 (Li et al., *RepQ-ViT*, section 3.2; there zero points of integers move, here real
    /// numbers do, so that one change serves all widths).
    fn equal_ranges(moments: &Moments) -> Self {
        let half: Vec<f32> = moments.hi.iter().zip(&moments.lo).map(|(hi, lo)| (hi - lo) / 2.0).collect();
        let mean = (half.iter().sum::<f32>() / half.len().max(1) as f32).max(f32::MIN_POSITIVE);
        let offset = moments.hi.iter().zip(&moments.lo).map(|(hi, lo)| (hi + lo) / 2.0).collect();
        let factor = half.iter().map(|half| (half / mean).max(LEAST_RANGE)).collect();
        Self { offset, factor }
    }

    /// Rows `[m, k]` after the change.
    pub fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let k = self.offset.len().max(1);
        let row = |row: &[f32]| -> Vec<f32> {
            row.iter().zip(self.offset.iter().zip(&self.factor)).map(|(x, (o, f))| (x - o) / f).collect()
        };
        rows.chunks_exact(k).flat_map(row).collect()
    }

    /// Sums over rows after the change.
    fn moments(&self, moments: &Moments) -> Moments {
        let k = self.offset.len();
        let (o, f) = (|i: usize| f64::from(self.offset[i]), |i: usize| f64::from(self.factor[i]));
        let (count, sum) = (moments.count as f64, &moments.sum);
        let gram = |i: usize, j: usize| {
            let products = moments.gram[i * k + j] - o(i) * sum[j] - o(j) * sum[i] + count * o(i) * o(j);
            products / (f(i) * f(j))
        };
        Moments {
            count: moments.count,
            sum: (0..k).map(|i| (sum[i] - count * o(i)) / f(i)).collect(),
            gram: (0..k * k).map(|at| gram(at / k, at % k)).collect(),
            lo: self.apply(&moments.lo),
            hi: self.apply(&moments.hi),
        }
    }
}

/// The layers whose normalisation is changed, by site.
pub fn changed_norms(quant: &Quant, layers: &[LayerSample]) -> BTreeMap<String, Change> {
    if !matches!(quant.activations, ActQuantizer::Repq | ActQuantizer::Combined) {
        return BTreeMap::new();
    }
    let with_norm = layers.iter().filter(|sample| sample.norm.is_some());
    with_norm.map(|sample| (sample.linear.site.clone(), Change::equal_ranges(&sample.moments))).collect()
}

/// Puts weights and biases into `plan`, of all layers where rounding or biases are fitted, else of those that are changed.
pub fn weights(
    quant: &Quant,
    layers: &[LayerSample],
    changed: &BTreeMap<String, Change>,
    bits: &[u8],
    plan: &mut QuantPlan,
) {
    let fitted = quant.rounding != Rounding::Nearest || quant.bias_correction;
    let chosen: Vec<&LayerSample> =
        layers.iter().filter(|sample| fitted || changed.contains_key(&sample.linear.site)).collect();
    let made: Vec<LayerPlan> =
        chosen.par_iter().map(|sample| layer(quant, sample, changed.get(&sample.linear.site), bits)).collect();
    for (sample, layer) in chosen.iter().zip(made) {
        plan.set_layer(&sample.linear.site, layer);
    }
}

/// Puts the codes of all other layers into `plan`, simply rounded, at the bits that `widths` come to. The classifier stays in floats.
///
/// # Errors
/// When the program of the backbone fails.
pub fn store(plan: &mut QuantPlan, backbone: &dyn Backbone, widths: &[Width]) -> Result<(), ExecError> {
    for linear in linears(backbone)? {
        let site = &linear.site;
        if *site == backbone.head().site || plan.layers().any(|(known, _)| known == site) {
            continue;
        }
        let mut layer = LayerPlan::default();
        for &width in widths {
            for bits in [width.weight_bits(), plan.width_at(site, width).weight_bits()] {
                if let Entry::Vacant(free) = layer.weights.entry(bits) {
                    free.insert(plan.weight(&linear, bits)?);
                }
            }
        }
        plan.set_layer(site, layer);
    }
    Ok(())
}

fn layer(quant: &Quant, sample: &LayerSample, change: Option<&Change>, bits: &[u8]) -> LayerPlan {
    let linear = &sample.linear;
    let (n, k) = (linear.outputs, linear.inputs);
    let mut weight = linear.weight.data.to_vec();
    let mut bias = linear.bias.as_ref().map(|bias| bias.data.to_vec());
    let mut moments = None;
    let mut plan = LayerPlan::default();
    if let Some(change) = change {
        // W x = (W ∘ factor) (x − offset) / factor + W offset.
        let bias = bias.get_or_insert_with(|| vec![0.0; n]);
        for (row, bias) in weight.chunks_exact_mut(k.max(1)).zip(bias) {
            let moved: f64 = row.iter().zip(&change.offset).map(|(w, o)| f64::from(*w) * f64::from(*o)).sum();
            *bias = (f64::from(*bias) + moved) as f32;
            row.iter_mut().zip(&change.factor).for_each(|(w, f)| *w *= f);
        }
        let norm = sample.norm.as_ref().expect("only layers with a normalisation are changed");
        let gain: Arc<[f32]> = norm.weight.data.iter().zip(&change.factor).map(|(gain, f)| gain / f).collect();
        plan.norm = Some([gain, change.apply(&norm.bias.data).into()]);
        plan.factors = Some(change.factor.clone().into());
        moments = Some(change.moments(&sample.moments));
    }
    let moments = moments.as_ref().unwrap_or(&sample.moments);
    for &bits in bits {
        let quantized = round(quant, &weight, n, k, bits, moments);
        let bias = if quant.bias_correction {
            let mut bias = bias.clone().unwrap_or_else(|| vec![0.0; n]);
            correct(&mut bias, &weight, &quantized, moments);
            Some(bias)
        } else {
            bias.clone()
        };
        plan.weights.insert(bits, Arc::new(LayerWeight { weight: quantized, bias: bias.map(Arc::from) }));
    }
    plan
}

fn round(quant: &Quant, weight: &[f32], n: usize, k: usize, bits: u8, moments: &Moments) -> QuantWeight {
    let nearest = QuantWeight::quantize(weight, n, k, bits, quant.weights);
    match quant.rounding {
        Rounding::Nearest => nearest,
        Rounding::Gptq => gptq(weight, n, k, bits, &nearest.scales, &moments.gram),
    }
}

/// Takes from the bias what rounding the weights adds to the mean output: `b ← b − (Ŵ − W) E[x]` (Nagel et al., *Data-Free Quantization*,
/// ICCV 2019, section 4.2).
fn correct(bias: &mut [f32], weight: &[f32], quantized: &QuantWeight, moments: &Moments) {
    let k = quantized.k.max(1);
    let count = moments.count.max(1) as f64;
    let rounded = quantized.dequantize();
    for (bias, (w, q)) in bias.iter_mut().zip(weight.chunks_exact(k).zip(rounded.chunks_exact(k))) {
        let added: f64 = w.iter().zip(q).zip(&moments.sum).map(|((w, q), sum)| f64::from(q - w) * sum / count).sum();
        *bias = (f64::from(*bias) - added) as f32;
    }
}

#[cfg(test)]
mod tests {
    use quee_quant::WeightQuantizer;

    use super::*;

    fn number(at: usize) -> f32 {
        ((at * 7919 + 13) % 10_007) as f32 / 5_000.0 - 1.0
    }

    fn rows(m: usize, k: usize) -> Vec<f32> {
        (0..m * k).map(|at| number(at) * (1 + at % k) as f32 + (at % k) as f32).collect()
    }

    #[test]
    fn changed_channels_have_one_range() {
        let (m, k) = (50, 6);
        let mut moments = Moments::new(k);
        moments.add(&rows(m, k));
        let change = Change::equal_ranges(&moments);
        let mut after = Moments::new(k);
        after.add(&change.apply(&rows(m, k)));
        for channel in 0..k {
            assert!((after.hi[channel] + after.lo[channel]).abs() < 1e-4, "{after:?}");
            assert!((after.hi[channel] - after.hi[0]).abs() < 1e-4, "{after:?}");
        }
        let known = change.moments(&moments);
        assert_eq!(known.count, after.count);
        assert!(known.sum.iter().zip(&after.sum).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!(known.gram.iter().zip(&after.gram).all(|(a, b)| (a - b).abs() < 1e-3 * a.abs().max(1.0)));
    }

    #[test]
    fn a_corrected_bias_keeps_the_mean_output() {
        let (m, n, k) = (40, 3, 8);
        let x = rows(m, k);
        let mut moments = Moments::new(k);
        moments.add(&x);
        let weight: Vec<f32> = (0..n * k).map(|at| number(at + 5)).collect();
        let quantized = QuantWeight::quantize(&weight, n, k, 3, WeightQuantizer::Absmax);
        let mut bias = vec![0.25; n];
        correct(&mut bias, &weight, &quantized, &moments);
        let mean = |weight: &[f32], bias: &[f32], j: usize| -> f64 {
            let of = |row: &[f32]| -> f64 { row.iter().zip(&weight[j * k..]).map(|(a, b)| f64::from(a * b)).sum() };
            x.chunks(k).map(of).sum::<f64>() / m as f64 + f64::from(bias[j])
        };
        for j in 0..n {
            let (want, got) = (mean(&weight, &[0.25; 3], j), mean(&quantized.dequantize(), &bias, j));
            assert!((want - got).abs() < 1e-4, "{want} {got}");
            assert!((want - mean(&quantized.dequantize(), &[0.25; 3], j)).abs() > 1e-2);
        }
    }
}
