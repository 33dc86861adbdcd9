// Lays matrices out as the columns of a float product (shared/floats.wgsl).
//
// x  f32: value k of column j of matrix m at x_at + m / heads * x_sample + m % heads * x_head + j * x_column + k * x_row
// y  four values of chunk c and column j of matrix m at y_at + (m * chunks + c) * width + j, 0 beyond K and n;
//    chunks = k / 4 rounded up, width = n rounded up to 4
//
// One invocation per four values. Oracle: tests/kernels/pack_float.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    k: u32,
    n: u32,
    width: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_column: u32,
    x_row: u32,
    y_at: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    if i >= p.count {
        return;
    }
    let chunks = (p.k + 3u) / 4u;
    let j = i % p.width;
    let c = i / p.width % chunks;
    let m = i / p.width / chunks;
    let start = p.x_at + m / p.heads * p.x_sample + m % p.heads * p.x_head + j * p.x_column;
    var four = vec4(0.0);
    for (var l = 0u; l < 4u; l++) {
        let k = c * 4u + l;
        if k < p.k && j < p.n {
            four[l] = x[start + k * p.x_row];
        }
    }
    y[p.y_at + i] = four;
}
