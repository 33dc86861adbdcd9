// Random features of keys and queries: e^(w x - |x|^2 / 2) / sqrt(m), where the products w x are there already.
//
// x         f32: the vectors, row r at row_start(r), d values
// products  f32, m values of row r at products_at + r * m; replaced by the features
//
// One invocation per row. Oracle: tests/kernels/performer.rs
//
// uses: math.wgsl rows.wgsl

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

fn squares(at: u32, count: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var l = 0u; l < min(count, 4u); l++) {
        v[l] = x[at + l] * x[at + l];
    }
    return v;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = (group.y * groups.x + group.x) * 32u + lane;
    if r >= p.rows {
        return;
    }
    let start = row_start(r);
    var s = no_partial();
    for (var i = 0u; i < p.d; i += 16u) {
        let left = p.d - i;
        s.a += squares(start + i, left);
        s.b += squares(start + i + 4u, max(left, 4u) - 4u);
        s.c += squares(start + i + 8u, max(left, 8u) - 8u);
        s.d += squares(start + i + 12u, max(left, 12u) - 12u);
    }
    let half = 0.5 * total(s);
    let inverse = 1.0 / sqrt(f32(p.m));
    for (var j = 0u; j < p.m; j++) {
        let at = p.products_at + r * p.m + j;
        products[at] = exp_any(products[at] - half) * inverse;
    }
}
