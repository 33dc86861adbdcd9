// Quantizing rows: operands and parameters.
//
// x       f32, rows of d values: row r is token r % tokens of a head of a sample, see row_start
// gain    f32 [d], offset f32 [d]: of the normalisation
// codes   words of four codes, the rest of the last 16 codes 0; word w of row r at
//         r / tokens * code_matrix + r % tokens * code_row + w / 4 * code_chunk + w % 4
// infos   of a row: scale (f32), zero point (i32), sum of its codes (i32), 0; row r at
//         r / tokens * info_matrix + r % tokens
// flags   flags[slot] becomes 1 when a value is NaN or infinite
//
// Group g of rows, up to its end in `ends`, is quantized by rules[g]; rows are counted over the whole operation.

// UNEVEN = 1: rules may be of any kind.

override BEFORE: u32 = 0u;
override UNEVEN: u32 = 0u;

struct Params {
    rows: u32,
    d: u32,
    tokens: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_token: u32,
    gain_at: u32,
    offset_at: u32,
    eps: f32,
    code_at: u32,
    code_matrix: u32,
    code_row: u32,
    code_chunk: u32,
    info_at: u32,
    info_matrix: u32,
    slot: u32,
    first_row: u32,
    groups: u32,
    ends: array<vec4<u32>, 2>,
    rules: array<Rule, 8>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read> offset: array<f32>;
@group(0) @binding(4) var<storage, read_write> codes: array<u32>;
@group(0) @binding(5) var<storage, read_write> infos: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> flags: array<u32>;

fn rule_of(r: u32) -> Rule {
    var g = 0u;
    while g + 1u < p.groups && r >= p.ends[g / 4u][g % 4u] {
        g++;
    }
    return p.rules[g];
}

// Word w of a row's codes.
fn code_word(row: Row, rule: Rule, w: u32, sum: ptr<function, i32>) -> u32 {
    var word = 0u;
    for (var j = 0u; j < 4u; j++) {
        let i = w * 4u + j;
        if i < p.d {
            var code: i32;
            if UNEVEN == 1u {
                code = encode_any(rule, value(row, i));
            } else {
                code = encode(rule, value(row, i));
            }
            *sum += code;
            word |= (u32(code) & 0xffu) << (8u * j);
        }
    }
    return word;
}

// Where the codes of a row begin.
fn code_start(r: u32) -> u32 {
    return p.code_at + r / p.tokens * p.code_matrix + r % p.tokens * p.code_row;
}

fn store_info(r: u32, rule: Rule, sum: i32) {
    infos[p.info_at + r / p.tokens * p.info_matrix + r % p.tokens] =
        vec4(bitcast<u32>(rule.scale), bitcast<u32>(rule.zero), bitcast<u32>(sum), 0u);
}
