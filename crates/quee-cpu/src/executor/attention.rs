//! Attention: every head of every sample, a block of query rows at a time.

use quee_backbone::{Attention, ExecError};

use super::CpuExecutor;
use crate::attention::{AttentionRules, OperandNotFinite, Sample};
use crate::checks::not_finite;
use crate::linear::BLOCK;
use crate::tensor::Tensor;

/// Query rows of a head: which sample of the batch it is, and which rows.
pub(super) struct Rows<'a> {
    pub index: usize,
    pub sample: Sample<'a>,
    pub head: usize,
    pub first: usize,
    pub count: usize,
}

impl CpuExecutor {
    /// Every block of query rows of every head: `block(self, rows of the head, rules)`, after `load(self, sample, head, rules)`.
    pub(super) fn each_block(
        &mut self,
        qkv: &Tensor,
        attention: &Attention,
        load: impl Fn(&mut Self, Sample, usize, Option<&AttentionRules>) -> Result<(), OperandNotFinite>,
        mut block: impl FnMut(&mut Self, Rows, Option<&AttentionRules>) -> Result<(), OperandNotFinite>,
    ) -> Result<(), ExecError> {
        let &[b, t, features] = &*qkv.shape else { unreachable!("checked by attention_shape") };
        if t * features == 0 {
            return Ok(());
        }
        for group in 0..self.groups.list().len() {
            let Some((range, width)) = self.groups.ranges(b).nth(group) else { break };
            let rules = self.rules.attention(&self.engine, attention, width)?;
            let rules = rules.as_ref();
            for (index, head) in range.flat_map(|index| (0..attention.heads).map(move |head| (index, head))) {
                let sample = Sample::new(&qkv.data[index * t * features..(index + 1) * t * features], t, attention);
                let mut run = || {
                    load(self, sample, head, rules)?;
                    (0..t).step_by(BLOCK).try_for_each(|first| {
                        block(self, Rows { index, sample, head, first, count: BLOCK.min(t - first) }, rules)
                    })
                };
                run().map_err(|OperandNotFinite(operand)| not_finite(&attention.operand_site(operand)))?;
            }
        }
        Ok(())
    }
}
