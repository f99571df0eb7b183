// Parameters of the encoder's kernels, passed by value, and the constants that the host needs.
// kernels/build.rs generates the Rust side, params.rs of the CUDA encoder.
//
// Matrices are in half precision, row-major. Widths are padded to a multiple of 32 with values that
// stay zero, the width of a head to 32, 64 or 128.
#pragma once

#include "platform.cuh"

// Threads per block of every kernel except linear and attention.
constexpr int ROW_THREADS = 256;
// Rows per block of the kernels in which a warp takes a row.
constexpr int ROWS_PER_BLOCK = ROW_THREADS / 32;
// The widest row that layer norm supports.
constexpr int MAX_WIDTH = 1024;
// Threads per block of attention.
constexpr int ATTENTION_THREADS = 128;
// Queries per attention tile.
constexpr int ATTENTION_QUERIES = 64;
// Keys that attention loads at a time.
constexpr int ATTENTION_KEYS = 64;
// Shared memory of attention per 32 values of a head, in bytes: keys and values, double buffered.
constexpr int ATTENTION_CHUNK_BYTES = 2 * 2 * ATTENTION_KEYS * 64;

// Window of attention over whole sequences.
constexpr uint32_t ALL_KEYS = 0x7fffffff;

// Weights of a layer norm.
struct NormWeights {
    const float* weight;  // [width]
    const float* bias;    // [width]
    uint32_t width;       // values of a row without padding
    uint32_t stride;      // values of a row with padding
    float epsilon;        // added to the variance
};

// Parameters of embed: x = norm(words[id] + positions[position] + types[type]).
struct EmbedParams {
    NormWeights norm;
    const uint32_t* ids;           // token ids, [n_rows]
    const uint32_t* position_ids;  // position in the low 16 bits, token type above, [n_rows]
    const uint16_t* words;         // [vocabulary, stride]
    const float* positions;        // [positions, stride]; null for rotary positions
    const float* types;            // [types, stride]; null for none
    uint16_t* x;                   // [n_rows, stride]
    uint32_t n_rows;               // tokens
};

// Parameters of layer_norm: y = norm(x).
struct LayerNormParams {
    NormWeights norm;
    const uint16_t* x;  // [n_rows, stride]
    uint16_t* y;        // [n_rows, stride]; may be x
    uint32_t n_rows;    // rows
};

// Parameters of rotate: queries and keys of each row, rotated by the angles of its position.
struct RotateParams {
    uint16_t* qkv;                 // [n_rows, 3, heads, padded head]
    const uint32_t* position_ids;  // position in the low 16 bits, [n_rows]
    const float* cosines;          // [positions, half]
    const float* sines;            // [positions, half]
    uint32_t n_rows;               // tokens
    uint32_t n_heads;              // heads
    uint32_t half;                 // half the width of a head, without padding
    uint32_t head;                 // width of a head, with padding
};

// Parameters of gate: y = activation(x[.., 0]) * x[.., 1].
struct GateParams {
    const uint16_t* x;    // [n_rows, 2, width]
    uint16_t* y;          // [n_rows, width]
    uint32_t n_rows;      // rows
    uint32_t width;       // a multiple of 32
    uint32_t activation;  // an Activation
};

// Activations of linear.
enum Activation : uint32_t { NO_ACTIVATION, GELU, GELU_TANH, RELU, TANH };

// Parameters of linear: y = activation(x weight^T + bias) + residual.
struct LinearParams {
    const uint16_t* x;         // [n_rows, n_in]
    const uint16_t* weight;    // [n_out, n_in]
    const float* bias;         // [n_out]
    const uint16_t* residual;  // [n_rows, n_out]; may be y; null for none
    uint16_t* y;               // [n_rows, n_out]
    uint32_t n_rows;           // rows
    uint32_t n_in;             // a multiple of 32
    uint32_t n_out;            // a multiple of 32
    uint32_t activation;       // an Activation
};

// Some queries of a sequence, at most ATTENTION_QUERIES, with all of its keys, as row numbers.
struct AttentionTile {
    uint32_t first_key;    // first row of the sequence
    uint32_t n_keys;       // rows of the sequence
    uint32_t first_query;  // first row of the queries
    uint32_t n_queries;    // rows of the queries
    uint32_t first_out;    // row of the context that the first query writes
};

// Parameters of flash_attention_*.
struct AttentionParams {
    const uint16_t* qkv;         // [tokens, 3, heads, padded head]
    uint16_t* context;           // [rows, heads, padded head]
    const AttentionTile* tiles;  // [tiles]
    const float* bias;           // times log2(e), [heads, 2 n_bias - 1]; null for none
    uint32_t n_bias;             // the longest sequence that the bias covers
    uint32_t window;             // the largest distance from query to key; ALL_KEYS for any
    uint32_t n_heads;            // heads
    float scale;                 // log2(e) / sqrt(head width)
};

// Parameters of gather_rows: y[i] = x[rows[i]].
struct GatherParams {
    const uint16_t* x;     // [.., stride]
    const uint32_t* rows;  // [n_rows]
    uint16_t* y;           // [n_rows, stride]
    uint32_t n_rows;       // rows to copy
    uint32_t stride;       // values of a row with padding
};

// Parameters of mean_pool, to_f32 and classify.
struct OutParams {
    const uint16_t* x;           // [rows, stride]
    const uint32_t* cu_seqlens;  // mean_pool: first row of each sequence, and the end, [n + 1]
    const float* weight;         // classify: [stride]
    float* out;                  // [n, width]; classify: [n]
    uint32_t n;                  // sequences or rows
    uint32_t width;              // values of a row without padding
    uint32_t stride;             // values of a row with padding
    float bias;                  // classify: added to the sum
};

// Parameters of normalize_scatter: to[order[i]] = from[i], of unit length if `unit`.
struct NormalizeScatterParams {
    const float* from;      // [n, width]
    const uint32_t* order;  // [n]
    float* to;              // [.., stride]
    uint32_t n;             // vectors
    uint32_t width;         // values of a vector without padding
    uint32_t stride;        // values of a vector with padding
    uint32_t unit;          // 1: scale to unit length
};

static_assert(sizeof(NormWeights) == 32 && sizeof(EmbedParams) == 88, "layout of the Rust side");
static_assert(sizeof(LayerNormParams) == 56 && sizeof(LinearParams) == 56, "as above");
static_assert(sizeof(RotateParams) == 48 && sizeof(GateParams) == 32, "as above");
static_assert(sizeof(AttentionTile) == 20 && sizeof(AttentionParams) == 48, "as above");
static_assert(sizeof(GatherParams) == 32 && sizeof(OutParams) == 48, "as above");
static_assert(sizeof(NormalizeScatterParams) == 40, "as above");
