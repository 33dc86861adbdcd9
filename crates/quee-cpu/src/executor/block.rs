//! Encoder blocks at once.

use quee_backbone::encoder::EncoderBlock;
use quee_backbone::{ExecError, Value};

use super::CpuExecutor;
use crate::avx512::run::{Refused, Samples};
use crate::avx512::timer::Timer;
use crate::tensor::Tensor;

impl CpuExecutor {
    /// An encoder block sample by sample, for the first `count` tokens of each; `None` where it has to run operation by operation.
    pub(super) fn whole_block(
        &mut self,
        tokens: &Value,
        block: &EncoderBlock,
        count: Option<usize>,
    ) -> Result<Option<Value>, ExecError> {
        let x: &Tensor = tokens.get()?;
        let &[b, t, d] = &*x.shape else { return Ok(None) };
        let count = count.unwrap_or(t);
        let most = 1 << 16;
        if d != block.qkv.inputs || !(1..=most).contains(&t) || !(1..=t).contains(&count) {
            return Ok(None);
        }
        if self.groups.list().iter().any(|group| self.engine.block(block, group.width).is_none()) {
            return Ok(None);
        }
        let mut out = self.tensor(&[b, count, d]);
        let mut data = out.data.as_mut();
        for (range, width) in self.groups.ranges(b) {
            let Some(plan) = self.engine.block(block, width) else { return Ok(None) };
            let (part, rest) = data.split_at_mut(range.len() * count * d);
            data = rest;
            let mut timer = Timer::new(&mut self.profile, block, width);
            let x = &x.data[range.start * t * d..range.end * t * d];
            let samples = Samples { x, out: part, tokens: t, count, dim: d };
            if let Err(Refused) = plan.run(samples, &mut self.block, &mut timer) {
                return Ok(None);
            }
        }
        Ok(Some(self.pool.share(out)))
    }
}
