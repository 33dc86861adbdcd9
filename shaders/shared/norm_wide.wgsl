// Rows of norm.wgsl with sixteen invocations for each row (wide.wgsl).

fn sum_row(row: Row, lane: u32, shift: f32, mode: u32) -> f32 {
    var partial = 0.0;
    for (var i = lane % PLACES; i < p.d; i += PLACES) {
        partial += term(x[row.start + i], shift, mode);
    }
    return sum_places(lane, partial);
}

fn prepare(r: u32, lane: u32) -> Row {
    var row = Row(row_start(r), 0.0, 1.0);
    if BEFORE == NORM {
        row.shift = quotient(sum_row(row, lane, 0.0, VALUES), f32(p.d));
        let variance = quotient(sum_row(row, lane, row.shift, SQUARES), f32(p.d));
        row.factor = quotient(1.0, square_root(variance + p.eps));
    }
    if BEFORE == SOFTMAX {
        var top = x[row.start];
        for (var i = lane % PLACES; i < p.d; i += PLACES) {
            top = max(top, x[row.start + i]);
        }
        row.shift = max_places(lane, vec2(top)).x;
        row.factor = quotient(1.0, sum_row(row, lane, row.shift, POWERS));
    }
    return row;
}
