// Rows of values. Sums over a row run in sixteen partial sums, element i in sum i % 16, that are then added in a fixed tree, as in the CPU
// executor (crates/quee-cpu/src/lanes.rs): one invocation keeps all sixteen, or sixteen invocations keep one each, with the same result.
// The kernel declares `x: array<f32>` and `p` with the fields used below.

// Where row r of the dispatch begins in x: rows count tokens of heads of samples.
fn row_start(r: u32) -> u32 {
    let token = r % p.tokens;
    let head = r / p.tokens;
    return p.x_at + head / p.heads * p.x_sample + head % p.heads * p.x_head + token * p.x_token;
}

struct Partial { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

fn no_partial() -> Partial {
    return Partial(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
}

fn total(s: Partial) -> f32 {
    let eight = vec4(s.a + s.c) + vec4(s.b + s.d);
    let two = eight.xy + eight.zw;
    return two.x + two.y;
}

// NaN and infinity are told by their bits: a shader compiler may assume that they do not occur.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}
