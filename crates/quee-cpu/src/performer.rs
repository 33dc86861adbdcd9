//! Performer attention of one sample.

use crate::gemm::float::{PackedF32, gemm_f32};
use crate::isa::{Cpu, per_isa};
use crate::lanes;
use crate::linear::add;
use crate::math::exp;

/// Memory needed on the way.
pub(crate) struct PerformerScratch {
    keys: Vec<f32>,
    queries: Vec<f32>,
    /// Key features with tokens along a row, `[m, T]`.
    turned: Vec<f32>,
    /// Sum of the key features over all tokens, `[m]`.
    key_sums: Vec<f32>,
    /// Key features times values, `[m, E]`.
    key_values: Vec<f32>,
    packed: PackedF32,
    zeros: Vec<f32>,
}

impl PerformerScratch {
    pub fn new(cpu: Cpu) -> Self {
        Self {
            keys: Vec::new(),
            queries: Vec::new(),
            turned: Vec::new(),
            key_sums: Vec::new(),
            key_values: Vec::new(),
            packed: PackedF32::on(cpu),
            zeros: Vec::new(),
        }
    }

    /// Keys, queries and values `[T, 3·E]` to `[T, E]`; `directions` are `[m, E]`. T is not 0.
    pub fn run(&mut self, cpu: Cpu, kqv: &[f32], directions: &PackedF32, eps: f32, out: &mut [f32], e: usize) {
        let (t, m, stride) = (out.len() / e, directions.n(), 3 * e);
        for (part, features) in [&mut self.keys, &mut self.queries].into_iter().enumerate() {
            features.resize(t * m, 0.0);
            gemm_f32(t, &kqv[part * e..], stride, directions, features, &mut self.zeros);
            for (row, x) in features.chunks_exact_mut(m).zip(kqv.chunks_exact(stride)) {
                kernel_features(cpu, &x[part * e..][..e], row);
            }
        }
        self.turned.resize(m * t, 0.0);
        self.key_sums.clear();
        self.key_sums.resize(m, 0.0);
        for (token, row) in self.keys.chunks_exact(m).enumerate() {
            add(cpu, row, &mut self.key_sums);
            row.iter().enumerate().for_each(|(j, &x)| self.turned[j * t + token] = x);
        }
        self.key_values.resize(m * e, 0.0);
        self.packed.pack_transposed(e, t, &kqv[2 * e..], stride);
        gemm_f32(m, &self.turned, t, &self.packed, &mut self.key_values, &mut self.zeros);
        self.packed.pack_transposed(e, m, &self.key_values, e);
        gemm_f32(t, &self.queries, m, &self.packed, out, &mut self.zeros);
        for (row, query) in out.chunks_exact_mut(e).zip(self.queries.chunks_exact(m)) {
            divide(cpu, query, &self.key_sums, eps, row);
        }
    }
}

per_isa! {
    /// `p ← exp(p − |x|²/2) / √m`, where `p` holds the products of `x` with the m directions.
    fn kernel_features(cpu, x: &[f32], products: &mut [f32]) {
        let half = 0.5 * lanes::sum(x, 0.0, |x| x * x);
        let inverse = 1.0 / (products.len() as f32).sqrt();
        for p in products.iter_mut() {
            *p = exp(*p - half) * inverse;
        }
    }
}

per_isa! {
    /// Divides `row` by `Σ query · sums + eps`.
    fn divide(cpu, query: &[f32], sums: &[f32], eps: f32, row: &mut [f32]) {
        let mut total = 0.0;
        for (q, s) in query.iter().zip(sums) {
            total += q * s;
        }
        let inverse = 1.0 / (total + eps);
        for x in row.iter_mut() {
            *x *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;

    #[test]
    fn agrees_with_double_precision() {
        let value = |i: usize| ((i * 7919 + 13) % 2003) as f32 / 1000.0 - 1.0;
        for (t, e, m) in [(1, 4, 2), (5, 6, 3), (50, 16, 8), (64, 17, 5)] {
            let kqv: Vec<f32> = (0..t * 3 * e).map(value).collect();
            let directions: Vec<f32> = (0..m * e).map(|i| value(i + 501)).collect();
            let feature = |token: usize, part: usize, j: usize| {
                let x = |i: usize| f64::from(kqv[token * 3 * e + part * e + i]);
                let product: f64 = (0..e).map(|i| x(i) * f64::from(directions[j * e + i])).sum();
                let half = (0..e).map(|i| x(i) * x(i)).sum::<f64>() / 2.0;
                (product - half).exp() / (m as f64).sqrt()
            };
            for cpu in every_cpu() {
                let mut packed = PackedF32::on(cpu);
                packed.pack(m, e, &directions, e);
                let mut out = vec![f32::NAN; t * e];
                PerformerScratch::new(cpu).run(cpu, &kqv, &packed, 1e-8, &mut out, e);
                for (token, i) in (0..t).flat_map(|token| (0..e).map(move |i| (token, i))) {
                    let weight = |other| (0..m).map(|j| feature(token, 1, j) * feature(other, 0, j)).sum::<f64>();
                    let total: f64 = (0..t).map(weight).sum();
                    let mixed: f64 = (0..t).map(|o| weight(o) * f64::from(kqv[o * 3 * e + 2 * e + i])).sum();
                    let want = mixed / (total + 1e-8);
                    assert!(
                        (f64::from(out[token * e + i]) - want).abs() < 1e-5,
                        "{} is not {want}",
                        out[token * e + i]
                    );
                }
            }
        }
    }
}
