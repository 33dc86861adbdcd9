// Quotients and square roots as IEEE 754 rounds them. WGSL allows a division 2.5 units in the last place of error. A scale that is off by one
// unit moves values across the edge between two codes, which at two bits is a third of the range, so the few divisions of a row are
// corrected by what they leave over. Where the adapter rounds correctly, nothing is left over that would change a bit.

// Below it, what is left over may be too small for a number.
const CORRECTED_FROM: f32 = 1e-20;

// x cut to twelve bits. Products of two such numbers, or of such a number and what was cut off, are exact.
fn front(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// a - b * c, for a near b * c.
fn left_over(a: f32, b: f32, c: f32) -> f32 {
    let b0 = front(b);
    let c0 = front(c);
    let b1 = b - b0;
    let c1 = c - c0;
    return (((a - b0 * c0) - b0 * c1) - b1 * c0) - b1 * c1;
}

// a / b for b > 0.
fn quotient(a: f32, b: f32) -> f32 {
    let q = a / b;
    return select(q, q + left_over(a, q, b) / b, abs(a) >= CORRECTED_FROM);
}

fn square_root(x: f32) -> f32 {
    let s = sqrt(x);
    return select(s, s + left_over(x, s, s) / (2.0 * s), x >= CORRECTED_FROM);
}
