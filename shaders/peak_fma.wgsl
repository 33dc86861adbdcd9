// What an adapter can reach in products of floats: eight chains of fma that never leave the registers.
//
// out  f32: the sum of its chains, of invocation i at out_at + i
//
// Chain c of invocation i begins with i % 64 + c. Each of 8 * rounds steps halves it and adds 1/4.
// One invocation per value. Oracle: crates/quee-gpu/src/bench/tests.rs
//
// uses: linear_index.wgsl peak_chains.wgsl

@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Chains { a: vec4<f32>, b: vec4<f32> }

fn step(s: Chains) -> Chains {
    return Chains(fma(s.a, vec4(0.5), vec4(0.25)), fma(s.b, vec4(0.5), vec4(0.25)));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(group, groups, lane);
    let start = vec4(f32(i % 64u));
    var s = Chains(start + vec4(0.0, 1.0, 2.0, 3.0), start + vec4(4.0, 5.0, 6.0, 7.0));
    for (var r = 0u; r < p.rounds; r++) {
        s = step(step(step(step(step(step(step(step(s))))))));
    }
    let four = s.a + s.b;
    out[p.out_at + i] = four.x + four.y + four.z + four.w;
}
