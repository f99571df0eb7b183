// Shared parts of the scan kernels: rows and queries by element type, thresholds, row masks, and
// appending hits to the candidate lists.
#pragma once

#include "keys.cuh"
#include "params.cuh"

constexpr float INFINITE = __builtin_huge_valf();

// Tile of a visit. The order is a permutation, so that every pass sees a sample of all rows.
DEVICE uint32_t tile_of(const ScanParams& p, uint32_t visit) {
    return static_cast<uint32_t>(static_cast<uint64_t>(visit) * p.tile_step % p.n_tiles);
}

// Row at a position. Positions past the end read the last row; their scores are dropped.
DEVICE size_t row_of(const ScanRows& rows, uint32_t position) {
    const uint32_t clamped = position < rows.n_positions ? position : rows.n_positions - 1;
    return rows.list ? rows.list[clamped] : clamped;
}

// Half-precision rows and queries, float32 sums.
struct F16 {
    typedef float Sum;
    // True if sums still lack the scale of the query.
    static constexpr bool UNSCALED = false;

    static DEVICE uint32_t row_bytes(const ScanRows& rows) { return rows.stride * 2; }
    static DEVICE const void* rows_of(const ScanRows& rows) { return rows.values; }
    static DEVICE const void* queries_of(const ScanQueries& queries) { return queries.f16; }
    static DEVICE float scale_of(const ScanRows&, size_t) { return 1; }
};

// Int8 rows and queries, int32 sums.
struct Int8 {
    typedef int32_t Sum;
    static constexpr bool UNSCALED = true;

    static DEVICE uint32_t row_bytes(const ScanRows& rows) { return rows.int8_stride; }
    static DEVICE const void* rows_of(const ScanRows& rows) { return rows.int8; }
    static DEVICE const void* queries_of(const ScanQueries& queries) { return queries.int8; }
    static DEVICE float scale_of(const ScanRows& rows, size_t row) { return rows.scales[row]; }
};

// Address of the row at a position.
template <class Element>
DEVICE const uint4* row_at(const ScanRows& rows, uint32_t position) {
    const auto* const start = static_cast<const unsigned char*>(Element::rows_of(rows));
    return reinterpret_cast<const uint4*>(start +
                                          row_of(rows, position) * Element::row_bytes(rows));
}

// Address of a query with one part.
template <class Element>
DEVICE const uint4* query_at(const ScanParams& p, uint32_t query) {
    const auto* const start = static_cast<const unsigned char*>(Element::queries_of(p.queries));
    const size_t bytes = static_cast<size_t>(query) * Element::row_bytes(p.rows);
    return reinterpret_cast<const uint4*>(start + bytes);
}

// True if the query's mask contains the segment's row.
DEVICE bool is_in_mask(const ScanRows& rows, uint32_t query, uint32_t row) {
    if (!rows.masks) return true;
    const uint32_t mask = rows.mask_of ? rows.mask_of[query] : 0;
    if (mask == NO_MASK) return true;
    return rows.masks[static_cast<size_t>(mask) * rows.mask_words + row / 32] >> row % 32 & 1;
}

// Threshold of a query; no score reaches that of the padding.
DEVICE float threshold_of(const ScanParams& p, uint32_t query) {
    if (query >= p.queries.n) return INFINITE;
    return p.first_pass ? -INFINITE : p.queries.thresholds[query];
}

// Appends a hit to its query's candidates. Masks are tested here, after the threshold, where few
// scores are left.
DEVICE void append_candidate(const ScanParams& p, float score, uint32_t query, uint32_t visit,
                             uint32_t position) {
    if (query >= p.queries.n) return;
    uint64_t* const candidates =
        p.queries.candidates + static_cast<size_t>(query) * p.queries.capacity;
    uint64_t key = NO_KEY;
    if (position < p.rows.n_positions) {
        const uint32_t row = p.rows.list ? p.rows.list[position] : position;
        if (is_in_mask(p.rows, query, row)) key = make_key(score, p.rows.first_row + row);
    }
    if (p.first_pass) {
        // All scores are kept: no atomics, and the order is fixed.
        candidates[(visit - p.begin) * TILE + position % TILE] = key;
    } else if (key != NO_KEY) {
        const uint32_t slot = atomicAdd(p.queries.counts + query, 1u);
        if (slot < p.queries.capacity) candidates[slot] = key;
    }
}

// Hit buffer of a warp, in shared memory. An append waits for the answer of its atomicAdd; a flush
// has 32 of them in flight at a time.
template <bool UNSCALED>
struct HitBuffer {
    Hit* hits;          // [capacity]
    uint32_t capacity;  // hits_per_warp
    uint32_t count;     // hits in the buffer, the same in all lanes

    // The buffer of this warp; `shared` holds one per warp of the block.
    DEVICE HitBuffer(void* shared, uint32_t capacity_)
        : hits(static_cast<Hit*>(shared) + threadIdx.x / 32 * capacity_),
          capacity(capacity_),
          count(0) {}

    // Adds the hits of a tile. `found` has a bit for each of this lane's scores that is a hit;
    // each_hit(add) calls add(score, query, position) for each of them.
    template <class Each>
    DEVICE void add(const ScanParams& p, uint32_t visit, uint64_t found, const Each& each_hit) {
        if (!p.first_pass) {
            if (!warp_any(found != 0)) return;
            const uint32_t mine = popcount(found), inclusive = warp_inclusive_sum(mine);
            const uint32_t all = warp_broadcast(inclusive, 31);
            if (all <= capacity) {
                if (count + all > capacity) flush(p);
                Hit* to = hits + count + inclusive - mine;
                each_hit([&](float score, uint32_t query, uint32_t position) {
                    *to++ = {score, query, position};
                });
                count += all;
                return;
            }
            // More hits than the buffer holds: append them one by one.
        }
        each_hit([&](float score, uint32_t query, uint32_t position) {
            append_candidate(p, scaled(p, score, query), query, visit, position);
        });
    }

    // Appends all buffered hits to the candidates.
    DEVICE void flush(const ScanParams& p) {
        warp_barrier();
        for (uint32_t i = threadIdx.x % 32; i < count; i += 32)
            append_candidate(p, scaled(p, hits[i].score, hits[i].query), hits[i].query, p.begin,
                             hits[i].position);
        // From here on the buffer may be overwritten.
        warp_barrier();
        count = 0;
    }

    DEVICE static float scaled(const ScanParams& p, float score, uint32_t query) {
        return UNSCALED ? score * p.queries.scales[query * 2] : score;
    }
};
