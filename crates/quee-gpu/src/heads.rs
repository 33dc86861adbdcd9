//! Cutting operations on heads of samples into dispatches whose operands fit a binding.

use std::ops::Range;

use quee_backbone::ExecError;

use crate::recorder::{Recorder, Span};

/// How floats of heads lie in a buffer: values between two samples and two heads.
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    pub sample: usize,
    pub head: usize,
}

impl Strides {
    /// Whether the heads of all samples lie one after the other. Otherwise the heads of a sample are interleaved.
    fn head_by_head(self, heads: usize) -> bool {
        self.sample == heads * self.head
    }
}

/// Heads of consecutive samples that one dispatch works on; heads are counted over all samples.
pub(crate) struct HeadRun {
    pub heads: Range<usize>,
    of_sample: usize,
}

impl HeadRun {
    /// The samples of these heads.
    pub fn samples(&self) -> Range<usize> {
        self.heads.start / self.of_sample..self.heads.end.div_ceil(self.of_sample)
    }

    /// The part of a buffer that holds floats of these heads, and where in it the first head begins.
    pub fn part(&self, recorder: &Recorder, buffer: &wgpu::Buffer, strides: Strides) -> (Span, u32) {
        if strides.head_by_head(self.of_sample) {
            return (recorder.part(buffer, &self.heads, 4 * strides.head), 0);
        }
        let first = self.heads.start % self.of_sample * strides.head;
        (recorder.part(buffer, &self.samples(), 4 * strides.sample), first as u32)
    }
}

impl Recorder {
    /// Cuts `[samples, heads]` into runs of at most `most` heads: whole samples where one fits, otherwise heads of one sample. `bytes` are what
    /// operands that lie head by head take for a head; `floats` are tensors, whose heads may be interleaved.
    ///
    /// # Errors
    /// When one head, or one sample of a tensor with interleaved heads, exceeds a binding.
    pub fn head_runs(
        &self,
        op: &str,
        [samples, heads]: [usize; 2],
        bytes: &[usize],
        floats: &[Strides],
        most: usize,
    ) -> Result<impl Iterator<Item = HeadRun> + use<>, ExecError> {
        let (mut step, mut whole) = (self.step(op, bytes, most)?, usize::MAX);
        for strides in floats {
            if strides.head_by_head(heads) {
                step = step.min(self.step(op, &[4 * strides.head], most)?);
            } else {
                whole = whole.min(self.step(op, &[4 * strides.sample], most)?);
            }
        }
        let step = step.min(whole.saturating_mul(heads.max(1)));
        // Heads that are cut together: a sample's, or everybody's in multiples of a sample.
        let (period, step) = if step < heads { (heads, step) } else { (samples * heads, step / heads.max(1) * heads) };
        let starts = (0..samples * heads).step_by(period.max(1));
        Ok(starts.flat_map(move |start| {
            let cuts = (start..start + period).step_by(step.max(1));
            cuts.map(move |first| HeadRun { heads: first..(first + step).min(start + period), of_sample: heads })
        }))
    }
}
