// The scan of large batches: a block scores a tile of 128 positions against a tile of 128 queries.
// Bound by arithmetic. The scores are compared with the thresholds in registers; the score matrix
// is never written to memory.
#pragma once

#include "append.cuh"
#include "tiles_hopper.cuh"

static_assert(TILE == TILE_SIDE && QUERY_TILE == TILE_SIDE, "a block's tiles");

// Bit of sums[m][n][i] in a hit mask.
DEVICE constexpr uint64_t bit_of(int m, int n, int i) { return 1ull << (m * 16 + n * 4 + i); }

// Comparison of a thread's sums with the thresholds of its columns. hits(sums) is the mask of the
// sums that reach them, score(sums, m, n, i) the score of a sum.
template <class Layout, class Element>
struct Gate;

template <class Layout>
struct Gate<Layout, F16> {
    Layout layout;
    float thresholds[Layout::COLUMN_GROUPS][4][2];

    DEVICE Gate(const ScanParams& p, uint32_t first_query) {
#pragma unroll
        for (int m = 0; m < Layout::COLUMN_GROUPS; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    thresholds[m][n][i] = threshold_of(p, first_query + layout.column_of(m, n, i));
    }
    DEVICE void load_row_scales(const ScanParams&, uint32_t) {}
    DEVICE uint64_t hits(const float (&scores)[4][4][4]) const {
        uint64_t found = 0;
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (scores[m][n][i] >= thresholds[m % Layout::COLUMN_GROUPS][n][i % 2])
                        found |= bit_of(m, n, i);
        return found;
    }
    DEVICE float score(const float (&scores)[4][4][4], int m, int n, int i) const {
        return scores[m][n][i];
    }
};

// The score of an integer sum is sum x row scale x query scale. A cheap integer comparison comes
// first: with the least integer that can reach the threshold in either of two rows. Sums that pass
// it are compared exactly.
template <class Layout>
struct Gate<Layout, Int8> {
    static constexpr float SLACK = 1.0f / (1 << 20);
    Layout layout;
    // Thresholds divided by the query's scale.
    float limits[Layout::COLUMN_GROUPS][4][2];
    // Scales of two rows of the current tile, and the factors from a positive and from a negative
    // limit to an integer.
    float scales[Layout::ROW_GROUPS][2], above[Layout::ROW_GROUPS], below[Layout::ROW_GROUPS];

    DEVICE Gate(const ScanParams& p, uint32_t first_query) {
#pragma unroll
        for (int m = 0; m < Layout::COLUMN_GROUPS; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const uint32_t query = first_query + layout.column_of(m, n, i);
                    const float scale = query < p.queries.n ? p.queries.scales[query * 2] : 1;
                    limits[m][n][i] = threshold_of(p, query) / scale;
                }
    }
    // Loads the scales of the tile's rows while its products run.
    DEVICE void load_row_scales(const ScanParams& p, uint32_t base) {
#pragma unroll
        for (int g = 0; g < Layout::ROW_GROUPS; g++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const size_t row = row_of(p.rows, base + layout.row_of(g, h * 2));
                scales[g][h] = Int8::scale_of(p.rows, row);
            }
            const float most = fmaxf(scales[g][0], scales[g][1]);
            const float least = fminf(scales[g][0], scales[g][1]);
            // The slack here, and the 1 in hits(), cover rounding. A row of zeros has scale 0; its
            // sum and its score are 0.
            above[g] = most > 0 ? (1 - SLACK) / most : 1;
            below[g] = (1 + SLACK) / (least > 0 ? least : most > 0 ? most : 1);
        }
    }
    DEVICE uint64_t hits(const int32_t (&sums)[4][4][4]) const {
        uint64_t found = 0;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int g = m % Layout::ROW_GROUPS, c = m % Layout::COLUMN_GROUPS;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float limit = limits[c][n][j];
                    const int32_t least =
                        floor_to_int(limit * (limit > 0 ? above[g] : below[g]) - 1);
#pragma unroll
                    for (int i = j; i < 4; i += 2)
                        if (sums[m][n][i] >= least) found |= bit_of(m, n, i);
                }
            if ((found & 0xffff * bit_of(m, 0, 0)) == 0) continue;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (score(sums, m, n, i) < limits[c][n][i % 2]) found &= ~bit_of(m, n, i);
        }
        return found;
    }
    // Without the query's scale, which the hit buffer applies.
    DEVICE float score(const int32_t (&sums)[4][4][4], int m, int n, int i) const {
        return scales[m % Layout::ROW_GROUPS][i / 2] * static_cast<float>(sums[m][n][i]);
    }
};

// Adds the hits of a tile to the warp's hit buffer.
template <class Layout, class Element, class Sum>
DEVICE void add_hits(const ScanParams& p, const Gate<Layout, Element>& gate,
                     HitBuffer<Element::UNSCALED>& hit_buffer, const Sum (&sums)[4][4][4],
                     uint32_t first_query, uint32_t visit, uint32_t base) {
    const uint64_t hits = gate.hits(sums);
    hit_buffer.add(p, visit, hits, [&](const auto& add) {
#pragma unroll
        for (int m = 0; m < 4; m++) {
            if ((hits & 0xffff * bit_of(m, 0, 0)) == 0) continue;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (hits & bit_of(m, n, i))
                        add(gate.score(sums, m, n, i), first_query + gate.layout.column_of(m, n, i),
                            base + gate.layout.row_of(m, i));
        }
    });
}

// Scores one tile of positions against one tile of queries and appends the hits.
//
// Grid: visits of the pass x query tiles; blocks with the same rows are neighbours, for the L2
// cache. Block: TILE_THREADS. Dynamic shared memory: TILE_SHARED_BYTES; the hit buffers reuse it.
// CPU twin: crates/topk/src/cpu/int8.rs, f16.rs. Launcher: launch.rs.
template <class Element>
DEVICE void scan_large(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, stages);
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    const uint32_t visit = p.begin + blockIdx.x / query_tiles;
    const uint32_t base = tile_of(p, visit) * TILE;
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE;
    TileRows rows, queries;
    for (int i = 0; i < 2; i++) {
        rows.at[i] = row_at<Element>(p.rows, base + TileRows::row(i)) + threadIdx.x % 4;
        queries.at[i] = query_at<Element>(p, first_query + TileRows::row(i)) + threadIdx.x % 4;
        rows.zeros[i] = queries.zeros[i] = false;
    }
    typename Element::Sum sums[4][4][4] = {};
    multiply_tiles(stages, rows, queries, static_cast<int>(Element::row_bytes(p.rows) / 64), sums);
    Gate<MmaLayout, Element> gate(p, first_query);
    gate.load_row_scales(p, base);
    // The pipeline stages are free from here on.
    block_barrier();
    HitBuffer<Element::UNSCALED> hit_buffer(stages, p.hits_per_warp);
    add_hits(p, gate, hit_buffer, sums, first_query, visit, base);
    hit_buffer.flush(p);
}

// The same by wgmma: a block scores a stream of tiles against one tile of queries, which stay in
// shared memory if RESIDENT.
//
// Grid: streams x query tiles, one block per multiprocessor; a stream takes every n-th visit.
// Block: TILE_THREADS. Dynamic shared memory: hopper_shared_bytes(..), then a hit buffer per warp.
template <class Element, bool RESIDENT>
DEVICE void scan_large_hopper(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, shared);
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE;
    const uint32_t first_visit = p.begin + blockIdx.x / query_tiles;
    const uint32_t step = gridDim.x / query_tiles;
    const uint32_t n_tiles = first_visit < p.end ? (p.end - first_visit + step - 1) / step : 0;
    const auto base_of = [&](uint32_t tile) {
        return tile_of(p, first_visit + tile * step) * TILE;
    };
    const int chunks = static_cast<int>(Element::row_bytes(p.rows) / 64);
    Gate<WgmmaLayout, Element> gate(p, first_query);
    HitBuffer<Element::UNSCALED> hit_buffer(
        reinterpret_cast<unsigned char*>(shared) +
            hopper_shared_bytes(RESIDENT, HOPPER_STAGES, (chunks + 1) / 2),
        p.hits_per_warp);
    uint32_t loading = ~0u, loading_base = 0;
    const auto rows = [&](uint32_t tile, int row) {
        if (tile != loading) {
            loading = tile;
            loading_base = base_of(tile);
        }
        return row_at<Element>(p.rows, loading_base + row);
    };
    const auto columns = [&](int column) { return query_at<Element>(p, first_query + column); };
    const auto begin = [&](uint32_t tile) { gate.load_row_scales(p, base_of(tile)); };
    const auto finish = [&](uint32_t tile, const typename Element::Sum(&sums)[4][4][4]) {
        add_hits(p, gate, hit_buffer, sums, first_query, first_visit + tile * step, base_of(tile));
    };
    stream_tiles<typename Element::Sum, RESIDENT, HOPPER_STAGES, 1>(
        shared, query_at<Element>(p, 0), chunks, n_tiles, rows, columns, begin, finish);
    hit_buffer.flush(p);
}
