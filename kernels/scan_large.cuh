// Approximate scores of many queries: a block scores a tile of positions against a tile of queries.
#pragma once

#include "emit.cuh"
#include "tiles_hopper.cuh"

static_assert(TILE == TILE_SIDE && QUERY_TILE == TILE_SIDE, "a block's tiles");

// Keeps a thread's scores that reach `threshold(m, n, i)`.
template <class Place, class Threshold>
DEVICE void keep_scores(const ScanParams& p, const Place& place, const float (&scores)[4][4][4], uint32_t first_query, uint32_t visit, uint32_t base, const Threshold& threshold) {
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (scores[m][n][i] >= threshold(m, n, i % 2))
                    emit(p, scores[m][n][i], first_query + place.column_of(m, n, i), visit, base + place.row_of(m, i));
}

DEVICE void scan_many(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, stages);
    // Blocks that share rows follow each other.
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    const uint32_t visit = p.begin + blockIdx.x / query_tiles;
    const uint32_t base = tile_of(p, visit) * TILE;
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE;
    TileRows rows, queries;
    for (int i = 0; i < 2; i++) {
        rows.at[i] = row_at(p.rows, base + TileRows::row(i)) + threadIdx.x % 4;
        queries.at[i] = reinterpret_cast<const uint4*>(p.queries.halves + static_cast<size_t>(first_query + TileRows::row(i)) * p.rows.stride) + threadIdx.x % 4;
        rows.zeros[i] = queries.zeros[i] = false;
    }
    float scores[4][4][4] = {};
    multiply_tiles(stages, rows, queries, static_cast<int>(p.rows.stride / 32), scores);
    const TilePlace place;
    float thresholds[4][2];
#pragma unroll
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 2; i++) thresholds[n][i] = threshold_of(p, first_query + place.column_of(0, n, i));
    keep_scores(p, place, scores, first_query, visit, base, [&](int, int n, int i) { return thresholds[n][i]; });
}

// The same on Hopper: a block keeps its queries, where RESIDENT, and takes one tile of positions after the other.
template <bool RESIDENT>
DEVICE void scan_many_hopper(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, shared);
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    // Blocks that follow each other share rows.
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE, first_visit = p.begin + blockIdx.x / query_tiles, step = gridDim.x / query_tiles;
    const uint32_t n_tiles = first_visit < p.end ? (p.end - first_visit + step - 1) / step : 0;
    const uint4* const queries = reinterpret_cast<const uint4*>(p.queries.halves);
    const HopperPlace place;
    float thresholds[4][4][2];
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
            for (int i = 0; i < 2; i++) thresholds[m][n][i] = threshold_of(p, first_query + place.column_of(m, n, i));
    uint32_t loading = ~0u, loading_base = 0;
    const auto rows = [&](uint32_t tile, int row) {
        if (tile != loading) {
            loading = tile;
            loading_base = tile_of(p, first_visit + tile * step) * TILE;
        }
        return row_at(p.rows, loading_base + row);
    };
    const auto columns = [&](int column) { return queries + static_cast<size_t>(first_query + column) * (p.rows.stride / 8); };
    const auto finish = [&](uint32_t tile, const float (&scores)[4][4][4]) {
        const uint32_t visit = first_visit + tile * step, base = tile_of(p, visit) * TILE;
        keep_scores(p, place, scores, first_query, visit, base, [&](int m, int n, int i) { return thresholds[m][n][i]; });
    };
    stream_tiles<RESIDENT, HOPPER_STAGES, 1>(shared, queries, static_cast<int>(p.rows.stride / 32), n_tiles, rows, columns, finish);
}
