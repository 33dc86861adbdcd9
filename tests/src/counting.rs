//! An executor that counts how often each linear layer runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quee_backbone::{Attention, ExecError, Executor, Linear, Norm, Param, Value};
use quee_quant::Width;

/// Samples that passed each linear layer, by site.
pub type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

/// Hands every operation to another executor and counts the samples in linear layers.
pub struct Counting {
    /// Does the work.
    pub inner: Box<dyn Executor>,
    /// What was counted.
    pub counts: Counts,
}

impl Executor for Counting {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
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
        let samples = self.inner.shape(x)?[0];
        *self.counts.lock().expect("no test panics while counting").entry(linear.site.clone()).or_default() += samples;
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
        self.inner.attention_values(probabilities, qkv, attention)
    }

    fn first_token(&mut self, x: &Value) -> Result<Value, ExecError> {
        self.inner.first_token(x)
    }

    fn mean_tokens(&mut self, x: &Value, skip: usize) -> Result<Value, ExecError> {
        self.inner.mean_tokens(x, skip)
    }
}
