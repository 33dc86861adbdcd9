// Layer normalisation or softmax of rows, in floats.
//
// x       f32, rows of d values one after the other
// gain    f32 [d], offset f32 [d]: of the normalisation
// y       f32, as x
//
// One invocation per row. Oracle: tests/kernels/rows_float.rs
//
// uses: math.wgsl rows.wgsl norm.wgsl
// variant: norm BEFORE=1
// variant: softmax BEFORE=2

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

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = (group.y * groups.x + group.x) * 32u + lane;
    if r >= p.rows {
        return;
    }
    let row = prepare(r);
    for (var i = 0u; i < p.d; i++) {
        y[p.y_at + r * p.d + i] = value(row, i);
    }
}
