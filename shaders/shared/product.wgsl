// The quantized product around its inner loop: operands, addresses, and what is done with the sums.
//
// A and B are matrices of codes in chunks of 16 along the summed axis K; `batch` products are independent. How a chunk is stored is said where
// `a` and `b` are declared: codes.wgsl, or matmul_halves.wgsl.
//
// a         rows of A: chunk c of row i of product b at a_at + b * a_matrix + i * chunks + c
// a_infos   of a row: scale (f32), zero point (i32), sum of its codes (i32); row i of product b at a_info_at + b * m + i
// b         columns of B: chunk c of column j of product b at b_at + b * b_matrix + c * width + j; width is a multiple of 4, and
//           columns beyond n up to the next multiple of 4 are there
// b_infos   of a column: scale (f32), zero point (i32), sum of its codes (i32), bias (f32); column j of product b at
//           b_info_at + b * b_info_matrix + j
// out       f32: row i and column j of product b at out_at + b / heads * out_sample + b % heads * out_head + i * out_row + j
// residual  f32, as out
//
// out = (sum of products without the zero points) * (scale of row * scale of column * factor) + bias if has_bias, then AFTER.
// With RAW = 1, out holds the 32-bit integer sums of the codes' products instead, as bits.

struct Params {
    m: u32,
    n: u32,
    k: u32,
    chunks: u32,
    width: u32,
    batch: u32,
    heads: u32,
    factor: f32,
    a_at: u32,
    a_matrix: u32,
    a_info_at: u32,
    a_info_matrix: u32,
    b_at: u32,
    b_matrix: u32,
    b_info_at: u32,
    b_info_matrix: u32,
    out_at: u32,
    out_sample: u32,
    out_head: u32,
    out_row: u32,
    residual_at: u32,
    has_bias: u32,
    unused0: u32,
    unused1: u32,
}

override AFTER: u32 = 0u;
override RAW: u32 = 0u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> a_infos: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> b_infos: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

fn row_info(batch: u32, i: u32) -> vec4<u32> {
    return a_infos[p.a_info_at + batch * p.a_info_matrix + min(i, p.m - 1u)];
}

fn column_info(batch: u32, j: u32) -> vec4<u32> {
    return b_infos[p.b_info_at + batch * p.b_info_matrix + min(j, p.n - 1u)];
}

// Where product `batch` begins in `out`. Asked for once: divisions are dear where they are done lane by lane.
fn out_start(batch: u32) -> u32 {
    return batch / p.heads * p.out_sample + batch % p.heads * p.out_head;
}

// What row i and column j of the product that begins at `start` get for their sum, and what belongs to row and column.
fn outcome(start: u32, i: u32, j: u32, sum: i32, row: vec4<u32>, column: vec4<u32>) -> f32 {
    if RAW == 1u {
        return bitcast<f32>(sum);
    }
    let row_zero = bitcast<i32>(row.y);
    let column_zero = bitcast<i32>(column.y);
    let product = sum - row_zero * bitcast<i32>(column.z) - column_zero * bitcast<i32>(row.z) + i32(p.k) * row_zero * column_zero;
    let scale = bitcast<f32>(row.x) * bitcast<f32>(column.x) * p.factor;
    let at = start + min(i, p.m - 1u) * p.out_row + min(j, p.n - 1u);
    return finished(f32(product) * scale + select(0.0, bitcast<f32>(column.w), p.has_bias == 1u), at);
}

// Stores it, where there is such a row and column.
fn store_outcome(start: u32, i: u32, j: u32, value: f32) {
    if i < p.m && j < p.n {
        out[p.out_at + start + i * p.out_row + j] = value;
    }
}

// Both.
fn store_sum(start: u32, i: u32, j: u32, sum: i32, row: vec4<u32>, column: vec4<u32>) {
    if i < p.m && j < p.n {
        store_outcome(start, i, j, outcome(start, i, j, sum, row, column));
    }
}
