// Mean over the tokens of each sample, in their order.
//
// x  f32 [B, tokens, d]; the first `skip` tokens are left out
// y  f32 [B, d]
//
// One invocation per value of y. Oracle: tests/kernels/mean_tokens.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    tokens: u32,
    d: u32,
    skip: u32,
    x_at: u32,
    y_at: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    if i >= p.count {
        return;
    }
    let start = p.x_at + i / p.d * p.tokens * p.d + i % p.d;
    var sum = 0.0;
    for (var t = p.skip; t < p.tokens; t++) {
        sum += x[start + t * p.d];
    }
    y[p.y_at + i] = sum / f32(p.tokens - p.skip);
}
