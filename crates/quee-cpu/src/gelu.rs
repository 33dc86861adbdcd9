//! The Gaussian error linear unit.
//!
//! `x · Φ(x) = x / 2 + |x| · h(|x|)` with `h(a) = Φ(a) − 1/2`, and h is a cubic on each of 32 intervals: no fused multiply-add, and the table fits the
//! registers of wide vectors, so a value gives the same bits on every instruction set and at every place of a row.

use crate::isa::{Cpu, Isa};
use crate::lanes::LANES;
use crate::math::ROUND;

/// Intervals to a unit: interval i is what lies nearest to `i / STEPS`.
pub(crate) const STEPS: f32 = 6.0;
/// The last interval; there and beyond, h is 1/2 to within 2e-7.
pub(crate) const END: f32 = 31.0;
/// Rounds to an interval, whose number is then in the low five bits.
pub(crate) const SHIFT: f32 = ROUND;

/// Coefficients `[degree][interval]`.
#[repr(align(64))]
pub(crate) struct Table(pub [[f32; 32]; 4]);

/// `x ← x · (1 + erf(x / √2)) / 2`, elementwise; absolute error below 2e-7 · |x| + 1e-7 against double precision.
pub(crate) fn gelu(cpu: Cpu, values: &mut [f32]) {
    match cpu.isa() {
        // SAFETY: the `Cpu` proves the feature.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::gelu(values) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => crate::avx512::gelu::gelu_slice(cpu, values),
        _ => plain(values),
    }
}

/// In plain Rust: the table is read value by value, all else is done for a few values at a time.
fn plain(values: &mut [f32]) {
    for values in values.chunks_mut(LANES) {
        let mut x = [0.0; LANES];
        x[..values.len()].copy_from_slice(values);
        let (mut rests, mut intervals) = ([0.0; LANES], [0; LANES]);
        for i in 0..LANES {
            let at = x[i].abs() * STEPS;
            let at = if at < END { at } else { END };
            let shifted = at + SHIFT;
            rests[i] = at - (shifted - SHIFT);
            intervals[i] = shifted.to_bits() & 31;
        }
        let mut table = [[0.0; LANES]; 4];
        for (degree, row) in table.iter_mut().enumerate() {
            for (to, interval) in row.iter_mut().zip(intervals) {
                *to = TABLE.0[degree][interval as usize];
            }
        }
        for i in 0..LANES {
            let sum = ((table[3][i] * rests[i] + table[2][i]) * rests[i] + table[1][i]) * rests[i] + table[0][i];
            x[i] = x[i] * 0.5 + x[i].abs() * sum;
        }
        values.copy_from_slice(&x[..values.len()]);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{END, SHIFT, STEPS, TABLE};

    #[target_feature(enable = "avx2")]
    pub fn gelu(values: &mut [f32]) {
        let (chunks, tail) = values.as_chunks_mut::<8>();
        chunks.iter_mut().for_each(|chunk| eight(chunk));
        let mut last = [0.0; 8];
        last[..tail.len()].copy_from_slice(tail);
        eight(&mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn eight(values: &mut [f32; 8]) {
        let (set, mul, add, sub) = (_mm256_set1_ps, _mm256_mul_ps, _mm256_add_ps, _mm256_sub_ps);
        // SAFETY: eight floats.
        let x = unsafe { _mm256_loadu_ps(values.as_ptr()) };
        let size = _mm256_andnot_ps(set(-0.0), x);
        // The second operand is what comes out where the first is NaN.
        let at = _mm256_min_ps(mul(size, set(STEPS)), set(END));
        let shifted = add(at, set(SHIFT));
        let rest = sub(at, sub(shifted, set(SHIFT)));
        let index = _mm256_castps_si256(shifted);
        // Bits 3 and 4 of the interval, where a blend looks: in the sign.
        let odd = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
        let high = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(index));
        let table = |degree: usize| {
            let part = |i: usize| {
                // SAFETY: a row has 32 floats.
                let eight = unsafe { _mm256_load_ps(TABLE.0[degree].as_ptr().add(8 * i)) };
                _mm256_permutevar8x32_ps(eight, index)
            };
            let low = _mm256_blendv_ps(part(0), part(1), odd);
            _mm256_blendv_ps(low, _mm256_blendv_ps(part(2), part(3), odd), high)
        };
        let mut sum = table(3);
        for degree in [2, 1, 0] {
            sum = add(mul(sum, rest), table(degree));
        }
        let y = add(mul(x, set(0.5)), mul(size, sum));
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), y) };
    }
}

/// Interpolation of `h((i + r) / STEPS)` in r at the Chebyshev nodes of −½..=½.
#[rustfmt::skip]
pub(crate) static TABLE: Table = Table([
    [
        0.0, 0.066_183_78, 0.130_558_57, 0.191_462_34, 0.247_507_32, 0.297_671_5, 0.341_344_62, 0.378_327_4,
        0.408_788_7, 0.433_192_76, 0.452_209_65, 0.466_623_5, 0.477_249_9, 0.484_869_9, 0.490_184_7, 0.493_790_36,
        0.496_169_66, 0.497_696_76, 0.498_650_13, 0.499_229_04, 0.499_570_94, 0.499_767_4, 0.499_877_13, 0.499_936_8,
        0.499_968_32, 0.499_984_53, 0.499_992_67, 0.499_996_6, 0.499_998_48, 0.499_999_3, 0.499_999_7, 0.5,
    ],
    [
        0.066_490_42, 0.065_573_275, 0.062_897_2, 0.058_677_55, 0.053_241_33, 0.046_985_313, 0.040_328_458, 0.033_666_454,
        0.027_335_018, 0.021_586_271, 0.016_579_527, 0.012_385_198, 0.008_998_496, 0.006_358_771_6, 0.004_370_315, 0.002_921_382_7,
        0.001_899_33, 0.001_201_015_4, 0.000_738_640_3, 0.000_441_828_36, 0.000_257_045_73, 0.000_145_446_54, 8.004_469_4e-5, 4.284478e-5,
        2.230_485_6e-5, 1.129_372_1e-5, 5.561_742_5e-6, 2.663_917_7e-6, 1.240986e-6, 5.622754e-7, 2.477_806_3e-7, 0.0,
    ],
    [
        -3.602_843_3e-7, -0.000_909_175_14, -0.001_744_226_6, -0.002_441_011, -0.002_953_481_2, -0.003_258_518_9, -0.003_356_817_2, -0.003_270_023_7,
        -0.003_035_075_5, -0.002_697_111_3, -0.002_302_414, -0.001_892_576_2, -0.001_500_615_4, -0.001_149_235_9, -0.000_850_984_6, -0.000_609_765_64,
        -0.000_423_077_44, -0.000_284_398_4, -0.000_185_301_66, -0.000_117_068_244, -7.173719e-5, -4.264937e-5, -2.460_623_5e-5, -1.377_937_7e-5,
        -7.491044e-6, -3.954127e-6, -2.026_812_1e-6, -1.008_982_4e-6, -4.878_739_3e-7, -2.291_539_7e-7, -1.045_635_9e-7, 0.0,
    ],
    [
        -0.000_306_944_97, -0.000_294_848_72, -0.000_258_599_2, -0.000_203_594_19, -0.000_136_892_12, -6.651744e-5, -1.295_068_6e-7, 5.610_473_8e-5,
        9.823068e-5, 0.000_124_731_95, 0.000_136_298_45, 0.000_135_266_57, 0.000_124_906_74, 0.000_108_727_81, 8.992_394_6e-5, 7.102722e-5,
        5.376_945_8e-5, 3.911_347_8e-5, 2.739_269_4e-5, 1.849_718_5e-5, 1.205_723_2e-5, 7.593977e-6, 4.624_922_4e-6, 2.725_397_3e-6,
        1.554_810_4e-6, 8.591008e-7, 4.599_369_8e-7, 2.386_632_6e-7, 1.200_694_2e-7, 5.858_002_4e-8, 2.772265e-8, 0.0,
    ],
]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::every_cpu;

    /// `erf` in double precision: `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms all have one sign.
    fn erf_f64(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return 1f64.copysign(x);
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

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
