// Random features of keys and queries; one invocation for each row.
//
// Shapes and layouts: shared/features.wgsl. Oracle: tests/kernels/performer.rs
//
// uses: math.wgsl rows.wgsl features.wgsl

fn squares(at: u32, count: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var l = 0u; l < min(count, 4u); l++) {
        v[l] = x[at + l] * x[at + l];
    }
    return v;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = (group.y * groups.x + group.x) * 32u + lane;
    if r >= p.rows {
        return;
    }
    let start = row_start(r);
    var s = no_partial();
    for (var i = 0u; i < p.d; i += 16u) {
        let left = p.d - i;
        s.a += squares(start + i, left);
        s.b += squares(start + i + 4u, max(left, 4u) - 4u);
        s.c += squares(start + i + 8u, max(left, 8u) - 8u);
        s.d += squares(start + i + 12u, max(left, 12u) - 12u);
    }
    let square = total(s);
    for (var j = 0u; j < p.m; j++) {
        let at = p.products_at + r * p.m + j;
        products[at] = feature(products[at], square);
    }
}
