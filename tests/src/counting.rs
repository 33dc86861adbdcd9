//! An executor that counts how often each linear layer runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quee_backbone::{Attention, ExecError, Executor, Linear, Value, forward_plain_operations};
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
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        self.inner.name()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        let samples = self.inner.shape(x)?[0];
        *self.counts.lock().expect("no test panics while counting").entry(linear.site.clone()).or_default() += samples;
        self.inner.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(
        &mut self,
        probabilities: &Value,
        qkv: &Value,
        attention: &Attention,
    ) -> Result<Value, ExecError> {
        self.inner.attention_values(probabilities, qkv, attention)
    }
}
