// The encoder on a GPU, over packed sequences: the tokens of many texts end to end, without
// padding between them. batch.rs of the CUDA encoder launches the kernels of a micro-batch:
//
//     embed                   linear, if embeddings are narrower than x
//     for each layer:
//         linear              queries, keys and values in one GEMM
//         rotate              with rotary positions
//         flash_attention_*
//         linear              + x
//         layer_norm
//         linear              with the activation, or gate behind it
//         linear              + x
//         layer_norm
//     mean_pool | linear, classify | to_f32
//     normalize_scatter       if the vectors stay on the device as queries of a scan
//
// Families whose norms are in front of the blocks have layer_norm there instead, and at the end.
//
// In the last layer gather_rows reduces x to the CLS tokens if the output needs no others.
//
// Products have half-precision factors and float32 sums; activations between kernels are in half
// precision. A token's sums have the same order in any batch, so that a text has the same vector,
// bit for bit, in any batch and any run. CPU twin: packed.rs of the encoder.
//
// Limits: width up to MAX_WIDTH, heads up to 128 values, positions and token types below 65,536.

#include "attention.cuh"
#include "tiles_hopper.cuh"

// Pairs of values of a row per lane.
constexpr int PAIRS_PER_LANE = MAX_WIDTH / 64;

DEVICE float low_f16(uint32_t pair) { return f16_value(static_cast<uint16_t>(pair)); }
DEVICE float high_f16(uint32_t pair) { return f16_value(static_cast<uint16_t>(pair >> 16)); }

DEVICE float warp_sum(float value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += warp_xor(value, lanes);
    return value;
}

// Row of a warp in kernels in which a warp takes a row. Grid: one block per ROWS_PER_BLOCK rows.
// Block: ROW_THREADS. No shared memory.
DEVICE uint32_t row_of_warp() { return blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32; }

// Writes the layer norm of a warp's row (Ba et al. 2016). Lane l has pairs l, l + 32, ...
DEVICE void write_layer_norm(float (&v)[PAIRS_PER_LANE][2], const NormWeights& norm, uint16_t* to) {
    const uint32_t lane = threadIdx.x % 32;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PAIRS_PER_LANE; i++) sum += v[i][0] + v[i][1];
    const float mean = warp_sum(sum) / static_cast<float>(norm.width);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < PAIRS_PER_LANE; i++)
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            const float off = v[i][j] - mean;
            if ((i * 32 + lane) * 2 + j < norm.width) squares += off * off;
        }
    const float variance = warp_sum(squares) / static_cast<float>(norm.width);
    const float scale = 1.0f / sqrtf(variance + norm.epsilon);
#pragma unroll
    for (int i = 0; i < PAIRS_PER_LANE; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= norm.stride) continue;
        float normed[2] = {};
        for (uint32_t j = 0; j < 2; j++)
            if (at + j < norm.width)
                normed[j] = (v[i][j] - mean) * scale * norm.weight[at + j] + norm.bias[at + j];
        reinterpret_cast<uint32_t*>(to)[at / 2] = pack_f16x2(normed[0], normed[1]);
    }
}

// The embedding layer: sum of word, position and type embedding of each token, and layer norm.
KERNEL(embed, EmbedParams) {
    const uint32_t row = row_of_warp(), lane = threadIdx.x % 32;
    if (row >= p.n_rows) return;
    const size_t stride = p.norm.stride;
    const uint32_t* const word = reinterpret_cast<const uint32_t*>(p.words + p.ids[row] * stride);
    const uint32_t ids = p.position_ids[row];
    const float* const position = p.positions ? p.positions + (ids & 0xffff) * stride : nullptr;
    const float* const type = p.types ? p.types + (ids >> 16) * stride : nullptr;
    float v[PAIRS_PER_LANE][2] = {};
#pragma unroll
    for (int i = 0; i < PAIRS_PER_LANE; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= stride) continue;
        for (uint32_t j = 0; j < 2; j++) {
            const float added =
                (type ? type[at + j] : 0.0f) + (position ? position[at + j] : 0.0f);
            v[i][j] = (j ? high_f16(word[at / 2]) : low_f16(word[at / 2])) + added;
        }
    }
    write_layer_norm(v, p.norm, p.x + row * stride);
}

// Layer norm of each row.
KERNEL(layer_norm, LayerNormParams) {
    const uint32_t row = row_of_warp(), lane = threadIdx.x % 32;
    if (row >= p.n_rows) return;
    const uint16_t* const x = p.x + static_cast<size_t>(row) * p.norm.stride;
    float v[PAIRS_PER_LANE][2] = {};
#pragma unroll
    for (int i = 0; i < PAIRS_PER_LANE; i++) {
        const uint32_t at = (i * 32 + lane) * 2;
        if (at >= p.norm.stride) continue;
        const uint32_t pair = reinterpret_cast<const uint32_t*>(x)[at / 2];
        v[i][0] = low_f16(pair);
        v[i][1] = high_f16(pair);
    }
    write_layer_norm(v, p.norm, p.y + static_cast<size_t>(row) * p.norm.stride);
}

// GELU by the error function and by tanh: Hendrycks and Gimpel 2016.
DEVICE float activate(float v, uint32_t activation) {
    switch (activation) {
        case GELU: return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
        case GELU_TANH:
            return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
        case RELU: return fmaxf(v, 0.0f);
        case TANH: return tanhf(v);
        default: return v;
    }
}

// The feed-forward block's gate (GLU, Dauphin et al. 2017); a warp per row.
KERNEL(gate, GateParams) {
    const uint32_t row = row_of_warp();
    if (row >= p.n_rows) return;
    const uint16_t* const values = p.x + static_cast<size_t>(row) * 2 * p.width;
    uint32_t* const to = reinterpret_cast<uint32_t*>(p.y + static_cast<size_t>(row) * p.width);
    for (uint32_t i = threadIdx.x % 32; i < p.width / 2; i += 32) {
        const uint32_t value = reinterpret_cast<const uint32_t*>(values)[i];
        const uint32_t by = reinterpret_cast<const uint32_t*>(values + p.width)[i];
        to[i] = pack_f16x2(activate(low_f16(value), p.activation) * low_f16(by),
                           activate(high_f16(value), p.activation) * high_f16(by));
    }
}

// Rotary positions (Su et al. 2021): value j of a head and value half + j are turned by the angle
// of their position. Queries and keys; a warp per row. CPU twin: rotary.rs of the encoder.
KERNEL(rotate, RotateParams) {
    const uint32_t row = row_of_warp();
    if (row >= p.n_rows) return;
    const uint32_t angles = (p.position_ids[row] & 0xffff) * p.half;
    uint16_t* const heads = p.qkv + static_cast<size_t>(row) * 3 * p.n_heads * p.head;
    for (uint32_t i = threadIdx.x % 32; i < 2 * p.n_heads * p.half; i += 32) {
        const uint32_t j = i % p.half;
        uint16_t* const low = heads + i / p.half * p.head + j;
        uint16_t* const high = low + p.half;
        const float cosine = p.cosines[angles + j], sine = p.sines[angles + j];
        const float a = f16_value(*low), b = f16_value(*high);
        const uint32_t turned = pack_f16x2(a * cosine - b * sine, b * cosine + a * sine);
        *low = static_cast<uint16_t>(turned);
        *high = static_cast<uint16_t>(turned >> 16);
    }
}

// GEMM epilogue: bias, activation and residual, fused into the write of a tile's sums. In sums[m] a
// lane has eight contiguous columns of two rows.
template <class Layout>
DEVICE void linear_epilogue(const LinearParams& p, uint32_t first_row, uint32_t first_column,
                            const float (&sums)[4][4][4]) {
    const Layout layout;
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const uint32_t column = first_column + layout.column_of(m, 0, 0);
        if (column >= p.n_out) continue;
        float bias[8];
#pragma unroll
        for (int j = 0; j < 8; j++) bias[j] = p.bias[column + j];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t row = first_row + layout.row_of(m, h * 2);
            if (row >= p.n_rows) continue;
            const size_t at = (static_cast<size_t>(row) * p.n_out + column) / 8;
            const uint4 added =
                p.residual ? reinterpret_cast<const uint4*>(p.residual)[at] : uint4{0, 0, 0, 0};
            const uint32_t pairs[4] = {added.x, added.y, added.z, added.w};
            uint32_t out[4];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const float low = activate(sums[m][n][h * 2] + bias[n * 2], p.activation);
                const float high = activate(sums[m][n][h * 2 + 1] + bias[n * 2 + 1], p.activation);
                out[n] = pack_f16x2(low + low_f16(pairs[n]), high + high_f16(pairs[n]));
            }
            reinterpret_cast<uint4*>(p.y)[at] = uint4{out[0], out[1], out[2], out[3]};
        }
    }
}

// First column and first row of a block's tile. Neighbouring blocks share rows, for the L2 cache.
DEVICE uint32_t linear_column(const LinearParams& p) {
    return blockIdx.x % ((p.n_out + TILE_SIDE - 1) / TILE_SIDE) * TILE_SIDE;
}
DEVICE uint32_t linear_row(const LinearParams& p) {
    return blockIdx.x / ((p.n_out + TILE_SIDE - 1) / TILE_SIDE) * TILE_SIDE;
}

// A linear layer as a tiled GEMM (tiles.cuh). Grid: tiles of rows x tiles of columns. Block:
// TILE_THREADS. Dynamic shared memory: TILE_SHARED_BYTES. CPU twin: linear.rs of the encoder.
KERNEL_FOR(linear, LinearParams, TILE_THREADS, TILE_BLOCKS) {
    DYNAMIC_SHARED(uint4, stages);
    const uint32_t first_row = linear_row(p), first_column = linear_column(p);
    TileRows rows, columns;
    for (int i = 0; i < 2; i++) {
        const uint32_t row = first_row + TileRows::row(i), column = first_column + TileRows::row(i);
        rows.zeros[i] = row >= p.n_rows;
        columns.zeros[i] = column >= p.n_out;
        rows.at[i] = reinterpret_cast<const uint4*>(
                         p.x + static_cast<size_t>(rows.zeros[i] ? 0 : row) * p.n_in) +
                     threadIdx.x % 4;
        columns.at[i] =
            reinterpret_cast<const uint4*>(
                p.weight + static_cast<size_t>(columns.zeros[i] ? 0 : column) * p.n_in) +
            threadIdx.x % 4;
    }
    float sums[4][4][4] = {};
    multiply_tiles(stages, rows, columns, static_cast<int>(p.n_in / 32), sums);
    linear_epilogue<MmaLayout>(p, first_row, first_column, sums);
}

// The same by wgmma (tiles_hopper.cuh), with two blocks per multiprocessor. Dynamic shared memory:
// hopper_shared_bytes(false, HOPPER_STAGES_TWO_BLOCKS, ..).
KERNEL_FOR(linear_hopper, LinearParams, TILE_THREADS, 2) {
    DYNAMIC_SHARED(uint4, stages);
    const uint32_t first_row = linear_row(p), first_column = linear_column(p), stride = p.n_in / 8;
    const uint4* const x = reinterpret_cast<const uint4*>(p.x);
    const uint4* const weight = reinterpret_cast<const uint4*>(p.weight);
    const auto rows = [&](uint32_t, int row) {
        return first_row + row < p.n_rows ? x + static_cast<size_t>(first_row + row) * stride
                                          : nullptr;
    };
    const auto columns = [&](int column) {
        return first_column + column < p.n_out
                   ? weight + static_cast<size_t>(first_column + column) * stride
                   : nullptr;
    };
    const auto begin = [](uint32_t) {};
    const auto finish = [&](uint32_t, const float (&sums)[4][4][4]) {
        linear_epilogue<WgmmaLayout>(p, first_row, first_column, sums);
    };
    stream_tiles<float, false, HOPPER_STAGES_TWO_BLOCKS, 0>(
        stages, weight, static_cast<int>(p.n_in / 32), 1, rows, columns, begin, finish);
}

// Attention by padded width of a head; see attention.cuh.
KERNEL(flash_attention_hd32, AttentionParams) { flash_attention<1>(p); }
KERNEL(flash_attention_hd64, AttentionParams) { flash_attention<2>(p); }
KERNEL(flash_attention_hd128, AttentionParams) { flash_attention<4>(p); }

// Copies rows by index; a warp per row.
KERNEL(gather_rows, GatherParams) {
    const uint32_t row = row_of_warp();
    if (row >= p.n_rows) return;
    const uint16_t* const source = p.x + static_cast<size_t>(p.rows[row]) * p.stride;
    const uint4* const from = reinterpret_cast<const uint4*>(source);
    uint4* const to = reinterpret_cast<uint4*>(p.y + static_cast<size_t>(row) * p.stride);
    for (uint32_t i = threadIdx.x % 32; i < p.stride / 8; i += 32) to[i] = from[i];
}

// Mean pooling over the tokens of each sequence. Grid: [sequences]. Block: ROW_THREADS.
KERNEL(mean_pool, OutParams) {
    const uint32_t start = p.cu_seqlens[blockIdx.x], end = p.cu_seqlens[blockIdx.x + 1];
    for (uint32_t at = threadIdx.x * 2; at < p.width; at += ROW_THREADS * 2) {
        float low = 0, high = 0;
        for (uint32_t row = start; row < end; row++) {
            const uint16_t* const from = p.x + static_cast<size_t>(row) * p.stride + at;
            const uint32_t pair = *reinterpret_cast<const uint32_t*>(from);
            low += low_f16(pair);
            high += high_f16(pair);
        }
        float* const to = p.out + static_cast<size_t>(blockIdx.x) * p.width + at;
        const float n = static_cast<float>(end - start);
        to[0] = low / n;
        if (at + 1 < p.width) to[1] = high / n;
    }
}

// Rows without padding, in float32; a warp per row.
KERNEL(to_f32, OutParams) {
    const uint32_t row = row_of_warp();
    if (row >= p.n) return;
    const uint16_t* const from = p.x + static_cast<size_t>(row) * p.stride;
    for (uint32_t i = threadIdx.x % 32; i < p.width; i += 32)
        p.out[static_cast<size_t>(row) * p.width + i] = f16_value(from[i]);
}

// The classifier's one output: out[row] = x[row] . weight + bias; a warp per row.
KERNEL(classify, OutParams) {
    const uint32_t row = row_of_warp();
    if (row >= p.n) return;
    float sum = 0;
    for (uint32_t i = threadIdx.x % 32; i < p.width; i += 32)
        sum += f16_value(p.x[static_cast<size_t>(row) * p.stride + i]) * p.weight[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) p.out[row] = sum + p.bias;
}

// Copies vectors to their slots in the query matrix of a scan, padded and of unit length.
//
// 16 lanes per vector: lane j sums the squares at i = j mod 16 in float64, then lanes 8, 4, 2 and 1
// apart are added, as the CPU twin does (`normalize`, in the embedder). Grid: one block per 16
// vectors. Block: ROW_THREADS.
KERNEL(normalize_scatter, NormalizeScatterParams) {
    const uint32_t lane = threadIdx.x % 16, i = (blockIdx.x * ROW_THREADS + threadIdx.x) / 16;
    // Both halves of a warp take part in its shuffles, with a vector or without.
    const uint32_t clamped = i < p.n ? i : p.n - 1;
    const float* const from = p.from + static_cast<size_t>(clamped) * p.width;
    float* const to = p.to + static_cast<size_t>(p.order[clamped]) * p.stride;
    double sum = 0;
    for (uint32_t at = lane; at < p.width; at += 16) sum = multiply_add(from[at], from[at], sum);
    for (int lanes = 8; lanes > 0; lanes /= 2) sum += warp_xor(sum, lanes);
    if (i >= p.n) return;
    const double scale = p.unit && sum > 0 ? 1.0 / sqrt(sum) : 1.0;
    for (uint32_t at = lane; at < p.stride; at += 16)
        to[at] = at < p.width ? static_cast<float>(from[at] * scale) : 0.0f;
}
