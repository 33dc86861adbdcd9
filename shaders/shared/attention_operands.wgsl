// Attention in one dispatch: queries, keys and values to codes. What the rules give is what rows_codes_wide and values_codes give.

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

// Where codes of rows go: word w of place i at codes + i * stride + w * step, scale, zero point and, but for keys, the four parts of the sum at
// infos + i, `count` words apart.
struct Target { codes: u32, stride: u32, step: u32, infos: u32, count: u32, keys: bool }

// Stores a word of codes, if the row has it, and returns their sum.
fn store_word(to: Target, i: u32, w: u32, rule: Rule, v: vec4<f32>) -> i32 {
    if w * 4u >= p.d {
        return 0;
    }
    let word = packed(encode4(rule, v), p.d - w * 4u);
    words[to.codes + i * to.stride + w * to.step] = word;
    return dot4I8Packed(word, ONES);
}

const BEYOND = 0x10000000u;

// Quantizes `count` rows of x, each with four invocations; the rows follow one another from `start` on.
fn quantize_rows(at: Places, lane: u32, start: u32, count: u32, rule: Rule, flag: u32, to: Target) {
    for (var first = 0u; first < count; first += ROWS) {
        let r = first + lane / PLACES;
        let here = r < count;
        let row = start + r * p.x_token;
        // Without a row, all words are beyond its end.
        let place = select(BEYOND, lane % PLACES, here);
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
            var sum = store_word(to, i, place, fit, v0);
            sum += store_word(to, i, place + 4u, fit, v1);
            sum += store_word(to, i, place + 8u, fit, v2);
            sum += store_word(to, i, place + 12u, fit, v3);
            for (var w = place + 16u; w < at.long; w += PLACES) {
                sum += store_word(to, i, w, fit, load(row, w));
            }
            if place == 0u {
                words[to.infos + i] = bitcast<u32>(fit.scale);
                words[to.infos + to.count + i] = bitcast<u32>(fit.zero);
            }
            if !to.keys {
                words[to.infos + (2u + place) * to.count + i] = bitcast<u32>(sum);
            }
        }
    }
}

// Word i of the values of a head, 0 beyond the last.
fn load_value(at: Places, start: u32, i: u32) -> vec4<f32> {
    if i >= p.tokens * at.long {
        return vec4(0.0);
    }
    return load(start + i / at.long * p.x_token, i % at.long);
}

// Quantizes all values of the head, which have one rule; returns it.
fn quantize_values(at: Places, lane: u32, start: u32, rule: Rule) -> Rule {
    var finite = true;
    var ends = vec2(0.0);
    // Several loads are under way at a time: 65 tokens of 64 features take one turn.
    for (var i = lane; i < p.tokens * at.long; i += 5u * INVOCATIONS) {
        let v0 = load_value(at, start, i);
        let v1 = load_value(at, start, i + INVOCATIONS);
        let v2 = load_value(at, start, i + 2u * INVOCATIONS);
        let v3 = load_value(at, start, i + 3u * INVOCATIONS);
        let v4 = load_value(at, start, i + 4u * INVOCATIONS);
        finite = finite && are_finite(v0) && are_finite(v1) && are_finite(v2) && are_finite(v3) && are_finite(v4);
        ends = wider(wider(wider(wider(wider(ends, v0), v1), v2), v3), v4);
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
