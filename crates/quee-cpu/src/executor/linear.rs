//! Linear layers with what stands before and after them.

use quee_backbone::{ExecError, Linear, Norm, Value};

use super::CpuExecutor;
use crate::checks::{check_norm, mismatch, not_finite};
use crate::linear::{After, LinearCall};
use crate::quantize::NotFinite;
use crate::tensor::Tensor;

/// What follows a linear layer.
pub(super) enum Afterwards<'a> {
    Nothing,
    Gelu,
    Add(&'a Value),
}

impl CpuExecutor {
    /// A linear layer with what stands before and after it.
    pub(super) fn run_linear(
        &mut self,
        x: &Value,
        norm: Option<&Norm>,
        linear: &Linear,
        after: Afterwards,
    ) -> Result<Value, ExecError> {
        let x: &Tensor = x.get()?;
        let (k, n) = (linear.inputs, linear.outputs);
        let features = *x.shape.last().unwrap_or(&0);
        if x.shape.len() < 2 || features != k {
            return Err(mismatch(&linear.site, &format!("[.., {k}]"), &x.shape));
        }
        if let Some(norm) = norm {
            check_norm(x, norm)?;
        }
        let shape = x.shape.with_last(n);
        let mut out = self.tensor(&shape);
        let after = match after {
            Afterwards::Nothing => After::Nothing,
            Afterwards::Gelu => After::Gelu,
            Afterwards::Add(residual) => {
                let residual: &Tensor = residual.get()?;
                if residual.shape != shape {
                    return Err(mismatch(
                        &linear.site,
                        &format!("a residual of shape {:?}", &shape[..]),
                        &residual.shape,
                    ));
                }
                After::Add(&residual.data)
            }
        };
        let samples = x.shape[0];
        let rows_each = x.shape[1..x.shape.len() - 1].iter().product::<usize>();
        let (cpu, rules, scratch, mut data) = (self.engine.cpu(), &mut self.rules, &mut self.linear, out.data.as_mut());
        for (range, width) in self.groups.ranges(samples) {
            let rows = range.start * rows_each..range.end * rows_each;
            let found = rules.linear(&self.engine, linear, norm, width)?;
            let norm = found.norm.as_ref().or(norm);
            let (part, rest) = data.split_at_mut(rows.len() * n);
            data = rest;
            let after = match after {
                After::Add(residual) => After::Add(&residual[rows.start * n..rows.end * n]),
                other => other,
            };
            self.engine.with_weight(linear, found.width, |weight| {
                let bias = linear.bias.as_ref().map(|bias| &*bias.data);
                let call = LinearCall { k, n, weight, bias, norm, after, rule: found.rule };
                let x = &x.data[rows.start * k..rows.end * k];
                call.run_divided(cpu, x, part, scratch).map_err(|NotFinite| not_finite(&linear.site))
            })?;
        }
        Ok(self.pool.share(out))
    }
}
