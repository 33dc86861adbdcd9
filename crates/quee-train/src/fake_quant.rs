//! Quantization simulated in floats.
//!
//! Codes are whole numbers held in floats. A product of two matrices of codes is exact as long as every partial sum stays
//! below 2^24, so products are cut into blocks of K that cannot exceed it. A linear layer within one block therefore
//! equals the integer one bit for bit; beyond, the blocks' sums are added in floats.

use burn::tensor::{Device, Tensor, TensorData};
use quee_backbone::ExecError;
use quee_quant::site::quantize_row_plane;
use quee_quant::{ActQuant, QuantWeight, SiteQuant};

use crate::tensor::device_error;

/// Most products of a weight code (at most 127) and a shifted activation code (at most 255) whose sum is below 2^24.
pub(crate) const WEIGHT_BLOCK: usize = 512;
/// Most products of two shifted activation codes whose sum is below 2^24.
pub(crate) const ACT_BLOCK: usize = 256;

/// Rows of activations as codes.
#[derive(Clone, Debug)]
pub struct QuantRows {
    /// Codes minus their zero point, `[M, K]`.
    pub codes: Tensor<2>,
    /// Real value of one step, `[M, 1]`.
    pub scale: Tensor<2>,
}

impl QuantRows {
    /// The real values that the codes stand for, `[M, K]`.
    pub fn dequantize(self) -> Tensor<2> {
        self.codes * self.scale
    }
}

/// Quantizes each row of `x` `[M, K]` with its own minimum and maximum, as [`quee_quant::quantize_row_dynamic`] does.
///
/// # Panics
/// When `bits` is outside 2..=8.
pub fn quantize_rows(x: Tensor<2>, bits: u8) -> QuantRows {
    assert!((2..=8).contains(&bits), "activation bits outside 2..=8: {bits}");
    let (qmin, qmax) = code_range(bits);
    let lo = x.clone().min_dim(1).clamp_max(0.0);
    let hi = x.clone().max_dim(1).clamp_min(0.0);
    let scale = (hi - lo.clone()).div_scalar(((1u32 << bits) - 1) as f32);
    let too_small = scale.clone().lower_scalar(f32::MIN_POSITIVE);
    let scale = scale.mask_fill(too_small, 1.0);
    let inverse = scale.clone().recip();
    let zero = (lo * inverse.clone()).round().neg().add_scalar(qmin).clamp(qmin, qmax);
    let steps = (x * inverse).round().clamp(-65536.0, 65536.0);
    let codes = (steps + zero.clone()).clamp(qmin, qmax) - zero;
    QuantRows { codes, scale }
}

/// Quantizes every row of `x` `[M, K]` with the same parameters.
pub fn quantize_static(x: Tensor<2>, quant: &ActQuant) -> QuantRows {
    let zero = quant.zero as f32;
    let steps = x.mul_scalar(quant.inv_scale).round().clamp(-65536.0, 65536.0);
    let codes = steps.add_scalar(zero).clamp(quant.qmin as f32, quant.qmax as f32).sub_scalar(zero);
    let scale = Tensor::full([codes.dims()[0], 1], quant.scale, &codes.device());
    QuantRows { codes, scale }
}

/// Quantizes every row of `x` `[M, K]` with the same parameters: one set of codes for each plane, made on the host.
///
/// # Errors
/// When the device fails.
pub fn quantize_planes(x: Tensor<2>, quant: &SiteQuant) -> Result<Vec<QuantRows>, ExecError> {
    if let SiteQuant::Uniform(quant) = quant {
        return Ok(vec![quantize_static(x, quant)]);
    }
    let ([rows, columns], device) = (x.dims(), x.device());
    let values: Vec<f32> = x.try_into_vec_as::<f32>().map_err(device_error)?;
    let mut numbers = vec![0i8; values.len()];
    let plane = |p: usize| {
        quantize_row_plane(&values, quant, p, &mut numbers);
        let plane = quant.plane(p);
        let codes: Vec<f32> = numbers.iter().map(|&number| (i32::from(number) - plane.zero) as f32).collect();
        let codes = Tensor::from_data(TensorData::new(codes, [rows, columns]), &device);
        QuantRows { codes, scale: Tensor::full([rows, 1], plane.scale, &device) }
    };
    Ok((0..quant.planes()).map(plane).collect())
}

/// A weight's codes, transposed to `[K, N]`, and its scales `[1, N]`.
pub(crate) fn weight_codes(weight: &QuantWeight, device: &Device) -> (Tensor<2>, Tensor<2>) {
    let codes: Vec<f32> = weight.codes.iter().map(|&code| f32::from(code)).collect();
    let scales = TensorData::new(weight.scales.clone(), [1, weight.n]);
    (transposed(&codes, weight.n, weight.k, device), Tensor::from_data(scales, device))
}

/// A matrix `[n, k]` from the host as `[k, n]` in memory, not as a view: with a transposed view, the order of summation
/// depends on the number of rows it is multiplied with.
pub(crate) fn transposed(matrix: &[f32], n: usize, k: usize, device: &Device) -> Tensor<2> {
    let data: Vec<f32> = (0..k).flat_map(|l| (0..n).map(move |j| matrix[j * k + l])).collect();
    Tensor::from_data(TensorData::new(data, [k, n]), device)
}

/// `a · b` over the last two axes, `[.., M, K] · [.., K, N]`, summed in blocks of at most `block` along K.
///
/// With `b` as [`transposed`] lays it out, a row of the result depends on its row of `a` alone, down to the last bit.
pub(crate) fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>, block: usize) -> Tensor<D> {
    let k = a.dims()[D - 1];
    if k <= block {
        return a.matmul(b);
    }
    let part = |start: usize| {
        let length = block.min(k - start);
        a.clone().narrow(D - 1, start, length).matmul(b.clone().narrow(D - 2, start, length))
    };
    (block..k).step_by(block).fold(part(0), |sum, start| sum + part(start))
}

/// Refuses NaN and infinities in what enters the operation called `site`.
pub(crate) fn expect_finite(x: &Tensor<2>, site: impl FnOnce() -> String) -> Result<(), ExecError> {
    // Zero times NaN or infinity is NaN, and NaN survives the sum.
    let zero: f32 = x.clone().mul_scalar(0.0).sum().try_into_scalar().map_err(device_error)?;
    if zero == 0.0 { Ok(()) } else { Err(ExecError::NotFinite { site: site() }) }
}

fn code_range(bits: u8) -> (f32, f32) {
    (-((1i32 << (bits - 1)) as f32), ((1i32 << (bits - 1)) - 1) as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quee_quant::WeightQuantizer;
    use quee_quant::activation::quantize_row;
    use quee_quant::reference::matmul_codes;

    use super::*;
    use crate::flex_device;

    fn tensor(data: &[f32], rows: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(data.to_vec(), [rows, data.len() / rows]), &flex_device())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.try_into_vec_as::<f32>().unwrap()
    }

    /// Codes minus zero point, times scale.
    fn reference(row: &[f32], quant: &ActQuant) -> Vec<f32> {
        row.iter().map(|&x| quant.value(quant.code(x))).collect()
    }

    fn row_values() -> impl Strategy<Value = Vec<f32>> {
        let magnitude = prop_oneof![Just(0.0f32), Just(1e-42), Just(1e-6), Just(1.0), Just(300.0)];
        (proptest::collection::vec(-1.0f32..1.0, 24), magnitude, -0.5f32..1.5)
            .prop_map(|(row, size, shift)| row.iter().map(|x| (x + shift) * size).collect())
    }

    proptest! {
        #[test]
        fn dynamic_rows_equal_the_quantizer(a in row_values(), b in row_values(), bits in 2u8..=8) {
            let got = values(quantize_rows(tensor(&[a.clone(), b.clone()].concat(), 2), bits).dequantize());
            let mut codes = vec![0; a.len()];
            let want = [a, b].map(|row| {
                let (quant, _) = quee_quant::quantize_row_dynamic(&row, bits, &mut codes);
                codes.iter().map(|&code| quant.value(code)).collect::<Vec<_>>()
            });
            prop_assert_eq!(got, want.concat());
        }

        #[test]
        fn static_rows_equal_the_quantizer(row in row_values(), lo in -3.0f32..0.5, hi in -0.5f32..3.0, bits in 2u8..=8) {
            let quant = ActQuant::from_range(lo, hi, bits);
            prop_assert_eq!(values(quantize_static(tensor(&row, 1), &quant).dequantize()), reference(&row, &quant));
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let quant = ActQuant::new(0.5, 0, 8);
        let row = [0.25, 0.75, 1.25, -0.25, -0.75, -1.25];
        assert_eq!(values(quantize_static(tensor(&row, 1), &quant).codes), [0.0, 2.0, 2.0, 0.0, -2.0, -2.0]);
    }

    #[test]
    fn products_of_extreme_codes_are_exact_within_a_block() {
        for (k, rows) in [(WEIGHT_BLOCK, 3), (WEIGHT_BLOCK, 1), (3, 1)] {
            let weight = QuantWeight::quantize(&vec![1.0; 5 * k], 5, k, 8, WeightQuantizer::Absmax);
            let quant = ActQuant::new(1.0, -128, 8);
            let x = vec![255.0; rows * k];
            let mut codes = vec![0; rows * k];
            quantize_row(&x, &quant, &mut codes);
            let sums = matmul_codes(rows, 5, k, &codes, &weight.codes);
            let want: Vec<f32> = sums.iter().map(|&sum| (sum + 128 * weight.sums[0]) as f32).collect();
            let (matrix, _) = weight_codes(&weight, &flex_device());
            assert_eq!(values(product(quantize_static(tensor(&x, rows), &quant).codes, matrix, WEIGHT_BLOCK)), want);
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_rows_beside_them() {
        for (n, k) in [(5, 32), (10, 64), (100, 192), (3, 384), (192, 700)] {
            let value = |i: usize| ((i * 7919 % 10_007) as f32 / 5_000.0 - 1.0).powi(3);
            let x: Vec<f32> = (0..40 * k).map(value).collect();
            let weight: Vec<f32> = (0..n * k).map(|i| value(i + 31)).collect();
            let weight = transposed(&weight, n, k, &flex_device());
            let together = values(product(tensor(&x, 40), weight.clone(), WEIGHT_BLOCK));
            for rows in [1, 2, 3, 17, 39] {
                let some = values(product(tensor(&x[..rows * k], rows), weight.clone(), WEIGHT_BLOCK));
                assert_eq!(some, together[..rows * n], "{rows} of 40 rows, {n} x {k}");
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_found() {
        let check = |x: f32| expect_finite(&tensor(&[0.0, x, 3e38, -3e38], 2), || "here".into());
        assert!(check(1.0).is_ok());
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(check(x), Err(ExecError::NotFinite { site: "here".into() }));
        }
    }
}
