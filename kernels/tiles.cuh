// GEMM of tiles by mma.sync, for the scan of large batches and the encoder. Bound by arithmetic.
//
// A block multiplies a tile of 128 rows with a tile of 128 columns; the values of a row or column
// are contiguous, in half precision or int8. Both sides go through shared memory in a pipeline of
// TILE_STAGES stages (multi-stage double buffering with cp.async), 128 bytes per row and stage.
//
// A stage holds two chunks of [128 rows][64 bytes]. The order of the values within a chunk is
// permuted, the same for both sides: the 16-byte piece that a lane reads is its fragments of two
// products. The pieces of eight rows are 512 contiguous bytes: no bank conflicts.
#pragma once

#include "tiles_params.cuh"

// The rows of one side that a thread copies: piece `thread % 4` of each chunk of rows `thread / 4`
// and 64 further.
struct TileRows {
    const uint4* at[2];
    bool zeros[2];  // true for a row past the end

    // Row within the tile of index `i`.
    DEVICE static int row(int i) { return static_cast<int>(threadIdx.x) / 4 + i * 64; }
};

// Rows and columns of a thread's sums[m][n][i]. A warp has 64 rows and 32 columns; a lane has eight
// contiguous columns of each of its rows.
struct MmaLayout {
    // The number of m with rows, or columns, of their own.
    static constexpr int ROW_GROUPS = 4, COLUMN_GROUPS = 1;
    int row, column;

    DEVICE MmaLayout() {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        const int warp = static_cast<int>(threadIdx.x) / 32;
        row = warp / 4 * 64 + lane / 4;
        column = warp % 4 * 32 + lane % 4 * 8;
    }
    DEVICE int row_of(int m, int i) const { return row + m * 16 + i / 2 * 8; }
    DEVICE int column_of(int, int n, int i) const { return column + n * 2 + i % 2; }
};

// sums += rows x columns, over `chunks` x 64 bytes of each. Block: TILE_THREADS. `stages` is
// TILE_SHARED_BYTES of shared memory.
template <class Sum>
DEVICE void multiply_tiles(uint4* stages, const TileRows& rows, const TileRows& columns, int chunks,
                           Sum (&sums)[4][4][4]) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int group = lane / 4, piece = lane % 4;
    const int steps = (chunks + STEP_CHUNKS - 1) / STEP_CHUNKS;
    // First row and column whose values this lane feeds to the tensor core. Column n * 2 + i % 2 of
    // a lane's eight is entry 2 piece + i of product n.
    const int first_row = warp / 4 * 64 + group;
    const int first_column = warp % 4 * 32 + group / 2 * 8 + group % 2;
    const auto load = [&](int step) {
        uint4* const stage = stages + step % TILE_STAGES * (2 * SIDE_PIECES);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            const int chunk = step * STEP_CHUNKS + c;
            const bool behind = chunk >= chunks;
            const int from = behind ? 0 : chunk * 4;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int to = (c * TILE_SIDE + i * 64) * 4 + thread;
                copy_async(stage + to, rows.at[i] + from, behind || rows.zeros[i]);
                copy_async(stage + SIDE_PIECES + to, columns.at[i] + from,
                           behind || columns.zeros[i]);
            }
        }
    };
#pragma unroll
    for (int step = 0; step < TILE_STAGES - 1; step++) {
        if (step < steps) load(step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_copies<TILE_STAGES - 2>();
        // All threads' copies of this step have landed, and the stage of the last step is free.
        block_barrier();
        if (step + TILE_STAGES - 1 < steps) load(step + TILE_STAGES - 1);
        commit_copies();
        const uint4* const stage = stages + step % TILE_STAGES * (2 * SIDE_PIECES);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            uint4 column[4];
#pragma unroll
            for (int n = 0; n < 4; n++)
                column[n] = stage[SIDE_PIECES + (c * TILE_SIDE + first_column + n * 2) * 4 + piece];
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const uint4 low = stage[(c * TILE_SIDE + first_row + m * 16) * 4 + piece];
                const uint4 high = stage[(c * TILE_SIDE + first_row + m * 16 + 8) * 4 + piece];
#pragma unroll
                for (int n = 0; n < 4; n++) mma_pieces(sums[m][n], low, high, column[n]);
            }
        }
    }
}
