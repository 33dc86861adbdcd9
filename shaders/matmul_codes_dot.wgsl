// Quantized product for few rows on discrete GPUs: every column is read once and its summed axis is shared out.
//
// A workgroup computes 4 rows and COLUMNS columns. Invocation (x, part) sums chunks part, part + PARTS, ... of column x; the parts are
// added in shared memory. Sums of integers are the same in every order.
//
// Shapes and layouts: shared/product.wgsl. Oracle: tests/kernels/matmul_codes.rs
//
// uses: math.wgsl product.wgsl codes.wgsl epilogue.wgsl
// variant: 4x32 COLUMNS=32 PARTS=8
// variant: 4x64 COLUMNS=64 PARTS=4

override COLUMNS: u32 = 32u;
override PARTS: u32 = 8u;
override INVOCATIONS: u32 = COLUMNS * PARTS;

var<workgroup> parts: array<vec4<i32>, INVOCATIONS>;

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

@compute @workgroup_size(COLUMNS, PARTS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let batch = group.z;
    let i = group.y * 4u;
    let j = group.x * COLUMNS + lane % COLUMNS;
    let part = lane / COLUMNS;
    let last = p.m - 1u;
    let base = p.a_at + batch * p.a_matrix;
    let a0 = base + i * p.chunks;
    let a1 = base + min(i + 1u, last) * p.chunks;
    let a2 = base + min(i + 2u, last) * p.chunks;
    let a3 = base + min(i + 3u, last) * p.chunks;
    let column = p.b_at + batch * p.b_matrix + min(j, p.n - 1u);
    var sums = vec4(0);
    for (var c = part; c < p.chunks; c += PARTS) {
        let codes = b[column + c * p.width];
        sums += vec4(dot16(a[a0 + c], codes), dot16(a[a1 + c], codes), dot16(a[a2 + c], codes), dot16(a[a3 + c], codes));
    }
    parts[lane] = sums;
    for (var half = PARTS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if part < half {
            parts[lane] += parts[lane + half * COLUMNS];
        }
    }
    workgroupBarrier();
    // Four parts are left without work otherwise: each stores one row.
    if part < 4u {
        store_sum(out_start(batch), i + part, j, parts[lane % COLUMNS][part], row_info(batch, i + part), column_info(batch, j));
    }
}
