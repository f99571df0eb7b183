// Approximate scores of many queries: a block scores a tile of positions against a tile of queries.
#pragma once

#include "emit.cuh"
#include "tiles_hopper.cuh"

static_assert(TILE == TILE_SIDE && QUERY_TILE == TILE_SIDE, "a block's tiles");

// The thresholds of a thread's columns. hits(..) has a bit for each sum that reaches its own, whose score score(..) is.
template <class Place, class Kind> struct Gate;

// The bit of sums[m][n][i].
DEVICE constexpr uint64_t bit_of(int m, int n, int i) { return 1ull << (m * 16 + n * 4 + i); }

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
    DEVICE uint64_t hits(const float (&scores)[4][4][4]) const {
        uint64_t found = 0;
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (scores[m][n][i] >= thresholds[m % Place::COLUMN_GROUPS][n][i % 2]) found |= bit_of(m, n, i);
        return found;
    }
    DEVICE float score(const float (&scores)[4][4][4], int m, int n, int i) const { return scores[m][n][i]; }
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
            // Some less, and in hits() one less, for what is rounded. A row of zeros scores 0, for which the integer 0 stands either way.
            above[g] = most > 0 ? (1 - SLACK) / most : 1;
            below[g] = (1 + SLACK) / (least > 0 ? least : most > 0 ? most : 1);
        }
    }
    DEVICE uint64_t hits(const int32_t (&sums)[4][4][4]) const {
        uint64_t found = 0;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int g = m % Place::ROW_GROUPS, c = m % Place::COLUMN_GROUPS;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float limit = limits[c][n][j];
                    const int32_t least = integer_below(limit * (limit > 0 ? above[g] : below[g]) - 1);
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
    // In steps.
    DEVICE float score(const int32_t (&sums)[4][4][4], int m, int n, int i) const { return scales[m % Place::ROW_GROUPS][i / 2] * static_cast<float>(sums[m][n][i]); }
};

// Hands the hits among a tile's sums on.
template <class Place, class Kind, class Sum>
DEVICE void take_hits(const ScanParams& p, const Gate<Place, Kind>& gate, Outbox<Kind::IN_STEPS>& outbox, const Sum (&sums)[4][4][4], uint32_t first_query, uint32_t visit, uint32_t base) {
    const uint64_t hits = gate.hits(sums);
    outbox.take(p, visit, hits, [&](const auto& take) {
#pragma unroll
        for (int m = 0; m < 4; m++) {
            if ((hits & 0xffff * bit_of(m, 0, 0)) == 0) continue;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (hits & bit_of(m, n, i)) take(gate.score(sums, m, n, i), first_query + gate.place.column_of(m, n, i), base + gate.place.row_of(m, i));
        }
    });
}

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
    // The stages are read no more.
    block_barrier();
    Outbox<Kind::IN_STEPS> outbox(stages, p.outbox);
    take_hits(p, gate, outbox, sums, first_query, visit, base);
    outbox.send(p);
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
    const int chunks = static_cast<int>(Kind::row_bytes(p.rows) / 64);
    Gate<HopperPlace, Kind> gate(p, first_query);
    Outbox<Kind::IN_STEPS> outbox(reinterpret_cast<unsigned char*>(shared) + hopper_shared_bytes(RESIDENT, HOPPER_STAGES, (chunks + 1) / 2), p.outbox);
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
    const auto finish = [&](uint32_t tile, const typename Kind::Sum (&sums)[4][4][4]) {
        take_hits(p, gate, outbox, sums, first_query, first_visit + tile * step, base_of(tile));
    };
    stream_tiles<typename Kind::Sum, RESIDENT, HOPPER_STAGES, 1>(shared, query_at<Kind>(p, 0), chunks, n_tiles, rows, columns, begin, finish);
    outbox.send(p);
}
