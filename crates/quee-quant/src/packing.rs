//! Codes of 2 to 8 bits in words of 32 bits, without the bits that a byte has to spare.
//!
//! A code `q` of `b` bits is stored as the number `q + 2^(b−1)`, which is not negative. Its bits lie in planes of 8, 4, 2 and 1 bits: those powers of
//! two that add up to `b` (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1), the lowest bits in the largest plane.
//!
//! Rows of codes are cut into blocks of 32, the last one filled up with codes 0. Of each block, the plane of `p` bits has `p` words, made such
//! that a shift and a mask give four successive numbers as bytes, which is what integer dot products take: byte `i` of
//! `(word[w] >> (p · s)) & mask`, where every byte of `mask` is `2^p − 1`, belongs to code `4 · (w · 8 / p + s) + i` of the block. The planes follow
//! one another from the largest on, each `[blocks, rows, p]`: `b` bits for each code.
//!
//! A product with the stored numbers `u` in place of the codes is corrected by the sum of the other operand:
//! `Σ a·q = Σ a·u − 2^(b−1) · Σ a`.

/// Codes of a block.
pub const BLOCK: usize = 32;

/// Bits of the planes of `bits`-bit codes, from the largest on.
fn planes(bits: u8) -> impl Iterator<Item = u8> {
    [8, 4, 2, 1].into_iter().filter(move |plane| bits & plane != 0)
}

/// Words of `n` rows of `k` codes.
pub fn words(n: usize, k: usize, bits: u8) -> usize {
    n * k.div_ceil(BLOCK) * usize::from(bits)
}

/// Packs codes `[n, k]` of `bits` bits.
///
/// # Panics
/// When `codes.len() != n * k`, `bits` is outside 2..=8, or a code has more bits.
pub fn pack(n: usize, k: usize, bits: u8, codes: &[i8]) -> Vec<u32> {
    assert_eq!(codes.len(), n * k, "codes of {n} x {k}");
    assert!((2..=8).contains(&bits), "bits outside 2..=8: {bits}");
    let offset = 1i32 << (bits - 1);
    let number = |row: usize, at: usize| {
        let code = if at < k { i32::from(codes[row * k + at]) } else { 0 };
        assert!((-offset..offset).contains(&code), "code {code} has more than {bits} bits");
        (code + offset) as u32
    };
    let mut packed = Vec::with_capacity(words(n, k, bits));
    let mut low = 0;
    for plane in planes(bits) {
        let mask = (1 << plane) - 1;
        let steps = 8 / usize::from(plane);
        for (block, row) in (0..k.div_ceil(BLOCK)).flat_map(|block| (0..n).map(move |row| (block, row))) {
            for word in 0..usize::from(plane) {
                let part = |at: usize| {
                    let (step, byte) = (at / 4, at % 4);
                    let bits = (number(row, block * BLOCK + 4 * (word * steps + step) + byte) >> low) & mask;
                    bits << (8 * byte + usize::from(plane) * step)
                };
                packed.push((0..4 * steps).map(part).fold(0, |word, part| word | part));
            }
        }
        low += plane;
    }
    packed
}

/// The codes `[n, k]` that [`pack`] was given.
///
/// # Panics
/// When the number of words is not that of `n` rows of `k` codes, or `bits` is outside 2..=8.
pub fn unpack(n: usize, k: usize, bits: u8, packed: &[u32]) -> Vec<i8> {
    assert_eq!(packed.len(), words(n, k, bits), "words of {n} x {k} codes of {bits} bits");
    assert!((2..=8).contains(&bits), "bits outside 2..=8: {bits}");
    let blocks = k.div_ceil(BLOCK);
    let code = |row: usize, at: usize| {
        let (mut first, mut low, mut number) = (0, 0, 0);
        for plane in planes(bits) {
            let width = usize::from(plane);
            let (four, byte) = (at % BLOCK / 4, at % 4);
            let word = packed[first + (at / BLOCK * n + row) * width + four * width / 8];
            let shift = 8 * byte + width * (four % (8 / width));
            number |= ((word >> shift) & ((1 << plane) - 1)) << low;
            first += blocks * n * width;
            low += plane;
        }
        (number as i32 - (1 << (bits - 1))) as i8
    };
    (0..n * k).map(|at| code(at / k, at % k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every code of `bits` bits, mixed up.
    fn codes(count: usize, bits: u8, seed: u32) -> Vec<i8> {
        let code = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) % (1 << bits);
        (0..count as u32).map(|at| (code(at) as i32 - (1 << (bits - 1))) as i8).collect()
    }

    proptest! {
        #[test]
        fn codes_come_back(n in 0usize..7, k in 1usize..100, bits in 2u8..=8, seed: u32) {
            let codes = codes(n * k, bits, seed);
            let packed = pack(n, k, bits, &codes);
            prop_assert_eq!(packed.len(), words(n, k, bits));
            prop_assert_eq!(unpack(n, k, bits, &packed), codes);
        }

        #[test]
        fn shifted_and_masked_words_give_dot_products(bits in 2u8..=8, seed: u32) {
            let (a, b) = (codes(BLOCK, 8, !seed), codes(BLOCK, bits, seed));
            let packed = pack(1, BLOCK, bits, &b);
            let (mut sum, mut first, mut low) = (0, 0, 0);
            for plane in [8u8, 4, 2, 1].into_iter().filter(|plane| bits & plane != 0) {
                let mask = u32::from_ne_bytes([(0xff >> (8 - plane)) as u8; 4]);
                for four in 0..8 {
                    let word = packed[first + four * usize::from(plane) / 8] >> (four * usize::from(plane) % 8);
                    let bytes = (word & mask).to_le_bytes();
                    let dot: i32 = bytes.iter().zip(&a[4 * four..]).map(|(&u, &a)| i32::from(u) * i32::from(a)).sum();
                    sum += dot << low;
                }
                first += usize::from(plane);
                low += plane;
            }
            let a_sum: i32 = a.iter().map(|&a| i32::from(a)).sum();
            let want: i32 = a.iter().zip(&b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
            prop_assert_eq!(sum - (a_sum << (bits - 1)), want);
        }
    }

    #[test]
    fn a_code_takes_as_many_bits_as_it_has() {
        assert_eq!([2, 3, 4, 5, 6, 7, 8].map(|bits| words(10, 64, bits) * 32 / 640), [2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    #[should_panic(expected = "code 4 has more than 3 bits")]
    fn codes_that_do_not_fit_are_refused() {
        pack(1, 2, 3, &[3, 4]);
    }
}
