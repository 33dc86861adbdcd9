//! Softmax of one row.

use crate::isa::per_isa;
use crate::lanes;
use crate::math::exp_not_positive;

per_isa! {
    /// `x ← exp(x − max) / Σ exp(x − max)` in place. A row with NaN or +∞ becomes NaN.
    pub(crate) fn softmax(cpu, row: &mut [f32]) {
        let top = lanes::max(row);
        for x in row.iter_mut() {
            *x = exp_not_positive(*x - top);
        }
        let inverse = 1.0 / lanes::sum(row, 0.0, |x| x);
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
    fn agrees_with_double_precision_and_between_instruction_sets() {
        for t in [1, 2, 15, 16, 17, 65, 197] {
            let row: Vec<f32> = (0..t).map(|i| ((i * 37 % 101) as f32 / 5.0 - 9.0) * 1.5).collect();
            let results: Vec<Vec<f32>> = every_cpu()
                .into_iter()
                .map(|cpu| {
                    let mut out = row.clone();
                    softmax(cpu, &mut out);
                    out
                })
                .collect();
            assert!(results.iter().all(|r| *r == results[0]));
            let top = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
            for (x, y) in row.iter().zip(&results[0]) {
                let want = f64::from(x - top).exp() / sum;
                assert!((f64::from(*y) - want).abs() <= 1e-6 * want + 1e-37, "{y} is not {want}");
            }
        }
    }

    #[test]
    fn very_different_scores_give_zero_and_one() {
        for cpu in every_cpu() {
            let mut row = [1000.0, -1000.0, f32::NEG_INFINITY];
            softmax(cpu, &mut row);
            assert_eq!(row[0], 1.0);
            assert!(row[1] < 1e-37 && row[2] < 1e-37);
        }
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        for cpu in every_cpu() {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut row = [0.0, bad, 1.0];
                softmax(cpu, &mut row);
                assert!(row.iter().any(|x| x.is_nan()), "{row:?}");
            }
        }
    }
}
