// Normalising rows in floats: operands and parameters.
//
// x       f32, rows of d values one after the other
// gain    f32 [d], offset f32 [d]: of the normalisation
// y       f32, as x

override BEFORE: u32 = 1u;

struct Params {
    rows: u32,
    d: u32,
    tokens: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_token: u32,
    gain_at: u32,
    offset_at: u32,
    eps: f32,
    y_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read> offset: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
