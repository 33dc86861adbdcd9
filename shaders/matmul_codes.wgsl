// Quantized product for software adapters and for few rows: every invocation loads its operands itself and sums 4 columns of 8 rows,
// or, with TALL = 1, of 16: columns are then unpacked half as often.
//
// Codes are unpacked to floats, whose sums are exact to 2^24, which is what 64 chunks of 16 products of at most 128 * 128 can add up to;
// the sums of so many chunks are then added as integers. A processor multiplies and adds floats in one step, and has no such step for
// integers of 32 bits; an adapter with integer dot products is better served by matmul_codes_tiled or matmul_codes_dot.
//
// Shapes and layouts: shared/product.wgsl. Oracle: tests/kernels/matmul_codes.rs
//
// uses: math.wgsl product.wgsl codes.wgsl epilogue.wgsl
// variant: plain
// variant: gelu AFTER=1
// variant: add AFTER=2
// variant: raw RAW=1
// variant: tall_plain TALL=1
// variant: tall_gelu TALL=1 AFTER=1
// variant: tall_add TALL=1 AFTER=2
// variant: tall_raw TALL=1 RAW=1

override TALL: u32 = 0u;

const LANES = 8u;
const EXACT = 64u;

// One code of each of four columns' words.
fn code(words: vec4<u32>, shift: u32) -> vec4<f32> {
    return vec4<f32>((bitcast<vec4<i32>>(words) << vec4(24u - shift)) >> vec4(24u));
}

// Four successive codes of four columns.
struct Quad { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

fn quad(words: vec4<u32>) -> Quad {
    return Quad(code(words, 0u), code(words, 8u), code(words, 16u), code(words, 24u));
}

// Sixteen successive codes of four columns.
struct Chunk { x: Quad, y: Quad, z: Quad, w: Quad }

fn chunk(c0: vec4<u32>, c1: vec4<u32>, c2: vec4<u32>, c3: vec4<u32>) -> Chunk {
    return Chunk(
        quad(vec4(c0.x, c1.x, c2.x, c3.x)), quad(vec4(c0.y, c1.y, c2.y, c3.y)),
        quad(vec4(c0.z, c1.z, c2.z, c3.z)), quad(vec4(c0.w, c1.w, c2.w, c3.w)));
}

fn add_word(word: u32, q: Quad, sums: vec4<f32>) -> vec4<f32> {
    let v = bitcast<i32>(word);
    let a0 = f32((v << 24u) >> 24u);
    let a1 = f32((v << 16u) >> 24u);
    let a2 = f32((v << 8u) >> 24u);
    let a3 = f32(v >> 24u);
    return fma(vec4(a3), q.w, fma(vec4(a2), q.z, fma(vec4(a1), q.y, fma(vec4(a0), q.x, sums))));
}

fn add_chunk(row: vec4<u32>, c: Chunk, sums: vec4<f32>) -> vec4<f32> {
    return add_word(row.w, c.w, add_word(row.z, c.z, add_word(row.y, c.y, add_word(row.x, c.x, sums))));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let batch = group.z;
    let i = group.y * select(8u, 16u, TALL == 1u);
    let j = (group.x * LANES + lane) * 4u;
    let last = p.m - 1u;
    let base = p.a_at + batch * p.a_matrix;
    let a0 = base + i * p.chunks;
    let a1 = base + min(i + 1u, last) * p.chunks;
    let a2 = base + min(i + 2u, last) * p.chunks;
    let a3 = base + min(i + 3u, last) * p.chunks;
    let a4 = base + min(i + 4u, last) * p.chunks;
    let a5 = base + min(i + 5u, last) * p.chunks;
    let a6 = base + min(i + 6u, last) * p.chunks;
    let a7 = base + min(i + 7u, last) * p.chunks;
    let a8 = base + min(i + 8u, last) * p.chunks;
    let a9 = base + min(i + 9u, last) * p.chunks;
    let a10 = base + min(i + 10u, last) * p.chunks;
    let a11 = base + min(i + 11u, last) * p.chunks;
    let a12 = base + min(i + 12u, last) * p.chunks;
    let a13 = base + min(i + 13u, last) * p.chunks;
    let a14 = base + min(i + 14u, last) * p.chunks;
    let a15 = base + min(i + 15u, last) * p.chunks;
    let column = p.b_at + batch * p.b_matrix + min(j, (p.n - 1u) / 4u * 4u);
    var t0 = vec4(0); var t1 = vec4(0); var t2 = vec4(0); var t3 = vec4(0);
    var t4 = vec4(0); var t5 = vec4(0); var t6 = vec4(0); var t7 = vec4(0);
    var t8 = vec4(0); var t9 = vec4(0); var t10 = vec4(0); var t11 = vec4(0);
    var t12 = vec4(0); var t13 = vec4(0); var t14 = vec4(0); var t15 = vec4(0);
    for (var first = 0u; first < p.chunks; first += EXACT) {
        var s0 = vec4(0.0); var s1 = vec4(0.0); var s2 = vec4(0.0); var s3 = vec4(0.0);
        var s4 = vec4(0.0); var s5 = vec4(0.0); var s6 = vec4(0.0); var s7 = vec4(0.0);
        var s8 = vec4(0.0); var s9 = vec4(0.0); var s10 = vec4(0.0); var s11 = vec4(0.0);
        var s12 = vec4(0.0); var s13 = vec4(0.0); var s14 = vec4(0.0); var s15 = vec4(0.0);
        let end = min(first + EXACT, p.chunks);
        for (var c = first; c < end; c++) {
            let at = column + c * p.width;
            let q = chunk(b[at], b[at + 1u], b[at + 2u], b[at + 3u]);
            s0 = add_chunk(a[a0 + c], q, s0);
            s1 = add_chunk(a[a1 + c], q, s1);
            s2 = add_chunk(a[a2 + c], q, s2);
            s3 = add_chunk(a[a3 + c], q, s3);
            s4 = add_chunk(a[a4 + c], q, s4);
            s5 = add_chunk(a[a5 + c], q, s5);
            s6 = add_chunk(a[a6 + c], q, s6);
            s7 = add_chunk(a[a7 + c], q, s7);
            if TALL == 1u {
                s8 = add_chunk(a[a8 + c], q, s8);
                s9 = add_chunk(a[a9 + c], q, s9);
                s10 = add_chunk(a[a10 + c], q, s10);
                s11 = add_chunk(a[a11 + c], q, s11);
                s12 = add_chunk(a[a12 + c], q, s12);
                s13 = add_chunk(a[a13 + c], q, s13);
                s14 = add_chunk(a[a14 + c], q, s14);
                s15 = add_chunk(a[a15 + c], q, s15);
            }
        }
        t0 += vec4<i32>(s0); t1 += vec4<i32>(s1); t2 += vec4<i32>(s2); t3 += vec4<i32>(s3);
        t4 += vec4<i32>(s4); t5 += vec4<i32>(s5); t6 += vec4<i32>(s6); t7 += vec4<i32>(s7);
        t8 += vec4<i32>(s8); t9 += vec4<i32>(s9); t10 += vec4<i32>(s10); t11 += vec4<i32>(s11);
        t12 += vec4<i32>(s12); t13 += vec4<i32>(s13); t14 += vec4<i32>(s14); t15 += vec4<i32>(s15);
    }
    // Loaded once: loads behind a store would be repeated for every row.
    let infos = Infos(column_info(batch, j), column_info(batch, j + 1u), column_info(batch, j + 2u), column_info(batch, j + 3u));
    let start = out_start(batch);
    store_four(batch, start, i, j, t0, infos);
    store_four(batch, start, i + 1u, j, t1, infos);
    store_four(batch, start, i + 2u, j, t2, infos);
    store_four(batch, start, i + 3u, j, t3, infos);
    store_four(batch, start, i + 4u, j, t4, infos);
    store_four(batch, start, i + 5u, j, t5, infos);
    store_four(batch, start, i + 6u, j, t6, infos);
    store_four(batch, start, i + 7u, j, t7, infos);
    if TALL == 1u {
        store_four(batch, start, i + 8u, j, t8, infos);
        store_four(batch, start, i + 9u, j, t9, infos);
        store_four(batch, start, i + 10u, j, t10, infos);
        store_four(batch, start, i + 11u, j, t11, infos);
        store_four(batch, start, i + 12u, j, t12, infos);
        store_four(batch, start, i + 13u, j, t13, infos);
        store_four(batch, start, i + 14u, j, t14, infos);
        store_four(batch, start, i + 15u, j, t15, infos);
    }
}

struct Infos { x: vec4<u32>, y: vec4<u32>, z: vec4<u32>, w: vec4<u32> }

fn store_four(batch: u32, start: u32, i: u32, j: u32, sums: vec4<i32>, infos: Infos) {
    let row = row_info(batch, i);
    store_sum(start, i, j, sums.x, row, infos.x);
    store_sum(start, i, j + 1u, sums.y, row, infos.y);
    store_sum(start, i, j + 2u, sums.z, row, infos.z);
    store_sum(start, i, j + 3u, sums.w, row, infos.w);
}
