//! Which quantizer runs where: what an integer executor and the float simulation need to know.

use std::collections::BTreeMap;

use quee_quant::{ActQuant, ActQuantizer, RangeObserver, WeightQuantizer, Width};
use serde::{Deserialize, Serialize};

use crate::executor::ExecError;

/// Quantizers of a backbone and, for static ones, the calibrated range of every site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantPlan {
    /// How weights get their scales.
    pub weights: WeightQuantizer,
    /// How activations get their scales and zero points.
    pub activations: ActQuantizer,
    /// Scale and zero point of each site and activation width; empty when activations are dynamic.
    ranges: BTreeMap<String, BTreeMap<u8, (f32, i32)>>,
}

impl QuantPlan {
    /// A plan that needs no calibration.
    pub fn dynamic(weights: WeightQuantizer) -> Self {
        Self { weights, activations: ActQuantizer::DynamicToken, ranges: BTreeMap::new() }
    }

    /// A plan with the ranges that `observers` (by site) give at each of `widths`.
    pub fn calibrated(
        weights: WeightQuantizer,
        activations: ActQuantizer,
        observers: &BTreeMap<String, RangeObserver>,
        widths: &[Width],
    ) -> Self {
        let mut plan = Self { weights, activations, ranges: BTreeMap::new() };
        if !activations.is_static() {
            return plan;
        }
        for (site, observer) in observers {
            let of_site = plan.ranges.entry(site.clone()).or_default();
            for width in widths.iter().filter(|w| !w.is_float()) {
                let quant = observer.quant(activations, width.act_bits());
                of_site.insert(width.act_bits(), (quant.scale, quant.zero));
            }
        }
        plan
    }

    /// The static quantization of a site, or `None` when activations are quantized dynamically.
    ///
    /// # Errors
    /// When the site was not calibrated at this width.
    pub fn act(&self, site: &str, bits: u8) -> Result<Option<ActQuant>, ExecError> {
        if !self.activations.is_static() {
            return Ok(None);
        }
        let range = self.ranges.get(site).and_then(|of_site| of_site.get(&bits));
        let &(scale, zero) = range.ok_or_else(|| ExecError::NotCalibrated { site: site.to_owned(), bits })?;
        Ok(Some(ActQuant::new(scale, zero, bits)))
    }

    /// Sites with calibrated ranges.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.ranges.keys().map(String::as_str)
    }
}
