// Layer normalisation or softmax of rows, in floats; one invocation for each row.
//
// Shapes and layouts: shared/float_rows.wgsl. Oracle: tests/kernels/rows_float.rs
//
// uses: exact.wgsl math.wgsl rows.wgsl norm.wgsl norm_narrow.wgsl float_rows.wgsl
// variant: norm BEFORE=1
// variant: softmax BEFORE=2

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
