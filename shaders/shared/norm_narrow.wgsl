// Rows of norm.wgsl with one invocation for each row.

fn four(row: Row, i: u32) -> vec4<f32> {
    let at = row.start + i;
    return vec4(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
}

fn terms(v: vec4<f32>, shift: f32, mode: u32) -> vec4<f32> {
    return vec4(term(v.x, shift, mode), term(v.y, shift, mode), term(v.z, shift, mode), term(v.w, shift, mode));
}

fn sum_row(row: Row, shift: f32, mode: u32) -> f32 {
    var s = no_partial();
    let whole = p.d / 16u * 16u;
    for (var i = 0u; i < whole; i += 16u) {
        s.a += terms(four(row, i), shift, mode);
        s.b += terms(four(row, i + 4u), shift, mode);
        s.c += terms(four(row, i + 8u), shift, mode);
        s.d += terms(four(row, i + 12u), shift, mode);
    }
    for (var i = whole; i < p.d; i += 4u) {
        var v = terms(four_or_less(row, i), shift, mode);
        v = select(vec4(0.0), v, vec4(i) + vec4(0u, 1u, 2u, 3u) < vec4(p.d));
        switch i - whole {
            case 0u: { s.a += v; }
            case 4u: { s.b += v; }
            case 8u: { s.c += v; }
            default: { s.d += v; }
        }
    }
    return total(s);
}

// The end of a row whose length is no multiple of four: its last value stands in for those beyond.
fn four_or_less(row: Row, i: u32) -> vec4<f32> {
    let last = p.d - 1u;
    let at = row.start;
    return vec4(x[at + i], x[at + min(i + 1u, last)], x[at + min(i + 2u, last)], x[at + min(i + 3u, last)]);
}

fn prepare(r: u32) -> Row {
    var row = Row(row_start(r), 0.0, 1.0);
    if BEFORE == NORM {
        row.shift = quotient(sum_row(row, 0.0, VALUES), f32(p.d));
        let variance = quotient(sum_row(row, row.shift, SQUARES), f32(p.d));
        row.factor = quotient(1.0, square_root(variance + p.eps));
    }
    if BEFORE == SOFTMAX {
        var top = x[row.start];
        for (var i = 1u; i < p.d; i++) {
            top = max(top, x[row.start + i]);
        }
        row.shift = top;
        row.factor = quotient(1.0, sum_row(row, top, POWERS));
    }
    return row;
}
