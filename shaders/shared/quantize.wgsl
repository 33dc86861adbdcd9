// Scale, zero point and codes, in the order of operations of crates/quee-quant/src/activation.rs.

struct Rule {
    scale: f32,
    inverse: f32,
    zero: i32,
    least: i32,
    most: i32,
    // 1: scale and zero point come from the row's own range.
    dynamic: u32,
    // The largest code less the least, 2^bits - 1.
    steps: f32,
    unused: u32,
}

const LEAST_NORMAL: f32 = 1.17549435e-38;

// The rule with scale and zero point for values from lo to hi, which contain 0.
fn fitted(rule: Rule, lo: f32, hi: f32) -> Rule {
    var fit = rule;
    if rule.dynamic == 1u {
        let scale = quotient(hi - lo, rule.steps);
        fit.scale = select(scale, 1.0, scale < LEAST_NORMAL);
        fit.inverse = quotient(1.0, fit.scale);
        fit.zero = clamp(rule.least - i32(round(lo * fit.inverse)), rule.least, rule.most);
    }
    return fit;
}

fn encode(rule: Rule, v: f32) -> i32 {
    let steps = i32(round(clamp(v * rule.inverse, -65536.0, 65536.0)));
    return clamp(steps + rule.zero, rule.least, rule.most);
}
