// What each query gets: its features times the sums of performer_sums.wgsl, divided by their sum and eps.
//
// features  f32 [B, tokens, m]
// sums      f32 [B, m, d + 1]
// y         f32 [B, tokens, d]
//
// One invocation per value of y. Oracle: tests/kernels/performer.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    tokens: u32,
    m: u32,
    d: u32,
    features_at: u32,
    sums_at: u32,
    y_at: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> features: array<f32>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = invocation(group, groups, lane);
    if at >= p.count {
        return;
    }
    let i = at % p.d;
    let row = at / p.d;
    let base = p.features_at + row * p.m;
    let to = p.sums_at + row / p.tokens * p.m * (p.d + 1u);
    var mixed = 0.0;
    var weight = 0.0;
    for (var j = 0u; j < p.m; j++) {
        let feature = features[base + j];
        mixed = fma(feature, sums[to + j * (p.d + 1u) + i], mixed);
        weight += feature * sums[to + j * (p.d + 1u) + p.d];
    }
    y[p.y_at + at] = mixed * (1.0 / (weight + p.eps));
}
