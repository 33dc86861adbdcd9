//! Floats to codes.

use std::arch::x86_64::*;

use quee_quant::ActQuant;

/// Scale, zero point and range of codes, ready for vectors.
///
/// Values must be finite and at most `2^31` steps large; then cutting off while packing equals cutting off before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoder {
    /// What a value is multiplied by.
    inverse: f32,
    /// Zero point with 128 added.
    zero: i16,
    /// Range of the codes with 128 added.
    least: u8,
    most: u8,
}

/// Most steps that a value may have: they are brought to 32-bit integers without a check.
pub(crate) const MOST_STEPS: f32 = 2_147_483_000.0;

impl Encoder {
    /// The encoder of values of magnitude up to `largest`; `None` where the range of an integer would not be enough.
    pub fn new(quant: &ActQuant, largest: f32) -> Option<Self> {
        let fits = largest * quant.inv_scale < MOST_STEPS;
        fits.then_some(Self {
            inverse: quant.inv_scale,
            zero: (quant.zero + 128) as i16,
            least: (quant.qmin + 128) as u8,
            most: (quant.qmax + 128) as u8,
        })
    }

    /// The encoder of a row that makes its own scale: no value is more than 2^8 steps large.
    #[inline]
    pub fn of_row(inverse: f32, zero: i32, qmin: i32, qmax: i32) -> Self {
        Self { inverse, zero: (zero + 128) as i16, least: (qmin + 128) as u8, most: (qmax + 128) as u8 }
    }

    /// Codes with 128 added of 64 values, in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub fn encode(&self, values: [__m512; 4]) -> __m512i {
        let inverse = _mm512_set1_ps(self.inverse);
        // To the nearest, ties to even: the mode that Rust runs in.
        let [a, b, c, d] = values.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
        let zero = _mm512_set1_epi16(self.zero);
        let low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
        let mixed = _mm512_packus_epi16(low, high);
        let cut = _mm512_min_epu8(
            _mm512_max_epu8(mixed, _mm512_set1_epi8(self.least as i8)),
            _mm512_set1_epi8(self.most as i8),
        );
        // Packing works inside 128-bit lanes: lane l holds the l-th quarter of each vector.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, cut)
    }
}
