// Scale, zero point and codes, in the order of operations of crates/quee-quant/src/activation.rs and site.rs.

struct Rule {
    scale: f32,
    inverse: f32,
    zero: i32,
    least: i32,
    most: i32,
    kind: u32,
    // The largest code less the least, 2^bits - 1. TWIN, SIGNED_TWIN: the inverse of the large steps.
    steps: f32,
    // TWIN, SIGNED_TWIN: factors on the small and the large steps, 0 where they belong to another plane. LOG: parity of the codes in this
    // plane, and the eights of exponents before it.
    plane0: i32,
    plane1: i32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

const UNIFORM = 0u;
// Scale and zero point come from the row's own range.
const DYNAMIC = 1u;
// Steps of two sizes: `least` to `most - 1` small ones for values near 0 or for negative ones, 0 to `most - 1` large ones for the rest.
const TWIN = 2u;
const SIGNED_TWIN = 3u;
// Powers of the root of two, `most` of them; `inverse` is the factor on values.
const LOG = 4u;

// Mantissa of the root of two.
const ROOT = 0x003504f3;

const LEAST_NORMAL: f32 = 1.17549435e-38;

// The rule with scale and zero point for values from lo to hi, which contain 0.
fn fitted(rule: Rule, lo: f32, hi: f32) -> Rule {
    var fit = rule;
    if rule.kind == DYNAMIC {
        let scale = quotient(hi - lo, rule.steps);
        fit.scale = select(scale, 1.0, scale < LEAST_NORMAL);
        fit.inverse = quotient(1.0, fit.scale);
        fit.zero = clamp(rule.least - i32(round(lo * fit.inverse)), rule.least, rule.most);
    }
    return fit;
}

// 1.5 * 2^23: adding it to a number below 2^22 rounds that to an integer, ties to even, and leaves the integer in the low bits.
const TO_LOW_BITS: f32 = 12582912.0;

// Rounded by an addition: rounding and conversion to integers are slow on many GPUs, a quarter of an addition's speed or less.
fn whole(v: f32, inverse: f32) -> i32 {
    return bitcast<i32>(clamp(v * inverse, -65536.0, 65536.0) + TO_LOW_BITS) - bitcast<i32>(TO_LOW_BITS);
}

fn encode(rule: Rule, v: f32) -> i32 {
    return clamp(whole(v, rule.inverse) + rule.zero, rule.least, rule.most);
}

// The number of v in the plane of the rule, of any kind.
fn encode_any(rule: Rule, v: f32) -> i32 {
    if rule.kind == LOG {
        let bits = bitcast<i32>(v * rule.inverse);
        let q = max(-(2 * ((bits >> 23u) - 127) + select(0, 1, (bits & 0x007fffff) >= ROOT)), 0);
        let is_here = q < rule.most && (q & 1) == rule.plane0 && (q >> 4u) == rule.plane1;
        return select(-128, (1 << (7u - (u32(q >> 1u) & 7u))) - 128, is_here);
    }
    if rule.kind == TWIN || rule.kind == SIGNED_TWIN {
        let fine = whole(v, rule.inverse);
        let coarse = clamp(whole(v, rule.steps), 0, rule.most - 1);
        let is_small = select(fine < rule.most, v < 0.0, rule.kind == SIGNED_TWIN);
        return select(coarse * rule.plane1, max(fine, rule.least) * rule.plane0, is_small);
    }
    return encode(rule, v);
}
