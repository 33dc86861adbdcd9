// Quantizes rows, after layer normalisation or softmax where BEFORE says so; one invocation for each row.
//
// Shapes and layouts: shared/quantized_rows.wgsl. Oracle: tests/kernels/rows_codes.rs
//
// uses: exact.wgsl math.wgsl quantize.wgsl rows.wgsl norm.wgsl norm_narrow.wgsl quantized_rows.wgsl
// variant: plain BEFORE=0
// variant: norm BEFORE=1
// variant: softmax BEFORE=2
// variant: uneven BEFORE=0 UNEVEN=1
// variant: uneven_norm BEFORE=1 UNEVEN=1
// variant: uneven_softmax BEFORE=2 UNEVEN=1

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = (group.y * groups.x + group.x) * 32u + lane;
    if r >= p.rows {
        return;
    }
    let row = prepare(r);
    var lo = 0.0;
    var hi = 0.0;
    var finite = true;
    for (var i = 0u; i < p.d; i++) {
        let v = value(row, i);
        finite = finite && is_finite(x[row.start + i]) && is_finite(v);
        lo = min(lo, v);
        hi = max(hi, v);
    }
    if !finite {
        flags[p.slot] = 1u;
    }
    let rule = fitted(rule_of(p.first_row + r), lo, hi);
    let out = code_start(r);
    var sum = 0;
    let words = (p.d + 15u) / 16u * 4u;
    for (var w = 0u; w < words; w++) {
        codes[out + w / 4u * p.code_chunk + w % 4u] = code_word(row, rule, w, &sum);
    }
    store_info(r, rule, sum);
}
