//! The linear layers of a program.

use quee_quant::Width;

use crate::backbone::Backbone;
use crate::cost::CostExecutor;
use crate::executor::{ExecError, Executor, Value};
use crate::forward_plain_operations;
use crate::params::{Attention, Linear};

/// Every linear layer that `backbone` runs, in order, each once; the directions of performers, which stay in floats, are none.
///
/// # Errors
/// When the program's shapes do not fit together.
pub fn linears(backbone: &dyn Backbone) -> Result<Vec<Linear>, ExecError> {
    let mut collector = Collector { inner: CostExecutor::default(), found: Vec::new() };
    let [c, h, w] = backbone.image_shape();
    let images = collector.input(&[1, c, h, w], &[])?;
    backbone.forward(&mut collector, &images)?;
    Ok(collector.found)
}

struct Collector {
    inner: CostExecutor,
    found: Vec<Linear>,
}

impl Executor for Collector {
    forward_plain_operations!(inner);

    fn name(&self) -> String {
        "collector".into()
    }

    fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
        self.inner.set_width(width)
    }

    fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
        if self.found.iter().all(|known| known.site != linear.site) {
            self.found.push(linear.clone());
        }
        self.inner.linear(x, linear)
    }

    fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.inner.attention_scores(qkv, attention)
    }

    fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
        self.inner.attention_values(p, qkv, attention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn all_layers_are_found_once() {
        let backbone = presets::find("vit_d6_w80_p2_8").unwrap().skeleton(10);
        let sites: Vec<String> = linears(&*backbone).unwrap().into_iter().map(|linear| linear.site).collect();
        assert_eq!(sites.len(), 1 + 6 * 4 + 1);
        assert_eq!((sites[0].as_str(), sites[25].as_str()), ("patch_embed.proj", "head"));
    }
}
