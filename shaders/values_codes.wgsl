// Quantizes the values of attention: one scale and zero point per head of a sample, codes with tokens along the summed axis.
//
// x        f32: value i of token t of matrix m = head m % heads of sample m / heads at
//          x_at + m / heads * x_sample + m % heads * x_head + t * x_token + i
// codes    four words of 16 tokens' codes for chunk c and feature i of matrix m at code_at + (m * chunks + c) * width + i, 0 beyond the last
//          token, chunks = tokens / 16 rounded up
// infos    of feature i of matrix m at info_at + m * width + i: scale (f32), zero point (i32), sum of the feature's codes (i32), 0
// flags    flags[slot] becomes 1 when a value is NaN or infinite
//
// Group g of samples, up to its end in `ends`, is quantized by rules[g]; samples are counted over the whole operation.
// One workgroup per matrix. Oracle: tests/kernels/values_codes.rs
//
// uses: exact.wgsl quantize.wgsl

struct Params {
    matrices: u32,
    tokens: u32,
    d: u32,
    heads: u32,
    x_at: u32,
    x_sample: u32,
    x_head: u32,
    x_token: u32,
    code_at: u32,
    width: u32,
    info_at: u32,
    slot: u32,
    first_sample: u32,
    groups: u32,
    unused0: u32,
    unused1: u32,
    ends: array<vec4<u32>, 2>,
    rules: array<Rule, 8>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> codes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> infos: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> flags: array<u32>;

const LANES = 64u;

var<workgroup> lows: array<f32, 64>;
var<workgroup> highs: array<f32, 64>;

fn rule_of(sample: u32) -> Rule {
    var g = 0u;
    while g + 1u < p.groups && sample >= p.ends[g / 4u][g % 4u] {
        g++;
    }
    return p.rules[g];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m = group.y * groups.x + group.x;
    let sample = m / p.heads;
    let start = p.x_at + sample * p.x_sample + m % p.heads * p.x_head;
    // No early end: all invocations reach the barriers.
    let here = m < p.matrices;
    let count = select(0u, p.tokens * p.d, here);
    var lo = 0.0;
    var hi = 0.0;
    var finite = true;
    for (var i = lane; i < count; i += LANES) {
        let v = x[start + i / p.d * p.x_token + i % p.d];
        finite = finite && (bitcast<u32>(v) & 0x7fffffffu) < 0x7f800000u;
        lo = min(lo, v);
        hi = max(hi, v);
    }
    if !finite {
        flags[p.slot] = 1u;
    }
    lows[lane] = lo;
    highs[lane] = hi;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lows[lane] = min(lows[lane], lows[lane + half]);
            highs[lane] = max(highs[lane], highs[lane + half]);
        }
    }
    workgroupBarrier();
    if !here {
        return;
    }
    let rule = fitted(rule_of(p.first_sample + sample), lows[0], highs[0]);
    let chunks = (p.tokens + 15u) / 16u;
    for (var i = lane; i < p.width; i += LANES) {
        var sum = 0;
        for (var c = 0u; c < chunks; c++) {
            var words = vec4(0u);
            if i < p.d {
                for (var w = 0u; w < 4u; w++) {
                    for (var j = 0u; j < 4u; j++) {
                        let t = c * 16u + w * 4u + j;
                        if t < p.tokens {
                            let code = encode(rule, x[start + t * p.x_token + i]);
                            sum += code;
                            words[w] |= (u32(code) & 0xffu) << (8u * j);
                        }
                    }
                }
            }
            codes[p.code_at + (m * chunks + c) * p.width + i] = words;
        }
        infos[p.info_at + m * p.width + i] = vec4(bitcast<u32>(rule.scale), bitcast<u32>(rule.zero), bitcast<u32>(sum), 0u);
    }
}
