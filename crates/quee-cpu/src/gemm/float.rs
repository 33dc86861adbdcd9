//! Float products. Every sum runs over k = 0, 1, …, K − 1 in one chain, whatever the number of rows or columns, so a row's result
//! does not depend on the rows beside it.

#[cfg(target_arch = "aarch64")]
use super::arm::NeonFloats;
use super::panels::Panels;
use super::tile::{Plain, Single, Tile, multiply};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2Floats, Avx512Floats};
use crate::isa::{Cpu, Isa};

type PortableTile = Plain<Single, 8, 1>;

/// The matrix B of a float product.
#[derive(Debug)]
pub(crate) struct PackedF32 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    cpu: Cpu,
    k: usize,
    panels: Panels<f32>,
}

impl PackedF32 {
    /// An empty matrix.
    pub fn on(cpu: Cpu) -> Self {
        let panels = match cpu.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => Panels::new(Avx2Floats::LANES, Avx2Floats::VECTORS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => Panels::new(Avx512Floats::LANES, Avx512Floats::VECTORS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => Panels::new(NeonFloats::LANES, NeonFloats::VECTORS),
            _ => Panels::new(PortableTile::LANES, PortableTile::VECTORS),
        };
        Self {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            cpu,
            k: 0,
            panels,
        }
    }

    /// Replaces the content by `values`, n rows of k floats, `stride` apart.
    pub fn pack(&mut self, n: usize, k: usize, values: &[f32], stride: usize) {
        self.k = k;
        self.panels.fill(n, k, |column, out, width| {
            for (to, &x) in out.iter_mut().step_by(width).zip(&values[column * stride..][..k]) {
                *to = x;
            }
        });
    }

    /// Replaces the content by the transpose of `values`, k rows of n floats, `stride` apart.
    pub fn pack_transposed(&mut self, n: usize, k: usize, values: &[f32], stride: usize) {
        self.k = k;
        self.panels.fill(n, k, |column, out, width| {
            for (l, to) in out.iter_mut().step_by(width).enumerate() {
                *to = values[l * stride + column];
            }
        });
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.panels.n()
    }
}

/// `out[i, j] = Σ_k a[i, k] · b[j, k]`; rows of `a` are `stride` apart, `out` is `[m, n]`.
pub(crate) fn gemm_f32(m: usize, a: &[f32], stride: usize, b: &PackedF32, out: &mut [f32], zeros: &mut Vec<f32>) {
    assert!(m == 0 || (stride >= b.k && a.len() >= (m - 1) * stride + b.k), "A of {m} rows, {stride} apart");
    assert_eq!(out.len(), m * b.n());
    zeros.resize(m, 0.0);
    #[cfg(target_arch = "x86_64")]
    if let Some(tile) = Avx2Floats::on(b.cpu) {
        return multiply(&tile, a, stride, zeros, &b.panels, out);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(tile) = Avx512Floats::on(b.cpu) {
        return multiply(&tile, a, stride, zeros, &b.panels, out);
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(tile) = NeonFloats::on(b.cpu) {
        return multiply(&tile, a, stride, zeros, &b.panels, out);
    }
    let tile: PortableTile = Plain(Single);
    multiply(&tile, a, stride, zeros, &b.panels, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;

    fn value(i: usize) -> f32 {
        ((i * 7919 + 13) % 2003) as f32 / 1000.0 - 1.0
    }

    #[test]
    fn products_agree_with_double_precision_and_rows_do_not_depend_on_each_other() {
        for cpu in every_cpu() {
            for (m, n, k) in [(1, 1, 1), (2, 7, 5), (5, 8, 33), (7, 16, 64), (13, 17, 31), (30, 45, 192)] {
                let a: Vec<f32> = (0..m * k).map(value).collect();
                let b: Vec<f32> = (0..n * k).map(|i| value(i + 977)).collect();
                let b_transposed: Vec<f32> = (0..n * k).map(|i| b[i % n * k + i / n]).collect();
                let mut packed = PackedF32::on(cpu);
                packed.pack(n, k, &b, k);
                let mut out = vec![f32::NAN; m * n];
                let mut zeros = Vec::new();
                gemm_f32(m, &a, k, &packed, &mut out, &mut zeros);
                for i in 0..m {
                    for j in 0..n {
                        let want: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[j * k + l])).sum();
                        // K roundings of sums of at most K.
                        assert!((f64::from(out[i * n + j]) - want).abs() < 6e-8 * (k * k) as f64);
                    }
                    let mut alone = vec![0.0; n];
                    gemm_f32(1, &a[i * k..(i + 1) * k], k, &packed, &mut alone, &mut zeros);
                    assert_eq!(alone, out[i * n..(i + 1) * n]);
                }
                let mut again = PackedF32::on(cpu);
                again.pack_transposed(n, k, &b_transposed, n);
                let mut other = vec![0.0; m * n];
                gemm_f32(m, &a, k, &again, &mut other, &mut zeros);
                assert_eq!(other, out);
            }
        }
    }
}
