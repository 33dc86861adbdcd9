// Quantized product on the matrix units of a GPU: codes become 16-bit floats, which hold them exactly, and are summed as 32-bit floats.
//
// Sums of integers are exact in 32-bit floats up to 2^24, which 1,024 products of 8-bit codes cannot pass: longer products are left to
// the other kernels. So the sums are those of matmul_codes_tiled, bit for bit.
//
// A workgroup computes a tile of TILE_M rows and TILE_N columns. Each of its subgroups, GROUPS_M along the rows and GROUPS_N along the
// columns, sums ROW_BLOCKS times two matrices of 16 by 16. A step brings STEP chunks of 16 codes of all rows and columns into shared
// memory, as floats, while those of the next step are on their way from memory. Sums are named variables, because the length of an array
// of an invocation cannot be an override. At the end each subgroup puts 16 by 32 sums at a time into shared memory, from where each of
// its invocations takes a column.
//
// Subgroups have 32 invocations.
//
// Shapes and layouts: shared/codes.wgsl. Oracle: tests/kernels/matmul_codes.rs
//
// uses: math.wgsl codes.wgsl epilogue.wgsl
// variant: 128x128 GROUPS_M=2 GROUPS_N=4 ROW_BLOCKS=4
// variant: 128x64 GROUPS_M=2 GROUPS_N=2 ROW_BLOCKS=4
// variant: 64x64 GROUPS_M=2 GROUPS_N=2 ROW_BLOCKS=2
// variant: 32x64 GROUPS_M=1 GROUPS_N=2 ROW_BLOCKS=2

enable f16;
enable wgpu_cooperative_matrix;

override GROUPS_M: u32 = 2u;
override GROUPS_N: u32 = 2u;
override ROW_BLOCKS: u32 = 2u;

const STEP = 2u;
// Vectors of four codes of a row in shared memory: those of a step, and two more, so that neighbouring rows begin in other banks.
const STRIDE = 4u * STEP + 2u;

override GROUP_ROWS: u32 = 16u * ROW_BLOCKS;
override TILE_M: u32 = GROUPS_M * GROUP_ROWS;
override TILE_N: u32 = 32u * GROUPS_N;
override INVOCATIONS: u32 = 32u * GROUPS_M * GROUPS_N;
// Chunks that an invocation brings in a step.
override ROW_PARTS: u32 = TILE_M * STEP / INVOCATIONS;
override COLUMN_PARTS: u32 = TILE_N * STEP / INVOCATIONS;
override ROW_VECTORS: u32 = TILE_M * STRIDE;
override COLUMN_VECTORS: u32 = TILE_N * STRIDE;
override SUMS: u32 = 512u * GROUPS_M * GROUPS_N;

var<workgroup> tile_a: array<vec4<f16>, ROW_VECTORS>;
var<workgroup> tile_b: array<vec4<f16>, COLUMN_VECTORS>;
var<workgroup> sums: array<f32, SUMS>;
var<workgroup> rows_of_tile: array<vec4<u32>, TILE_M>;

fn floats(word: u32) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack4xI8(word)));
}

// Chunk `i` of the step's chunks of rows, 0 beyond the last.
fn row_chunk(base: u32, first: u32, first_row: u32, i: u32) -> vec4<u32> {
    let c = first + i % STEP;
    let row = min(first_row + i / STEP, p.m - 1u);
    var codes = vec4(0u);
    if c < p.chunks {
        codes = a[base + row * p.chunks + c];
    }
    return codes;
}

// Chunk `i` of the step's chunks of columns. Beyond the last chunk the rows are 0, so that it does not matter what the columns are.
fn column_chunk(base: u32, first: u32, first_column: u32, i: u32) -> vec4<u32> {
    let c = min(first + i / TILE_N, p.chunks - 1u);
    return b[base + c * p.width + min(first_column + i % TILE_N, p.n - 1u)];
}

fn put_row_chunk(i: u32, codes: vec4<u32>) {
    let at = i / STEP * STRIDE + 4u * (i % STEP);
    tile_a[at] = floats(codes.x);
    tile_a[at + 1u] = floats(codes.y);
    tile_a[at + 2u] = floats(codes.z);
    tile_a[at + 3u] = floats(codes.w);
}

fn put_column_chunk(i: u32, codes: vec4<u32>) {
    let at = i % TILE_N * STRIDE + 4u * (i / TILE_N);
    tile_b[at] = floats(codes.x);
    tile_b[at + 1u] = floats(codes.y);
    tile_b[at + 2u] = floats(codes.z);
    tile_b[at + 3u] = floats(codes.w);
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
    let rows = subgroup / GROUPS_N * GROUP_ROWS;
    let columns = subgroup % GROUPS_N * 32u;
    var s00 = coop_mat16x16<f32, C>();
    var s01 = coop_mat16x16<f32, C>();
    var s10 = coop_mat16x16<f32, C>();
    var s11 = coop_mat16x16<f32, C>();
    var s20 = coop_mat16x16<f32, C>();
    var s21 = coop_mat16x16<f32, C>();
    var s30 = coop_mat16x16<f32, C>();
    var s31 = coop_mat16x16<f32, C>();
    var a0 = row_chunk(a_base, 0u, first_row, lane);
    var a1 = vec4(0u);
    if ROW_PARTS == 2u {
        a1 = row_chunk(a_base, 0u, first_row, lane + INVOCATIONS);
    }
    var b0 = column_chunk(b_base, 0u, first_column, lane);
    var b1 = vec4(0u);
    if COLUMN_PARTS == 2u {
        b1 = column_chunk(b_base, 0u, first_column, lane + INVOCATIONS);
    }
    for (var row = lane; row < TILE_M; row += INVOCATIONS) {
        rows_of_tile[row] = row_info(batch, first_row + row);
    }
    for (var first = 0u; first < p.chunks; first += STEP) {
        put_row_chunk(lane, a0);
        if ROW_PARTS == 2u {
            put_row_chunk(lane + INVOCATIONS, a1);
        }
        put_column_chunk(lane, b0);
        if COLUMN_PARTS == 2u {
            put_column_chunk(lane + INVOCATIONS, b1);
        }
        workgroupBarrier();
        let next = first + STEP;
        if next < p.chunks {
            a0 = row_chunk(a_base, next, first_row, lane);
            if ROW_PARTS == 2u {
                a1 = row_chunk(a_base, next, first_row, lane + INVOCATIONS);
            }
            b0 = column_chunk(b_base, next, first_column, lane);
            if COLUMN_PARTS == 2u {
                b1 = column_chunk(b_base, next, first_column, lane + INVOCATIONS);
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
            if ROW_BLOCKS == 4u {
                let x2 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[row_at + 32u * STRIDE], STRIDE);
                s20 = coopMultiplyAdd(x2, y0, s20);
                s21 = coopMultiplyAdd(x2, y1, s21);
                let x3 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[row_at + 48u * STRIDE], STRIDE);
                s30 = coopMultiplyAdd(x3, y0, s30);
                s31 = coopMultiplyAdd(x3, y1, s31);
            }
        }
        workgroupBarrier();
    }
    let start = out_start(batch);
    let j = first_column + columns + place;
    let column = column_info(batch, j);
    let mine = 512u * subgroup;
    coopStoreT(s00, &sums[mine], 32u);
    coopStoreT(s01, &sums[mine + 16u], 32u);
    store_rows(start, first_row, rows, j, mine + place, column);
    coopStoreT(s10, &sums[mine], 32u);
    coopStoreT(s11, &sums[mine + 16u], 32u);
    store_rows(start, first_row, rows + 16u, j, mine + place, column);
    if ROW_BLOCKS == 4u {
        coopStoreT(s20, &sums[mine], 32u);
        coopStoreT(s21, &sums[mine + 16u], 32u);
        store_rows(start, first_row, rows + 32u, j, mine + place, column);
        coopStoreT(s30, &sums[mine], 32u);
        coopStoreT(s31, &sums[mine + 16u], 32u);
        store_rows(start, first_row, rows + 48u, j, mine + place, column);
    }
}

// Column j of sixteen rows, from `row` of the tile on, whose sums lie in shared memory from `at` on. What is read comes before what is
// written, four rows at a time: a compiler must assume that one may change the other, and would wait for each.
fn store_rows(start: u32, first_row: u32, row: u32, j: u32, at: u32, column: vec4<u32>) {
    workgroupBarrier();
    for (var r = 0u; r < 16u; r += 4u) {
        let i = first_row + row + r;
        let v = vec4(
            tile_outcome(start, i, row + r, j, at + 32u * r, column),
            tile_outcome(start, i + 1u, row + r + 1u, j, at + 32u * r + 32u, column),
            tile_outcome(start, i + 2u, row + r + 2u, j, at + 32u * r + 64u, column),
            tile_outcome(start, i + 3u, row + r + 3u, j, at + 32u * r + 96u, column));
        store_outcome(start, i, j, v.x);
        store_outcome(start, i + 1u, j, v.y);
        store_outcome(start, i + 2u, j, v.z);
        store_outcome(start, i + 3u, j, v.w);
    }
    workgroupBarrier();
}

fn tile_outcome(start: u32, i: u32, row: u32, j: u32, at: u32, column: vec4<u32>) -> f32 {
    return outcome(start, i, j, i32(sums[at]), rows_of_tile[row], column);
}
