//! How places are quantized, looked up by name once.

use std::collections::HashMap;

use quee_backbone::{Attention, ExecError, Linear, Norm};
use quee_quant::Width;

use crate::attention::AttentionRules;
use crate::engine::CpuEngine;
use crate::quantize::{RowRule, SiteRule};

/// What the plan of an engine says about the places that an executor has been to.
#[derive(Default)]
pub(super) struct Rules {
    linears: HashMap<String, Vec<(Width, LinearRule)>>,
    attentions: HashMap<String, Vec<(Width, Option<AttentionRules>)>>,
}

/// What the plan says about a linear layer at one width of the program.
pub(super) struct LinearRule {
    /// The width that the layer runs at.
    pub width: Width,
    /// Quantization of its input; not used in float.
    pub rule: SiteRule,
    /// The normalisation before it, where calibration has changed that.
    pub norm: Option<Norm>,
    /// Whether there was a normalisation when this was looked up.
    normed: bool,
}

impl LinearRule {
    fn look_up(engine: &CpuEngine, linear: &Linear, norm: Option<&Norm>, width: Width) -> Result<Self, ExecError> {
        let (site, plan, normed) = (&linear.site, engine.plan(), norm.is_some());
        if width.is_float() {
            // The plan need not know the site.
            return Ok(Self { width, rule: SiteRule::Uniform(RowRule::Dynamic(8)), norm: None, normed });
        }
        let changed = match norm {
            Some(norm) => plan.norm(site, norm),
            None => plan.without_norm(site).map(|()| None)?,
        };
        Ok(Self { width: plan.width_at(site, width), rule: engine.rule(site, width)?, norm: changed, normed })
    }

    /// Whether it holds behind `norm`, too.
    fn is_for(&self, norm: Option<&Norm>) -> bool {
        self.normed == norm.is_some()
            && self.norm.as_ref().zip(norm).is_none_or(|(own, other)| own.eps == other.eps && own.site == other.site)
    }
}

impl Rules {
    /// What the plan says about `linear`, behind `norm` or nothing.
    pub fn linear(
        &mut self,
        engine: &CpuEngine,
        linear: &Linear,
        norm: Option<&Norm>,
        width: Width,
    ) -> Result<&LinearRule, ExecError> {
        let known = self
            .linears
            .get(&linear.site)
            .and_then(|rules| rules.iter().position(|(of, rule)| *of == width && rule.is_for(norm)));
        let index = match known {
            Some(index) => index,
            None => {
                let rule = LinearRule::look_up(engine, linear, norm, width)?;
                let rules = self.linears.entry(linear.site.clone()).or_default();
                rules.push((width, rule));
                rules.len() - 1
            }
        };
        Ok(&self.linears[&linear.site][index].1)
    }

    /// How the operands of attention are quantized, or `None` in float.
    pub fn attention(
        &mut self,
        engine: &CpuEngine,
        attention: &Attention,
        width: Width,
    ) -> Result<Option<AttentionRules>, ExecError> {
        let known = self.attentions.get(&attention.site).and_then(|rules| rules.iter().find(|(of, _)| *of == width));
        if let Some((_, rules)) = known {
            return Ok(*rules);
        }
        let rules = engine.attention_rules(attention, width)?;
        self.attentions.entry(attention.site.clone()).or_default().push((width, rules));
        Ok(rules)
    }
}
