//! Scales of single places, searched with what goes in and out of them.
//!
//! The error of a quantizer is what it does to the output of the operation, `Σ (Δ output · weight)²`, with the gradient of the loss as weight
//! (Yuan et al., *PTQ4ViT*, section 3.3) or with 1. Outputs are linear in the operand that is quantized, so the difference of the operand goes
//! through the operation itself, in float.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use quee_backbone::params::AttentionOperand;
use quee_backbone::{Executor, Linear, QuantPlan};
use quee_cpu::{CpuEngine, Isa};
use quee_quant::{ActQuant, ActQuantizer, LogSqrt2, RangeObserver, SiteQuant, Twin, WeightQuantizer};
use quee_train::capture::{AttentionSample, Captured, LayerSample};
use rayon::prelude::*;

use super::layers::Change;
use crate::cancel::Cancel;

/// Steps of the grid of a whole range, and of each of its ends afterwards.
const STEPS: usize = 16;
const END_STEPS: usize = 8;
/// Smallest range of a grid, as a share of the range seen.
const SMALLEST: f32 = 0.2;
/// The least value of GELU, with its sign turned.
const GELU_DEPTH: f32 = 0.17;
/// Most doublings between the two steps of a twin.
const MOST_SHIFT: u8 = 12;

/// A search over all places.
pub struct Search<'a> {
    /// One that is searched.
    pub quantizer: ActQuantizer,
    /// Numbers of activation bits.
    pub bits: Vec<u8>,
    /// What was seen at each site.
    pub observers: &'a BTreeMap<String, RangeObserver>,
}

/// Quantizers of sites.
type Found = Vec<(String, SiteQuant)>;

impl Search<'_> {
    /// Puts a quantizer for every site into `plan`.
    ///
    /// # Errors
    /// When the executor fails, or on a wish to stop.
    pub fn run(
        &self,
        captured: &Captured,
        changed: &BTreeMap<String, Change>,
        cancel: &Cancel,
        plan: &mut QuantPlan,
    ) -> Result<()> {
        let engine = CpuEngine::new(Arc::new(QuantPlan::dynamic(WeightQuantizer::Absmax)), Isa::best());
        let layers = captured.layers.par_iter().map(|sample| {
            cancel.check()?;
            self.layer(&mut engine.executor(), sample, changed.get(&sample.linear.site))
        });
        let attentions = captured.attentions.par_iter().map(|sample| {
            cancel.check()?;
            self.attention(&mut engine.executor(), sample)
        });
        for (site, quant) in layers.chain(attentions).collect::<Result<Vec<Found>>>()?.into_iter().flatten() {
            plan.set_site(&site, quant);
        }
        Ok(())
    }

    /// The quantizers of a linear layer's input.
    fn layer(&self, executor: &mut dyn Executor, sample: &LayerSample, change: Option<&Change>) -> Result<Found> {
        let site = &sample.linear.site;
        let mut own = RangeObserver::default();
        let changed = change.map(|change| change.apply(&sample.inputs));
        let (inputs, observer) = match &changed {
            // Changed inputs are new values: their ranges follow from the rows that were kept.
            Some(changed) => {
                own.observe(changed);
                (changed, &own)
            }
            None => (&sample.inputs, &self.observers[site]),
        };
        if self.quantizer == ActQuantizer::Repq {
            return Ok(self.by_values(site, observer));
        }
        let (rows, k) = (sample.rows(), sample.linear.inputs);
        let plain = Linear { bias: None, ..sample.linear.clone() };
        let mut error = |quant: &SiteQuant| {
            let mut difference = quant.errors(inputs);
            if let Some(change) = change {
                // The weights that see changed inputs are larger by the factors.
                let rows = difference.chunks_exact_mut(k.max(1));
                rows.for_each(|row| row.iter_mut().zip(&change.factor).for_each(|(x, f)| *x *= f));
            }
            let x = executor.input(&[rows, k], &difference)?;
            let y = executor.linear(&x, &plain)?;
            Ok(weighted(&executor.read(&y)?, &sample.gradients))
        };
        let mut found = Vec::new();
        for &bits in &self.bits {
            let twins = || gelu_twins(observer.range().1, bits);
            let quant = match (sample.after_gelu, self.quantizer) {
                (true, ActQuantizer::Combined) => {
                    let uniform = uniform(observer.range(), bits, &mut error)?;
                    least(twins().into_iter().chain([uniform]).collect(), &mut error)?
                }
                (true, _) => least(twins(), &mut error)?,
                (false, _) => uniform(observer.range(), bits, &mut error)?,
            };
            found.push((site.clone(), quant));
        }
        Ok(found)
    }

    /// The quantizers of an attention's operands.
    fn attention(&self, executor: &mut dyn Executor, sample: &AttentionSample) -> Result<Found> {
        let mut found = Vec::new();
        let operands = [AttentionOperand::Query, AttentionOperand::Key, AttentionOperand::Value];
        for (third, operand) in operands.into_iter().enumerate() {
            let site = sample.attention.operand_site(operand);
            let observer = &self.observers[&site];
            if self.quantizer == ActQuantizer::Repq {
                found.extend(self.by_values(&site, observer));
                continue;
            }
            for &bits in &self.bits {
                let mut error = |quant: &SiteQuant| operand_error(executor, sample, third, quant);
                found.push((site.clone(), uniform(observer.range(), bits, &mut error)?));
            }
        }
        let site = sample.attention.operand_site(AttentionOperand::Probabilities);
        let most = self.observers[&site].range().1.max(f32::MIN_POSITIVE * 1e6);
        for &bits in &self.bits {
            let by_gradient = self.quantizer != ActQuantizer::Repq;
            let mut error = |quant: &SiteQuant| probability_error(executor, sample, quant, by_gradient);
            let candidates = match self.quantizer {
                ActQuantizer::Repq => powers(most, bits),
                ActQuantizer::Combined => {
                    let uniform = uniform((0.0, most), bits, &mut error)?;
                    [softmax_twins(most, bits), powers(most, bits), vec![uniform]].concat()
                }
                _ => softmax_twins(most, bits),
            };
            found.push((site.clone(), least(candidates, &mut error)?));
        }
        Ok(found)
    }

    /// Uniform quantizers that cut off very few values.
    fn by_values(&self, site: &str, observer: &RangeObserver) -> Found {
        let quant = |&bits: &u8| (site.to_owned(), SiteQuant::Uniform(observer.gentle(bits)));
        self.bits.iter().map(quant).collect()
    }
}

/// `Σ (x · weight)²`.
fn weighted(x: &[f32], weights: &[f32]) -> f64 {
    x.iter().zip(weights).map(|(x, w)| f64::from(x * w).powi(2)).sum()
}

/// What quantizing queries (0), keys (1) or values (2) does to the output of their product.
fn operand_error(
    executor: &mut dyn Executor,
    sample: &AttentionSample,
    third: usize,
    quant: &SiteQuant,
) -> Result<f64> {
    let (b, t) = (sample.pictures, sample.tokens);
    let width = sample.attention.heads * sample.attention.head_dim;
    let mut qkv = sample.qkv.clone();
    for row in qkv.chunks_exact_mut(3 * width) {
        let part = &mut row[third * width..(third + 1) * width];
        part.copy_from_slice(&quant.errors(part));
    }
    let qkv = executor.input(&[b, t, 3 * width], &qkv)?;
    if third < 2 {
        let scores = executor.attention_scores(&qkv, &sample.attention)?;
        return Ok(weighted(&executor.read(&scores)?, &sample.score_gradients));
    }
    let probabilities = executor.input(&[b, sample.attention.heads, t, t], &sample.probabilities)?;
    let mixed = executor.attention_values(&probabilities, &qkv, &sample.attention)?;
    Ok(weighted(&executor.read(&mixed)?, &sample.output_gradients))
}

/// The same for the outputs of softmax.
fn probability_error(
    executor: &mut dyn Executor,
    sample: &AttentionSample,
    quant: &SiteQuant,
    by_gradient: bool,
) -> Result<f64> {
    let (b, t) = (sample.pictures, sample.tokens);
    let width = sample.attention.heads * sample.attention.head_dim;
    let difference = quant.errors(&sample.probabilities);
    let probabilities = executor.input(&[b, sample.attention.heads, t, t], &difference)?;
    let qkv = executor.input(&[b, t, 3 * width], &sample.qkv)?;
    let mixed = executor.attention_values(&probabilities, &qkv, &sample.attention)?;
    let mixed = executor.read(&mixed)?;
    Ok(if by_gradient { weighted(&mixed, &sample.output_gradients) } else { weighted(&mixed, &vec![1.0; mixed.len()]) })
}

type ErrorOf<'a> = dyn FnMut(&SiteQuant) -> Result<f64> + 'a;

/// The candidate with the least error, the first of equal ones.
fn least(candidates: Vec<SiteQuant>, error: &mut ErrorOf) -> Result<SiteQuant> {
    let mut best: Option<(SiteQuant, f64)> = None;
    for quant in candidates {
        let e = error(&quant)?;
        if best.is_none_or(|(_, least)| e < least) {
            best = Some((quant, e));
        }
    }
    Ok(best.expect("one candidate at least").0)
}

/// Shares of a range from all of it downwards, evenly on a logarithmic scale.
fn shares(steps: usize) -> impl Iterator<Item = f32> {
    (0..steps).map(move |i| SMALLEST.powf(i as f32 / (steps - 1) as f32))
}

/// The best uniform quantizer inside a range: both ends are drawn in together, then each alone.
fn uniform((lo, hi): (f32, f32), bits: u8, error: &mut ErrorOf) -> Result<SiteQuant> {
    let quant = |lo: f32, hi: f32| SiteQuant::Uniform(ActQuant::from_range(lo, hi, bits));
    let mut best = (f64::INFINITY, lo, hi);
    let mut attempt = |lo: f32, hi: f32, best: &mut (f64, f32, f32)| -> Result<()> {
        let e = error(&quant(lo, hi))?;
        if e < best.0 {
            *best = (e, lo, hi);
        }
        Ok(())
    };
    shares(STEPS).try_for_each(|share| attempt(lo * share, hi * share, &mut best))?;
    let (_, both_lo, both_hi) = best;
    shares(END_STEPS).skip(1).try_for_each(|share| attempt(both_lo * share, both_hi, &mut best))?;
    let (_, lo, _) = best;
    shares(END_STEPS).skip(1).try_for_each(|share| attempt(lo, both_hi * share, &mut best))?;
    Ok(quant(best.1, best.2))
}

/// Twins whose large steps reach parts of `most`, and whose small steps reach about as deep as GELU does.
fn gelu_twins(most: f32, bits: u8) -> Vec<SiteQuant> {
    let half = (1u32 << (bits - 1)) as f32;
    let twins = shares(STEPS).flat_map(|share| {
        let large = (most * share / (half - 1.0)).max(1e-6);
        let exact = (large * half / GELU_DEPTH).log2();
        (-1..=1).map(move |more| {
            let shift = (exact.round() as i32 + more).clamp(0, i32::from(MOST_SHIFT)) as u8;
            SiteQuant::Twin(Twin { bits, small: large / (1u32 << shift) as f32, shift, signed: true })
        })
    });
    twins.collect()
}

/// Twins whose large steps reach `most` or a part of it.
fn softmax_twins(most: f32, bits: u8) -> Vec<SiteQuant> {
    let half = (1u32 << (bits - 1)) as f32;
    let twins = [1.0, 0.9, 0.8, 0.7, 0.55, 0.4].into_iter().flat_map(|share| {
        let large = most * share / (half - 1.0);
        (0..=MOST_SHIFT).map(move |shift| {
            SiteQuant::Twin(Twin { bits, small: large / (1u32 << shift) as f32, shift, signed: false })
        })
    });
    twins.collect()
}

/// Powers of √2 from `most` or a part of it downwards.
fn powers(most: f32, bits: u8) -> Vec<SiteQuant> {
    (0..8).map(|i| SiteQuant::LogSqrt2(LogSqrt2 { bits, scale: most * 2f32.powf(-0.125 * i as f32) })).collect()
}
