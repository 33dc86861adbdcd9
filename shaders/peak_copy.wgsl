// What an adapter can reach in moving data: copies a buffer.
//
// x  vec4<f32> [count], y  vec4<f32> [count]
//
// One invocation per vector. Oracle: crates/quee-gpu/src/bench/tests.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    x_at: u32,
    y_at: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    if i < p.count {
        y[p.y_at + i] = x[p.x_at + i];
    }
}
