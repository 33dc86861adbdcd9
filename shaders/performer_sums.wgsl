// Key features times values, and the sums of the key features, over the tokens of each sample in their order.
//
// features  f32 [B, tokens, m]
// x         f32: value i of token t of sample b at x_at + b * x_sample + t * x_token + i, i < d
// sums      f32 [B, m, d + 1]: the product with value i at i, the sum of the features at d
//
// One invocation per value of sums. Oracle: tests/kernels/performer.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    tokens: u32,
    m: u32,
    d: u32,
    features_at: u32,
    x_at: u32,
    x_sample: u32,
    x_token: u32,
    sums_at: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> features: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = invocation(group, groups, lane);
    if at >= p.count {
        return;
    }
    let i = at % (p.d + 1u);
    let j = at / (p.d + 1u) % p.m;
    let b = at / (p.d + 1u) / p.m;
    var sum = 0.0;
    for (var t = 0u; t < p.tokens; t++) {
        let feature = features[p.features_at + (b * p.tokens + t) * p.m + j];
        if i < p.d {
            sum = fma(feature, x[p.x_at + b * p.x_sample + t * p.x_token + i], sum);
        } else {
            sum += feature;
        }
    }
    sums[p.sums_at + at] = sum;
}
