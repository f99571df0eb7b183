// Where the scanning kernels find rows, and where they leave what may be among the best.
#pragma once

#include "keys.cuh"
#include "params.cuh"

constexpr float INFINITE = __builtin_huge_valf();

DEVICE uint32_t tile_of(const ScanParams& p, uint32_t visit) { return static_cast<uint32_t>(static_cast<uint64_t>(visit) * p.step % p.n_tiles); }

// The row of a position; that of the last position for those behind it, whose scores nobody takes.
DEVICE size_t row_of(const Rows& rows, uint32_t position) {
    const uint32_t there = position < rows.n_positions ? position : rows.n_positions - 1;
    return rows.list ? rows.list[there] : there;
}

// Rows and queries in half precision.
struct Halves {
    typedef float Sum;
    static constexpr bool IN_STEPS = false;

    static DEVICE uint32_t row_bytes(const Rows& rows) { return rows.stride * 2; }
    static DEVICE const void* rows_of(const Rows& rows) { return rows.values; }
    static DEVICE const void* queries_of(const Queries& queries) { return queries.halves; }
    static DEVICE float scale_of(const Rows&, size_t) { return 1; }
};

// Both in 8 bits.
struct Bytes {
    typedef int32_t Sum;
    static constexpr bool IN_STEPS = true;

    static DEVICE uint32_t row_bytes(const Rows& rows) { return rows.byte_stride; }
    static DEVICE const void* rows_of(const Rows& rows) { return rows.bytes; }
    static DEVICE const void* queries_of(const Queries& queries) { return queries.planes; }
    static DEVICE float scale_of(const Rows& rows, size_t row) { return rows.scales[row]; }
};

// Where a position's row begins.
template <class Kind> DEVICE const uint4* row_at(const Rows& rows, uint32_t position) {
    return reinterpret_cast<const uint4*>(static_cast<const unsigned char*>(Kind::rows_of(rows)) + row_of(rows, position) * Kind::row_bytes(rows));
}
// Where a query's column begins, of which each has one.
template <class Kind> DEVICE const uint4* query_at(const ScanParams& p, uint32_t query) {
    return reinterpret_cast<const uint4*>(static_cast<const unsigned char*>(Kind::queries_of(p.queries)) + static_cast<size_t>(query) * Kind::row_bytes(p.rows));
}

// Whether the query's filter lets the shard's row pass.
DEVICE bool passes(const Rows& rows, uint32_t query, uint32_t row) {
    if (!rows.masks) return true;
    const uint32_t mask = rows.mask_of ? rows.mask_of[query] : 0;
    return mask == NO_MASK || rows.masks[static_cast<size_t>(mask) * rows.mask_words + row / 32] >> row % 32 & 1;
}

// What a score must reach; nothing reaches that of a query that does not exist.
DEVICE float threshold_of(const ScanParams& p, uint32_t query) {
    if (query >= p.queries.n) return INFINITE;
    return p.first_round ? -INFINITE : p.queries.thresholds[query];
}

// Makes a candidate of a score that has reached its query's threshold.
DEVICE void emit(const ScanParams& p, float score, uint32_t query, uint32_t visit, uint32_t position) {
    if (query >= p.queries.n) return;
    uint64_t* const candidates = p.queries.candidates + static_cast<size_t>(query) * p.queries.capacity;
    uint64_t key = NO_KEY;
    if (position < p.rows.n_positions) {
        const uint32_t row = p.rows.list ? p.rows.list[position] : position;
        if (passes(p.rows, query, row)) key = make_key(score, p.rows.first_row + row);
    }
    if (p.first_round) {
        candidates[(visit - p.begin) * TILE + position % TILE] = key;
    } else if (key != NO_KEY) {
        const uint32_t place = atomicAdd(p.queries.counts + query, 1u);
        if (place < p.queries.capacity) candidates[place] = key;
    }
}

struct Hit {
    float score;
    uint32_t query;
    uint32_t position;
};
static_assert(sizeof(Hit) == 12, "src/scan/cuda/scanning.rs");

// Hits of a warp that are to become candidates. Each asks memory for its place and waits for the answer; here they ask together.
// Scores IN_STEPS are still to be multiplied by their query's step.
template <bool IN_STEPS>
struct Outbox {
    Hit* hits;         // [room], in shared memory
    uint32_t room;
    uint32_t waiting;  // how many are there, which all lanes know

    // That of this warp in `shared`, which has one for each.
    DEVICE Outbox(void* shared, uint32_t room_) : hits(static_cast<Hit*>(shared) + threadIdx.x / 32 * room_), room(room_), waiting(0) {}

    // Takes the hits of a tile: `found` has a bit for each of this lane's scores, and each_hit(..) shows those to what it is given, as
    // (score, query, position).
    template <class Each>
    DEVICE void take(const ScanParams& p, uint32_t visit, uint64_t found, const Each& each_hit) {
        if (!p.first_round) {
            if (!warp_any(found != 0)) return;
            const uint32_t mine = ones(found), upto = warp_sum_upto(mine), all = warp_from(upto, 31);
            if (all <= room) {
                if (waiting + all > room) send(p);
                Hit* to = hits + waiting + upto - mine;
                each_hit([&](float score, uint32_t query, uint32_t position) { *to++ = {score, query, position}; });
                waiting += all;
                return;
            }
            // There is no room for so many: they go one by one.
        }
        each_hit([&](float score, uint32_t query, uint32_t position) { emit(p, whole(p, score, query), query, visit, position); });
    }

    DEVICE void send(const ScanParams& p) {
        warp_barrier();
        for (uint32_t i = threadIdx.x % 32; i < waiting; i += 32) emit(p, whole(p, hits[i].score, hits[i].query), hits[i].query, p.begin, hits[i].position);
        // Others may be written over these.
        warp_barrier();
        waiting = 0;
    }

    DEVICE static float whole(const ScanParams& p, float score, uint32_t query) { return IN_STEPS ? score * p.queries.steps[query * 2] : score; }
};
