//! The Gaussian error linear unit.
//!
//! The operations and their order are those of `shaders/shared/math.wgsl`, so that codes behind a GELU are the same on processor and GPU but for
//! values on the edge of two.

use crate::isa::{Cpu, per_isa};
use crate::math::erf;

/// `x ← x · (1 + erf(x / √2)) / 2`, elementwise; absolute error below 2e-7 · |x| + 1e-7 against double precision.
pub(crate) fn gelu(cpu: Cpu, values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if cpu.isa().has_avx512() {
        return crate::avx512::gelu::gelu_slice(cpu, values);
    }
    compiled(cpu, values);
}

per_isa! {
    fn compiled(cpu, values: &mut [f32]) {
        for x in values {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;
    use crate::math::tests::erf_f64;

    #[test]
    fn error_is_as_stated_and_the_same_bits_come_everywhere() {
        let x: Vec<f32> = (-80_000..=80_000).map(|i| i as f32 * 1e-4).collect();
        let results: Vec<Vec<f32>> = every_cpu()
            .into_iter()
            .map(|cpu| {
                let mut y = x.clone();
                gelu(cpu, &mut y);
                y
            })
            .collect();
        for (x, y) in x.iter().zip(&results[0]) {
            let real = f64::from(*x);
            let want = 0.5 * real * (1.0 + erf_f64(real * std::f64::consts::FRAC_1_SQRT_2));
            assert!((f64::from(*y) - want).abs() <= 2e-7 * real.abs() + 1e-7, "gelu({x}) = {y}, not {want}");
        }
        assert!(results.iter().all(|r| *r == results[0]));
    }

    #[test]
    fn a_value_does_not_depend_on_its_place() {
        for cpu in every_cpu() {
            let mut row: Vec<f32> = (0..37).map(|i| 0.37 * i as f32 - 6.0).collect();
            let alone: Vec<f32> = row
                .iter()
                .map(|&x| {
                    let mut one = [x];
                    gelu(cpu, &mut one);
                    one[0]
                })
                .collect();
            gelu(cpu, &mut row);
            assert_eq!(row, alone);
        }
    }

    #[test]
    fn far_ends_are_exact() {
        for cpu in every_cpu() {
            let mut y = [-1e4, 1e4, 0.0];
            gelu(cpu, &mut y);
            assert_eq!(y, [0.0, 1e4, 0.0]);
        }
    }
}
