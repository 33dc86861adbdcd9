//! The scalar reference of the integer operations: slow, plain, and exact.
//!
//! Every kernel is tested against these functions.

use crate::activation::ActQuant;
use crate::weight::QuantWeight;

/// `out[m, n] = Σ_k a[m, k] · b[n, k]` on codes, with 64-bit sums.
///
/// # Panics
/// When the lengths do not match the shapes, or a sum leaves the range of `i32` (which needs K > 131,072).
pub fn matmul_codes(m: usize, n: usize, k: usize, a: &[i8], b: &[i8]) -> Vec<i32> {
    assert_eq!(a.len(), m * k);
    assert_eq!(b.len(), n * k);
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let sum: i64 = (0..k).map(|l| i64::from(a[i * k + l]) * i64::from(b[j * k + l])).sum();
            out.push(i32::try_from(sum).expect("sum of products fits 32 bits"));
        }
    }
    out
}

/// One output of a quantized linear layer from its integer sum: `(acc − zero · weight_sum) · (act_scale · weight_scale) + bias`.
///
/// The order of the float operations is part of the definition: every executor follows it.
#[inline]
pub fn linear_epilogue(acc: i32, quant: &ActQuant, weight_scale: f32, weight_sum: i32, bias: f32) -> f32 {
    (acc - quant.zero * weight_sum) as f32 * (quant.scale * weight_scale) + bias
}

/// A quantized linear layer on codes: activations `[m, k]` with one [`ActQuant`] per row, result `[m, n]`.
///
/// # Panics
/// When the lengths do not match the shapes.
pub fn linear(m: usize, codes: &[i8], quants: &[ActQuant], weight: &QuantWeight, bias: Option<&[f32]>) -> Vec<f32> {
    assert_eq!(quants.len(), m);
    let acc = matmul_codes(m, weight.n, weight.k, codes, &weight.codes);
    let mut out = Vec::with_capacity(acc.len());
    for (row, quant) in acc.chunks(weight.n.max(1)).zip(quants) {
        for (j, &sum) in row.iter().enumerate() {
            let bias = bias.map_or(0.0, |b| b[j]);
            out.push(linear_epilogue(sum, quant, weight.scales[j], weight.sums[j], bias));
        }
    }
    out
}

/// One dot product of two asymmetric rows from integer sums:
/// `Σ (a − za)(b − zb) = Σab − za·Σb − zb·Σa + K·za·zb`.
#[inline]
pub fn product_sum(acc: i32, k: usize, a_zero: i32, a_sum: i32, b_zero: i32, b_sum: i32) -> i32 {
    acc - a_zero * b_sum - b_zero * a_sum + k as i32 * a_zero * b_zero
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::quantize_row_dynamic;
    use crate::weight::WeightQuantizer;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn linear_equals_the_product_of_the_dequantized_operands(
            m in 1usize..5, n in 1usize..6, k in 1usize..40, wb in 2u8..=8, ab in 2u8..=8, seed in 0u32..1000,
        ) {
            let value = |i: usize| ((i as u32).wrapping_mul(2654435761).wrapping_add(seed * 97) >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let w: Vec<f32> = (0..n * k).map(|i| value(i + 7919)).collect();
            let weight = QuantWeight::quantize(&w, n, k, wb, WeightQuantizer::Absmax);
            let mut codes = vec![0; m * k];
            let quants: Vec<_> = (0..m)
                .map(|i| quantize_row_dynamic(&x[i * k..(i + 1) * k], ab, &mut codes[i * k..(i + 1) * k]).0)
                .collect();
            let got = linear(m, &codes, &quants, &weight, None);
            let real = weight.dequantize();
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k)
                        .map(|l| f64::from(quants[i].value(codes[i * k + l])) * f64::from(real[j * k + l]))
                        .sum();
                    prop_assert!((f64::from(got[i * n + j]) - want).abs() <= 1e-4 * (1.0 + want.abs()));
                }
            }
        }

        #[test]
        fn product_sum_removes_both_zero_points(
            a in proptest::collection::vec(-128i32..128, 1..30), za in -128i32..128, zb in -128i32..128, shift in 0i32..7,
        ) {
            let b: Vec<i32> = a.iter().map(|x| (x * 31 + shift).rem_euclid(256) - 128).collect();
            let acc: i32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            let want: i32 = a.iter().zip(&b).map(|(x, y)| (x - za) * (y - zb)).sum();
            prop_assert_eq!(product_sum(acc, a.len(), za, a.iter().sum(), zb, b.iter().sum()), want);
        }
    }
}
