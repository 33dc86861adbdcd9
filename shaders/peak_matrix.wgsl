// What an adapter can reach on its matrix units: eight chains of products of 16 by 16 matrices that never leave the registers.
//
// out  f32: the sum of an element of its subgroup's chains, of invocation i at out_at + i
//
// Each of 8 * rounds steps adds to every chain the unit matrix times one of ones: every element of a chain grows by 1.
// One invocation per value. Oracle: crates/quee-gpu/src/bench/tests.rs
//
// Subgroups have 32 invocations.
//
// uses: linear_index.wgsl peak_chains.wgsl

enable f16;
enable wgpu_cooperative_matrix;

@group(0) @binding(1) var<storage, read_write> out: array<f32>;

var<workgroup> unit: array<vec4<f16>, 64>;
var<workgroup> ones: array<vec4<f16>, 64>;
var<workgroup> sums: array<f32, 512>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let column = vec4(4u * (lane % 4u)) + vec4(0u, 1u, 2u, 3u);
    unit[lane] = select(vec4<f16>(0.0h), vec4<f16>(1.0h), column == vec4(lane / 4u));
    ones[lane] = vec4<f16>(1.0h);
    workgroupBarrier();
    let x = coopLoadT<coop_mat16x16<f16, A>>(&unit[0], 4u);
    let y = coopLoad<coop_mat16x16<f16, B>>(&ones[0], 4u);
    var a = coop_mat16x16<f32, C>();
    var b = coop_mat16x16<f32, C>();
    var c = coop_mat16x16<f32, C>();
    var d = coop_mat16x16<f32, C>();
    var e = coop_mat16x16<f32, C>();
    var f = coop_mat16x16<f32, C>();
    var g = coop_mat16x16<f32, C>();
    var h = coop_mat16x16<f32, C>();
    for (var r = 0u; r < p.rounds; r++) {
        for (var s = 0u; s < 8u; s++) {
            a = coopMultiplyAdd(x, y, a);
            b = coopMultiplyAdd(x, y, b);
            c = coopMultiplyAdd(x, y, c);
            d = coopMultiplyAdd(x, y, d);
            e = coopMultiplyAdd(x, y, e);
            f = coopMultiplyAdd(x, y, f);
            g = coopMultiplyAdd(x, y, g);
            h = coopMultiplyAdd(x, y, h);
        }
    }
    coopStoreT((a + b) + (c + d) + (e + f) + (g + h), &sums[256u * subgroup], 16u);
    workgroupBarrier();
    let i = invocation(group, groups, lane);
    out[p.out_at + i] = sums[256u * subgroup + place];
}
