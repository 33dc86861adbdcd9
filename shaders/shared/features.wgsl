// Random features of keys and queries, e^(w x - |x|^2 / 2) / sqrt(m), where the products w x are there already: operands and parameters.
//
// x         f32: the vectors, row r at row_start(r), d values
// products  f32, m values of row r at products_at + r * m; replaced by the features

struct Params {
    rows: u32,
    d: u32,
    tokens: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_token: u32,
    m: u32,
    products_at: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> products: array<f32>;

fn feature(product: f32, square: f32) -> f32 {
    return exp_any(product - 0.5 * square) * (1.0 / sqrt(f32(p.m)));
}
