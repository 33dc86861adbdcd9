// Quantizes rows, after layer normalisation or softmax where BEFORE says so.
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
// One invocation per row. Oracle: tests/kernels/rows_codes.rs
//
// uses: math.wgsl quantize.wgsl rows.wgsl norm.wgsl
// variant: plain BEFORE=0
// variant: norm BEFORE=1
// variant: softmax BEFORE=2

override BEFORE: u32 = 0u;

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
    let out = p.code_at + r / p.tokens * p.code_matrix + r % p.tokens * p.code_row;
    var sum = 0;
    let words = (p.d + 15u) / 16u * 4u;
    for (var w = 0u; w < words; w++) {
        var word = 0u;
        for (var j = 0u; j < 4u; j++) {
            let i = w * 4u + j;
            if i < p.d {
                let code = encode(rule, value(row, i));
                sum += code;
                word |= (u32(code) & 0xffu) << (8u * j);
            }
        }
        codes[out + w / 4u * p.code_chunk + w % 4u] = word;
    }
    infos[p.info_at + r / p.tokens * p.info_matrix + r % p.tokens] =
        vec4(bitcast<u32>(rule.scale), bitcast<u32>(rule.zero), bitcast<u32>(sum), 0u);
}
