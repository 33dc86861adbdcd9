// Elementwise sum; the second operand starts again after `period` values.
//
// x  f32 [count], y  f32 [period], z  f32 [count]
//
// One invocation per value. Oracle: tests/kernels/add.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    period: u32,
    x_at: u32,
    y_at: u32,
    z_at: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    if i < p.count {
        z[p.z_at + i] = x[p.x_at + i] + y[p.y_at + i % p.period];
    }
}
