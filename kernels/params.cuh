// Parameters of the scan's kernels, passed by value, and the constants that the host needs.
//
// kernels/build.rs generates crates/topk/src/cuda/params.rs from this file: the comments of
// constants, structs and fields become its documentation. A static_assert guards each size.
#pragma once

#include "platform.cuh"

// Positions per tile. A position is a row of the segment, or an entry of the list of rows that pass
// a filter.
constexpr int TILE = 128;
// Queries per block of the large scan; query buffers are padded to a multiple.
constexpr int QUERY_TILE = 128;
// Mask index of a query without a filter.
constexpr uint32_t NO_MASK = 0xffffffffu;
// Threads per block of every kernel except the scans.
constexpr int SELECT_THREADS = 256;
// Threads per block of the small scan.
constexpr int SMALL_THREADS = 128;
// Up to this many keys are sorted without a selection first.
constexpr uint32_t FEW_KEYS = 512;

// The rows to scan: all rows of a matrix, or a segment of them.
struct ScanRows {
    const uint16_t* values;  // half precision, [n_rows, stride]
    const int8_t* int8;      // int8 copy, [n_rows, int8_stride]; null if it is not read
    const float* scales;     // scale of each int8 row, [n_rows]
    const uint32_t* list;    // rows of the segment to scan, [n_positions]; null: all rows
    // Bitmaps [n_masks, mask_words]: bit i of word w is row 32 w + i of the segment. Null: none.
    const uint32_t* masks;
    // Mask index of each query, or NO_MASK, [n_queries]. Null: all queries use mask 0.
    const uint32_t* mask_of;
    uint32_t n_positions;  // the number of rows to scan, at most 2^31
    uint32_t mask_words;   // words per mask
    uint32_t stride;       // values from the start of one row to the next, a multiple of 32
    uint32_t first_row;    // number of the segment's first row in the matrix
    uint32_t int8_stride;  // bytes from the start of one int8 row to the next, a multiple of 64
    float max_residual;    // upper bound on the norm of (row - scale x integers)
};

// The queries of a batch, and the state of each.
struct ScanQueries {
    const float* values;  // [n, stride]
    // Half precision, scaled by 2^exponent, [n rounded up to QUERY_TILE, stride].
    uint16_t* f16;
    // High part, or high and low part, scaled by 2^exponent, [n rounded up, parts, int8_stride].
    int8_t* int8;
    float* scales;         // scales of the high and the low part, [n, 2]
    int32_t* exponents;    // [n]
    float* errors;         // bound on |approximate score - scaled canonical score|, [n]
    float* thresholds;     // approximate scores below it cannot be among the best, [n]
    uint32_t* counts;      // candidates so far, [n]; above `capacity` if some were lost
    uint64_t* candidates;  // keys, [n, capacity]
    uint64_t* best;        // best canonical keys of all earlier segments, best first, [n, k]
    uint32_t* n_best;      // [n]
    uint32_t* overflowed;  // 1 if candidates were lost in this segment, [n]
    uint32_t n;            // the number of queries
    uint32_t k;            // hits per query, at most 2048
    uint32_t capacity;     // candidates per query
    float max_norm;        // upper bound on the norm of every row
};

// Parameters of prepare_f16 and prepare_int8_*.
struct PrepareParams {
    ScanRows rows;        // only strides and max_residual are read
    ScanQueries queries;  // values in; the rest of the state out
};

// Parameters of the scans. One pass: the visits [begin, end).
struct ScanParams {
    ScanRows rows;
    ScanQueries queries;
    uint32_t n_tiles;        // tiles of positions
    uint32_t tile_step;      // visit j goes to tile j * tile_step mod n_tiles
    uint32_t begin;          // first visit
    uint32_t end;            // end of the visits
    uint32_t first_pass;     // 1: every score becomes a candidate, in a slot of its own
    uint32_t hits_per_warp;  // capacity of a warp's hit buffer
};

// A score that reached the threshold, in a hit buffer.
struct Hit {
    float score;        // approximate, in F16 scans or still without the query's scale
    uint32_t query;     // index in the batch
    uint32_t position;  // position of the row
};

// Parameters of prune, rescore, select_top_k and prune_rescore_select.
struct SelectParams {
    ScanRows rows;
    ScanQueries queries;
    uint32_t n_first_pass;  // candidates of the first pass, which are not counted; 0 after others
    uint32_t refine;        // 1: refine thresholds by canonical scores, for wide error bounds
};

// Parameters of score_all: the canonical keys of one query over the positions [begin, end).
struct ScoreAllParams {
    ScanRows rows;
    ScanQueries queries;
    uint64_t* keys;  // [end - begin]
    uint32_t query;  // index in the batch
    uint32_t begin;  // first position
    uint32_t end;    // end of the positions
};

// Parameters of merge_keys.
struct MergeParams {
    ScanQueries queries;
    const uint64_t* keys;  // [n_keys]
    uint32_t n_keys;       // the number of keys
    uint32_t query;        // index in the batch
};

// Parameters of list_rows.
struct ListParams {
    const uint32_t* mask;  // bitmap of the rows, [n_rows / 32, rounded up]
    uint32_t* list;        // [rows in the mask]
    uint32_t* n_listed;    // [1], zero before the launch
    uint32_t n_rows;       // rows of the segment
};

// Tiles of sums per warp of measure_mma.
constexpr int MEASURE_TILES = 8;
// Products per warp and repeat of measure_mma.
constexpr int MEASURE_PRODUCTS = MEASURE_TILES * 16 * 8 * 16;

// Parameters of measure_mma.
struct MeasureParams {
    float* sums;       // [blocks]
    uint32_t repeats;  // repeats of MEASURE_PRODUCTS
};

static_assert(sizeof(ScanRows) == 72 && sizeof(ScanQueries) == 112, "layout of the Rust side");
static_assert(sizeof(PrepareParams) == 184 && sizeof(ScanParams) == 208, "layout of the Rust side");
static_assert(sizeof(SelectParams) == 192 && sizeof(ScoreAllParams) == 208, "as above");
static_assert(sizeof(MergeParams) == 128 && sizeof(ListParams) == 32, "as above");
static_assert(sizeof(MeasureParams) == 16 && sizeof(Hit) == 12, "as above");
