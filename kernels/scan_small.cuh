// Approximate scores of a few queries (up to 64 a block): bound by reading the rows.
//
// A warp scores 32 positions against all queries of the block. Rows go from memory straight into registers: the order of a row's
// values within 32 is permuted, on both sides alike, so that the 16 bytes that a lane loads are its share of two products. The
// queries stand in shared memory in that very order.
#pragma once

#include "emit.cuh"

// Loads under way: this many times 2 KB a warp.
constexpr int DEPTH = 4;
constexpr int SMALL_THREADS = 128;
constexpr int WARP_ROWS = 32;

template <int GROUPS>
DEVICE void scan_few(const ScanParams& p) {
    // [chunk of 32 values][query][4 lanes] of 16 bytes: eight queries' pieces of a chunk are 512 bytes on end.
    DYNAMIC_SHARED(uint4, queries);
    constexpr int QUERIES = GROUPS * 8;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row_of_lane = lane / 4, piece = lane % 4;
    const int chunks = static_cast<int>(p.rows.stride / 32);
    const uint32_t first_query = blockIdx.y * QUERIES;

    const uint4* const halves = reinterpret_cast<const uint4*>(p.queries.halves);
    for (int i = thread; i < chunks * QUERIES * 4; i += SMALL_THREADS) {
        const int chunk = i / (QUERIES * 4), query = i / 4 % QUERIES;
        queries[i] = halves[static_cast<size_t>(first_query + query) * (chunks * 4) + chunk * 4 + i % 4];
    }
    float thresholds[GROUPS][2];
    for (int group = 0; group < GROUPS; group++)
        for (int i = 0; i < 2; i++)
            thresholds[group][i] = threshold_of(p, first_query + group * 8 + piece * 2 + i);
    block_barrier();

    const uint4* rows[4];
    uint4 loaded[DEPTH][4];
    const int rounded = (chunks + DEPTH - 1) / DEPTH * DEPTH;
    uint32_t visit = p.begin + blockIdx.x;
    if (visit >= p.end) return;
    uint32_t base = tile_of(p, visit) * TILE + warp * WARP_ROWS;
    for (int i = 0; i < 4; i++) rows[i] = row_at(p.rows, base + row_of_lane + i * 8) + piece;
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        for (int i = 0; i < 4; i++)
            if (d < chunks) loaded[d][i] = load_stream(rows[i] + d * 4);

    while (true) {
        const uint32_t next_visit = visit + gridDim.x;
        const bool last = next_visit >= p.end;
        const uint32_t next_base = last ? base : tile_of(p, next_visit) * TILE + warp * WARP_ROWS;
        const uint4* next_rows[4];
        for (int i = 0; i < 4; i++) next_rows[i] = row_at(p.rows, next_base + row_of_lane + i * 8) + piece;

        float scores[2][GROUPS][4] = {};
        for (int start = 0; start < rounded; start += DEPTH) {
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                const int chunk = start + d, coming = chunk + DEPTH;
                if (chunk < chunks) {
                    const uint4* const at = queries + (chunk * QUERIES + row_of_lane) * 4 + piece;
#pragma unroll
                    for (int group = 0; group < GROUPS; group++) {
                        const uint4 q = at[group * 32];
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            const uint4 low = loaded[d][m * 2], high = loaded[d][m * 2 + 1];
                            multiply_halves(scores[m][group], low.x, high.x, low.y, high.y, q.x, q.y);
                            multiply_halves(scores[m][group], low.z, high.z, low.w, high.w, q.z, q.w);
                        }
                    }
                }
                // The chunk that will stand here next: of this tile, or of the next one.
                for (int i = 0; i < 4; i++) {
                    if (coming < chunks) loaded[d][i] = load_stream(rows[i] + coming * 4);
                    else if (coming >= rounded && coming - rounded < chunks && !last) loaded[d][i] = load_stream(next_rows[i] + (coming - rounded) * 4);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int group = 0; group < GROUPS; group++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (scores[m][group][i] >= thresholds[group][i % 2])
                        emit(p, scores[m][group][i], first_query + group * 8 + piece * 2 + i % 2, visit, base + m * 16 + row_of_lane + i / 2 * 8);
        if (last) return;
        visit = next_visit;
        base = next_base;
        for (int i = 0; i < 4; i++) rows[i] = next_rows[i];
    }
}
