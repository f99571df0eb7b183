// The BERT encoder over packed sequences: tokens of many texts end to end, without padding between them.
//
// A layer is seven kernels: linear (queries, keys, values), attend, linear (+ x), normalize, linear (activation), linear (+ x), normalize.
// Products are of halves with float32 sums; what lies between kernels is halves. Every token's sums have the same order whatever else
// is in the batch, so that a text has the same vector in any batch and any run.

#include "attention.cuh"
#include "tiles_hopper.cuh"

constexpr int ROWS_AT_ONCE = ROW_THREADS / 32;
// Pairs of values of a row that a lane holds.
constexpr int LANE_PAIRS = MOST_WIDTH / 64;

DEVICE float low_half(uint32_t pair) { return half_value(static_cast<uint16_t>(pair)); }
DEVICE float high_half(uint32_t pair) { return half_value(static_cast<uint16_t>(pair >> 16)); }

DEVICE float warp_sum(float value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += warp_xor(value, lanes);
    return value;
}

// Writes the norm of a warp's row; a lane has the pairs lane, lane + 32, ...
DEVICE void write_norm(float (&v)[LANE_PAIRS][2], const NormWeights& norm, uint16_t* to) {
    const uint32_t lane = threadIdx.x % 32;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LANE_PAIRS; i++) sum += v[i][0] + v[i][1];
    const float mean = warp_sum(sum) / static_cast<float>(norm.width);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < LANE_PAIRS; i++)
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            const float off = v[i][j] - mean;
            if ((i * 32 + lane) * 2 + j < norm.width) squares += off * off;
        }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(norm.width) + norm.epsilon);
#pragma unroll
    for (int i = 0; i < LANE_PAIRS; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= norm.stride) continue;
        float normed[2] = {};
        for (uint32_t j = 0; j < 2; j++)
            if (at + j < norm.width) normed[j] = (v[i][j] - mean) * scale * norm.weight[at + j] + norm.bias[at + j];
        reinterpret_cast<uint32_t*>(to)[at / 2] = pack_halves(normed[0], normed[1]);
    }
}

KERNEL(embed, EmbedParams) {
    const uint32_t row = blockIdx.x * ROWS_AT_ONCE + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= p.n_rows) return;
    const size_t stride = p.norm.stride;
    const uint32_t* const word = reinterpret_cast<const uint32_t*>(p.words + p.ids[row] * stride);
    const float* const position = p.positions + (p.places[row] & 0xffff) * stride;
    const float* const type = p.types + (p.places[row] >> 16) * stride;
    float v[LANE_PAIRS][2] = {};
#pragma unroll
    for (int i = 0; i < LANE_PAIRS; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= stride) continue;
        v[i][0] = low_half(word[at / 2]) + (type[at] + position[at]);
        v[i][1] = high_half(word[at / 2]) + (type[at + 1] + position[at + 1]);
    }
    write_norm(v, p.norm, p.x + row * stride);
}

KERNEL(normalize, NormParams) {
    const uint32_t row = blockIdx.x * ROWS_AT_ONCE + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= p.n_rows) return;
    uint16_t* const x = p.x + static_cast<size_t>(row) * p.norm.stride;
    float v[LANE_PAIRS][2] = {};
#pragma unroll
    for (int i = 0; i < LANE_PAIRS; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= p.norm.stride) continue;
        const uint32_t pair = reinterpret_cast<const uint32_t*>(x)[at / 2];
        v[i][0] = low_half(pair);
        v[i][1] = high_half(pair);
    }
    write_norm(v, p.norm, x);
}

DEVICE float activate(float v, uint32_t activation) {
    switch (activation) {
        case GELU: return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
        case GELU_TANH: return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
        case RELU: return fmaxf(v, 0.0f);
        case TANH: return tanhf(v);
        default: return v;
    }
}

// Writes what becomes of a tile's sums; of sums[m] a lane has eight columns on end of two rows.
template <class Place>
DEVICE void write_linear(const LinearParams& p, uint32_t first_row, uint32_t first_column, const float (&sums)[4][4][4]) {
    const Place place;
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const uint32_t column = first_column + place.column_of(m, 0, 0);
        if (column >= p.n_out) continue;
        float bias[8];
#pragma unroll
        for (int j = 0; j < 8; j++) bias[j] = p.bias[column + j];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t row = first_row + place.row_of(m, h * 2);
            if (row >= p.n_rows) continue;
            const size_t at = (static_cast<size_t>(row) * p.n_out + column) / 8;
            const uint4 added = p.residual ? reinterpret_cast<const uint4*>(p.residual)[at] : uint4{0, 0, 0, 0};
            const uint32_t pairs[4] = {added.x, added.y, added.z, added.w};
            uint32_t out[4];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const float low = activate(sums[m][n][h * 2] + bias[n * 2], p.activation);
                const float high = activate(sums[m][n][h * 2 + 1] + bias[n * 2 + 1], p.activation);
                out[n] = pack_halves(low + low_half(pairs[n]), high + high_half(pairs[n]));
            }
            reinterpret_cast<uint4*>(p.y)[at] = uint4{out[0], out[1], out[2], out[3]};
        }
    }
}

// Blocks that share rows follow each other.
DEVICE uint32_t linear_column(const LinearParams& p) { return blockIdx.x % ((p.n_out + TILE_SIDE - 1) / TILE_SIDE) * TILE_SIDE; }
DEVICE uint32_t linear_row(const LinearParams& p) { return blockIdx.x / ((p.n_out + TILE_SIDE - 1) / TILE_SIDE) * TILE_SIDE; }

KERNEL_FOR(linear, LinearParams, TILE_THREADS, TILE_BLOCKS) {
    DYNAMIC_SHARED(uint4, stages);
    const uint32_t first_row = linear_row(p), first_column = linear_column(p);
    TileRows rows, columns;
    for (int i = 0; i < 2; i++) {
        const uint32_t row = first_row + TileRows::row(i), column = first_column + TileRows::row(i);
        rows.zeros[i] = row >= p.n_rows;
        columns.zeros[i] = column >= p.n_out;
        rows.at[i] = reinterpret_cast<const uint4*>(p.x + static_cast<size_t>(rows.zeros[i] ? 0 : row) * p.n_in) + threadIdx.x % 4;
        columns.at[i] = reinterpret_cast<const uint4*>(p.weight + static_cast<size_t>(columns.zeros[i] ? 0 : column) * p.n_in) + threadIdx.x % 4;
    }
    float sums[4][4][4] = {};
    multiply_tiles(stages, rows, columns, static_cast<int>(p.n_in / 32), sums);
    write_linear<TilePlace>(p, first_row, first_column, sums);
}

KERNEL_FOR(linear_hopper, LinearParams, TILE_THREADS, 2) {
    DYNAMIC_SHARED(uint4, stages);
    const uint32_t first_row = linear_row(p), first_column = linear_column(p), stride = p.n_in / 8;
    const uint4 *const x = reinterpret_cast<const uint4*>(p.x), *const weight = reinterpret_cast<const uint4*>(p.weight);
    const auto rows = [&](uint32_t, int row) { return first_row + row < p.n_rows ? x + static_cast<size_t>(first_row + row) * stride : nullptr; };
    const auto columns = [&](int column) { return first_column + column < p.n_out ? weight + static_cast<size_t>(first_column + column) * stride : nullptr; };
    const auto finish = [&](uint32_t, const float (&sums)[4][4][4]) { write_linear<HopperPlace>(p, first_row, first_column, sums); };
    stream_tiles<float, false, HOPPER_STAGES_OF_TWO, 0>(stages, weight, static_cast<int>(p.n_in / 32), 1, rows, columns, [](uint32_t) {}, finish);
}

KERNEL(attend_32, AttentionParams) { attend<1>(p); }
KERNEL(attend_64, AttentionParams) { attend<2>(p); }
KERNEL(attend_128, AttentionParams) { attend<4>(p); }

KERNEL(gather, GatherParams) {
    const uint32_t row = blockIdx.x * ROWS_AT_ONCE + threadIdx.x / 32;
    if (row >= p.n_rows) return;
    const uint4* const from = reinterpret_cast<const uint4*>(p.x + static_cast<size_t>(p.rows[row]) * p.stride);
    uint4* const to = reinterpret_cast<uint4*>(p.y + static_cast<size_t>(row) * p.stride);
    for (uint32_t i = threadIdx.x % 32; i < p.stride / 8; i += 32) to[i] = from[i];
}

// A block for each sequence.
KERNEL(pool_mean, OutParams) {
    const uint32_t start = p.starts[blockIdx.x], end = p.starts[blockIdx.x + 1];
    for (uint32_t at = threadIdx.x * 2; at < p.width; at += ROW_THREADS * 2) {
        float low = 0, high = 0;
        for (uint32_t row = start; row < end; row++) {
            const uint32_t pair = *reinterpret_cast<const uint32_t*>(p.x + static_cast<size_t>(row) * p.stride + at);
            low += low_half(pair);
            high += high_half(pair);
        }
        float* const to = p.out + static_cast<size_t>(blockIdx.x) * p.width + at;
        const float n = static_cast<float>(end - start);
        to[0] = low / n;
        if (at + 1 < p.width) to[1] = high / n;
    }
}

// Rows as they are.
KERNEL(widen, OutParams) {
    const uint32_t row = blockIdx.x * ROWS_AT_ONCE + threadIdx.x / 32;
    if (row >= p.n) return;
    for (uint32_t i = threadIdx.x % 32; i < p.width; i += 32)
        p.out[static_cast<size_t>(row) * p.width + i] = half_value(p.x[static_cast<size_t>(row) * p.stride + i]);
}

KERNEL(classify, OutParams) {
    const uint32_t row = blockIdx.x * ROWS_AT_ONCE + threadIdx.x / 32;
    if (row >= p.n) return;
    float sum = 0;
    for (uint32_t i = threadIdx.x % 32; i < p.width; i += 32) sum += half_value(p.x[static_cast<size_t>(row) * p.stride + i]) * p.weight[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) p.out[row] = sum + p.bias;
}

// By 16 lanes a vector: each sums in float64 the squares of its places mod 16, then lanes 8, 4, 2 and 1 apart are added, as `normalize` of src/embed.rs does.
KERNEL(hand_over, HandOverParams) {
    const uint32_t lane = threadIdx.x % 16, i = (blockIdx.x * ROW_THREADS + threadIdx.x) / 16;
    // Both halves of a warp go along, whether they have a vector or not.
    const uint32_t there = i < p.n ? i : p.n - 1;
    const float* const from = p.from + static_cast<size_t>(there) * p.width;
    float* const to = p.to + static_cast<size_t>(p.order[there]) * p.stride;
    double sum = 0;
    for (uint32_t at = lane; at < p.width; at += 16) sum = multiply_add(from[at], from[at], sum);
    for (int lanes = 8; lanes > 0; lanes /= 2) sum += warp_xor(sum, lanes);
    if (i >= p.n) return;
    const double scale = p.unit && sum > 0 ? 1.0 / sqrt(sum) : 1.0;
    for (uint32_t at = lane; at < p.stride; at += 16) to[at] = at < p.width ? static_cast<float>(from[at] * scale) : 0.0f;
}
