// What an adapter can reach in products of packed codes: eight chains of dot4I8Packed that never leave the registers.
//
// out  i32: the sum of its chains, of invocation i at out_at + i
//
// Chain c of invocation i begins with i + c. Each of 8 * rounds steps adds to it the dot product of its own four bytes with WEIGHTS.
// One invocation per value. Oracle: crates/quee-gpu/src/bench/tests.rs
//
// uses: linear_index.wgsl peak_chains.wgsl

@group(0) @binding(1) var<storage, read_write> out: array<i32>;

// The codes 1, -1, 2, -3.
const WEIGHTS = 0xfd02ff01u;

struct Chains { a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32, h: i32 }

fn step(s: Chains) -> Chains {
    return Chains(
        s.a + dot4I8Packed(u32(s.a), WEIGHTS), s.b + dot4I8Packed(u32(s.b), WEIGHTS),
        s.c + dot4I8Packed(u32(s.c), WEIGHTS), s.d + dot4I8Packed(u32(s.d), WEIGHTS),
        s.e + dot4I8Packed(u32(s.e), WEIGHTS), s.f + dot4I8Packed(u32(s.f), WEIGHTS),
        s.g + dot4I8Packed(u32(s.g), WEIGHTS), s.h + dot4I8Packed(u32(s.h), WEIGHTS));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    let n = i32(i);
    var s = Chains(n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7);
    for (var r = 0u; r < p.rounds; r++) {
        s = step(step(step(step(step(step(step(step(s))))))));
    }
    out[p.out_at + i] = s.a + s.b + s.c + s.d + s.e + s.f + s.g + s.h;
}
