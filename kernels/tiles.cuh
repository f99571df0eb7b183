// Products of many rows and many columns, which the scan of large batches and the encoder share: bound by arithmetic.
//
// A block multiplies a tile of 128 rows and a tile of 128 columns, both with their values, halves or bytes, on end. Tiles go through shared
// memory, 128 bytes of each row at a time, some steps ahead of the products. Each step holds two chunks of [128 rows][64 bytes]: a lane's 16 bytes of
// a chunk are its share of two products, whatever order the sum over the chunk's values then has, and eight rows' pieces are 512 bytes on end,
// which no two lanes of a quarter warp compete for.
#pragma once

#include "platform.cuh"

constexpr int TILE_SIDE = 128;
constexpr int TILE_THREADS = 256;
constexpr int STAGES = 3;
constexpr int STEP_CHUNKS = 2;
// 16-byte pieces of one side of a stage.
constexpr int SIDE = STEP_CHUNKS * TILE_SIDE * 4;
constexpr int TILE_SHARED_BYTES = STAGES * 2 * SIDE * 16;

// What a thread copies of one side: piece `thread % 4` of each chunk of rows `thread / 4` and 64 further.
struct TileRows {
    const uint4* at[2];
    bool zeros[2];  // a row that does not exist

    // The side's row that `i` stands for.
    DEVICE static int row(int i) { return static_cast<int>(threadIdx.x) / 4 + i * 64; }
};

// Where a thread's sums belong: those of a warp are 64 rows and 32 columns; a lane has eight columns on end of each of its rows.
struct TilePlace {
    // How many m of sums[m] have rows and columns of their own.
    static constexpr int ROW_GROUPS = 4, COLUMN_GROUPS = 1;
    int row, column;

    DEVICE TilePlace() {
        const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
        row = warp / 4 * 64 + lane / 4;
        column = warp % 4 * 32 + lane % 4 * 8;
    }
    // Of sums[m][n][i].
    DEVICE int row_of(int m, int i) const { return row + m * 16 + i / 2 * 8; }
    DEVICE int column_of(int, int n, int i) const { return column + n * 2 + i % 2; }
};

template <class Sum>
DEVICE void multiply_tiles(uint4* stages, const TileRows& rows, const TileRows& columns, int chunks, Sum (&sums)[4][4][4]) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int group = lane / 4, piece = lane % 4;
    const int steps = (chunks + STEP_CHUNKS - 1) / STEP_CHUNKS;
    // The rows of both sides whose values this lane hands to the tensor core. Column n * 2 + i % 2 of a lane's eight is entry 2 piece + i of product n.
    const int first_row = warp / 4 * 64 + group, first_column = warp % 4 * 32 + group / 2 * 8 + group % 2;
    const auto load = [&](int step) {
        uint4* const stage = stages + step % STAGES * (2 * SIDE);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            const int chunk = step * STEP_CHUNKS + c;
            const bool behind = chunk >= chunks;
            const int from = behind ? 0 : chunk * 4;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int to = (c * TILE_SIDE + i * 64) * 4 + thread;
                copy_async(stage + to, rows.at[i] + from, behind || rows.zeros[i]);
                copy_async(stage + SIDE + to, columns.at[i] + from, behind || columns.zeros[i]);
            }
        }
    };
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_copies<STAGES - 2>();
        // What all threads have copied is here, and what the last step read may be written over.
        block_barrier();
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        commit_copies();
        const uint4* const stage = stages + step % STAGES * (2 * SIDE);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            uint4 column[4];
#pragma unroll
            for (int n = 0; n < 4; n++) column[n] = stage[SIDE + (c * TILE_SIDE + first_column + n * 2) * 4 + piece];
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const uint4 low = stage[(c * TILE_SIDE + first_row + m * 16) * 4 + piece];
                const uint4 high = stage[(c * TILE_SIDE + first_row + m * 16 + 8) * 4 + piece];
#pragma unroll
                for (int n = 0; n < 4; n++) multiply_pieces(sums[m][n], low, high, column[n]);
            }
        }
    }
}
