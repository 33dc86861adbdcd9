// As performer_features, for discrete GPUs: sixteen invocations for each row.
//
// Shapes and layouts: shared/features.wgsl. Oracle: tests/kernels/performer.rs
//
// uses: math.wgsl rows.wgsl wide.wgsl features.wgsl

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let wanted = (group.y * groups.x + group.x) * WIDE_ROWS + lane / PLACES;
    // No early end: all invocations reach the barrier. Those without a row do the last one again and store nothing.
    let r = min(wanted, p.rows - 1u);
    let start = row_start(r);
    var partial = 0.0;
    for (var i = lane % PLACES; i < p.d; i += PLACES) {
        partial += x[start + i] * x[start + i];
    }
    let square = sum_places(lane, partial);
    if wanted < p.rows {
        for (var j = lane % PLACES; j < p.m; j += PLACES) {
            let at = p.products_at + r * p.m + j;
            products[at] = feature(products[at], square);
        }
    }
}
