//! An executor that watches what enters each quantized operation of the float program.

use std::collections::BTreeMap;

use quee_quant::{RangeObserver, Width};

use crate::executor::{ExecError, Executor, Value};
use crate::forward_plain_operations;
use crate::params::{Attention, AttentionOperand, Linear};

/// Passes every operation on to another executor, in float, and records the inputs of quantizable operations by site.
pub struct Calibrator<'a> {
    inner: &'a mut dyn Executor,
    observers: BTreeMap<String, RangeObserver>,
}

impl<'a> Calibrator<'a> {
    /// Watches the operations that run on `inner`.
    ///
    /// # Errors
    /// When `inner` cannot run in float.
    pub fn new(inner: &'a mut dyn Executor) -> Result<Self, ExecError> {
        inner.set_width(Width::FLOAT)?;
        Ok(Self { inner, observers: BTreeMap::new() })
    }

    /// What was seen at each site.
    pub fn finish(self) -> BTreeMap<String, RangeObserver> {
        self.observers
    }

    fn observe(&mut self, site: String, values: &[f32]) -> Result<(), ExecError> {
        if values.iter().any(|x| !x.is_finite()) {
            return Err(ExecError::NotFinite { site });
        }
        self.observers.entry(site).or_default().observe(values);
        Ok(())
    }

    /// Records one third of a `[B, T, 3·H·d]` tensor: queries, keys or values.
    fn observe_third(
        &mut self,
        qkv: &[f32],
        attention: &Attention,
        operand: AttentionOperand,
        third: usize,
    ) -> Result<(), ExecError> {
        let width = attention.heads * attention.head_dim;
        let part: Vec<f32> =
            qkv.chunks_exact(3 * width).flat_map(|row| &row[third * width..(third + 1) * width]).copied().collect();
        self.observe(attention.operand_site(operand), &part)
    }
}

impl Executor for Calibrator<'_> {
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        format!("calibration on {}", self.inner.name())
    }

    /// Calibration watches the float program: other widths are refused.
    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        if width.is_float() {
            Ok(())
        } else {
            Err(ExecError::Device(format!("calibration runs in float, not at {width}")))
        }
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let values = self.inner.read(x)?;
        self.observe(linear.site.clone(), &values)?;
        self.inner.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(qkv)?;
        self.observe_third(&values, attention, AttentionOperand::Query, 0)?;
        self.observe_third(&values, attention, AttentionOperand::Key, 1)?;
        self.observe_third(&values, attention, AttentionOperand::Value, 2)?;
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        let values = self.inner.read(probabilities)?;
        self.observe(attention.operand_site(AttentionOperand::Probabilities), &values)?;
        self.inner.attention_values(probabilities, qkv, attention)
    }
}
