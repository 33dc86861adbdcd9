// Quantized product for discrete GPUs: a workgroup computes a tile of TILE_M rows and TILE_N columns from operands in shared memory.
//
// Each step brings STEP chunks of 16 codes of all rows and columns of the tile into shared memory, as [chunk][row] and [chunk][column].
// Invocation (x, y) sums rows y, y + SIZE_Y, ... and columns x, x + SIZE_X, ...: neighbours then read neighbouring columns and write
// neighbouring outputs. It has 4 * ROW_BLOCKS rows and 4 * COLUMN_BLOCKS columns; sums are named variables, because the length of an
// array of an invocation cannot be an override.
//
// Shapes and layouts: shared/product.wgsl. Oracle: tests/kernels/matmul_codes.rs
//
// uses: math.wgsl product.wgsl codes.wgsl epilogue.wgsl tiled.wgsl
// variant: 128x128 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=2 COLUMN_BLOCKS=2 STEP=4
// variant: 64x128 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=1 COLUMN_BLOCKS=2 STEP=4
// variant: 64x64 SIZE_X=16 SIZE_Y=16 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8
// variant: 32x64 SIZE_X=16 SIZE_Y=8 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8
// variant: 32x32 SIZE_X=8 SIZE_Y=8 ROW_BLOCKS=1 COLUMN_BLOCKS=1 STEP=8

var<workgroup> tile_a: array<vec4<u32>, ROW_PARTS>;
var<workgroup> tile_b: array<vec4<u32>, COLUMN_PARTS>;

// Sums of four rows and four columns.
struct Block { r0: vec4<i32>, r1: vec4<i32>, r2: vec4<i32>, r3: vec4<i32> }

// Sixteen codes of four rows or columns.
struct Four { x: vec4<u32>, y: vec4<u32>, z: vec4<u32>, w: vec4<u32> }

fn no_sums() -> Block {
    return Block(vec4(0), vec4(0), vec4(0), vec4(0));
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

fn add_row(a: vec4<u32>, b: Four, sums: vec4<i32>) -> vec4<i32> {
    return sums + vec4(dot16(a, b.x), dot16(a, b.y), dot16(a, b.z), dot16(a, b.w));
}

fn add_block(a: Four, b: Four, s: Block) -> Block {
    return Block(add_row(a.x, b, s.r0), add_row(a.y, b, s.r1), add_row(a.z, b, s.r2), add_row(a.w, b, s.r3));
}

fn four_rows(c: u32, row: u32) -> Four {
    return Four(
        tile_a[row_place(c, row)], tile_a[row_place(c, row + SIZE_Y)],
        tile_a[row_place(c, row + 2u * SIZE_Y)], tile_a[row_place(c, row + 3u * SIZE_Y)]);
}

fn four_columns(c: u32, column: u32) -> Four {
    let at = c * TILE_N + column;
    return Four(tile_b[at], tile_b[at + SIZE_X], tile_b[at + 2u * SIZE_X], tile_b[at + 3u * SIZE_X]);
}

@compute @workgroup_size(SIZE_X, SIZE_Y)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let batch = group.z;
    let first_row = group.y * TILE_M;
    let first_column = group.x * TILE_N;
    let x = lane % SIZE_X;
    let y = lane / SIZE_X;
    let a_base = p.a_at + batch * p.a_matrix;
    let b_base = p.b_at + batch * p.b_matrix;
    var s00 = no_sums();
    var s01 = no_sums();
    var s10 = no_sums();
    var s11 = no_sums();
    for (var first = 0u; first < p.chunks; first += STEP) {
        for (var i = lane; i < ROW_PARTS; i += INVOCATIONS) {
            let c = i % STEP;
            let row = i / STEP;
            var codes = vec4(0u);
            if first + c < p.chunks {
                codes = a[a_base + min(first_row + row, p.m - 1u) * p.chunks + first + c];
            }
            tile_a[row_place(c, row)] = codes;
        }
        for (var i = lane; i < COLUMN_PARTS; i += INVOCATIONS) {
            // Beyond the last chunk the rows are 0, so that it does not matter what the columns are.
            let c = min(first + i / TILE_N, p.chunks - 1u);
            tile_b[i] = b[b_base + c * p.width + min(first_column + i % TILE_N, p.n - 1u)];
        }
        workgroupBarrier();
        for (var c = 0u; c < STEP; c++) {
            let b0 = four_columns(c, x);
            let a0 = four_rows(c, y);
            s00 = add_block(a0, b0, s00);
            if ROW_BLOCKS == 2u {
                let a1 = four_rows(c, y + 4u * SIZE_Y);
                s10 = add_block(a1, b0, s10);
            }
            if COLUMN_BLOCKS == 2u {
                let b1 = four_columns(c, x + 4u * SIZE_X);
                s01 = add_block(a0, b1, s01);
                if ROW_BLOCKS == 2u {
                    let a1 = four_rows(c, y + 4u * SIZE_Y);
                    s11 = add_block(a1, b1, s11);
                }
            }
        }
        workgroupBarrier();
    }
    let i = first_row + y;
    let j = first_column + x;
    let start = out_start(batch);
    store_block(batch, start, i, j, s00);
    if ROW_BLOCKS == 2u {
        store_block(batch, start, i + 4u * SIZE_Y, j, s10);
    }
    if COLUMN_BLOCKS == 2u {
        store_block(batch, start, i, j + 4u * SIZE_X, s01);
        if ROW_BLOCKS == 2u {
            store_block(batch, start, i + 4u * SIZE_Y, j + 4u * SIZE_X, s11);
        }
    }
}

// What is read comes before what is written: a compiler must assume that one may change the other, and would wait for each.
fn store_block(batch: u32, start: u32, i: u32, j: u32, s: Block) {
    let columns = array(
        column_info(batch, j), column_info(batch, j + SIZE_X),
        column_info(batch, j + 2u * SIZE_X), column_info(batch, j + 3u * SIZE_X));
    let v0 = outcomes(start, i, j, s.r0, row_info(batch, i), columns);
    let v1 = outcomes(start, i + SIZE_Y, j, s.r1, row_info(batch, i + SIZE_Y), columns);
    let v2 = outcomes(start, i + 2u * SIZE_Y, j, s.r2, row_info(batch, i + 2u * SIZE_Y), columns);
    let v3 = outcomes(start, i + 3u * SIZE_Y, j, s.r3, row_info(batch, i + 3u * SIZE_Y), columns);
    store_row(start, i, j, v0);
    store_row(start, i + SIZE_Y, j, v1);
    store_row(start, i + 2u * SIZE_Y, j, v2);
    store_row(start, i + 3u * SIZE_Y, j, v3);
}

fn outcomes(start: u32, i: u32, j: u32, sums: vec4<i32>, row: vec4<u32>, columns: array<vec4<u32>, 4>) -> vec4<f32> {
    return vec4(
        outcome(start, i, j, sums.x, row, columns[0]), outcome(start, i, j + SIZE_X, sums.y, row, columns[1]),
        outcome(start, i, j + 2u * SIZE_X, sums.z, row, columns[2]), outcome(start, i, j + 3u * SIZE_X, sums.w, row, columns[3]));
}

fn store_row(start: u32, i: u32, j: u32, values: vec4<f32>) {
    store_outcome(start, i, j, values.x);
    store_outcome(start, i, j + SIZE_X, values.y);
    store_outcome(start, i, j + 2u * SIZE_X, values.z);
    store_outcome(start, i, j + 3u * SIZE_X, values.w);
}
