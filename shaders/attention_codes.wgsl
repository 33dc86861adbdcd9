// Attention of one head in one dispatch, for discrete GPUs: queries, keys and values to codes, scores, softmax, probabilities to codes, and
// their product with the values. Bit for bit what rows_codes_wide, values_codes and the products of codes give one after the other.
//
// x        f32, twice: as numbers and, with ALIGNED = 1, as vectors of four. Value i of token t of query, key or value (third 0, 1 or 2) of
//          matrix m = head m % heads of sample m / heads at
//          x_at + m / heads * x_sample + m % heads * x_head + third * x_third + t * x_token + i
// out      f32: feature i of token t of matrix m at out_at + m / heads * out_sample + m % heads * out_head + t * out_row + i
// flags    flags[slot] of queries, keys, values or probabilities becomes 1 when what is to be quantized there is NaN or infinite
//
// Group g of samples, up to its end in `ends`, is quantized by the rules g of the four operands; samples are counted over the whole
// operation. ALIGNED = 1: d and whatever leads to a row of x are multiples of four.
//
// `parts` workgroups share the blocks of `rows` query tokens of a head; each quantizes all keys and values of the head for itself. Codes
// and scores stay in shared memory: shared/attention_places.wgsl. An invocation sums four rows and four columns.
//
// Oracle: tests/kernels/attention_codes.rs
//
// shared: 48
// uses: exact.wgsl math.wgsl quantize.wgsl rows.wgsl attention_places.wgsl attention_operands.wgsl
// variant: 16 WORDS=3584
// variant: 25 WORDS=5888
// variant: 32 WORDS=7680
// variant: 48 WORDS=11776
// variant: 16_aligned WORDS=3584 ALIGNED=1
// variant: 25_aligned WORDS=5888 ALIGNED=1
// variant: 32_aligned WORDS=7680 ALIGNED=1
// variant: 48_aligned WORDS=11776 ALIGNED=1

// Sum of the codes of `count` words, `step` apart.
fn code_sum(start: u32, count: u32, step: u32) -> u32 {
    var sum = 0;
    for (var w = 0u; w < count; w++) {
        sum += dot4I8Packed(words[start + w * step], ONES);
    }
    return bitcast<u32>(sum);
}

// Sums of four rows and four columns.
struct Block { r0: vec4<i32>, r1: vec4<i32>, r2: vec4<i32>, r3: vec4<i32> }

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
    return vec4(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

// Products of four rows of `count` words, `a_stride` apart, and four columns, whose words are `b_step` apart.
fn block(a: u32, a_stride: u32, b: vec4<u32>, b_step: u32, count: u32) -> Block {
    var s = Block(vec4(0), vec4(0), vec4(0), vec4(0));
    for (var w = 0u; w < count; w++) {
        let j = b + vec4(w * b_step);
        let column = vec4(words[j.x], words[j.y], words[j.z], words[j.w]);
        s.r0 += dots(words[a + w], column);
        s.r1 += dots(words[a + a_stride + w], column);
        s.r2 += dots(words[a + 2u * a_stride + w], column);
        s.r3 += dots(words[a + 3u * a_stride + w], column);
    }
    return s;
}

// Four columns' scales, zero points and sums of codes.
struct Columns { scale: vec4<f32>, zero: vec4<i32>, sum: vec4<i32> }

// What becomes of the sums of row r, which has `length` codes, as in shared/codes.wgsl.
fn outcomes(at: Places, r: u32, sums: vec4<i32>, length: u32, columns: Columns, factor: f32) -> vec4<f32> {
    let infos = at.row_infos + r;
    let parts = infos + 2u * p.rows;
    let scale = float_at(infos);
    let zero = int_at(infos + p.rows);
    let sum = int_at(parts) + int_at(parts + p.rows) + int_at(parts + 2u * p.rows) + int_at(parts + 3u * p.rows);
    let products = sums - zero * columns.sum - columns.zero * sum + i32(length) * zero * columns.zero;
    return vec4<f32>(products) * (scale * columns.scale * factor) + p.bias;
}

// Scores of row r, stored.
fn store_scores(at: Places, r: u32, rows: u32, tile: u32, sums: vec4<i32>, columns: Columns) {
    if r < rows {
        let v = outcomes(at, r, sums, p.d, columns, p.factor);
        let is_there = vec4(tile * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(p.tokens);
        if !are_finite(select(vec4(0.0), v, is_there)) {
            flags[p.slots.w] = 1u;
        }
        let to = at.scores + r * at.score_stride + tile;
        words[to] = bitcast<u32>(v.x);
        words[to + at.quads] = bitcast<u32>(v.y);
        words[to + 2u * at.quads] = bitcast<u32>(v.z);
        words[to + 3u * at.quads] = bitcast<u32>(v.w);
    }
}

fn scores(at: Places, lane: u32, rows: u32) {
    for (var i = lane; i < (rows + 3u) / 4u * at.quads; i += INVOCATIONS) {
        let tile = i % at.quads;
        let r = i / at.quads * 4u;
        let column = vec4(tile) + at.quads * vec4(0u, 1u, 2u, 3u);
        let s = block(at.queries + r * at.query_stride, at.query_stride, column, at.key_stride, at.long);
        let infos = column + vec4(at.key_infos);
        let zeros = infos + vec4(4u * at.quads);
        let sums = infos + vec4(8u * at.quads);
        let columns = Columns(
            vec4(float_at(infos.x), float_at(infos.y), float_at(infos.z), float_at(infos.w)),
            vec4(int_at(zeros.x), int_at(zeros.y), int_at(zeros.z), int_at(zeros.w)),
            vec4(int_at(sums.x), int_at(sums.y), int_at(sums.z), int_at(sums.w)));
        store_scores(at, r, rows, tile, s.r0, columns);
        store_scores(at, r + 1u, rows, tile, s.r1, columns);
        store_scores(at, r + 2u, rows, tile, s.r2, columns);
        store_scores(at, r + 3u, rows, tile, s.r3, columns);
    }
}

fn four_scores(row: u32, quads: u32, quad: u32) -> vec4<f32> {
    let i = row + quad;
    return vec4(float_at(i), float_at(i + quads), float_at(i + 2u * quads), float_at(i + 3u * quads));
}

// The partial sums 4c to 4c + 3 of a row of queries that are needed no longer.
fn four_sums(row: u32, c: u32) -> vec4<f32> {
    let i = row + 4u * c;
    return vec4(float_at(i), float_at(i + 1u), float_at(i + 2u), float_at(i + 3u));
}

// Probabilities of the scores to codes. Each row has four invocations; number c keeps partial sums 4c to 4c + 3 of shared/rows.wgsl, and so
// has tokens 16k + 4c to 16k + 4c + 3. Invocations of different rows are neighbours.
fn probabilities(at: Places, lane: u32, rows: u32, rule: Rule) {
    for (var first = 0u; first < rows; first += ROWS) {
        let count = min(rows - first, ROWS);
        let c = lane / count;
        let here = c < PLACES;
        let column = lane % count;
        let r = first + column;
        let row = at.scores + r * at.score_stride;
        let parts = at.queries + r * at.query_stride;
        var top = -3.4028235e38;
        for (var quad = select(at.quads, c, here); quad < at.quads; quad += PLACES) {
            let v = four_scores(row, at.quads, quad);
            let is_there = vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(p.tokens);
            let w = select(vec4(-3.4028235e38), v, is_there);
            top = max(top, max(max(w.x, w.y), max(w.z, w.w)));
        }
        scratch[lane].x = top;
        workgroupBarrier();
        top = max(max(scratch[column].x, scratch[column + count].x), max(scratch[column + 2u * count].x, scratch[column + 3u * count].x));
        var partial = vec4(0.0);
        if here {
            for (var quad = c; quad < at.quads; quad += PLACES) {
                let d = four_scores(row, at.quads, quad) - top;
                let e = vec4(exp_not_positive(d.x), exp_not_positive(d.y), exp_not_positive(d.z), exp_not_positive(d.w));
                let is_there = vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(p.tokens);
                partial += select(vec4(0.0), e, is_there);
                let i = row + quad;
                words[i] = bitcast<u32>(e.x);
                words[i + at.quads] = bitcast<u32>(e.y);
                words[i + 2u * at.quads] = bitcast<u32>(e.z);
                words[i + 3u * at.quads] = bitcast<u32>(e.w);
            }
            words[parts + 4u * c] = bitcast<u32>(partial.x);
            words[parts + 4u * c + 1u] = bitcast<u32>(partial.y);
            words[parts + 4u * c + 2u] = bitcast<u32>(partial.z);
            words[parts + 4u * c + 3u] = bitcast<u32>(partial.w);
        }
        workgroupBarrier();
        if here {
            let sums = Partial(four_sums(parts, 0u), four_sums(parts, 1u), four_sums(parts, 2u), four_sums(parts, 3u));
            let factor = quotient(1.0, total(sums));
            // The largest score's power is 1 and no other is larger, so the largest probability is the factor. None is below 0.
            let fit = fitted(rule, 0.0, factor);
            var sum = 0;
            for (var quad = c; quad < at.quads; quad += PLACES) {
                let word = packed(encode4(fit, four_scores(row, at.quads, quad) * factor), p.tokens - quad * 4u);
                sum += dot4I8Packed(word, ONES);
                words[row + quad] = word;
            }
            let infos = at.row_infos + r;
            words[infos + (2u + c) * p.rows] = bitcast<u32>(sum);
            if c == 0u {
                words[infos] = bitcast<u32>(fit.scale);
                words[infos + p.rows] = bitcast<u32>(fit.zero);
            }
        }
    }
}

fn store_row(start: u32, r: u32, rows: u32, feature: vec4<u32>, v: vec4<f32>) {
    if r < rows {
        let to = start + r * p.out_row;
        out[to + feature.x] = v.x;
        if feature.y < p.d {
            out[to + feature.y] = v.y;
        }
        if feature.z < p.d {
            out[to + feature.z] = v.z;
        }
        if feature.w < p.d {
            out[to + feature.w] = v.w;
        }
    }
}

// Probabilities times values, to `out` from `start` on.
fn mix(at: Places, lane: u32, rows: u32, rule: Rule, start: u32) {
    for (var i = lane; i < (rows + 3u) / 4u * at.long; i += INVOCATIONS) {
        let r = i / at.long * 4u;
        let feature = vec4(i % at.long) + at.long * vec4(0u, 1u, 2u, 3u);
        let column = min(feature, vec4(p.d - 1u));
        let row = at.scores + r * at.score_stride;
        let s = block(row, at.score_stride, column + vec4(at.values), p.d, at.quads);
        let sums = column + vec4(at.value_sums);
        let columns = Columns(
            vec4(rule.scale), vec4(rule.zero), vec4(int_at(sums.x), int_at(sums.y), int_at(sums.z), int_at(sums.w)));
        let v0 = outcomes(at, r, s.r0, p.tokens, columns, 1.0);
        let v1 = outcomes(at, r + 1u, s.r1, p.tokens, columns, 1.0);
        let v2 = outcomes(at, r + 2u, s.r2, p.tokens, columns, 1.0);
        let v3 = outcomes(at, r + 3u, s.r3, p.tokens, columns, 1.0);
        store_row(start, r, rows, feature, v0);
        store_row(start, r + 1u, rows, feature, v1);
        store_row(start, r + 2u, rows, feature, v2);
        store_row(start, r + 3u, rows, feature, v3);
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.y * groups.x + group.x;
    let m = number / p.parts;
    // All invocations of a workgroup end here, or none.
    if m >= p.matrices {
        return;
    }
    let sample = m / p.heads;
    let head = m % p.heads;
    let start = p.x_at + sample * p.x_sample + head * p.x_head;
    let out_start = p.out_at + sample * p.out_sample + head * p.out_head;
    var g = 0u;
    while g + 1u < p.groups && p.first_sample + sample >= p.ends[g / 4u][g % 4u] {
        g++;
    }
    let at = places();
    let keys = Target(0u, 1u, at.key_stride, at.key_infos, 4u * at.quads, true);
    let queries = Target(at.queries, at.query_stride, 1u, at.row_infos, p.rows, false);
    let value_rule = quantize_values(at, lane, start + 2u * p.x_third, rule_of(2u, g));
    quantize_rows(at, lane, start + p.x_third, p.tokens, rule_of(1u, g), p.slots.y, keys);
    let first_block = number % p.parts * p.rows;
    for (var first = first_block; first < p.tokens; first += p.parts * p.rows) {
        let rows = min(p.rows, p.tokens - first);
        quantize_rows(at, lane, start + first * p.x_token, rows, rule_of(0u, g), p.slots.x, queries);
        workgroupBarrier();
        if first == first_block {
            for (var i = lane; i < 4u * at.quads; i += INVOCATIONS) {
                words[at.key_infos + 8u * at.quads + i] = code_sum(i, at.long, at.key_stride);
            }
            for (var i = lane; i < p.d; i += INVOCATIONS) {
                words[at.value_sums + i] = code_sum(at.values + i, at.quads, p.d);
            }
            workgroupBarrier();
        }
        scores(at, lane, rows);
        workgroupBarrier();
        probabilities(at, lane, rows, rule_of(3u, g));
        workgroupBarrier();
        mix(at, lane, rows, value_rule, out_start + first * p.out_row);
        // What the next block writes first comes after a barrier.
    }
}
