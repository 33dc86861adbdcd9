// Attention in one dispatch: parameters, and what lies where in shared memory. Places are counted in words; `places` says where what begins
// and must agree with crates/quee-gpu/src/executor/fused.rs.
//
// keys           word w of token t at w * key_stride + slot(t), then scale, zero point and sum of the codes by slot
// values         word w (tokens 4w to 4w + 3) of feature i at values + w * d + i, then the sums by feature
// scores         of row r and token t at scores + r * score_stride + slot(t); e^(score - largest) later; then words of probabilities, word w
//                in the slot of token 4w, which is w
// queries        word w of row r at queries + r * query_stride + w; after the scores, the sixteen partial sums of the softmax
// row_infos      of row r, `rows` words apart: scale, zero point, four parts of the sum of the codes, of the query and, after the scores, of
//                the probabilities
//
// The slots of tokens 4i, 4i + 1, 4i + 2 and 4i + 3 are a quarter of all apart, so that neighbouring invocations, which have the next four
// tokens, read neighbouring words. Strides of rows are odd: 32 rows then lie in 32 banks.

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
// What the invocations of a row tell each other.
var<workgroup> scratch: array<vec2<f32>, 256>;

struct Places {
    // Words of a query or key, and of probabilities.
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
    at.row_infos = at.queries + p.rows * at.query_stride;
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
