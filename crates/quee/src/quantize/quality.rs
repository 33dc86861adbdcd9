//! How well codes hold what they stand for: signal to noise, in decibels.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use quee_backbone::layers::linears;
use quee_backbone::params::AttentionOperand;
use quee_backbone::{
    Attention, Backbone, ExecError, Executor, Linear, Norm, QuantPlan, Value, forward_plain_operations,
};
use quee_cpu::{CpuEngine, Isa};
use quee_quant::{SiteQuant, WeightQuantizer, Width};

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

/// Of the static quantizers of `plan`, on what comes to them in the float program. Nothing where activations are dynamic.
///
/// # Errors
/// When the executor fails.
pub fn activations(backbone: &dyn Backbone, plan: &QuantPlan, pictures: &[f32], batch: usize) -> Result<Quality> {
    if !plan.activations.is_static() {
        return Ok(Quality::new());
    }
    let engine = CpuEngine::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Isa::best());
    let sites: BTreeMap<String, Vec<SiteQuant>> =
        plan.sites().map(|(site, quants)| (site.to_owned(), quants.values().copied().collect())).collect();
    let mut watch = Watch { inner: engine.executor(), plan, sites, powers: BTreeMap::new() };
    let [c, h, w] = backbone.image_shape();
    for batch in pictures.chunks(batch.max(1) * c * h * w) {
        let images = watch.input(&[batch.len() / (c * h * w), c, h, w], batch)?;
        backbone.forward(&mut watch, &images)?;
    }
    let decibels = |of_site: BTreeMap<u8, Power>| of_site.into_iter().map(|(bits, p)| (bits, p.decibels())).collect();
    Ok(watch.powers.into_iter().map(|(site, of_site)| (site, decibels(of_site))).collect())
}

struct Watch<'p> {
    inner: quee_cpu::CpuExecutor,
    plan: &'p QuantPlan,
    sites: BTreeMap<String, Vec<SiteQuant>>,
    powers: BTreeMap<String, BTreeMap<u8, Power>>,
}

impl Watch<'_> {
    fn watch(&mut self, site: &str, values: impl Iterator<Item = f32> + Clone) {
        for quant in self.sites.get(site).into_iter().flatten() {
            let power = self.powers.entry(site.to_owned()).or_default().entry(quant.bits()).or_default();
            values.clone().for_each(|x| power.add(x, quant.value(x)));
        }
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
        self.watch(&linear.site, values.iter().copied());
        self.inner.linear(x, linear)
    }

    fn norm_linear(&mut self, x: &Value, norm: &Norm, linear: &Linear) -> Result<Value, ExecError> {
        let changed = self.plan.norm(&linear.site, norm);
        let normed = self.inner.layer_norm(x, changed.as_ref().unwrap_or(norm))?;
        let values = self.inner.read(&normed)?;
        self.watch(&linear.site, values.iter().copied());
        self.inner.norm_linear(x, norm, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(qkv)?;
        let width = attention.heads * attention.head_dim;
        let operands = [AttentionOperand::Query, AttentionOperand::Key, AttentionOperand::Value];
        for (third, operand) in operands.into_iter().enumerate() {
            let part = values.chunks_exact(3 * width).flat_map(|row| &row[third * width..(third + 1) * width]).copied();
            self.watch(&attention.operand_site(operand), part);
        }
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(p)?;
        self.watch(&attention.operand_site(AttentionOperand::Probabilities), values.iter().copied());
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
