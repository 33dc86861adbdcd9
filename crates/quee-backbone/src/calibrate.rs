//! An executor that watches what enters each quantized operation of the float program.

use std::collections::BTreeMap;

use quee_quant::{RangeObserver, Width};

use crate::executor::{ExecError, Executor, Value};
use crate::params::{Attention, AttentionOperand, Linear, Norm, Param};

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

    fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<Value, ExecError> {
        self.inner.input(shape, data)
    }

    fn read(&mut self, x: &Value) -> Result<Vec<f32>, ExecError> {
        self.inner.read(x)
    }

    fn shape(&self, x: &Value) -> Result<Vec<usize>, ExecError> {
        self.inner.shape(x)
    }

    fn select_samples(&mut self, x: &Value, indices: &[usize]) -> Result<Value, ExecError> {
        self.inner.select_samples(x, indices)
    }

    fn patches(&mut self, x: &Value, patch: usize) -> Result<Value, ExecError> {
        self.inner.patches(x, patch)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let values = self.inner.read(x)?;
        self.observe(linear.site.clone(), &values)?;
        self.inner.linear(x, linear)
    }

    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, ExecError> {
        self.inner.layer_norm(x, norm)
    }

    fn gelu(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.inner.gelu(x)
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, ExecError> {
        self.inner.add(a, b)
    }

    fn prepend(&mut self, x: &Value, tokens: &Param) -> Result<Value, ExecError> {
        self.inner.prepend(x, tokens)
    }

    fn add_position(&mut self, x: &Value, position: &Param) -> Result<Value, ExecError> {
        self.inner.add_position(x, position)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        let values = self.inner.read(qkv)?;
        self.observe_third(&values, attention, AttentionOperand::Query, 0)?;
        self.observe_third(&values, attention, AttentionOperand::Key, 1)?;
        self.observe_third(&values, attention, AttentionOperand::Value, 2)?;
        self.inner.attention_scores(qkv, attention)
    }

    fn softmax(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.inner.softmax(x)
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

    fn first_token(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.inner.first_token(x)
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        self.inner.mean_tokens(x, skip)
    }
}
