//! How well codes hold what they stand for: signal to noise, in decibels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use quee_backbone::layers::linears;
use quee_backbone::params::AttentionOperand;
use quee_backbone::{
    Attention, Backbone, ExecError, Executor, Linear, Norm, QuantPlan, Value, forward_plain_operations,
};
use quee_cpu::{CpuEngine, Isa};
use quee_quant::{WeightQuantizer, Width, quantize_row_dynamic};

use super::file::Quality;

/// Sums of squares of values and of what quantizing adds to them.
#[derive(Clone, Copy, Debug, Default)]
struct Power {
    signal: f64,
    noise: f64,
}

impl Power {
    fn add(&mut self, x: f32, quantized: f32) {
        self.signal += f64::from(x).powi(2);
        self.noise += f64::from(quantized - x).powi(2);
    }

    /// Decibels; a place without noise has 999.
    fn decibels(self) -> f64 {
        if self.noise > 0.0 { 10.0 * (self.signal.max(f64::MIN_POSITIVE) / self.noise).log10() } else { 999.0 }
    }
}

/// Of every place where `plan` quantizes activations, on what comes to it in the float program, when that runs at `widths`.
///
/// # Errors
/// When the executor fails or a place was not calibrated.
pub fn activations(
    backbone: &dyn Backbone,
    plan: &QuantPlan,
    widths: &[Width],
    pictures: &[f32],
    batch: usize,
) -> Result<Quality> {
    let engine = CpuEngine::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Isa::best());
    let mut watch = Watch { inner: engine.executor(), plan, widths, powers: BTreeMap::new() };
    let [c, h, w] = backbone.image_shape();
    for batch in pictures.chunks(batch.max(1) * c * h * w) {
        let images = watch.input(&[batch.len() / (c * h * w), c, h, w], batch)?;
        // Classifiers are in floats.
        backbone.body(&mut watch, &images)?;
    }
    let decibels = |of_site: BTreeMap<u8, Power>| of_site.into_iter().map(|(bits, p)| (bits, p.decibels())).collect();
    Ok(watch.powers.into_iter().map(|(site, of_site)| (site, decibels(of_site))).collect())
}

struct Watch<'p> {
    inner: quee_cpu::CpuExecutor,
    plan: &'p QuantPlan,
    widths: &'p [Width],
    powers: BTreeMap<String, BTreeMap<u8, Power>>,
}

impl Watch<'_> {
    /// Rows that share a scale where it is dynamic.
    fn watch<'r>(&mut self, site: &str, rows: impl Iterator<Item = &'r [f32]> + Clone) -> Result<(), ExecError> {
        let of = |&width: &Width| self.plan.width_at(site, width).act_bits();
        let bits: BTreeSet<u8> = self.widths.iter().map(of).collect();
        for bits in bits {
            let fixed = self.plan.site(site, bits)?;
            let power = self.powers.entry(site.to_owned()).or_default().entry(bits).or_default();
            let mut codes = Vec::new();
            for row in rows.clone() {
                if let Some(quant) = fixed {
                    row.iter().for_each(|&x| power.add(x, quant.value(x)));
                    continue;
                }
                codes.resize(row.len(), 0);
                let (quant, _) = quantize_row_dynamic(row, bits, &mut codes);
                row.iter().zip(&codes).for_each(|(&x, &code)| power.add(x, quant.value(code)));
            }
        }
        Ok(())
    }
}

impl Executor for Watch<'_> {
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        "signal to noise".into()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let values = self.inner.read(x)?;
        self.watch(&linear.site, values.chunks_exact(linear.inputs.max(1)))?;
        self.inner.linear(x, linear)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let changed = self.plan.norm(&linear.site, norm);
        let normed = self.inner.layer_norm(x, changed.as_ref().unwrap_or(norm))?;
        let values = self.inner.read(&normed)?;
        self.watch(&linear.site, values.chunks_exact(linear.inputs.max(1)))?;
        self.inner.norm_linear(x, norm, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(qkv)?;
        let (heads, d) = (attention.heads, attention.head_dim);
        let tokens = self.inner.shape(qkv)?[1];
        for (third, operand) in [AttentionOperand::Query, AttentionOperand::Key].into_iter().enumerate() {
            let rows = values.chunks_exact(d).skip(third * heads).enumerate();
            let rows = rows.filter(|(at, _)| at % (3 * heads) < heads).map(|(_, row)| row);
            self.watch(&attention.operand_site(operand), rows)?;
        }
        // All tokens of a head share a scale.
        let mut gathered = Vec::with_capacity(values.len() / 3);
        for (sample, head) in values.chunks_exact(tokens * 3 * heads * d).flat_map(|s| (0..heads).map(move |h| (s, h)))
        {
            let token = |t: usize| &sample[(t * 3 + 2) * heads * d + head * d..][..d];
            (0..tokens).for_each(|t| gathered.extend_from_slice(token(t)));
        }
        self.watch(&attention.operand_site(AttentionOperand::Value), gathered.chunks_exact(tokens * d))?;
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(p)?;
        let tokens = self.inner.shape(p)?[3];
        self.watch(&attention.operand_site(AttentionOperand::Probabilities), values.chunks_exact(tokens))?;
        self.inner.attention_values(p, qkv, attention)
    }
}

/// Of the stored codes of weights. Of a layer whose normalisation is changed, the weights are compared with those that belong to it.
///
/// # Errors
/// When the program of the backbone fails.
pub fn weights(backbone: &dyn Backbone, plan: &QuantPlan) -> Result<Quality> {
    let layers: BTreeMap<&str, _> = plan.layers().collect();
    let mut quality = Quality::new();
    for linear in linears(backbone)? {
        let Some(layer) = layers.get(linear.site.as_str()) else { continue };
        for (&bits, stored) in &layer.weights {
            let k = stored.weight.k.max(1);
            let rows = stored.weight.dequantize();
            let mut power = Power::default();
            for (at, (&q, &w)) in rows.iter().zip(&*linear.weight.data).enumerate() {
                let factor = layer.factors.as_ref().map_or(1.0, |factors| factors[at % k]);
                power.add(w * factor, q);
            }
            quality.entry(linear.site.clone()).or_default().insert(bits, power.decibels());
        }
    }
    Ok(quality)
}
