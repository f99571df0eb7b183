// Approximate scores of many queries: bound by arithmetic. A block scores a tile of positions against a tile of queries.
//
// Tiles of both sides go through shared memory, 64 values of each row at a time, four steps ahead of the products. Each holds
// two chunks of [128 rows][32 values]: a lane's 16 bytes of a chunk are its share of two products, as in scan_small.cuh, and
// eight rows' pieces are 512 bytes on end, which no two lanes of a quarter warp compete for.
#pragma once

#include "emit.cuh"

constexpr int LARGE_THREADS = 256;
constexpr int STAGES = 3;
constexpr int STEP_CHUNKS = 2;
// 16-byte pieces of one side of a stage.
constexpr int SIDE = STEP_CHUNKS * TILE * 4;
constexpr int LARGE_SHARED_BYTES = STAGES * 2 * SIDE * 16;

DEVICE void scan_many(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, stages);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row_of_lane = lane / 4, piece = lane % 4;
    // Two warps along the positions, four along the queries: 64 x 32 scores each.
    const int warp_row = warp / 4 * 64, warp_query = warp % 4 * 32;
    const int chunks = static_cast<int>(p.rows.stride / 32), steps = (chunks + STEP_CHUNKS - 1) / STEP_CHUNKS;
    // Blocks that share rows follow each other.
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    const uint32_t visit = p.begin + blockIdx.x / query_tiles;
    const uint32_t base = tile_of(p, visit) * TILE;
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE;

    // What this thread copies: piece `thread % 4` of rows `thread / 4` and 64 further, of both sides.
    const uint4* rows[2];
    const uint4* queries[2];
    for (int i = 0; i < 2; i++) {
        rows[i] = row_at(p.rows, base + thread / 4 + i * 64) + thread % 4;
        queries[i] = reinterpret_cast<const uint4*>(p.queries.halves + static_cast<size_t>(first_query + thread / 4 + i * 64) * p.rows.stride) + thread % 4;
    }
    const auto load = [&](int step) {
        uint4* const stage = stages + step % STAGES * (2 * SIDE);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            const int chunk = step * STEP_CHUNKS + c;
            const bool behind = chunk >= chunks;
            const int from = behind ? 0 : chunk * 4;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int to = (c * TILE + i * 64) * 4 + thread;
                copy_async(stage + to, rows[i] + from, behind);
                copy_async(stage + SIDE + to, queries[i] + from, behind);
            }
        }
    };
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        commit_copies();
    }

    float scores[4][4][4] = {};
    for (int step = 0; step < steps; step++) {
        wait_copies<STAGES - 2>();
        // What all threads have copied is here, and what the last step read may be written over.
        block_barrier();
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        commit_copies();
        const uint4* const stage = stages + step % STAGES * (2 * SIDE);
#pragma unroll
        for (int c = 0; c < STEP_CHUNKS; c++) {
            uint4 q[4];
#pragma unroll
            for (int n = 0; n < 4; n++) q[n] = stage[SIDE + (c * TILE + warp_query + n * 8 + row_of_lane) * 4 + piece];
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const uint4 low = stage[(c * TILE + warp_row + m * 16 + row_of_lane) * 4 + piece];
                const uint4 high = stage[(c * TILE + warp_row + m * 16 + 8 + row_of_lane) * 4 + piece];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    multiply_halves(scores[m][n], low.x, high.x, low.y, high.y, q[n].x, q[n].y);
                    multiply_halves(scores[m][n], low.z, high.z, low.w, high.w, q[n].z, q[n].w);
                }
            }
        }
    }
    float thresholds[4][2];
#pragma unroll
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 2; i++) thresholds[n][i] = threshold_of(p, first_query + warp_query + n * 8 + piece * 2 + i);
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (scores[m][n][i] >= thresholds[n][i % 2])
                    emit(p, scores[m][n][i], first_query + warp_query + n * 8 + piece * 2 + i % 2, visit, base + warp_row + m * 16 + row_of_lane + i / 2 * 8);
}
