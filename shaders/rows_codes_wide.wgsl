// As rows_codes, for discrete GPUs: sixteen invocations for each row, which read it side by side.
//
// Shapes and layouts: shared/quantized_rows.wgsl. Oracle: tests/kernels/rows_codes.rs
//
// uses: exact.wgsl math.wgsl quantize.wgsl rows.wgsl wide.wgsl norm.wgsl norm_wide.wgsl quantized_rows.wgsl
// variant: plain BEFORE=0
// variant: norm BEFORE=1
// variant: softmax BEFORE=2
// variant: uneven BEFORE=0 UNEVEN=1
// variant: uneven_norm BEFORE=1 UNEVEN=1
// variant: uneven_softmax BEFORE=2 UNEVEN=1

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let wanted = (group.y * groups.x + group.x) * WIDE_ROWS + lane / PLACES;
    // No early end: all invocations reach the barriers. Those without a row do the last one again and store nothing.
    let here = wanted < p.rows;
    let r = min(wanted, p.rows - 1u);
    let place = lane % PLACES;
    let row = prepare(r, lane);
    var lo = 0.0;
    var hi = 0.0;
    var finite = true;
    for (var i = place; i < p.d; i += PLACES) {
        let v = value(row, i);
        finite = finite && is_finite(x[row.start + i]) && is_finite(v);
        lo = min(lo, v);
        hi = max(hi, v);
    }
    if !finite {
        flags[p.slot] = 1u;
    }
    let ends = max_places(lane, vec2(-lo, hi));
    let rule = fitted(rule_of(p.first_row + r), -ends.x, ends.y);
    let out = code_start(r);
    var partial = 0;
    let words = (p.d + 15u) / 16u * 4u;
    for (var w = place; w < words; w += PLACES) {
        let word = code_word(row, rule, w, &partial);
        if here {
            codes[out + w / 4u * p.code_chunk + w % 4u] = word;
        }
    }
    let sum = count_places(lane, partial);
    if here && place == 0u {
        store_info(r, rule, sum);
    }
}
