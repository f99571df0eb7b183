// What the host hands to the encoder's kernels, by value. src/model/encoder/cuda/params.rs mirrors it, field for field.
//
// Matrices are halves, row-major. Widths are padded to a multiple of 32 with values that stay zero, and a head's width to 32, 64 or 128.
#pragma once

#include "platform.cuh"

// Threads of a block of every kernel but `linear` and attention.
constexpr int ROW_THREADS = 256;
// The widest row whose norm is taken.
constexpr int MOST_WIDTH = 1024;

struct NormWeights {
    const float* weight;  // [width]
    const float* bias;    // [width]
    uint32_t width;       // without the padding
    uint32_t stride;      // with it
    float epsilon;
};

// x = norm(words[id] + positions[position] + types[type])
struct EmbedParams {
    NormWeights norm;
    const uint32_t* ids;     // [n_rows]
    const uint32_t* places;  // [n_rows], the position in the low 16 bits, the token type above
    const uint16_t* words;   // [vocabulary, stride]
    const float* positions;  // [positions, stride]
    const float* types;      // [types, stride]
    uint16_t* x;             // [n_rows, stride]
    uint32_t n_rows;
};

// x = norm(x)
struct NormParams {
    NormWeights norm;
    uint16_t* x;  // [n_rows, stride]
    uint32_t n_rows;
};

enum Activation : uint32_t { NO_ACTIVATION, GELU, GELU_TANH, RELU, TANH };

// y = activation(x weight^T + bias) + residual
struct LinearParams {
    const uint16_t* x;         // [n_rows, n_in]
    const uint16_t* weight;    // [n_out, n_in]
    const float* bias;         // [n_out]
    const uint16_t* residual;  // [n_rows, n_out], y itself if wanted; null without one
    uint16_t* y;               // [n_rows, n_out]
    uint32_t n_rows;
    uint32_t n_in;   // a multiple of 32
    uint32_t n_out;  // a multiple of 32
    uint32_t activation;
};

// Some queries of a sequence, at most ATTENTION_QUERIES, and all of its keys; numbers of rows.
struct Span {
    uint32_t first_key;
    uint32_t n_keys;
    uint32_t first_query;
    uint32_t n_queries;
    uint32_t to;  // the first query's row of the context
};

struct AttentionParams {
    const uint16_t* qkv;  // [n_tokens, 3, heads, padded head]
    uint16_t* context;    // [rows, heads, padded head]
    const Span* spans;
    uint32_t n_heads;
    float scale;  // log2(e) / sqrt(head width)
};

// y[i] = x[rows[i]]
struct GatherParams {
    const uint16_t* x;
    const uint32_t* rows;  // [n_rows]
    uint16_t* y;           // [n_rows, stride]
    uint32_t n_rows;
    uint32_t stride;
};

// What leaves the device: rows as they are, means over sequences, or one number a row.
struct OutParams {
    const uint16_t* x;
    const uint32_t* starts;  // [n + 1], the first row of each sequence, for means
    const float* weight;     // [stride], for numbers
    float* out;              // [n, width], or [n]
    uint32_t n;
    uint32_t width;
    uint32_t stride;
    float bias;
};

// Vectors for a scan, to[order[i]] = from[i], scaled to unit length if wanted.
struct HandOverParams {
    const float* from;      // [n, width]
    const uint32_t* order;  // [n]
    float* to;              // [.., stride]
    uint32_t n;
    uint32_t width;
    uint32_t stride;
    uint32_t unit;
};

static_assert(sizeof(NormWeights) == 32 && sizeof(EmbedParams) == 88 && sizeof(NormParams) == 48, "src/model/encoder/cuda/params.rs");
static_assert(sizeof(LinearParams) == 56 && sizeof(Span) == 20 && sizeof(AttentionParams) == 32, "src/model/encoder/cuda/params.rs");
static_assert(sizeof(GatherParams) == 32 && sizeof(OutParams) == 48 && sizeof(HandOverParams) == 40, "src/model/encoder/cuda/params.rs");
