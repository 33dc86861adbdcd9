// Copies values to other places: transposes, slices, gathers samples, puts tokens before others.
//
// x        f32: value (b, i, j) at x_at + s * x_sample + i * x_row + j * x_column, where s is samples[b] when gather is 1, else b
// samples  u32 [B], for gather
// y        f32: value (b, i, j) at y_at + b * y_sample + i * y_row + j
//
// One invocation per value. Oracle: tests/kernels/rearrange.rs
//
// uses: linear_index.wgsl

struct Params {
    count: u32,
    rows: u32,
    columns: u32,
    gather: u32,
    x_at: u32,
    x_sample: u32,
    x_row: u32,
    x_column: u32,
    samples_at: u32,
    y_at: u32,
    y_sample: u32,
    y_row: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> samples: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = invocation(group, groups, lane);
    if at >= p.count {
        return;
    }
    let j = at % p.columns;
    let i = at / p.columns % p.rows;
    let b = at / p.columns / p.rows;
    var sample = b;
    if p.gather == 1u {
        sample = samples[p.samples_at + b];
    }
    y[p.y_at + b * p.y_sample + i * p.y_row + j] = x[p.x_at + sample * p.x_sample + i * p.x_row + j * p.x_column];
}
