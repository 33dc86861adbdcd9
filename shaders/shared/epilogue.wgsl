// What follows a product of matrices: AFTER is 0 for nothing, 1 for GELU, 2 for adding `residual`, which is laid out as `out`.

const GELU = 1u;
const ADD = 2u;

fn finished(v: f32, at: u32) -> f32 {
    if AFTER == GELU {
        return gelu(v);
    }
    if AFTER == ADD {
        return v + residual[p.residual_at + at];
    }
    return v;
}
