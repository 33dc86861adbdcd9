// Float product for discrete GPUs: a workgroup computes a tile of TILE_M rows and TILE_N columns from operands in shared memory.
//
// As matmul_codes_tiled, with chunks of four values in place of sixteen codes. Each sum is one chain of fma over ascending k, which ends with
// the last chunk: the bits are those of matmul_float.
//
// Shapes and layouts: shared/floats.wgsl. Oracle: tests/kernels/matmul_float.rs
//
// uses: math.wgsl floats.wgsl epilogue.wgsl tiled.wgsl
// variant: 128x128 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=2 COLUMN_BLOCKS=2 STEP=4
// variant: 64x128 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=1 COLUMN_BLOCKS=2 STEP=4
// variant: 64x64 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8
// variant: 32x64 SIZE_X=16 SIZE_Y=8 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8
// variant: 32x32 SIZE_X=8 SIZE_Y=8 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8

var<workgroup> tile_a: array<vec4<f32>, ROW_PARTS>;
var<workgroup> tile_b: array<vec4<f32>, COLUMN_PARTS>;

// Sums of four rows and four columns.
struct Block { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

// Four successive values of four columns.
struct Quad { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

fn no_sums() -> Block {
    return Block(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
}

fn add_row(place: u32, q: Quad, sums: vec4<f32>) -> vec4<f32> {
    let row = tile_a[place];
    return fma(vec4(row.w), q.w, fma(vec4(row.z), q.z, fma(vec4(row.y), q.y, fma(vec4(row.x), q.x, sums))));
}

fn add_block(c: u32, row: u32, q: Quad, s: Block) -> Block {
    return Block(
        add_row(row_place(c, row), q, s.r0), add_row(row_place(c, row + SIZE_Y), q, s.r1),
        add_row(row_place(c, row + 2u * SIZE_Y), q, s.r2), add_row(row_place(c, row + 3u * SIZE_Y), q, s.r3));
}

fn four_columns(c: u32, column: u32) -> Quad {
    let at = c * TILE_N + column;
    let c0 = tile_b[at];
    let c1 = tile_b[at + SIZE_X];
    let c2 = tile_b[at + 2u * SIZE_X];
    let c3 = tile_b[at + 3u * SIZE_X];
    return Quad(
        vec4(c0.x, c1.x, c2.x, c3.x), vec4(c0.y, c1.y, c2.y, c3.y),
        vec4(c0.z, c1.z, c2.z, c3.z), vec4(c0.w, c1.w, c2.w, c3.w));
}

// Four values of a row of A from k on. Beyond K they may belong to the next row.
fn row_values(at: u32, k: u32) -> vec4<f32> {
    if k + 4u <= p.k {
        return vec4(a[at], a[at + 1u], a[at + 2u], a[at + 3u]);
    }
    var v = vec4(0.0);
    for (var l = 0u; k + l < p.k; l++) {
        v[l] = a[at + l];
    }
    return v;
}

@compute @workgroup_size(SIZE_X, SIZE_Y)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let batch = group.z;
    let first_row = group.y * TILE_M;
    let first_column = group.x * TILE_N;
    let x = lane % SIZE_X;
    let y = lane / SIZE_X;
    let a_base = a_start(batch);
    let b_base = p.b_at + batch * p.b_matrix;
    let chunks = (p.k + 3u) / 4u;
    var s00 = no_sums();
    var s01 = no_sums();
    var s10 = no_sums();
    var s11 = no_sums();
    for (var first = 0u; first < chunks; first += STEP) {
        for (var i = lane; i < ROW_PARTS; i += INVOCATIONS) {
            let c = i % STEP;
            let row = i / STEP;
            let k = (first + c) * 4u;
            tile_a[row_place(c, row)] = row_values(a_base + min(first_row + row, p.m - 1u) * p.a_row + k, k);
        }
        for (var i = lane; i < COLUMN_PARTS; i += INVOCATIONS) {
            let c = min(first + i / TILE_N, chunks - 1u);
            tile_b[i] = b[b_base + c * p.width + min(first_column + i % TILE_N, p.n - 1u)];
        }
        workgroupBarrier();
        let here = min(STEP, chunks - first);
        for (var c = 0u; c < here; c++) {
            let q0 = four_columns(c, x);
            s00 = add_block(c, y, q0, s00);
            if ROW_BLOCKS == 2u {
                s10 = add_block(c, y + 4u * SIZE_Y, q0, s10);
            }
            if COLUMN_BLOCKS == 2u {
                let q1 = four_columns(c, x + 4u * SIZE_X);
                s01 = add_block(c, y, q1, s01);
                if ROW_BLOCKS == 2u {
                    s11 = add_block(c, y + 4u * SIZE_Y, q1, s11);
                }
            }
        }
        workgroupBarrier();
    }
    let i = first_row + y;
    let j = first_column + x;
    let start = out_start(batch);
    store_block(start, i, j, s00);
    if ROW_BLOCKS == 2u {
        store_block(start, i + 4u * SIZE_Y, j, s10);
    }
    if COLUMN_BLOCKS == 2u {
        store_block(start, i, j + 4u * SIZE_X, s01);
        if ROW_BLOCKS == 2u {
            store_block(start, i + 4u * SIZE_Y, j + 4u * SIZE_X, s11);
        }
    }
}

fn store_block(start: u32, i: u32, j: u32, s: Block) {
    store_row(start, i, j, s.r0);
    store_row(start, i + SIZE_Y, j, s.r1);
    store_row(start, i + 2u * SIZE_Y, j, s.r2);
    store_row(start, i + 3u * SIZE_Y, j, s.r3);
}

fn store_row(start: u32, i: u32, j: u32, sums: vec4<f32>) {
    store(start, i, j, sums.x);
    store(start, i, j + SIZE_X, sums.y);
    store(start, i, j + 2u * SIZE_X, sums.z);
    store(start, i, j + 3u * SIZE_X, sums.w);
}
