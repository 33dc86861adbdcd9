// Layer normalisation and softmax of a row. What they need of the row is found first, by `prepare` of norm_narrow.wgsl or norm_wide.wgsl,
// and each value computed when it is asked for. BEFORE says what happens to a row: 0 nothing, 1 layer normalisation, 2 softmax.

const PLAIN = 0u;
const NORM = 1u;
const SOFTMAX = 2u;

struct Row { start: u32, shift: f32, factor: f32 }

// What a sum runs over.
const VALUES = 0u;
const SQUARES = 1u;
const POWERS = 2u;

// The value, its squared distance from `shift`, or e^(value - shift).
fn term(v: f32, shift: f32, mode: u32) -> f32 {
    if mode == VALUES {
        return v;
    }
    let d = v - shift;
    if mode == SQUARES {
        return d * d;
    }
    return exp_not_positive(d);
}

fn value(row: Row, i: u32) -> f32 {
    let v = x[row.start + i];
    if BEFORE == NORM {
        return (v - row.shift) * row.factor * gain[p.gain_at + i] + offset[p.offset_at + i];
    }
    if BEFORE == SOFTMAX {
        return exp_not_positive(v - row.shift) * row.factor;
    }
    return v;
}
