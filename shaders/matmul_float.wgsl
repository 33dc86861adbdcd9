// Float product for software adapters and for few rows: every invocation loads its operands itself and sums 8 rows and 4 columns.
//
// Shapes and layouts: shared/floats.wgsl. Oracle: tests/kernels/matmul_float.rs
//
// uses: math.wgsl floats.wgsl epilogue.wgsl
// variant: plain
// variant: gelu AFTER=1
// variant: add AFTER=2

const LANES = 16u;

// Four successive values of four columns.
struct Quad { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

fn add_quad(at: u32, left: u32, q: Quad, sums: vec4<f32>) -> vec4<f32> {
    var s = fma(vec4(a[at]), q.x, sums);
    // Beyond K, B is 0, and A may belong to the next row: its first value stands in, which must be finite like all others.
    s = fma(vec4(select(0.0, a[at + min(1u, left)], left >= 1u)), q.y, s);
    s = fma(vec4(select(0.0, a[at + min(2u, left)], left >= 2u)), q.z, s);
    return fma(vec4(select(0.0, a[at + min(3u, left)], left >= 3u)), q.w, s);
}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let batch = group.z;
    let i = group.y * 8u;
    let j = (group.x * LANES + lane) * 4u;
    let last = p.m - 1u;
    let base = a_start(batch);
    let a0 = base + i * p.a_row;
    let a1 = base + min(i + 1u, last) * p.a_row;
    let a2 = base + min(i + 2u, last) * p.a_row;
    let a3 = base + min(i + 3u, last) * p.a_row;
    let a4 = base + min(i + 4u, last) * p.a_row;
    let a5 = base + min(i + 5u, last) * p.a_row;
    let a6 = base + min(i + 6u, last) * p.a_row;
    let a7 = base + min(i + 7u, last) * p.a_row;
    let column = p.b_at + batch * p.b_matrix + min(j, (p.n - 1u) / 4u * 4u);
    var s0 = vec4(0.0); var s1 = vec4(0.0); var s2 = vec4(0.0); var s3 = vec4(0.0);
    var s4 = vec4(0.0); var s5 = vec4(0.0); var s6 = vec4(0.0); var s7 = vec4(0.0);
    for (var k = 0u; k < p.k; k += 4u) {
        let at = column + k / 4u * p.width;
        let c0 = b[at];
        let c1 = b[at + 1u];
        let c2 = b[at + 2u];
        let c3 = b[at + 3u];
        let q = Quad(
            vec4(c0.x, c1.x, c2.x, c3.x), vec4(c0.y, c1.y, c2.y, c3.y),
            vec4(c0.z, c1.z, c2.z, c3.z), vec4(c0.w, c1.w, c2.w, c3.w));
        let left = p.k - 1u - k;
        s0 = add_quad(a0 + k, left, q, s0);
        s1 = add_quad(a1 + k, left, q, s1);
        s2 = add_quad(a2 + k, left, q, s2);
        s3 = add_quad(a3 + k, left, q, s3);
        s4 = add_quad(a4 + k, left, q, s4);
        s5 = add_quad(a5 + k, left, q, s5);
        s6 = add_quad(a6 + k, left, q, s6);
        s7 = add_quad(a7 + k, left, q, s7);
    }
    store_four(batch, i, j, s0);
    store_four(batch, i + 1u, j, s1);
    store_four(batch, i + 2u, j, s2);
    store_four(batch, i + 3u, j, s3);
    store_four(batch, i + 4u, j, s4);
    store_four(batch, i + 5u, j, s5);
    store_four(batch, i + 6u, j, s6);
    store_four(batch, i + 7u, j, s7);
}

fn store_four(batch: u32, i: u32, j: u32, sums: vec4<f32>) {
    store(batch, i, j, sums.x);
    store(batch, i, j + 1u, sums.y);
    store(batch, i, j + 2u, sums.z);
    store(batch, i, j + 3u, sums.w);
}
