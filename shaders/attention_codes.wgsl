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
// `parts` workgroups share the blocks of `rows` query tokens of a head; each quantizes all keys and values of the head for itself. Codes lie
// in shared memory in words of four, and so do the scores of a block. Places are counted in words; `places` says where what begins and must
// agree with crates/quee-gpu/src/executor/fused.rs:
//
// keys           word w of token t at w * key_stride + slot(t), then scale, zero point and sum of the codes by slot
// values         word w (tokens 4w to 4w + 3) of feature i at values + w * d + i, then the sums by feature
// scores         of row r and token t at scores + r * score_stride + slot(t); e^(score - largest) later
// queries        word w of row r at queries + r * query_stride + w; after the scores, the sixteen partial sums of the softmax
// probabilities  word w of row r at probabilities + r * probability_stride + w
// row_infos      by row: scale, zero point, sum of the query; scale, zero point, four parts of the sum of the probabilities
//
// An invocation sums four rows and four tokens t, t + 1, t + 2, t + 3. Their slots are a quarter of all apart, so that neighbours, which have
// the next four tokens, read neighbouring words. Strides of rows are odd: 32 rows then lie in 32 banks.
//
// Oracle: tests/kernels/attention_codes.rs
//
// shared: 48
// uses: exact.wgsl math.wgsl quantize.wgsl rows.wgsl
// variant: 16 WORDS=3584
// variant: 28 WORDS=6656
// variant: 48 WORDS=11776
// variant: 16_aligned WORDS=3584 ALIGNED=1
// variant: 28_aligned WORDS=6656 ALIGNED=1
// variant: 48_aligned WORDS=11776 ALIGNED=1

override WORDS: u32 = 3584u;
override ALIGNED: u32 = 0u;

struct Params {
    matrices: u32,
    tokens: u32,
    d: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_token: u32,
    x_third: u32,
    out_at: u32,
    out_sample: u32,
    out_head: u32,
    out_row: u32,
    first_sample: u32,
    groups: u32,
    factor: f32,
    rows: u32,
    parts: u32,
    // 0, which the product's epilogue adds where there is no bias.
    bias: f32,
    unused: u32,
    // Of queries, keys, values, probabilities.
    slots: vec4<u32>,
    ends: array<vec4<u32>, 2>,
    // Of group g at operand * 8 + g; a form is zero point, least and largest code, kind, a byte each, the zero point lowest.
    scales: array<vec4<f32>, 8>,
    inverses: array<vec4<f32>, 8>,
    forms: array<vec4<u32>, 8>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> flags: array<u32>;

const INVOCATIONS = 256u;
// Invocations for a row, and rows that are worked on at a time.
const PLACES = 4u;
const ROWS = 64u;
const ONES = 0x01010101u;

var<workgroup> words: array<u32, WORDS>;
var<workgroup> scratch: array<vec2<f32>, 256>;

struct Places {
    // Words of a row of queries or keys, and of probabilities.
    long: u32,
    quads: u32,
    key_stride: u32,
    key_infos: u32,
    values: u32,
    value_sums: u32,
    scores: u32,
    score_stride: u32,
    queries: u32,
    query_stride: u32,
    probabilities: u32,
    probability_stride: u32,
    row_infos: u32,
}

fn places() -> Places {
    var at: Places;
    at.long = (p.d + 3u) / 4u;
    at.quads = (p.tokens + 3u) / 4u;
    at.key_stride = 4u * at.quads + 1u;
    at.key_infos = at.long * at.key_stride;
    at.values = at.key_infos + 12u * at.quads;
    at.value_sums = at.values + at.quads * p.d;
    at.scores = at.value_sums + p.d;
    at.score_stride = 4u * at.quads + 1u;
    at.queries = at.scores + p.rows * at.score_stride;
    at.query_stride = max(at.long, 16u) | 1u;
    at.probabilities = at.queries + p.rows * at.query_stride;
    at.probability_stride = at.quads | 1u;
    at.row_infos = at.probabilities + p.rows * at.probability_stride;
    return at;
}

fn slot(at: Places, token: u32) -> u32 {
    return token % 4u * at.quads + token / 4u;
}

fn float_at(i: u32) -> f32 {
    return bitcast<f32>(words[i]);
}

fn int_at(i: u32) -> i32 {
    return bitcast<i32>(words[i]);
}

fn rule_of(operand: u32, group: u32) -> Rule {
    let i = operand * 8u + group;
    let form = bitcast<i32>(p.forms[i / 4u][i % 4u]);
    let least = (form << 16u) >> 24u;
    let most = (form << 8u) >> 24u;
    var rule: Rule;
    rule.scale = p.scales[i / 4u][i % 4u];
    rule.inverse = p.inverses[i / 4u][i % 4u];
    rule.zero = (form << 24u) >> 24u;
    rule.least = least;
    rule.most = most;
    rule.kind = u32(form >> 24u);
    rule.steps = f32(most - least);
    return rule;
}

fn are_finite(v: vec4<f32>) -> bool {
    return all((bitcast<vec4<u32>>(v) & vec4(0x7fffffffu)) < vec4(0x7f800000u));
}

// Values 4w to 4w + 3 of the row that begins at `start`, 0 beyond its end.
fn load(start: u32, w: u32) -> vec4<f32> {
    if w * 4u >= p.d {
        return vec4(0.0);
    }
    if ALIGNED == 1u {
        return x4[start / 4u + w];
    }
    let i = w * 4u;
    let last = p.d - 1u;
    let v = vec4(x[start + i], x[start + min(i + 1u, last)], x[start + min(i + 2u, last)], x[start + min(i + 3u, last)]);
    return select(vec4(0.0), v, vec4(i) + vec4(0u, 1u, 2u, 3u) < vec4(p.d));
}

// Codes in a word, of which the first `count` are there.
fn packed(code: vec4<i32>, count: u32) -> u32 {
    let c = bitcast<vec4<u32>>(code) & vec4(0xffu);
    let word = c.x | (c.y << 8u) | (c.z << 16u) | (c.w << 24u);
    return select(word & ((1u << (8u * (count & 3u))) - 1u), word, count >= 4u);
}

fn encode4(rule: Rule, v: vec4<f32>) -> vec4<i32> {
    return vec4(encode(rule, v.x), encode(rule, v.y), encode(rule, v.z), encode(rule, v.w));
}

// The smallest and the largest value so far, the smallest with its sign changed.
fn wider(ends: vec2<f32>, v: vec4<f32>) -> vec2<f32> {
    let low = min(min(v.x, v.y), min(v.z, v.w));
    let high = max(max(v.x, v.y), max(v.z, v.w));
    return max(ends, vec2(-low, high));
}

// Where codes of rows go: word w of place i at codes + i * stride + w * step, scale and zero point at infos + i and infos + count + i.
struct Target { codes: u32, stride: u32, step: u32, infos: u32, count: u32, keys: bool }

fn store_word(to: Target, i: u32, w: u32, rule: Rule, v: vec4<f32>) {
    if w * 4u < p.d {
        words[to.codes + i * to.stride + w * to.step] = packed(encode4(rule, v), p.d - w * 4u);
    }
}

// Quantizes `count` rows of x, each with four invocations; the rows follow one another from `start` on.
fn quantize_rows(at: Places, lane: u32, start: u32, count: u32, rule: Rule, flag: u32, to: Target) {
    let place = lane % PLACES;
    for (var first = 0u; first < count; first += ROWS) {
        let r = first + lane / PLACES;
        let here = r < count;
        let row = start + min(r, count - 1u) * p.x_token;
        // The first 64 values stay where they are, others are loaded again.
        let v0 = load(row, place);
        let v1 = load(row, place + 4u);
        let v2 = load(row, place + 8u);
        let v3 = load(row, place + 12u);
        var finite = are_finite(v0) && are_finite(v1) && are_finite(v2) && are_finite(v3);
        var ends = wider(wider(wider(wider(vec2(0.0), v0), v1), v2), v3);
        for (var w = place + 16u; w < at.long; w += PLACES) {
            let v = load(row, w);
            finite = finite && are_finite(v);
            ends = wider(ends, v);
        }
        if !finite {
            flags[flag] = 1u;
        }
        // What was there before has been read.
        workgroupBarrier();
        scratch[lane] = ends;
        workgroupBarrier();
        let quad = lane / PLACES * PLACES;
        ends = max(max(scratch[quad], scratch[quad + 1u]), max(scratch[quad + 2u], scratch[quad + 3u]));
        let fit = fitted(rule, -ends.x, ends.y);
        if here {
            let i = select(r, slot(at, r), to.keys);
            store_word(to, i, place, fit, v0);
            store_word(to, i, place + 4u, fit, v1);
            store_word(to, i, place + 8u, fit, v2);
            store_word(to, i, place + 12u, fit, v3);
            for (var w = place + 16u; w < at.long; w += PLACES) {
                store_word(to, i, w, fit, load(row, w));
            }
            if place == 0u {
                words[to.infos + i] = bitcast<u32>(fit.scale);
                words[to.infos + to.count + i] = bitcast<u32>(fit.zero);
            }
        }
    }
}

// Quantizes all values of the head, which have one rule; returns it.
fn quantize_values(at: Places, lane: u32, start: u32, rule: Rule) -> Rule {
    var finite = true;
    var ends = vec2(0.0);
    for (var i = lane; i < p.tokens * at.long; i += INVOCATIONS) {
        let v = load(start + i / at.long * p.x_token, i % at.long);
        finite = finite && are_finite(v);
        ends = wider(ends, v);
    }
    if !finite {
        flags[p.slots.z] = 1u;
    }
    workgroupBarrier();
    scratch[lane] = ends;
    workgroupBarrier();
    if lane < 16u {
        // Each of them overwrites its own place alone.
        for (var i = 1u; i < 16u; i++) {
            ends = max(ends, scratch[i * 16u + lane]);
        }
        scratch[lane] = ends;
    }
    workgroupBarrier();
    for (var i = 0u; i < 16u; i++) {
        ends = max(ends, scratch[i]);
    }
    let fit = fitted(rule, -ends.x, ends.y);
    for (var i = lane; i < at.quads * p.d; i += INVOCATIONS) {
        let quad = i / p.d;
        let t = quad * 4u;
        let last = p.tokens - 1u;
        let first = start + i % p.d;
        let v = vec4(
            x[first + t * p.x_token], x[first + min(t + 1u, last) * p.x_token],
            x[first + min(t + 2u, last) * p.x_token], x[first + min(t + 3u, last) * p.x_token]);
        words[at.values + i] = packed(encode4(fit, v), p.tokens - t);
    }
    return fit;
}

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

// What becomes of the sums of a row of `length` codes, as in shared/codes.wgsl.
fn outcomes(sums: vec4<i32>, scale: f32, zero: i32, sum: i32, length: u32, columns: Columns, factor: f32) -> vec4<f32> {
    let products = sums - zero * columns.sum - columns.zero * sum + i32(length) * zero * columns.zero;
    return vec4<f32>(products) * (scale * columns.scale * factor) + p.bias;
}

// Scores of row r, stored.
fn store_scores(at: Places, r: u32, rows: u32, tile: u32, sums: vec4<i32>, columns: Columns) {
    if r < rows {
        let scale = float_at(at.row_infos + r);
        let zero = int_at(at.row_infos + p.rows + r);
        let v = outcomes(sums, scale, zero, int_at(at.row_infos + 2u * p.rows + r), p.d, columns, p.factor);
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
    let c = lane / ROWS;
    for (var first = 0u; first < rows; first += ROWS) {
        let wanted = first + lane % ROWS;
        let here = wanted < rows;
        let r = min(wanted, rows - 1u);
        let row = at.scores + r * at.score_stride;
        let parts = at.queries + r * at.query_stride;
        var top = -3.4028235e38;
        for (var quad = c; quad < at.quads; quad += PLACES) {
            let v = four_scores(row, at.quads, quad);
            let is_there = vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(p.tokens);
            let w = select(vec4(-3.4028235e38), v, is_there);
            top = max(top, max(max(w.x, w.y), max(w.z, w.w)));
        }
        scratch[lane].x = top;
        workgroupBarrier();
        let column = lane % ROWS;
        top = max(max(scratch[column].x, scratch[column + ROWS].x), max(scratch[column + 2u * ROWS].x, scratch[column + 3u * ROWS].x));
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
                words[at.probabilities + r * at.probability_stride + quad] = word;
            }
            let infos = at.row_infos + 3u * p.rows + r;
            words[infos + (2u + c) * p.rows] = bitcast<u32>(sum);
            if c == 0u {
                words[infos] = bitcast<u32>(fit.scale);
                words[infos + p.rows] = bitcast<u32>(fit.zero);
            }
        }
    }
}

fn mixed(at: Places, r: u32, sums: vec4<i32>, columns: Columns) -> vec4<f32> {
    let infos = at.row_infos + 3u * p.rows + r;
    let parts = infos + 2u * p.rows;
    let sum = int_at(parts) + int_at(parts + p.rows) + int_at(parts + 2u * p.rows) + int_at(parts + 3u * p.rows);
    return outcomes(sums, float_at(infos), int_at(infos + p.rows), sum, p.tokens, columns, 1.0);
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
        let row = at.probabilities + r * at.probability_stride;
        let s = block(row, at.probability_stride, column + vec4(at.values), p.d, at.quads);
        let sums = column + vec4(at.value_sums);
        let columns = Columns(
            vec4(rule.scale), vec4(rule.zero), vec4(int_at(sums.x), int_at(sums.y), int_at(sums.z), int_at(sums.w)));
        let v0 = mixed(at, r, s.r0, columns);
        let v1 = mixed(at, r + 1u, s.r1, columns);
        let v2 = mixed(at, r + 2u, s.r2, columns);
        let v3 = mixed(at, r + 3u, s.r3, columns);
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
        }
        for (var r = lane; r < rows; r += INVOCATIONS) {
            words[at.row_infos + 2u * p.rows + r] = code_sum(at.queries + r * at.query_stride, at.long, 1u);
        }
        workgroupBarrier();
        scores(at, lane, rows);
        workgroupBarrier();
        probabilities(at, lane, rows, rule_of(3u, g));
        workgroupBarrier();
        mix(at, lane, rows, value_rule, out_start + first * p.out_row);
        // The next block's first writes to what is read here come after a barrier.
    }
}
