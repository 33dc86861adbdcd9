// Float product for software adapters and for few rows: every invocation loads its operands itself and sums 8 rows and 4 columns.
//
// Shapes and layouts: shared/floats.wgsl. Oracle: tests/kernels/matmul_float.rs
//
// ALIGNED = 1: all rows of A begin at multiples of four values, so that one load brings four.
//
// uses: math.wgsl floats.wgsl epilogue.wgsl
// variant: plain
// variant: gelu AFTER=1
// variant: add AFTER=2
// variant: aligned ALIGNED=1

override ALIGNED: u32 = 0u;

const LANES = 8u;

// Four successive values of four columns.
struct Quad { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

fn add_quad(at: u32, q: Quad, sums: vec4<f32>) -> vec4<f32> {
    var row: vec4<f32>;
    if ALIGNED == 1u {
        row = a_fours[at / 4u];
    } else {
        row = vec4(a[at], a[at + 1u], a[at + 2u], a[at + 3u]);
    }
    return fma(vec4(row.w), q.w, fma(vec4(row.z), q.z, fma(vec4(row.y), q.y, fma(vec4(row.x), q.x, sums))));
}

@compute @workgroup_size(8)
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
    let whole = p.k / 4u * 4u;
    for (var k = 0u; k < whole; k += 4u) {
        let at = column + k / 4u * p.width;
        let c0 = b[at];
        let c1 = b[at + 1u];
        let c2 = b[at + 2u];
        let c3 = b[at + 3u];
        let q = Quad(
            vec4(c0.x, c1.x, c2.x, c3.x), vec4(c0.y, c1.y, c2.y, c3.y),
            vec4(c0.z, c1.z, c2.z, c3.z), vec4(c0.w, c1.w, c2.w, c3.w));
        s0 = add_quad(a0 + k, q, s0);
        s1 = add_quad(a1 + k, q, s1);
        s2 = add_quad(a2 + k, q, s2);
        s3 = add_quad(a3 + k, q, s3);
        s4 = add_quad(a4 + k, q, s4);
        s5 = add_quad(a5 + k, q, s5);
        s6 = add_quad(a6 + k, q, s6);
        s7 = add_quad(a7 + k, q, s7);
    }
    for (var k = whole; k < p.k; k++) {
        let at = column + k / 4u * p.width;
        let q = vec4(b[at][k % 4u], b[at + 1u][k % 4u], b[at + 2u][k % 4u], b[at + 3u][k % 4u]);
        s0 = fma(vec4(a[a0 + k]), q, s0);
        s1 = fma(vec4(a[a1 + k]), q, s1);
        s2 = fma(vec4(a[a2 + k]), q, s2);
        s3 = fma(vec4(a[a3 + k]), q, s3);
        s4 = fma(vec4(a[a4 + k]), q, s4);
        s5 = fma(vec4(a[a5 + k]), q, s5);
        s6 = fma(vec4(a[a6 + k]), q, s6);
        s7 = fma(vec4(a[a7 + k]), q, s7);
    }
    let start = out_start(batch);
    store_four(start, i, j, s0);
    store_four(start, i + 1u, j, s1);
    store_four(start, i + 2u, j, s2);
    store_four(start, i + 3u, j, s3);
    store_four(start, i + 4u, j, s4);
    store_four(start, i + 5u, j, s5);
    store_four(start, i + 6u, j, s6);
    store_four(start, i + 7u, j, s7);
}

fn store_four(start: u32, i: u32, j: u32, sums: vec4<f32>) {
    store(start, i, j, sums.x);
    store(start, i, j + 1u, sums.y);
    store(start, i, j + 2u, sums.z);
    store(start, i, j + 3u, sums.w);
}
