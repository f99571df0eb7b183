// The scan of small batches: approximate scores of up to 64 queries per block. Bound by memory: it
// reads every row once.
//
// A warp scores 32 positions against all queries of the block. Rows go from global memory straight
// into registers, PREFETCH chunks ahead of the products. The values within each 64-byte chunk are
// permuted, the same for rows and queries: the 16 bytes that a lane loads (a piece) are its
// fragments of two mma.sync products, in any order of the sum. Queries stay in shared memory in
// that order, so nothing is shuffled.
//
// A query has one column (F16), or two (Int8: high and low part).
#pragma once

#include "append.cuh"

// Chunks in flight per warp, 2 KiB each.
constexpr int PREFETCH = 4;
constexpr int WARP_ROWS = 32;

// The rows of a lane: four, eight positions apart.
struct LaneRows {
    const uint4* at[4];
    float scales[4];

    template <class Element>
    DEVICE static LaneRows of(const ScanRows& rows, uint32_t position, int piece) {
        LaneRows lane_rows;
        const auto* const start = static_cast<const unsigned char*>(Element::rows_of(rows));
        for (int i = 0; i < 4; i++) {
            const size_t row = row_of(rows, position + i * 8);
            const unsigned char* const at = start + row * Element::row_bytes(rows);
            lane_rows.at[i] = reinterpret_cast<const uint4*>(at) + piece;
            lane_rows.scales[i] = Element::scale_of(rows, row);
        }
        return lane_rows;
    }
};

// Scores the tiles of a pass and appends the hits.
//
// Grid: [blocks that fit on the device at a time, query groups of QUERY_GROUPS x 8]; each block
// takes every gridDim.x-th visit. Block: SMALL_THREADS. Dynamic shared memory: the block's columns,
// QUERY_GROUPS x 8 x PARTS x row bytes, then a hit buffer per warp. Limits: the columns fit into
// shared memory. CPU twin: crates/topk/src/cpu/int8.rs, f16.rs. Launcher: launch.rs.
template <class Element, int PARTS, int QUERY_GROUPS>
DEVICE void scan_small(const ScanParams& p) {
    // [chunk][column][4 pieces]: the pieces of eight columns are 512 contiguous bytes, which a warp
    // reads without bank conflicts.
    DYNAMIC_SHARED(uint4, columns);
    SHARED float scales[QUERY_GROUPS * 8][2];
    constexpr int QUERIES = QUERY_GROUPS * 8, COLUMNS = QUERIES * PARTS;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row_of_lane = lane / 4, piece = lane % 4;
    const int chunks = static_cast<int>(Element::row_bytes(p.rows) / 64);
    const uint32_t first_query = blockIdx.y * QUERIES;

    const uint4* const source = static_cast<const uint4*>(Element::queries_of(p.queries));
    for (int i = thread; i < chunks * COLUMNS * 4; i += SMALL_THREADS) {
        const int chunk = i / (COLUMNS * 4), column = i / 4 % COLUMNS;
        const size_t from =
            static_cast<size_t>(first_query + column % QUERIES) * PARTS + column / QUERIES;
        columns[i] = source[(from * chunks + chunk) * 4 + i % 4];
    }
    if (PARTS == 2 && thread < QUERIES * 2) {
        const uint32_t query = first_query + thread / 2;
        scales[thread / 2][thread % 2] =
            query < p.queries.n ? p.queries.scales[query * 2 + thread % 2] : 0;
    }
    float thresholds[QUERY_GROUPS][2];
    for (int group = 0; group < QUERY_GROUPS; group++)
        for (int i = 0; i < 2; i++)
            thresholds[group][i] = threshold_of(p, first_query + group * 8 + piece * 2 + i);
    block_barrier();
    HitBuffer<false> hit_buffer(columns + chunks * COLUMNS * 4, p.hits_per_warp);

    uint4 loaded[PREFETCH][4];
    const int rounded = (chunks + PREFETCH - 1) / PREFETCH * PREFETCH;
    uint32_t visit = p.begin + blockIdx.x;
    if (visit >= p.end) return;
    uint32_t base = tile_of(p, visit) * TILE + warp * WARP_ROWS;
    LaneRows rows = LaneRows::of<Element>(p.rows, base + row_of_lane, piece);
#pragma unroll
    for (int d = 0; d < PREFETCH; d++)
        for (int i = 0; i < 4; i++)
            if (d < chunks) loaded[d][i] = load_stream(rows.at[i] + d * 4);

    while (true) {
        const uint32_t next_visit = visit + gridDim.x;
        const bool last = next_visit >= p.end;
        const uint32_t next_base = last ? base : tile_of(p, next_visit) * TILE + warp * WARP_ROWS;
        const LaneRows next = LaneRows::of<Element>(p.rows, next_base + row_of_lane, piece);

        typename Element::Sum sums[2][QUERY_GROUPS * PARTS][4] = {};
        for (int start = 0; start < rounded; start += PREFETCH) {
#pragma unroll
            for (int d = 0; d < PREFETCH; d++) {
                const int chunk = start + d, coming = chunk + PREFETCH;
                if (chunk < chunks) {
                    const uint4* const at = columns + (chunk * COLUMNS + row_of_lane) * 4 + piece;
#pragma unroll
                    for (int group = 0; group < QUERY_GROUPS * PARTS; group++) {
                        const uint4 q = at[group * 32];
#pragma unroll
                        for (int m = 0; m < 2; m++)
                            mma_pieces(sums[m][group], loaded[d][m * 2], loaded[d][m * 2 + 1], q);
                    }
                }
                // Prefetch into this slot: from this tile, or from the next one.
                for (int i = 0; i < 4; i++) {
                    if (coming < chunks)
                        loaded[d][i] = load_stream(rows.at[i] + coming * 4);
                    else if (coming >= rounded && coming - rounded < chunks && !last)
                        loaded[d][i] = load_stream(next.at[i] + (coming - rounded) * 4);
                }
            }
        }
        const auto score_of = [&](int m, int group, int i) {
            const float high = static_cast<float>(sums[m][group][i]);
            if (PARTS == 1) return high;
            const int query = group * 8 + piece * 2 + i % 2;
            const float low = static_cast<float>(sums[m][group + QUERY_GROUPS * (PARTS - 1)][i]);
            return rows.scales[m * 2 + i / 2] * (scales[query][0] * high + scales[query][1] * low);
        };
        // One bit per sum.
        const auto bit_of = [](int m, int group, int i) {
            return 1ull << (m * 32 + group * 4 + i);
        };
        uint64_t hits = 0;
        const auto each_sum = [&](const auto& show) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int group = 0; group < QUERY_GROUPS; group++)
#pragma unroll
                    for (int i = 0; i < 4; i++) show(m, group, i);
        };
        each_sum([&](int m, int group, int i) {
            if (score_of(m, group, i) >= thresholds[group][i % 2]) hits |= bit_of(m, group, i);
        });
        hit_buffer.add(p, visit, hits, [&](const auto& add) {
            each_sum([&](int m, int group, int i) {
                if (hits & bit_of(m, group, i))
                    add(score_of(m, group, i), first_query + group * 8 + piece * 2 + i % 2,
                        base + m * 16 + row_of_lane + i / 2 * 8);
            });
        });
        if (last) break;
        visit = next_visit;
        base = next_base;
        rows = next;
    }
    hit_buffer.flush(p);
}
