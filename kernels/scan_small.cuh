// Approximate scores of a few queries (up to 64 a block): bound by reading the rows.
//
// A warp scores 32 positions against all queries of the block. Rows go from memory straight into registers: the order of a row's
// values within 64 bytes is permuted, on both sides alike, so that the 16 bytes that a lane loads are its share of two products. The
// queries stand in shared memory in that very order.
//
// Rows are read as they are, or in 8 bits. A query in bytes is then two planes, each a column of its own.
#pragma once

#include "emit.cuh"

// Loads under way: this many times 2 KB a warp.
constexpr int DEPTH = 4;
constexpr int SMALL_THREADS = 128;
constexpr int WARP_ROWS = 32;

// The rows of a lane: four, eight apart.
struct LaneRows {
    const uint4* at[4];
    float scales[4];

    template <class Kind>
    DEVICE static LaneRows of(const Rows& rows, uint32_t position, int piece) {
        LaneRows found;
        const unsigned char* const start = static_cast<const unsigned char*>(Kind::rows_of(rows));
        for (int i = 0; i < 4; i++) {
            const size_t row = row_of(rows, position + i * 8);
            found.at[i] = reinterpret_cast<const uint4*>(start + row * Kind::row_bytes(rows)) + piece;
            found.scales[i] = Kind::scale_of(rows, row);
        }
        return found;
    }
};

template <class Kind, int PLANES, int GROUPS>
DEVICE void scan_few(const ScanParams& p) {
    // [chunk of 64 bytes][column][4 lanes] of 16 bytes: eight columns' pieces of a chunk are 512 bytes on end.
    DYNAMIC_SHARED(uint4, columns);
    SHARED float steps[GROUPS * 8][2];
    constexpr int QUERIES = GROUPS * 8, COLUMNS = QUERIES * PLANES;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row_of_lane = lane / 4, piece = lane % 4;
    const int chunks = static_cast<int>(Kind::row_bytes(p.rows) / 64);
    const uint32_t first_query = blockIdx.y * QUERIES;

    const uint4* const source = static_cast<const uint4*>(Kind::queries_of(p.queries));
    for (int i = thread; i < chunks * COLUMNS * 4; i += SMALL_THREADS) {
        const int chunk = i / (COLUMNS * 4), column = i / 4 % COLUMNS;
        const size_t from = static_cast<size_t>(first_query + column % QUERIES) * PLANES + column / QUERIES;
        columns[i] = source[(from * chunks + chunk) * 4 + i % 4];
    }
    if (PLANES == 2 && thread < QUERIES * 2) {
        const uint32_t query = first_query + thread / 2;
        steps[thread / 2][thread % 2] = query < p.queries.n ? p.queries.steps[query * 2 + thread % 2] : 0;
    }
    float thresholds[GROUPS][2];
    for (int group = 0; group < GROUPS; group++)
        for (int i = 0; i < 2; i++) thresholds[group][i] = threshold_of(p, first_query + group * 8 + piece * 2 + i);
    block_barrier();
    Outbox<false> outbox(columns + chunks * COLUMNS * 4, p.outbox);

    uint4 loaded[DEPTH][4];
    const int rounded = (chunks + DEPTH - 1) / DEPTH * DEPTH;
    uint32_t visit = p.begin + blockIdx.x;
    if (visit >= p.end) return;
    uint32_t base = tile_of(p, visit) * TILE + warp * WARP_ROWS;
    LaneRows rows = LaneRows::of<Kind>(p.rows, base + row_of_lane, piece);
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        for (int i = 0; i < 4; i++)
            if (d < chunks) loaded[d][i] = load_stream(rows.at[i] + d * 4);

    while (true) {
        const uint32_t next_visit = visit + gridDim.x;
        const bool last = next_visit >= p.end;
        const uint32_t next_base = last ? base : tile_of(p, next_visit) * TILE + warp * WARP_ROWS;
        const LaneRows next = LaneRows::of<Kind>(p.rows, next_base + row_of_lane, piece);

        typename Kind::Sum sums[2][GROUPS * PLANES][4] = {};
        for (int start = 0; start < rounded; start += DEPTH) {
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                const int chunk = start + d, coming = chunk + DEPTH;
                if (chunk < chunks) {
                    const uint4* const at = columns + (chunk * COLUMNS + row_of_lane) * 4 + piece;
#pragma unroll
                    for (int group = 0; group < GROUPS * PLANES; group++) {
                        const uint4 q = at[group * 32];
#pragma unroll
                        for (int m = 0; m < 2; m++) multiply_pieces(sums[m][group], loaded[d][m * 2], loaded[d][m * 2 + 1], q);
                    }
                }
                // The chunk that will stand here next: of this tile, or of the next one.
                for (int i = 0; i < 4; i++) {
                    if (coming < chunks) loaded[d][i] = load_stream(rows.at[i] + coming * 4);
                    else if (coming >= rounded && coming - rounded < chunks && !last) loaded[d][i] = load_stream(next.at[i] + (coming - rounded) * 4);
                }
            }
        }
        const auto score_of = [&](int m, int group, int i) {
            const float first = static_cast<float>(sums[m][group][i]);
            if (PLANES == 1) return first;
            const int query = group * 8 + piece * 2 + i % 2;
            const float second = static_cast<float>(sums[m][group + GROUPS * (PLANES - 1)][i]);
            return rows.scales[m * 2 + i / 2] * (steps[query][0] * first + steps[query][1] * second);
        };
        // A bit for each sum.
        const auto bit_of = [](int m, int group, int i) { return 1ull << (m * 32 + group * 4 + i); };
        uint64_t hits = 0;
        const auto each_sum = [&](const auto& show) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int group = 0; group < GROUPS; group++)
#pragma unroll
                    for (int i = 0; i < 4; i++) show(m, group, i);
        };
        each_sum([&](int m, int group, int i) {
            if (score_of(m, group, i) >= thresholds[group][i % 2]) hits |= bit_of(m, group, i);
        });
        outbox.take(p, visit, hits, [&](const auto& take) {
            each_sum([&](int m, int group, int i) {
                if (hits & bit_of(m, group, i)) take(score_of(m, group, i), first_query + group * 8 + piece * 2 + i % 2, base + m * 16 + row_of_lane + i / 2 * 8);
            });
        });
        if (last) break;
        visit = next_visit;
        base = next_base;
        rows = next;
    }
    outbox.send(p);
}
