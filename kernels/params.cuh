// What the host hands to kernels, by value. src/scan/cuda/params.rs mirrors it, field for field.
#pragma once

#include "platform.cuh"

// Positions a block scans at a time. A position is a row of the shard, or an entry of the list of rows that pass a filter.
constexpr int TILE = 128;
// Queries of one block of the large kernel; buffers of queries are padded to a multiple.
constexpr int QUERY_TILE = 128;
constexpr uint32_t NO_MASK = 0xffffffffu;

// The rows at hand: all of an index, or a shard of it.
struct Rows {
    const uint16_t* values;   // [n_rows, stride], halves
    const int8_t* bytes;      // [n_rows, byte_stride], the rows in 8 bits; null where there are none
    const float* scales;      // [n_rows], what an integer of `bytes` counts
    const uint32_t* list;     // [n_positions], rows of the shard; null where all rows are scanned
    const uint32_t* masks;    // [n_masks, mask_words], bit i of word w is row 32 w + i of the shard; null without a filter
    const uint32_t* mask_of;  // [n_queries], the query's mask or NO_MASK; null where mask 0 is everyone's
    uint32_t n_positions;
    uint32_t mask_words;
    uint32_t stride;          // values between the starts of two rows, a multiple of 32
    uint32_t first_row;       // the index's number of the shard's first row
    uint32_t byte_stride;     // bytes between the starts of two rows of `bytes`, a multiple of 64
    float max_residual;       // an upper bound on the norm of the difference between a row and its bytes
};

// The queries of a chain, and what is known of each.
struct Queries {
    const float* values;   // [n, stride]
    uint16_t* halves;      // [n rounded up to QUERY_TILE, stride], scaled by 2^power
    int8_t* planes;        // [n rounded up to QUERY_TILE, planes, byte_stride], scaled as well: the sum of one or two planes
    float* steps;          // [n, 2], what an integer of either plane counts
    int32_t* powers;       // [n]
    float* errors;         // [n], how far an approximate score may be from the scaled canonical one
    float* thresholds;     // [n], approximate scores below it are of no interest
    uint32_t* counts;      // [n], candidates so far; more than `capacity` where some were lost
    uint64_t* candidates;  // [n, capacity], keys
    uint64_t* best;        // [n, k], the canonical keys of all shards before, best first
    uint32_t* n_best;      // [n]
    uint32_t* flags;       // [n], 1 where candidates were lost in this shard
    uint32_t n;
    uint32_t k;
    uint32_t capacity;
    float max_norm;        // an upper bound on the norm of every row
};

struct PrepareParams {
    Rows rows;
    Queries queries;
};

// One round: the tiles [begin, end) in visiting order; visit j goes to tile j * step mod n_tiles.
struct ScanParams {
    Rows rows;
    Queries queries;
    uint32_t n_tiles;
    uint32_t step;
    uint32_t begin;
    uint32_t end;
    uint32_t first_round;  // 1: every score is kept, at a place of its own, and no threshold is looked at
    uint32_t outbox;       // hits that a warp has room for before they become candidates
};

struct SelectParams {
    Rows rows;
    Queries queries;
    uint32_t n_direct;     // the candidates of the first round, whose count nobody counted; else 0
    uint32_t second_look;  // 1: thresholds are made of canonical scores of the best k so far, for error bounds that are wide
};

// All canonical keys of one query over [begin, end) positions.
struct ScoreAllParams {
    Rows rows;
    Queries queries;
    uint64_t* keys;  // [end - begin]
    uint32_t query;
    uint32_t begin;
    uint32_t end;
};

// Takes the best of `keys` into the best of `query`.
struct MergeParams {
    Queries queries;
    const uint64_t* keys;
    uint32_t n_keys;
    uint32_t query;
};

struct ListParams {
    const uint32_t* mask;  // [mask_words]
    uint32_t* list;        // [rows that pass]
    uint32_t* n_listed;    // [1], zero at first
    uint32_t n_rows;
};

static_assert(sizeof(Rows) == 72 && sizeof(Queries) == 112, "src/scan/cuda/params.rs");
static_assert(sizeof(PrepareParams) == 184 && sizeof(ScanParams) == 208, "src/scan/cuda/params.rs");
static_assert(sizeof(SelectParams) == 192 && sizeof(ScoreAllParams) == 208, "src/scan/cuda/params.rs");
static_assert(sizeof(MergeParams) == 128 && sizeof(ListParams) == 32, "src/scan/cuda/params.rs");
