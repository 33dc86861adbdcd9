// The float product around its inner loop: operands, addresses, and what is done with the sums.
//
// a         f32, rows of A: value k of row i of product b at a_at + b / heads * a_sample + b % heads * a_head + i * a_row + k
// b         f32, columns of B: values 4 c to 4 c + 3 of column j of product b at b_at + b * b_matrix + c * width + j, 0 beyond K;
//           width is a multiple of 4, and columns beyond n up to the next multiple of 4 are there
// bias      f32 [n]
// out       f32: row i and column j of product b at out_at + b / heads * out_sample + b % heads * out_head + i * out_row + j
// residual  f32, as out
//
// out = (sum over k = 0, 1, ... in one chain) * factor + bias, then AFTER.

struct Params {
    m: u32,
    n: u32,
    k: u32,
    width: u32,
    batch: u32,
    heads: u32,
    factor: f32,
    has_bias: u32,
    a_at: u32,
    a_sample: u32,
    a_head: u32,
    a_row: u32,
    b_at: u32,
    b_matrix: u32,
    bias_at: u32,
    residual_at: u32,
    out_at: u32,
    out_sample: u32,
    out_head: u32,
    out_row: u32,
}

override AFTER: u32 = 0u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
// The same as `a`, for rows that begin at multiples of four values.
@group(0) @binding(6) var<storage, read> a_fours: array<vec4<f32>>;

fn a_start(batch: u32) -> u32 {
    return p.a_at + batch / p.heads * p.a_sample + batch % p.heads * p.a_head;
}

// Where product `batch` begins in `out`. Asked for once: divisions are dear where they are done lane by lane.
fn out_start(batch: u32) -> u32 {
    return batch / p.heads * p.out_sample + batch % p.heads * p.out_head;
}

// Stores the sum of row i and column j of the product that begins at `start`, where there is one.
fn store(start: u32, i: u32, j: u32, sum: f32) {
    if i >= p.m || j >= p.n {
        return;
    }
    let at = start + i * p.out_row + j;
    var v = sum * p.factor;
    if p.has_bias == 1u {
        v += bias[p.bias_at + j];
    }
    out[p.out_at + at] = finished(v, at);
}
