//! Rounding of weights that makes up for the errors of the weights rounded before (Frantar et al., *GPTQ*, ICLR 2023).
//!
//! Weights of a channel are rounded one after the other; the error of each is spread over those still to come, such that the layer's output on the
//! calibration inputs changes least. It needs inputs, no labels.

use crate::activation::round;
use crate::weight::QuantWeight;

/// Added to the diagonal, as a share of its mean, so that the matrix can be inverted.
const DAMPING: f64 = 0.01;

/// Rounds `weight`, `[n, k]`, to `bits` bits in steps of `scales`, `[n]`. `gram` is `Σ x xᵀ` over the layer's inputs `x`, `[k, k]`.
///
/// Inputs with the largest squares are rounded first (the paper's `act-order`). Where `gram` is 0, this is rounding to the nearest.
///
/// # Panics
/// When lengths do not fit, `bits` is outside 2..=8, or `gram` holds what is not finite.
pub fn gptq(weight: &[f32], n: usize, k: usize, bits: u8, scales: &[f32], gram: &[f64]) -> QuantWeight {
    assert_eq!((weight.len(), scales.len(), gram.len()), (n * k, n, k * k), "weight of {n} x {k}");
    assert!((2..=8).contains(&bits), "weight bits outside 2..=8: {bits}");
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| gram[b * k + b].total_cmp(&gram[a * k + a]).then(a.cmp(&b)));
    let spread = spread(gram, &order);
    let top = ((1i32 << (bits - 1)) - 1) as f32;
    let mut codes = vec![0i8; n * k];
    let mut row = vec![0.0f32; k];
    for (channel, (weight, &scale)) in weight.chunks_exact(k.max(1)).zip(scales).enumerate() {
        row.iter_mut().zip(&order).for_each(|(w, &column)| *w = weight[column]);
        for (i, &column) in order.iter().enumerate() {
            let code = round((row[i] / scale).clamp(-128.0, 128.0)).clamp(-top, top);
            codes[channel * k + column] = code as i8;
            let line = &spread[i * k..(i + 1) * k];
            let error = (row[i] - code * scale) / line[i];
            row[i..].iter_mut().zip(&line[i..]).for_each(|(w, s)| *w -= error * s);
        }
    }
    QuantWeight::from_codes(n, k, bits, codes, scales.to_vec())
}

/// The upper Cholesky factor of the inverse of the damped matrix, rows and columns in `order`: line `i` tells how an error at place `i` is spread.
fn spread(gram: &[f64], order: &[usize]) -> Vec<f32> {
    let k = order.len();
    let mean = (0..k).map(|i| gram[i * k + i]).sum::<f64>() / k.max(1) as f64;
    // A matrix of zeros is no reason to spread anything.
    let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    let mut matrix = vec![0.0; k * k];
    for (i, &a) in order.iter().enumerate() {
        for (j, &b) in order.iter().enumerate() {
            matrix[i * k + j] = gram[a * k + b] + if i == j { damping } else { 0.0 };
        }
    }
    let inverse = inverse(&cholesky(&matrix, k), k);
    let lower = cholesky(&inverse, k);
    let mut upper = vec![0.0; k * k];
    for i in 0..k {
        for j in i..k {
            upper[i * k + j] = lower[j * k + i] as f32;
        }
    }
    upper
}

/// The lower factor `L` of `matrix = L Lᵀ`.
fn cholesky(matrix: &[f64], k: usize) -> Vec<f64> {
    let mut lower = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let (a, b) = (&lower[i * k..i * k + j], &lower[j * k..j * k + j]);
            let rest = matrix[i * k + j] - a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            lower[i * k + j] = if i == j {
                assert!(rest > 0.0, "a matrix of sums of squares, damped");
                rest.sqrt()
            } else {
                rest / lower[j * k + j]
            };
        }
    }
    lower
}

/// The inverse of `L Lᵀ`.
fn inverse(lower: &[f64], k: usize) -> Vec<f64> {
    // Row j of the transposed inverse of L: solves L x = e_j.
    let mut rows = vec![0.0; k * k];
    for j in 0..k {
        let row = &mut rows[j * k..(j + 1) * k];
        for i in j..k {
            let known: f64 = (j..i).map(|m| lower[i * k + m] * row[m]).sum();
            row[i] = (f64::from(u8::from(i == j)) - known) / lower[i * k + i];
        }
    }
    let mut inverse = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let sum = rows[i * k + i..(i + 1) * k].iter().zip(&rows[j * k + i..(j + 1) * k]).map(|(x, y)| x * y).sum();
            inverse[i * k + j] = sum;
            inverse[j * k + i] = sum;
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightQuantizer;

    fn number(at: usize) -> f32 {
        ((at * 7919 + 13) % 10_007) as f32 / 5_000.0 - 1.0
    }

    /// Inputs that depend on one another, as those of a layer do.
    fn inputs(rows: usize, k: usize) -> Vec<f32> {
        (0..rows * k).map(|at| number(at) + 2.0 * number(at / k * 31) * number(at % k * 17 + 5)).collect()
    }

    fn gram(x: &[f32], k: usize) -> Vec<f64> {
        let mut gram = vec![0.0; k * k];
        for row in x.chunks(k) {
            for i in 0..k {
                for j in 0..k {
                    gram[i * k + j] += f64::from(row[i]) * f64::from(row[j]);
                }
            }
        }
        gram
    }

    /// Squared error of the layer's output.
    fn error(x: &[f32], weight: &[f32], quant: &QuantWeight) -> f64 {
        let differences: Vec<f32> = quant.dequantize().iter().zip(weight).map(|(q, w)| q - w).collect();
        let outputs = x.chunks(quant.k).flat_map(|row| {
            differences.chunks(quant.k).map(move |w| row.iter().zip(w).map(|(a, b)| f64::from(a * b)).sum::<f64>())
        });
        outputs.map(|y| y * y).sum()
    }

    #[test]
    fn outputs_change_less_than_with_the_nearest_codes() {
        let (n, k) = (12, 40);
        let (x, weight) = (inputs(300, k), (0..n * k).map(|at| number(at + 77)).collect::<Vec<_>>());
        for bits in [2, 3, 4, 6] {
            let nearest = QuantWeight::quantize(&weight, n, k, bits, WeightQuantizer::Mse);
            let better = gptq(&weight, n, k, bits, &nearest.scales, &gram(&x, k));
            let ratio = error(&x, &weight, &better) / error(&x, &weight, &nearest);
            assert!(ratio < 0.6, "{bits} bits: {ratio}");
            assert_eq!(better.scales, nearest.scales);
        }
    }

    #[test]
    fn without_inputs_it_is_rounding_to_the_nearest() {
        let (n, k) = (5, 9);
        let weight: Vec<f32> = (0..n * k).map(number).collect();
        let nearest = QuantWeight::quantize(&weight, n, k, 4, WeightQuantizer::Absmax);
        assert_eq!(gptq(&weight, n, k, 4, &nearest.scales, &vec![0.0; k * k]), nearest);
    }

    #[test]
    fn factors_multiply_to_the_matrix_and_its_inverse() {
        let k = 7;
        let matrix: Vec<f64> = gram(&inputs(30, k), k);
        let lower = cholesky(&matrix, k);
        let inverse = inverse(&lower, k);
        for i in 0..k {
            for j in 0..k {
                let product: f64 = (0..k).map(|m| matrix[i * k + m] * inverse[m * k + j]).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-9);
            }
        }
    }
}
