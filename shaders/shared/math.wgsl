// exp, erf and GELU as the polynomials of the CPU executor (crates/quee-cpu/src/math.rs), so that both round alike where an
// adapter neither fuses nor reorders.

const LOG2_E: f32 = 1.44269504;
// Adding it rounds to an integer, ties to even, and leaves that in the low bits.
const ROUND: f32 = 12582912.0;
// ln 2 in two parts, the first with few enough bits for exact products.
const LN2_HIGH: f32 = 0.6933594;
const LN2_LOW: f32 = -2.1219444e-4;

fn cubic(x: f32, x2: f32, c: vec4<f32>) -> f32 {
    return (c.x + c.y * x) + (c.z + c.w * x) * x2;
}

// e^x for -87 <= x <= 88.
fn exp_in_range(x: f32) -> f32 {
    let n = round(x * LOG2_E);
    let rest = (x - n * LN2_HIGH) - n * LN2_LOW;
    // The low bits of n + ROUND are those of n; all others are shifted out.
    let power = bitcast<f32>((bitcast<u32>(n + ROUND) + 127u) << 23u);
    let square = rest * rest;
    let low = cubic(rest, square, vec4(1.0, 1.0, 0.5, 0.16666415));
    let high = cubic(rest, square, vec4(0.04166635, 0.008375126, 0.0013941108, 0.0));
    return (low + high * (square * square)) * power;
}

// e^x for x <= 0; below -87 the result is e^-87.
fn exp_not_positive(x: f32) -> f32 {
    return exp_in_range(max(x, -87.0));
}

// e^x; above 88 the result is that of 88, which is near the end of the numbers.
fn exp_any(x: f32) -> f32 {
    return exp_in_range(clamp(x, -87.0, 88.0));
}

const ERF_END: f32 = 3.8125;

// The error function, absolute error below 2.5e-7.
fn erf(x: f32) -> f32 {
    // Beyond the end the square does not matter; cut off there, its product with a constant is not rearranged by compilers that would.
    let u = min(x * x, ERF_END * ERF_END) * (2.0 / (ERF_END * ERF_END)) - 1.0;
    let u2 = u * u;
    let u4 = u2 * u2;
    let low = cubic(u, u2, vec4(0.37089023, -0.18505143, 0.13735878, -0.11099963))
        + cubic(u, u2, vec4(0.09081098, -0.07258637, 0.055589717, -0.040035415)) * u4;
    let high = cubic(u, u2, vec4(0.026519645, -0.016896393, 0.011156827, -0.005977359))
        + cubic(u, u2, vec4(0.0017015041, -0.00096515194, 0.001309432, -0.0005303029)) * u4;
    let inside = x * (low + high * (u4 * u4));
    return select(inside, sign(x), abs(x) >= ERF_END);
}

const FRAC_1_SQRT_2: f32 = 0.70710678;

fn gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2));
}
