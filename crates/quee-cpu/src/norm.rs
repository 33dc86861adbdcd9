//! Layer normalisation of one row.

use crate::isa::per_isa;
use crate::lanes;

per_isa! {
    /// `out = (x − mean) / √(variance + eps) · gain + offset` over a row of D features, variance in two passes.
    pub(crate) fn layer_norm(cpu, row: &[f32], gain: &[f32], offset: &[f32], eps: f32, out: &mut [f32]) {
        let d = row.len();
        let (gain, offset, out) = (&gain[..d], &offset[..d], &mut out[..d]);
        let mean = lanes::sum(row, 0.0, |x| x) / d as f32;
        let variance = lanes::sum(row, mean, |x| (x - mean) * (x - mean)) / d as f32;
        let inverse = 1.0 / (variance + eps).sqrt();
        for i in 0..d {
            out[i] = (row[i] - mean) * inverse * gain[i] + offset[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;

    #[test]
    fn agrees_with_double_precision_and_between_instruction_sets() {
        for d in [1, 5, 16, 40, 67, 192] {
            let row: Vec<f32> = (0..d).map(|i| 3.0 + ((i * 37 % 101) as f32 / 50.0 - 1.0).powi(3)).collect();
            let gain: Vec<f32> = (0..d).map(|i| 0.5 + 0.01 * i as f32).collect();
            let offset: Vec<f32> = (0..d).map(|i| 0.3 - 0.02 * i as f32).collect();
            let results: Vec<Vec<f32>> = every_cpu()
                .into_iter()
                .map(|cpu| {
                    let mut out = vec![0.0; d];
                    layer_norm(cpu, &row, &gain, &offset, 1e-6, &mut out);
                    out
                })
                .collect();
            assert!(results.iter().all(|r| *r == results[0]));
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
            let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
            for i in 0..d {
                let normed = (f64::from(row[i]) - mean) / (variance + 1e-6).sqrt();
                let want = normed * f64::from(gain[i]) + f64::from(offset[i]);
                // Numbers around 3 carry 2e-7 of rounding, which the division by the deviation magnifies.
                assert!((f64::from(results[0][i]) - want).abs() < 1e-5, "{} is not {want}", results[0][i]);
            }
        }
    }
}
