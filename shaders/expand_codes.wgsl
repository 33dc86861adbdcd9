// Codes of BITS bits from planes (crates/quee-quant/src/packing.rs) to the columns of a product (shared/codes.wgsl).
//
// planes  words: of block l of 32 codes and column j, the plane of b bits has words b * (l * width + j) to b * (l * width + j) + b - 1 behind the
//         larger planes, which have b * blocks * width words each; blocks = k / 32 rounded up
// codes   four words of 16 codes for chunk c and column j at c * width + j
//
// One invocation per chunk of a column. Oracle: tests/kernels/expand_codes.rs
//
// uses: linear_index.wgsl
// variant: 2 BITS=2
// variant: 3 BITS=3
// variant: 4 BITS=4
// variant: 5 BITS=5
// variant: 6 BITS=6
// variant: 7 BITS=7

override BITS: u32 = 4u;

struct Params {
    first: u32,
    count: u32,
    blocks: u32,
    width: u32,
    codes_at: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> planes: array<u32>;
@group(0) @binding(2) var<storage, read_write> codes: array<vec4<u32>>;

// The bits of plane `size` of codes 4 four to 4 four + 3 of the block at `at` (block * width + column), one number in each byte.
// Larger planes have the larger powers of two in BITS, as many words each.
fn plane(size: u32, at: u32, four: u32) -> u32 {
    let start = (BITS & ~(2u * size - 1u)) * p.blocks * p.width;
    let word = planes[start + at * size + four * size / 8u];
    return (word >> (four * size % 8u)) & (((1u << size) - 1u) * 0x01010101u);
}

fn four_codes(at: u32, four: u32) -> u32 {
    var numbers = 0u;
    if (BITS & 4u) != 0u {
        numbers = plane(4u, at, four);
    }
    if (BITS & 2u) != 0u {
        numbers |= plane(2u, at, four) << (BITS & 4u);
    }
    if (BITS & 1u) != 0u {
        numbers |= plane(1u, at, four) << (BITS & 6u);
    }
    // Less 2^(BITS - 1) in every byte; the highest bit is lent, so that no byte borrows from the next.
    return ((numbers | 0x80808080u) - (1u << (BITS - 1u)) * 0x01010101u) ^ 0x80808080u;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let here = invocation(group, groups, lane);
    if here >= p.count {
        return;
    }
    let i = p.first + here;
    let c = i / p.width;
    let at = c / 2u * p.width + i % p.width;
    let four = c % 2u * 4u;
    codes[p.codes_at + i] =
        vec4(four_codes(at, four), four_codes(at, four + 1u), four_codes(at, four + 2u), four_codes(at, four + 3u));
}
