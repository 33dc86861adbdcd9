// Shape of the tiles of matmul_codes_tiled and matmul_float_tiled, and where their operands lie in shared memory.
//
// A workgroup of SIZE_X by SIZE_Y invocations computes TILE_M rows and TILE_N columns; each step brings STEP chunks of all of them.

override SIZE_X: u32 = 16u;
override SIZE_Y: u32 = 16u;
override ROW_BLOCKS: u32 = 1u;
override COLUMN_BLOCKS: u32 = 1u;
override STEP: u32 = 4u;

override TILE_M: u32 = 4u * ROW_BLOCKS * SIZE_Y;
override TILE_N: u32 = 4u * COLUMN_BLOCKS * SIZE_X;
override INVOCATIONS: u32 = SIZE_X * SIZE_Y;
override ROW_PARTS: u32 = STEP * TILE_M;
override COLUMN_PARTS: u32 = STEP * TILE_N;

// Place of a row's chunk. Neighbouring invocations store the STEP chunks of a row, which must not lie TILE_M apart: that is the same bank
// of shared memory for all. So rows change places inside groups of eight, differently for each chunk.
fn row_place(c: u32, row: u32) -> u32 {
    return c * TILE_M + (row ^ (c * (8u / STEP)));
}
