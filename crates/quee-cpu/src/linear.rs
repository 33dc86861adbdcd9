//! Linear layers: what comes before the product (normalisation, quantization) and after it (scales, bias, GELU, residual) is done
//! block of rows by block of rows, in cache.

use quee_backbone::Norm;

use crate::aligned::Aligned;
use crate::engine::{PackedCodes, PackedLinear};
use crate::gelu::gelu;
use crate::gemm::float::gemm_f32;
use crate::gemm::{GemmScratch, gemm_i8};
use crate::isa::{Cpu, per_isa};
use crate::norm::layer_norm;
use crate::parallel::{Divisible, divided};
use crate::quantize::{NotFinite, RowQuant, SiteRule};

/// Rows of a block: a multiple of the tile's rows; 48 rows of 3,072 features fit the second-level cache.
pub(crate) const BLOCK: usize = 48;

/// What happens to the outputs of a linear layer.
#[derive(Clone, Copy)]
pub(crate) enum After<'a> {
    Nothing,
    Gelu,
    /// Added to this tensor, of the output's shape.
    Add(&'a [f32]),
}

/// A linear layer on rows of `k` features, giving rows of `n`.
#[derive(Clone, Copy)]
pub(crate) struct LinearCall<'a> {
    pub k: usize,
    pub n: usize,
    pub weight: &'a PackedLinear,
    /// Bias of float weights; codes have their own.
    pub bias: Option<&'a [f32]>,
    /// Normalisation of each row beforehand.
    pub norm: Option<&'a Norm>,
    pub after: After<'a>,
    /// Quantization of the rows; not used by float weights.
    pub rule: SiteRule,
}

/// Memory needed on the way.
#[derive(Default)]
pub(crate) struct LinearScratch {
    normed: Vec<f32>,
    codes: Vec<i8>,
    rows: Vec<RowQuant>,
    sums: Aligned<i32>,
    zeros: Vec<f32>,
    gemm: GemmScratch,
}

/// Rows on their way through a layer.
struct LayerRows<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    after: After<'a>,
    k: usize,
    n: usize,
}

impl Divisible for LayerRows<'_> {
    fn units(&self) -> usize {
        self.out.len().div_ceil(BLOCK * self.n)
    }

    fn divide(self, units: usize) -> (Self, Self) {
        let Self { k, n, .. } = self;
        let (x, x2) = self.x.split_at(units * BLOCK * k);
        let (out, out2) = self.out.split_at_mut(units * BLOCK * n);
        let (after, after2) = match self.after {
            After::Add(residual) => {
                let (first, second) = residual.split_at(units * BLOCK * n);
                (After::Add(first), After::Add(second))
            }
            other => (other, other),
        };
        (Self { x, out, after, k, n }, Self { x: x2, out: out2, after: after2, k, n })
    }
}

impl LinearCall<'_> {
    /// Runs the layer on `x`, `[m, k]`, into `out`, `[m, n]`: blocks of rows on as many threads as there are scratches.
    pub fn run_divided(
        &self,
        cpu: Cpu,
        x: &[f32],
        out: &mut [f32],
        scratch: &mut [LinearScratch],
    ) -> Result<(), NotFinite> {
        let (k, n) = (self.k, self.n);
        if out.is_empty() {
            return Ok(());
        }
        let all = LayerRows { x, out, after: self.after, k, n };
        divided(all, scratch, &|LayerRows { x, out, after, .. }, own| {
            LinearCall { after, ..*self }.run(cpu, x, out, own)
        })
    }

    /// The same on this thread.
    fn run(&self, cpu: Cpu, x: &[f32], out: &mut [f32], scratch: &mut LinearScratch) -> Result<(), NotFinite> {
        let (k, n) = (self.k, self.n);
        for (block, out) in out.chunks_mut(BLOCK * n.max(1)).enumerate() {
            let first = block * BLOCK;
            let m = out.len() / n;
            let x = &x[first * k..(first + m) * k];
            match self.weight {
                PackedLinear::Float(weight) => {
                    let x = self.normed(cpu, x, &mut scratch.normed);
                    gemm_f32(m, x, k, weight, out, &mut scratch.zeros);
                    if let Some(bias) = self.bias {
                        out.chunks_exact_mut(n).for_each(|row| add(cpu, bias, row));
                    }
                }
                PackedLinear::Codes(weight) => {
                    (0..self.rule.planes()).try_for_each(|p| self.plane_block(cpu, x, weight, p, out, scratch))?;
                }
            }
            match self.after {
                After::Nothing => {}
                After::Gelu => gelu(cpu, out),
                After::Add(residual) => add(cpu, &residual[first * n..(first + m) * n], out),
            }
        }
        Ok(())
    }

    fn normed<'x>(&self, cpu: Cpu, x: &'x [f32], normed: &'x mut Vec<f32>) -> &'x [f32] {
        let Some(norm) = self.norm else { return x };
        normed.resize(x.len(), 0.0);
        for (row, out) in x.chunks_exact(self.k.max(1)).zip(normed.chunks_exact_mut(self.k.max(1))) {
            layer_norm(cpu, row, &norm.weight.data, &norm.bias.data, norm.eps, out);
        }
        normed
    }

    /// What plane `p` of the codes gives: the first one is written with the bias, the others are added.
    fn plane_block(
        &self,
        cpu: Cpu,
        x: &[f32],
        weight: &PackedCodes,
        p: usize,
        out: &mut [f32],
        scratch: &mut LinearScratch,
    ) -> Result<(), NotFinite> {
        let (k, n) = (self.k, self.n);
        let m = out.len() / n;
        let LinearScratch { normed, codes, rows, sums, zeros, gemm } = scratch;
        codes.resize(m * k, 0);
        rows.clear();
        normed.resize(k, 0.0);
        for i in 0..m {
            let mut row = &x[i * k..(i + 1) * k];
            if let Some(norm) = self.norm {
                layer_norm(cpu, row, &norm.weight.data, &norm.bias.data, norm.eps, normed);
                row = normed;
            }
            rows.push(self.rule.quantize(cpu, row, p, &mut codes[i * k..(i + 1) * k])?);
        }
        sums.resize(m * n);
        gemm_i8(m, codes, k, &weight.codes, sums, gemm);
        zeros.clear();
        let bias = weight.bias.as_deref().unwrap_or_else(|| {
            zeros.resize(n, 0.0);
            zeros
        });
        for ((sums, out), row) in sums.chunks_exact(n).zip(out.chunks_exact_mut(n)).zip(&*rows) {
            if p == 0 {
                scale_row(cpu, sums, row.zero, row.scale, &weight.scales, &weight.sums, bias, out);
            } else {
                add_scaled_row(cpu, sums, row.zero, row.scale, &weight.scales, &weight.sums, out);
            }
        }
        Ok(())
    }
}

per_isa! {
    /// [`quee_quant::reference::linear_epilogue`] over a row, with the order of its operations.
    fn scale_row(
        cpu, sums: &[i32], zero: i32, scale: f32, weight_scales: &[f32], weight_sums: &[i32], bias: &[f32], out: &mut [f32],
    ) {
        let n = out.len();
        let (sums, weight_scales, weight_sums, bias) = (&sums[..n], &weight_scales[..n], &weight_sums[..n], &bias[..n]);
        for j in 0..n {
            out[j] = (sums[j] - zero * weight_sums[j]) as f32 * (scale * weight_scales[j]) + bias[j];
        }
    }
}

per_isa! {
    /// Adds the same without a bias.
    fn add_scaled_row(
        cpu, sums: &[i32], zero: i32, scale: f32, weight_scales: &[f32], weight_sums: &[i32], out: &mut [f32],
    ) {
        let n = out.len();
        let (sums, weight_scales, weight_sums) = (&sums[..n], &weight_scales[..n], &weight_sums[..n]);
        for j in 0..n {
            out[j] += (sums[j] - zero * weight_sums[j]) as f32 * (scale * weight_scales[j]);
        }
    }
}

per_isa! {
    /// `y ← x + y`, elementwise.
    pub(crate) fn add(cpu, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}
