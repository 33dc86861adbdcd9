// As rows_float, for discrete GPUs: sixteen invocations for each row, which read and write it side by side.
//
// Shapes and layouts: shared/float_rows.wgsl. Oracle: tests/kernels/rows_float.rs
//
// uses: exact.wgsl math.wgsl rows.wgsl wide.wgsl norm.wgsl norm_wide.wgsl float_rows.wgsl
// variant: norm BEFORE=1
// variant: softmax BEFORE=2

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let wanted = (group.y * groups.x + group.x) * WIDE_ROWS + lane / PLACES;
    // No early end: all invocations reach the barriers. Those without a row do the last one again and store nothing.
    let r = min(wanted, p.rows - 1u);
    let row = prepare(r, lane);
    if wanted < p.rows {
        for (var i = lane % PLACES; i < p.d; i += PLACES) {
            y[p.y_at + r * p.d + i] = value(row, i);
        }
    }
}
