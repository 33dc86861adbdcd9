//! Performer attention, in floats at every width.

use quee_backbone::{ExecError, Performer};
use quee_quant::Width;

use super::products::{After, FloatOperands};
use super::{ELEMENTS, GpuExecutor, mismatch, three};
use crate::engine::{Packed, PackedFloats, columns};
use crate::kernels;
use crate::memory::Tensor;
use crate::params::{Floats, PerformerFeatures, PerformerMix, PerformerSums};
use crate::tiles::{RowOperation, row_kernel};

impl GpuExecutor {
    /// Keys, queries and values `[B, T, 3·E]` to `[B, T, E]`.
    pub(super) fn run_performer(&mut self, kqv: &Tensor, performer: &Performer) -> Result<Tensor, ExecError> {
        let (e, m) = (performer.projection.inputs, performer.projection.outputs);
        let [b, t, width] = three(&performer.site, kqv)?;
        if width != 3 * e || m * e == 0 {
            return Err(mismatch(&performer.site, &format!("[B, T, {}]", 3 * e), &kqv.shape));
        }
        let out = self.tensor(&[b, t, e])?;
        if b * t == 0 {
            return Ok(out);
        }
        let keys = self.features(kqv, 0, performer)?;
        let queries = self.features(kqv, 1, performer)?;
        let sums = self.tensor(&[b, m, e + 1])?;
        let bytes = [4 * t * m, 4 * t * width, 4 * m * (e + 1), 4 * t * e];
        let most = self.most(ELEMENTS) / (m * (e + 1)).max(t * e);
        for run in self.recorder().runs(&performer.site, b, &bytes, most)? {
            let key_part = self.floats(&keys, run.start * t * m, run.len() * t * m);
            let kqv_part = self.floats(kqv, run.start * t * width, run.len() * t * width);
            let sums_part = self.floats(&sums, run.start * m * (e + 1), run.len() * m * (e + 1));
            let count = run.len() * m * (e + 1);
            let params = PerformerSums {
                count: count as u32,
                tokens: t as u32,
                m: m as u32,
                d: e as u32,
                features_at: key_part.at(),
                x_at: kqv_part.at() + 2 * e as u32,
                x_sample: (t * width) as u32,
                x_token: width as u32,
                sums_at: sums_part.at(),
                unused: [0; 3],
            };
            let size = self.grid(count, ELEMENTS);
            self.recorder_mut().dispatch(
                &kernels::PERFORMER_SUMS,
                &[],
                &params,
                &[key_part, kqv_part, sums_part.clone()],
                size,
            )?;
            let query_part = self.floats(&queries, run.start * t * m, run.len() * t * m);
            let out_part = self.floats(&out, run.start * t * e, run.len() * t * e);
            let count = run.len() * t * e;
            let params = PerformerMix {
                count: count as u32,
                tokens: t as u32,
                m: m as u32,
                d: e as u32,
                features_at: query_part.at(),
                sums_at: sums_part.at(),
                y_at: out_part.at(),
                eps: Performer::EPS,
            };
            let size = self.grid(count, ELEMENTS);
            self.recorder_mut().dispatch(
                &kernels::PERFORMER_MIX,
                &[],
                &params,
                &[query_part, sums_part, out_part],
                size,
            )?;
        }
        Ok(out)
    }

    /// Random features `[B, T, m]` of the keys (part 0) or queries (part 1).
    fn features(&mut self, kqv: &Tensor, part: usize, performer: &Performer) -> Result<Tensor, ExecError> {
        let projection = &performer.projection;
        let (e, m) = (projection.inputs, projection.outputs);
        let [b, t, width] = three(&performer.site, kqv)?;
        let out = self.tensor(&[b, t, m])?;
        let packed = self.weights.linear(projection, Width::FLOAT, self.engine.plan())?;
        let Packed::Floats(PackedFloats { panels, .. }) = &*packed else { unreachable!("packed as floats") };
        let (kernel, each) = row_kernel(RowOperation::Features, self.gpu().is_tiled());
        for run in self.recorder().runs(&performer.site, b * t, &[4 * width, 4 * m], self.most(each))? {
            let rows = run.len();
            let x = self.floats(kqv, run.start * width, rows * width);
            let y = self.floats(&out, run.start * m, rows * m);
            for panel in panels {
                let (j, part_columns) = (panel.columns.start, panel.columns.len());
                let recorder = self.recorder();
                let params = Floats {
                    m: rows as u32,
                    n: part_columns as u32,
                    k: e as u32,
                    width: columns(part_columns) as u32,
                    batch: 1,
                    heads: 1,
                    factor: 1.0,
                    a_at: (part * e) as u32,
                    a_row: width as u32,
                    out_at: j as u32,
                    out_row: m as u32,
                    ..Floats::default()
                };
                let operands = FloatOperands {
                    a: x.clone(),
                    b: recorder.span(&panel.content.buffer, 0, 16 * e.div_ceil(4) * columns(part_columns)),
                    bias: recorder.nothing(),
                    residual: recorder.nothing(),
                    out: y.clone(),
                };
                self.product_floats(params, operands, After::Nothing)?;
            }
            let params = PerformerFeatures {
                rows: rows as u32,
                d: e as u32,
                tokens: rows as u32,
                heads: 1,
                x_at: x.at() + (part * e) as u32,
                x_sample: 0,
                x_head: 0,
                x_token: width as u32,
                m: m as u32,
                products_at: y.at(),
                unused: [0; 2],
            };
            let size = self.grid(rows, each);
            self.recorder_mut().dispatch(kernel, &[], &params, &[x, y], size)?;
        }
        Ok(out)
    }
}
