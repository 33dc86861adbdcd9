// Quantized product on the matrix units of a GPU: codes become 16-bit floats, which hold them exactly, and are summed as 32-bit floats.
//
// Sums of integers are exact in 32-bit floats up to 2^24, which 1,024 products of 8-bit codes cannot pass: longer products are left to the
// other kernels. So the sums are theirs, bit for bit.
//
// A workgroup computes a tile of TILE_M rows and TILE_N columns. Each of its subgroups, GROUPS_M along the rows and GROUPS_N along the
// columns, sums two by two matrices of 16 by 16: more of them would need registers that other workgroups need to run beside it. A step brings
// STEP chunks of 16 codes of all rows and columns into shared memory, as floats, while those of the next step are on their way from memory.
// At the end each subgroup puts one matrix of sums at a time into shared memory, from where each of its invocations takes half a column.
//
// Subgroups have 32 invocations.
//
// Shapes and layouts: shared/product.wgsl. Oracle: tests/kernels/matmul_codes.rs
//
// uses: math.wgsl product.wgsl codes.wgsl epilogue.wgsl
// variant: 128x128 GROUPS_M=4 GROUPS_N=4
// variant: 64x128 GROUPS_M=2 GROUPS_N=4
// variant: 64x64 GROUPS_M=2 GROUPS_N=2
// variant: 32x64 GROUPS_M=1 GROUPS_N=2

enable f16;
enable wgpu_cooperative_matrix;

override GROUPS_M: u32 = 2u;
override GROUPS_N: u32 = 2u;

// Chunks of a step, and vectors of four codes between rows in shared memory: those of a step, and two more, so that neighbouring rows begin in
// other banks.
const STEP = 2u;
const STRIDE = 4u * STEP + 2u;

override TILE_M: u32 = 32u * GROUPS_M;
override TILE_N: u32 = 32u * GROUPS_N;
override INVOCATIONS: u32 = 32u * GROUPS_M * GROUPS_N;
// Chunks of a step, of rows and then of columns, and how many of them an invocation brings: 1, 2 or 3.
override ROW_CHUNKS: u32 = TILE_M * STEP;
override CHUNKS: u32 = (TILE_M + TILE_N) * STEP;
override PARTS: u32 = (CHUNKS + INVOCATIONS - 1u) / INVOCATIONS;
override ROW_PLACES: u32 = TILE_M * STRIDE;
override COLUMN_PLACES: u32 = TILE_N * STRIDE;
override SUMS: u32 = 256u * GROUPS_M * GROUPS_N;

var<workgroup> tile_a: array<vec4<f16>, ROW_PLACES>;
var<workgroup> tile_b: array<vec4<f16>, COLUMN_PLACES>;
var<workgroup> sums: array<f32, SUMS>;
var<workgroup> rows_of_tile: array<vec4<u32>, TILE_M>;

fn floats(word: u32) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack4xI8(word)));
}

// Chunk `i` of the step that begins with chunk `first` of K. Rows are 0 beyond the last chunk, so that it does not matter what columns are there.
fn chunk(a_base: u32, b_base: u32, first_row: u32, first_column: u32, first: u32, i: u32) -> vec4<u32> {
    var codes = vec4(0u);
    if i < ROW_CHUNKS {
        let c = first + i % STEP;
        if c < p.chunks {
            codes = a[a_base + min(first_row + i / STEP, p.m - 1u) * p.chunks + c];
        }
    } else if i < CHUNKS {
        let column = i - ROW_CHUNKS;
        let c = min(first + column / TILE_N, p.chunks - 1u);
        codes = b[b_base + c * p.width + min(first_column + column % TILE_N, p.n - 1u)];
    }
    return codes;
}

fn put(i: u32, codes: vec4<u32>) {
    if i < ROW_CHUNKS {
        let at = i / STEP * STRIDE + 4u * (i % STEP);
        tile_a[at] = floats(codes.x);
        tile_a[at + 1u] = floats(codes.y);
        tile_a[at + 2u] = floats(codes.z);
        tile_a[at + 3u] = floats(codes.w);
    } else if i < CHUNKS {
        let column = i - ROW_CHUNKS;
        let at = column % TILE_N * STRIDE + 4u * (column / TILE_N);
        tile_b[at] = floats(codes.x);
        tile_b[at + 1u] = floats(codes.y);
        tile_b[at + 2u] = floats(codes.z);
        tile_b[at + 3u] = floats(codes.w);
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let batch = group.z;
    let first_row = group.y * TILE_M;
    let first_column = group.x * TILE_N;
    let a_base = p.a_at + batch * p.a_matrix;
    let b_base = p.b_at + batch * p.b_matrix;
    // Where the rows and columns of this subgroup begin in the tile.
    let rows = subgroup / GROUPS_N * 32u;
    let columns = subgroup % GROUPS_N * 32u;
    var s00 = coop_mat16x16<f32, C>();
    var s01 = coop_mat16x16<f32, C>();
    var s10 = coop_mat16x16<f32, C>();
    var s11 = coop_mat16x16<f32, C>();
    var codes0 = chunk(a_base, b_base, first_row, first_column, 0u, lane);
    var codes1 = vec4(0u);
    var codes2 = vec4(0u);
    if PARTS >= 2u {
        codes1 = chunk(a_base, b_base, first_row, first_column, 0u, lane + INVOCATIONS);
    }
    if PARTS == 3u {
        codes2 = chunk(a_base, b_base, first_row, first_column, 0u, lane + 2u * INVOCATIONS);
    }
    for (var row = lane; row < TILE_M; row += INVOCATIONS) {
        rows_of_tile[row] = row_info(batch, first_row + row);
    }
    for (var first = 0u; first < p.chunks; first += STEP) {
        put(lane, codes0);
        if PARTS >= 2u {
            put(lane + INVOCATIONS, codes1);
        }
        if PARTS == 3u {
            put(lane + 2u * INVOCATIONS, codes2);
        }
        workgroupBarrier();
        let next = first + STEP;
        if next < p.chunks {
            codes0 = chunk(a_base, b_base, first_row, first_column, next, lane);
            if PARTS >= 2u {
                codes1 = chunk(a_base, b_base, first_row, first_column, next, lane + INVOCATIONS);
            }
            if PARTS == 3u {
                codes2 = chunk(a_base, b_base, first_row, first_column, next, lane + 2u * INVOCATIONS);
            }
        }
        for (var c = 0u; c < STEP; c++) {
            let row_at = rows * STRIDE + 4u * c;
            let column_at = columns * STRIDE + 4u * c;
            let y0 = coopLoad<coop_mat16x16<f16, B>>(&tile_b[column_at], STRIDE);
            let y1 = coopLoad<coop_mat16x16<f16, B>>(&tile_b[column_at + 16u * STRIDE], STRIDE);
            let x0 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[row_at], STRIDE);
            s00 = coopMultiplyAdd(x0, y0, s00);
            s01 = coopMultiplyAdd(x0, y1, s01);
            let x1 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[row_at + 16u * STRIDE], STRIDE);
            s10 = coopMultiplyAdd(x1, y0, s10);
            s11 = coopMultiplyAdd(x1, y1, s11);
        }
        workgroupBarrier();
    }
    let start = out_start(batch);
    let j = first_column + columns + place % 16u;
    let left = column_info(batch, j);
    let right = column_info(batch, j + 16u);
    let mine = 256u * subgroup;
    let row = rows + place / 16u;
    coopStoreT(s00, &sums[mine], 16u);
    store_rows(start, first_row, row, j, mine + place, left);
    coopStoreT(s01, &sums[mine], 16u);
    store_rows(start, first_row, row, j + 16u, mine + place, right);
    coopStoreT(s10, &sums[mine], 16u);
    store_rows(start, first_row, row + 16u, j, mine + place, left);
    coopStoreT(s11, &sums[mine], 16u);
    store_rows(start, first_row, row + 16u, j + 16u, mine + place, right);
}

// Column j of every second one of sixteen rows, from `row` of the tile on, whose sums lie in shared memory from `at` on, in steps of 32.
// Everything is read before anything is written: a compiler must assume that one may change the other, and would wait for each.
fn store_rows(start: u32, first_row: u32, row: u32, j: u32, at: u32, column: vec4<u32>) {
    workgroupBarrier();
    let i = first_row + row;
    let upper = four_outcomes(start, i, row, j, at, column);
    let lower = four_outcomes(start, i + 8u, row + 8u, j, at + 128u, column);
    // The sums may be written over.
    workgroupBarrier();
    store_four(start, i, j, upper);
    store_four(start, i + 8u, j, lower);
}

fn four_outcomes(start: u32, i: u32, row: u32, j: u32, at: u32, column: vec4<u32>) -> vec4<f32> {
    return vec4(
        outcome(start, i, j, i32(sums[at]), rows_of_tile[row], column),
        outcome(start, i + 2u, j, i32(sums[at + 32u]), rows_of_tile[row + 2u], column),
        outcome(start, i + 4u, j, i32(sums[at + 64u]), rows_of_tile[row + 4u], column),
        outcome(start, i + 6u, j, i32(sums[at + 96u]), rows_of_tile[row + 6u], column));
}

fn store_four(start: u32, i: u32, j: u32, values: vec4<f32>) {
    store_outcome(start, i, j, values.x);
    store_outcome(start, i + 2u, j, values.y);
    store_outcome(start, i + 4u, j, values.z);
    store_outcome(start, i + 6u, j, values.w);
}
