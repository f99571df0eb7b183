// Approximate scores of many queries: a block scores a tile of positions against a tile of queries.
#pragma once

#include "emit.cuh"
#include "tiles_hopper.cuh"

static_assert(TILE == TILE_SIDE && QUERY_TILE == TILE_SIDE, "a block's tiles");

// The thresholds of a thread's columns, and what reaches them.
template <class Place, class Kind> struct Gate;

template <class Place> struct Gate<Place, Halves> {
    Place place;
    float thresholds[Place::COLUMN_GROUPS][4][2];

    DEVICE Gate(const ScanParams& p, uint32_t first_query) {
#pragma unroll
        for (int m = 0; m < Place::COLUMN_GROUPS; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) thresholds[m][n][i] = threshold_of(p, first_query + place.column_of(m, n, i));
    }
    DEVICE void look_ahead(const ScanParams&, uint32_t) {}
    DEVICE void keep(const ScanParams& p, const float (&scores)[4][4][4], uint32_t first_query, uint32_t visit, uint32_t base) const {
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (scores[m][n][i] >= thresholds[m % Place::COLUMN_GROUPS][n][i % 2])
                        emit(p, scores[m][n][i], first_query + place.column_of(m, n, i), visit, base + place.row_of(m, i));
    }
};

// An integer's score is it times the row's scale times the query's step. Most fall short of the least integer that can reach the threshold
// in either of two rows; the others are looked at again.
template <class Place> struct Gate<Place, Bytes> {
    static constexpr float SLACK = 1.0f / (1 << 20);
    Place place;
    // Thresholds by the query's step.
    float limits[Place::COLUMN_GROUPS][4][2];
    // Of two rows of the tile at hand, and by what a limit becomes an integer, above zero and below.
    float scales[Place::ROW_GROUPS][2], above[Place::ROW_GROUPS], below[Place::ROW_GROUPS];

    DEVICE Gate(const ScanParams& p, uint32_t first_query) {
#pragma unroll
        for (int m = 0; m < Place::COLUMN_GROUPS; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const uint32_t query = first_query + place.column_of(m, n, i);
                    const float step = query < p.queries.n ? p.queries.steps[query * 2] : 1;
                    limits[m][n][i] = threshold_of(p, query) / step;
                }
    }
    DEVICE void look_ahead(const ScanParams& p, uint32_t base) {
#pragma unroll
        for (int g = 0; g < Place::ROW_GROUPS; g++) {
#pragma unroll
            for (int h = 0; h < 2; h++) scales[g][h] = Bytes::scale_of(p.rows, row_of(p.rows, base + place.row_of(g, h * 2)));
            const float most = fmaxf(scales[g][0], scales[g][1]), least = fminf(scales[g][0], scales[g][1]);
            // Some less, and in keep() one less, for what is rounded. A row of zeros scores 0, for which the integer 0 stands either way.
            above[g] = most > 0 ? (1 - SLACK) / most : 1;
            below[g] = (1 + SLACK) / (least > 0 ? least : most > 0 ? most : 1);
        }
    }
    DEVICE void keep(const ScanParams& p, const int32_t (&sums)[4][4][4], uint32_t first_query, uint32_t visit, uint32_t base) const {
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int g = m % Place::ROW_GROUPS;
                    const float limit = limits[m % Place::COLUMN_GROUPS][n][j];
                    const int32_t least = integer_below(limit * (limit > 0 ? above[g] : below[g]) - 1);
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        if (sums[m][n][h * 2 + j] >= least) {
                            const uint32_t query = first_query + place.column_of(m, n, j);
                            const float step = query < p.queries.n ? p.queries.steps[query * 2] : 1;
                            const float score = scales[g][h] * (step * static_cast<float>(sums[m][n][h * 2 + j]));
                            if (score >= threshold_of(p, query)) emit(p, score, query, visit, base + place.row_of(m, h * 2));
                        }
                }
    }
};

template <class Kind>
DEVICE void scan_many(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, stages);
    // Blocks that share rows follow each other.
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    const uint32_t visit = p.begin + blockIdx.x / query_tiles;
    const uint32_t base = tile_of(p, visit) * TILE;
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE;
    TileRows rows, queries;
    for (int i = 0; i < 2; i++) {
        rows.at[i] = row_at<Kind>(p.rows, base + TileRows::row(i)) + threadIdx.x % 4;
        queries.at[i] = query_at<Kind>(p, first_query + TileRows::row(i)) + threadIdx.x % 4;
        rows.zeros[i] = queries.zeros[i] = false;
    }
    typename Kind::Sum sums[4][4][4] = {};
    multiply_tiles(stages, rows, queries, static_cast<int>(Kind::row_bytes(p.rows) / 64), sums);
    Gate<TilePlace, Kind> gate(p, first_query);
    gate.look_ahead(p, base);
    gate.keep(p, sums, first_query, visit, base);
}

// The same on Hopper: a block keeps its queries, where RESIDENT, and takes one tile of positions after the other.
template <class Kind, bool RESIDENT>
DEVICE void scan_many_hopper(const ScanParams& p) {
    DYNAMIC_SHARED(uint4, shared);
    const uint32_t query_tiles = (p.queries.n + QUERY_TILE - 1) / QUERY_TILE;
    // Blocks that follow each other share rows.
    const uint32_t first_query = blockIdx.x % query_tiles * QUERY_TILE, first_visit = p.begin + blockIdx.x / query_tiles, step = gridDim.x / query_tiles;
    const uint32_t n_tiles = first_visit < p.end ? (p.end - first_visit + step - 1) / step : 0;
    const auto base_of = [&](uint32_t tile) { return tile_of(p, first_visit + tile * step) * TILE; };
    Gate<HopperPlace, Kind> gate(p, first_query);
    uint32_t loading = ~0u, loading_base = 0;
    const auto rows = [&](uint32_t tile, int row) {
        if (tile != loading) {
            loading = tile;
            loading_base = base_of(tile);
        }
        return row_at<Kind>(p.rows, loading_base + row);
    };
    const auto columns = [&](int column) { return query_at<Kind>(p, first_query + column); };
    const auto begin = [&](uint32_t tile) { gate.look_ahead(p, base_of(tile)); };
    const auto finish = [&](uint32_t tile, const typename Kind::Sum (&sums)[4][4][4]) { gate.keep(p, sums, first_query, first_visit + tile * step, base_of(tile)); };
    stream_tiles<typename Kind::Sum, RESIDENT, HOPPER_STAGES, 1>(shared, query_at<Kind>(p, 0), static_cast<int>(Kind::row_bytes(p.rows) / 64), n_tiles, rows, columns, begin, finish);
}
