//! Which quantizer runs where: what an integer executor and the float simulation need to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use quee_quant::{ActQuantizer, QuantWeight, RangeObserver, SiteQuant, WeightQuantizer, Width};
use serde::{Deserialize, Serialize};

use crate::executor::ExecError;
use crate::params::{Linear, Norm, Param};

/// Quantizers of a backbone: the rules, and what calibration found for single places.
///
/// A *site* is a place in the program where values are quantized: the input of a linear layer, or an operand of attention.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantPlan {
    /// How weights get their scales.
    pub weights: WeightQuantizer,
    /// How activations get their scales and zero points.
    pub activations: ActQuantizer,
    /// Quantizer of each site and activation width; empty when activations are dynamic.
    sites: BTreeMap<String, BTreeMap<u8, SiteQuant>>,
    /// Linear layers whose weights are not simply rounded, by site.
    layers: BTreeMap<String, LayerPlan>,
    /// Sites that run at another width than the rest.
    wider: Wider,
}

/// What calibration made of a linear layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerPlan {
    /// Gain and offset that replace those of the normalisation before the layer at integer widths.
    pub norm: Option<[Arc<[f32]>; 2]>,
    /// What the input channels of the weight were multiplied by to make up for it, `[k]`.
    pub factors: Option<Arc<[f32]>>,
    /// Weight and bias at each number of weight bits.
    pub weights: BTreeMap<u8, Arc<LayerWeight>>,
}

/// A linear layer's weight at one number of bits, with the bias that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeight {
    /// Codes and scales.
    pub weight: QuantWeight,
    /// Bias `[n]`.
    pub bias: Option<Arc<[f32]>>,
}

/// Widths at single sites: for each site, which width stands for which.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wider(BTreeMap<String, BTreeMap<Width, Width>>);

impl Wider {
    /// At `site`, `actual` stands for `width`. Float is never replaced and replaces nothing.
    pub fn set(&mut self, site: &str, width: Width, actual: Width) {
        if !width.is_float() && !actual.is_float() {
            self.0.entry(site.to_owned()).or_default().insert(width, actual);
        }
    }

    /// The width that `site` runs at when the program runs at `width`.
    pub fn at(&self, site: &str, width: Width) -> Width {
        self.0.get(site).and_then(|of_site| of_site.get(&width)).copied().unwrap_or(width)
    }

    /// Without entries that [`set`](Self::set) would not take.
    #[must_use]
    pub fn checked(self) -> Self {
        let mut checked = Self::default();
        for (site, of_site) in self.0 {
            of_site.into_iter().for_each(|(width, actual)| checked.set(&site, width, actual));
        }
        checked
    }

    /// Sites with widths of their own.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl QuantPlan {
    /// A plan that needs no calibration.
    pub fn dynamic(weights: WeightQuantizer) -> Self {
        Self::new(weights, ActQuantizer::DynamicToken)
    }

    /// A plan with nothing calibrated yet.
    pub fn new(weights: WeightQuantizer, activations: ActQuantizer) -> Self {
        Self { weights, activations, sites: BTreeMap::new(), layers: BTreeMap::new(), wider: Wider::default() }
    }

    /// A plan with the uniform ranges that `observers` (by site) give at each of `widths`.
    pub fn calibrated(
        weights: WeightQuantizer,
        activations: ActQuantizer,
        observers: &BTreeMap<String, RangeObserver>,
        widths: &[Width],
    ) -> Self {
        let mut plan = Self::new(weights, activations);
        if !activations.is_static() {
            return plan;
        }
        for (site, observer) in observers {
            for width in widths.iter().filter(|w| !w.is_float()) {
                plan.set_site(site, SiteQuant::Uniform(observer.quant(activations, width.act_bits())));
            }
        }
        plan
    }

    /// Sets the quantizer of a site at its number of bits.
    pub fn set_site(&mut self, site: &str, quant: SiteQuant) {
        self.sites.entry(site.to_owned()).or_default().insert(quant.bits(), quant);
    }

    /// Sets what calibration made of the layer at `site`.
    pub fn set_layer(&mut self, site: &str, layer: LayerPlan) {
        self.layers.insert(site.to_owned(), layer);
    }

    /// Sets which sites run at other widths.
    pub fn set_wider(&mut self, wider: Wider) {
        self.wider = wider;
    }

    /// Sites that run at other widths.
    pub fn wider(&self) -> &Wider {
        &self.wider
    }

    /// The width that `site` runs at when the program runs at `width`.
    pub fn width_at(&self, site: &str, width: Width) -> Width {
        self.wider.at(site, width)
    }

    /// The static quantizer of a site, or `None` when activations are quantized dynamically.
    ///
    /// # Errors
    /// When the site was not calibrated at this number of bits.
    pub fn site(&self, site: &str, bits: u8) -> Result<Option<SiteQuant>, ExecError> {
        if !self.activations.is_static() {
            return Ok(None);
        }
        let quant = self.sites.get(site).and_then(|of_site| of_site.get(&bits));
        quant.map(|&quant| Some(quant)).ok_or_else(|| ExecError::NotCalibrated { site: site.to_owned(), bits })
    }

    /// Weight and bias of a layer at `bits` bits: what calibration stored, or else the rounded weight and the layer's own bias.
    ///
    /// # Errors
    /// When the layer was calibrated, but not at this number of bits.
    pub fn weight(&self, linear: &Linear, bits: u8) -> Result<Arc<LayerWeight>, ExecError> {
        if let Some(layer) = self.layers.get(&linear.site) {
            let stored = layer.weights.get(&bits).filter(|stored| {
                let QuantWeight { n, k, .. } = stored.weight;
                (n, k) == (linear.outputs, linear.inputs)
            });
            return stored.cloned().ok_or_else(|| ExecError::NotCalibrated { site: linear.site.clone(), bits });
        }
        let (n, k) = (linear.outputs, linear.inputs);
        let weight = QuantWeight::quantize(&linear.weight.data, n, k, bits, self.weights);
        let bias = linear.bias.as_ref().map(|bias| Arc::clone(&bias.data));
        Ok(Arc::new(LayerWeight { weight, bias }))
    }

    /// The normalisation before the layer at `site` as it is at integer widths. It keeps the parameters' ids.
    pub fn norm(&self, site: &str, norm: &Norm) -> Option<Norm> {
        let [gain, offset] = self.layers.get(site)?.norm.as_ref()?;
        let with = |param: &Param, data: &Arc<[f32]>| Param { data: Arc::clone(data), ..param.clone() };
        Some(Norm { weight: with(&norm.weight, gain), bias: with(&norm.bias, offset), ..norm.clone() })
    }

    /// Refuses a layer whose weight was made for a changed normalisation that is not there.
    ///
    /// # Errors
    /// When the layer at `site` is such a one.
    pub fn without_norm(&self, site: &str) -> Result<(), ExecError> {
        match self.layers.get(site) {
            Some(LayerPlan { norm: Some(_), .. }) => Err(ExecError::Device(format!(
                "{site}: its quantizer changes the normalisation before it, but the layer was run without; hint: calibrate again with this program"
            ))),
            _ => Ok(()),
        }
    }

    /// Sites with calibrated quantizers, each with its quantizers by bits.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &BTreeMap<u8, SiteQuant>)> {
        self.sites.iter().map(|(site, quants)| (site.as_str(), quants))
    }

    /// Layers that calibration has changed.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &LayerPlan)> {
        self.layers.iter().map(|(site, layer)| (site.as_str(), layer))
    }
}
